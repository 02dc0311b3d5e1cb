"""The dictionary of signs says what CatBoost's own influence of rows means; measured here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_diabetes

import whence

catboost = pytest.importorskip("catboost", reason="the extra trees is not installed")
X, Y = load_diabetes(return_X_y=True)
X, Y = X[:150], Y[:150]
_OPTIONS: dict[str, Any] = {
    "iterations": 20,
    "depth": 3,
    "random_seed": 0,
    "verbose": 0,
    "allow_writing_files": False,
    "leaf_estimation_method": "Newton",
    "leaf_estimation_iterations": 1,
    "thread_count": 1,
}


def own(model: Any, y: Any) -> Any:
    """What CatBoost says of 5 queries and all rows, [5, n]."""
    asked, rows = catboost.Pool(X[:5], y[:5]), catboost.Pool(X, y)
    indices, values = model.get_object_importance(
        asked, rows, type="PerObject", update_method="AllPoints", thread_count=1
    )
    found = np.zeros((5, len(y)))
    for query in range(5):
        found[query, np.asarray(indices)[query]] = np.asarray(values)[query]
    return found


def agreement(model: Any, y: Any, *measures: Any) -> Iterator[list[float]]:
    """Correlation of its numbers with whence's scores, for each query, by each measure."""
    scores = whence.Boosting(ensemble=0).fit(whence.from_sklearn(model, X, y))
    stated = own(model, y)
    for measure in measures:
        values = scores.scores((X[:5], y[:5]), measure=measure).values
        yield [np.corrcoef(a, b)[0, 1] for a, b in zip(stated, values, strict=True)]


def test_logloss_has_the_opposite_sign() -> None:
    y = (np.median(Y) < Y).astype(int)
    model = catboost.CatBoostClassifier(**_OPTIONS).fit(X, y)
    (losses,) = agreement(model, y, "loss")
    assert max(losses) < -0.8


def test_squared_error_follows_the_prediction() -> None:
    model = catboost.CatBoostRegressor(**_OPTIONS).fit(X, Y / 80)
    predictions, losses = agreement(model, Y / 80, "prediction", "loss")
    assert min(predictions) > 0.6
    assert min(losses) < -0.6
    assert max(losses) > 0.6
