"""A row without which an estimator cannot be fitted is passed over by what retrains, and named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import whence
from whence.errors import InvalidInput, NotConvergedWarning

ONLY = 40


def data(classes: int) -> tuple[Any, Any]:
    """Return rows of which one alone is of class 1."""
    x = np.random.default_rng(0).normal(size=(41, 3))
    x[ONLY] += 3
    y = np.zeros(41, dtype=int)
    if classes == 3:
        y[:20] = 2
    y[ONLY] = 1
    return x, y


@pytest.mark.parametrize(
    ("estimator", "classes"),
    [
        (LogisticRegression(tol=1e-10), 2),
        (make_pipeline(StandardScaler(), LogisticRegression(tol=1e-10)), 2),
        (SVC(tol=1e-12), 2),
        (RidgeClassifier(), 3),
    ],
    ids=["logistic", "pipeline", "svc", "ridge"],
)
def test_the_only_row_of_a_class_is_passed_over(
    estimator: Any, classes: int, tmp_path: Path
) -> None:
    x, y = data(classes)
    objective = whence.from_sklearn(estimator.fit(x, y), x, y)
    with pytest.warns(NotConvergedWarning, match="effect of 40 is not shown: it is the only"):
        explanation = whence.explain(objective, x[ONLY:], k=3)
    shown = [effect.position for effect in (*explanation.raising, *explanation.lowering)]
    assert shown
    assert ONLY not in shown
    assert ONLY not in explanation.verify(41).positions
    whence.flip_set(objective, x[ONLY:])
    with pytest.warns(NotConvergedWarning, match="effect of 40 is not shown"):
        whence.report(objective, (x[38:], y[38:]), tmp_path / "many.html")


def test_the_others_are_refitted_as_ever() -> None:
    x, y = data(2)
    model = LogisticRegression(tol=1e-10).fit(x, y)
    objective = whence.from_sklearn(model, x, y)
    with pytest.warns(NotConvergedWarning, match="not shown"):
        explanation = whence.explain(objective, x[ONLY:], measure="probability", k=3)
    before = model.predict_proba(x[ONLY:])[0, 1]
    for effect in (*explanation.raising, *explanation.lowering):
        there = np.arange(41) != effect.position
        after = clone(model).fit(x[there], y[there]).predict_proba(x[ONLY:])[0, 1]
        assert effect.effect == pytest.approx(after - before, rel=0.05, abs=1e-5)


def test_where_no_row_can_go_it_says_so() -> None:
    x, y = data(2)
    x, y = x[-2:], y[-2:]
    objective = whence.from_sklearn(LogisticRegression().fit(x, y), x, y)
    with pytest.raises(InvalidInput, match="Got 2, each the only one of its class"):
        whence.explain(objective, x[:1])
