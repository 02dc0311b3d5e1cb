"""Hinges without a row on the margin: refits of the user's library, not a singular matrix."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import SGDClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

import whence


def _data() -> tuple[Any, Any, Any]:
    """Return rows of two classes of one size, and queries."""
    x, y = load_breast_cancer(return_X_y=True)
    x = StandardScaler().fit_transform(x)[:, :6]
    rows = np.concatenate([np.flatnonzero(y == label)[:40] for label in (0, 1)])
    return x[rows], y[rows], (x[-5:], y[-5:])


@pytest.mark.parametrize(
    "model", [SVC(kernel="linear", C=1e-4, tol=1e-10), SVC(C=1e-2, tol=1e-10)], ids=str
)
def test_every_removal_moves_an_intercept_that_no_row_holds(model: Any) -> None:
    x, y, query = _data()
    removed = [0, 3, 39, 40, 61, 79]
    fitted = clone(model).fit(x, y)
    objective = whence.from_sklearn(fitted, x, y)
    signs = 2 * query[1] - 1

    def change(keep: Any) -> Any:
        own = clone(model).fit(x[keep], y[keep]).decision_function(query[0])
        return signs * (own - fitted.decision_function(query[0]))

    actual = np.stack([change(np.delete(np.arange(80), at)) for at in removed], 1)
    assert np.abs(actual).max() > 0.8
    for order in ("newton", "refined"):
        found = whence.influence(objective, query, order=order, indices=removed, measure="margin")
        np.testing.assert_allclose(found.values, actual, atol=1e-6)
    pair = whence.group_effect(objective, [0, 3], query, measure="margin")
    np.testing.assert_allclose(pair, change(np.delete(np.arange(80), [0, 3])), atol=1e-6)
    first = whence.influence(objective, query, order="first", indices=removed, measure="margin")
    assert np.abs(first.values).max() < 0.1
    assert first.diagnostics is not None
    assert "the first order leaves it where it is" in " ".join(first.diagnostics.notes)
    assert first.diagnostics.size_error == pytest.approx(1, abs=0.1)
    explanation = whence.explain(objective, (query[0][0], query[1][0]), k=3)
    assert explanation.verify(4).r > 0.999
    assert len(whence.find_label_errors(objective).scores) == 80


@pytest.mark.parametrize(
    "model",
    [
        SVC(kernel="linear", max_iter=20_000),
        SVR(kernel="linear", max_iter=20_000),
        SGDClassifier(random_state=0),
    ],
    ids=str,
)
def test_a_fit_far_from_its_minimum_says_how_to_finish_it(model: Any) -> None:
    x, y, query = _data()
    far, asked = x + 1e5, (query[0] + 1e5, query[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a fit that has not converged
        fitted = clone(model).fit(far, y)
    objective = whence.from_sklearn(fitted, far, y)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = whence.influence(objective, asked, order="newton", indices=[0, 3, 50])
    assert any("objective.refit()" in str(each.message) for each in caught)
    first = whence.influence(objective, asked, order="first", indices=[0, 3, 50])
    assert np.isfinite(first.values).all()
    assert np.abs(first.values).max() < 1e6
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of margins no more exact than columns so far from 0 allow
        least = whence.influence(objective.refit(), asked, order="newton", indices=[0, 3, 50])
    np.testing.assert_allclose(found.values, least.values, atol=1e-9)
