"""Refits that are not those of the user's own library, whose solver stops early, say so."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone, is_classifier
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR

import whence
from whence.errors import NotConvergedWarning

_N, _REMOVED = 90, [0, 5, 7, 20, 33, 60, 88]
_TIGHT = {"tol": 1e-12, "max_iter": 10**6}


def _data(load: Any, unit: float) -> tuple[Any, Any]:
    x, y = load(return_X_y=True)
    order = np.random.default_rng(3).permutation(len(x))[: _N + 6]
    x = unit * StandardScaler().fit_transform(x)[order, :6]
    return x, y[order] if load is load_breast_cancer else y[order] / 50


def _wide() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(_N + 6, 120))
    return x + 1e3, np.exp(0.3 * x[:, 0] + 0.2 * rng.normal(size=_N + 6)) + 0.5


def _answer(model: Any, x: Any) -> Any:
    if is_classifier(model):
        return model.decision_function(x)
    answer = model.predict(x)
    return np.log(answer) if isinstance(model, PoissonRegressor) else answer


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::scipy.linalg.LinAlgWarning")
@pytest.mark.parametrize(
    ("model", "data"),
    [
        (SVC(kernel="linear", C=1e-8), _data(load_breast_cancer, 1)),
        (SVC(kernel="linear", C=1e-4), _data(load_breast_cancer, 1)),
        (SVC(kernel="linear", C=1e-4, tol=1e-12), _data(load_breast_cancer, 1)),
        (make_pipeline(StandardScaler(), SVC(C=1e-4)), _data(load_breast_cancer, 1)),
        (LogisticRegression(), _data(load_breast_cancer, 1)),
        (LogisticRegression(solver="liblinear"), _data(load_breast_cancer, 1e3)),
        (LogisticRegression(solver="liblinear"), _data(load_breast_cancer, 1e6)),
        (LinearSVC(random_state=0), _data(load_breast_cancer, 1e3)),
        (LinearSVC(loss="hinge", C=0.1, random_state=0, **_TIGHT), _data(load_breast_cancer, 1)),
        (LinearSVR(C=0.1, random_state=0, **_TIGHT), _data(load_diabetes, 1)),
        (Ridge(), _data(load_diabetes, 1e6)),
        (PoissonRegressor(), _wide()),
        (PoissonRegressor(solver="newton-cholesky"), _wide()),
    ],
    ids=str,
)
def test_a_refit_is_the_users_own_or_says_that_it_is_not(model: Any, data: tuple[Any, Any]) -> None:
    x, y = data
    x, y, query = x[:_N], y[:_N], (x[_N:], y[_N:])
    fitted = clone(model).fit(x, y)
    own = (clone(model).fit(np.delete(x, i, 0), np.delete(y, i)) for i in _REMOVED)
    before = _answer(fitted, query[0])
    actual = np.stack([_answer(each, query[0]) - before for each in own], 1)
    objective = whence.from_sklearn(fitted, x, y)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = whence.leave_one_out(objective, _REMOVED, query, measure=lambda f, _: f[:, 0])
    words = [str(each.message) for each in caught if each.category is NotConvergedWarning]
    error = np.abs(found - actual).max() / np.abs(actual).max()
    assert error < 0.05 or any("whose own fits reach their minimum" in said for said in words)
    assert error > 0.01 or not words  # it is not said of what is the same


def test_what_was_refitted_is_at_its_minimum_and_says_nothing() -> None:
    x, y = _data(load_breast_cancer, 1e3)
    fitted = LogisticRegression(solver="liblinear").fit(x[:_N], y[:_N])
    objective = whence.from_sklearn(fitted, x[:_N], y[:_N]).refit()
    whence.leave_one_out(objective, _REMOVED, (x[_N:], y[_N:]))  # warnings are errors


def test_an_unfinished_fit_of_a_hinge_is_told_by_its_minimum() -> None:
    x, y = _data(load_breast_cancer, 1)
    fitted = SVC(gamma=0.1, C=1e-4).fit(x[:_N], y[:_N])
    objective, query = whence.from_sklearn(fitted, x[:_N], y[:_N]), (x[_N:], y[_N:])
    with pytest.warns(NotConvergedWarning, match="finishing the fit would change"):
        scores = whence.influence(objective, query, order="refined", measure="margin")
    finished = SVC(gamma=0.1, C=1e-4, tol=1e-12).fit(x[:_N], y[:_N])
    moved = finished.decision_function(query[0]) - fitted.decision_function(query[0])
    largest = np.linalg.norm(scores.values, axis=0).max()
    assert scores.diagnostics is not None
    assert scores.diagnostics.unfinished == pytest.approx(np.linalg.norm(moved) / largest, rel=0.01)


def test_verify_says_it() -> None:
    x, y = _data(load_breast_cancer, 1)
    fitted = SVC(kernel="linear", C=1e-4).fit(x[:_N], y[:_N])
    explanation = whence.explain(whence.from_sklearn(fitted, x[:_N], y[:_N]), (x[_N], y[_N]))
    with pytest.warns(NotConvergedWarning, match="its solver stops"):
        explanation.verify(5)


def test_removals_that_change_nothing() -> None:
    x, y = _data(load_diabetes, 1)
    y = 1e-9 * y  # all within the corridor
    objective = whence.from_sklearn(SVR().fit(x[:_N], y[:_N]), x[:_N], y[:_N])
    found = whence.leave_one_out(objective, [0, 1], (x[_N:], y[_N:]), measure="prediction")
    assert not found.any()
