"""One row of a frame with columns of several types, as a Series and as a frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import whence

_RNG = np.random.default_rng(0)
_X = pd.DataFrame(
    {
        "age": _RNG.normal(size=60),
        "city": _RNG.choice(["Rome", "Oslo"], 60),
        "plan": pd.Categorical(_RNG.choice(["a", "b"], 60)),
        "member": _RNG.random(60) < 0.5,
    }
)
_X.loc[[5, 9], "city"] = None
_X.loc[[5, 7], "age"] = np.nan
_X.loc[[7, 9], "plan"] = np.nan
_Y = (_X["age"].fillna(0.3) > 0).astype(int)


@pytest.mark.parametrize(
    "estimator", [LogisticRegression(), RandomForestClassifier(5, random_state=0)]
)
@pytest.mark.parametrize("at", [3, 5, 7, 9])
def test_a_series_is_the_row_that_it_is(estimator: Any, at: int) -> None:
    columns = make_column_transformer(
        (SimpleImputer(), ["age"]),
        (OneHotEncoder(handle_unknown="ignore"), ["city", "plan", "member"]),
    )
    model = whence.from_sklearn(make_pipeline(columns, estimator).fit(_X, _Y), _X, _Y)
    row, frame = _X.iloc[at], _X.iloc[at : at + 1]
    assert str(whence.explain(model, row, k=2)) == str(whence.explain(model, frame, k=2))
    label = _Y.iloc[at]
    said = [str(whence.explain(model, (x, y), k=2)) for x, y in ((row, label), (frame, [label]))]
    assert said[0] == said[1]
    effects = [whence.edit(model, 1, x, 1 - label, (_X[:3], _Y[:3])) for x in (row, frame)]
    np.testing.assert_array_equal(effects[0], effects[1])
