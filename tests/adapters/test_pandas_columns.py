"""Columns of pandas are read-only, of which torch warns: no model passes them on."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import HuberRegressor, LogisticRegression, QuantileRegressor, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.svm import SVC, NuSVR
from sklearn.tree import DecisionTreeRegressor

import whence


@pytest.fixture(autouse=True)
def every_time() -> Iterator[None]:
    """Let torch warn every time, not once."""
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(False)


def _column(values: Any) -> pd.Series[Any]:
    """A Series whose array is read-only, as pandas 3 gives them out and pandas 2 may."""
    array = np.array(values, dtype=np.float64)
    array.flags.writeable = False
    return pd.Series(array)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "model",
    [
        Ridge(),
        LogisticRegression(),
        HuberRegressor(),
        QuantileRegressor(alpha=0.01),
        GradientBoostingRegressor(n_estimators=3, random_state=0),
        RandomForestClassifier(3, random_state=0),
        DecisionTreeRegressor(max_depth=3, random_state=0),
        SVC(),
        NuSVR(),
        GaussianNB(),
    ],
    ids=lambda model: type(model).__name__,
)
def test_nothing_read_only_reaches_torch(model: Any, weighted: bool) -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(60, 3)), columns=list("abc"))
    y = _column(X["a"] + 0.1 * rng.normal(size=60))
    y = (y > 0).astype(float) if hasattr(model, "predict_proba") or isinstance(model, SVC) else y
    weights = _column(rng.uniform(1, 2, 60)) if weighted else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X, y, sample_weight=weights)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained = whence.from_sklearn(model, X, y, sample_weight=weights)
        trained.outputs(trained.examples((X[:2], y[:2])))
