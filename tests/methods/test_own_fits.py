"""Refits that are not those of the user's own library, whose solver stops early, say so."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone, is_classifier
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import (
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR, NuSVC, NuSVR

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


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("far", [0.0, 1e3, 1e5])
@pytest.mark.parametrize(
    "model",
    [
        SVR(kernel="linear", C=0.1),
        SVC(kernel="linear", C=0.1),
        NuSVR(kernel="linear", C=0.1),
        NuSVC(kernel="linear", nu=0.4),
    ],
    ids=str,
)
def test_columns_far_from_0_change_nothing_beside_a_free_intercept(model: Any, far: float) -> None:
    x, y = _data(load_breast_cancer if is_classifier(model) else load_diabetes, 1)
    query, removed = (x[_N:], y[_N:]), _REMOVED
    near = clone(model).set_params(tol=1e-9)
    before = _answer(near.fit(x[:_N], y[:_N]), query[0])
    own = (clone(near).fit(np.delete(x[:_N], i, 0), np.delete(y[:_N], i)) for i in removed)
    actual = np.stack([_answer(each, query[0]) - before for each in own], 1)
    fitted = clone(model).set_params(max_iter=20_000).fit(x[:_N] + far, y[:_N])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        minimum = whence.from_sklearn(fitted, x[:_N] + far, y[:_N]).refit()
        shifted = (query[0] + far, query[1])
        found = whence.leave_one_out(minimum, removed, shifted, measure=lambda f, _: f[:, 0])
        outputs = minimum.outputs(minimum.examples(shifted))[:, 0]
    assert np.abs(found - actual).max() < 1e-5 * np.abs(actual).max()
    np.testing.assert_allclose(outputs, before, atol=1e-5 * np.abs(before).max())
    words = " ".join(str(each.message) for each in caught)
    assert "margins" not in words
    off = np.abs(_answer(fitted, shifted[0]) - before).max() / np.ptp(before)
    assert ("reach their minimum" in words or "a fit at its minimum" in words) or off < 0.02


def test_parameters_of_columns_far_from_0_are_the_users_own() -> None:
    x, y = _data(load_diabetes, 1)
    fitted = SVR(kernel="linear", C=0.1, tol=1e-9).fit(x[:_N], y[:_N])
    far = x + 1e3
    objective = whence.from_sklearn(
        SVR(kernel="linear", C=0.1, max_iter=20_000).fit(far[:_N], y[:_N]), far[:_N], y[:_N]
    ).refit()
    inputs = objective.inputs.lift(objective.params.unsqueeze(1))[:, 0].numpy()
    np.testing.assert_allclose(inputs[:-1], fitted.coef_[0], atol=1e-6)
    np.testing.assert_allclose(
        inputs[-1], fitted.intercept_[0] - 1e3 * fitted.coef_.sum(), rtol=1e-6
    )


@pytest.mark.parametrize("seed", [0, 5])
def test_a_flat_loss_at_the_queries_hides_no_unfinished_fit(seed: int) -> None:
    x, y = load_breast_cancer(return_X_y=True)
    x, y = StandardScaler().fit_transform(x)[:120], y[:120]
    weights = 10 ** np.random.default_rng(seed).uniform(-6, 6, 120)
    model = LinearSVC(dual=True, max_iter=20_000, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a fit that has not converged
        fitted = model.fit(x, y, sample_weight=weights)
    objective = whence.from_sklearn(fitted, x, y, sample_weight=weights)
    query, every = (x[100:103], y[100:103]), np.arange(120)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        whence.leave_one_out(objective, every, query)
    assert any("whose own fits reach" in str(each.message) for each in caught)
    whence.leave_one_out(objective.refit(), every, query)  # warnings are errors


def test_verify_says_it(tmp_path: Path) -> None:
    x, y = _data(load_breast_cancer, 1)
    fitted = SVC(kernel="linear", C=1e-4).fit(x[:_N], y[:_N])
    explanation = whence.explain(whence.from_sklearn(fitted, x[:_N], y[:_N]), (x[_N], y[_N]))
    with pytest.warns(NotConvergedWarning, match="its solver stops"):
        found = explanation.verify(5)
    assert "its solver stops" in found.own_fits
    assert found.own_fits in str(found)
    page = tmp_path / "page.html"
    with pytest.warns(NotConvergedWarning, match="its solver stops"):
        explanation.report(page, verify=5)
    assert "Expected an estimator whose own fits reach their minimum" in page.read_text()


def test_a_small_difference_is_stated_without_a_warning() -> None:
    x, y = _data(load_breast_cancer, 3)
    rows, query = [0, 5, 20], (x[_N:], y[_N:])
    fitted = LogisticRegression().fit(x[:_N], y[:_N])
    objective = whence.from_sklearn(fitted, x[:_N], y[:_N])
    asked = whence.LeaveOneOut().fit(objective)  # warnings are errors
    found = asked.scores(query, indices=rows, measure=lambda outputs, _: outputs[:, 0])
    before = fitted.decision_function(query[0])
    own = (clone(fitted).fit(np.delete(x[:_N], i, 0), np.delete(y[:_N], i)) for i in rows)
    actual = np.stack([each.decision_function(query[0]) - before for each in own], 1)
    share = np.abs(found.values - actual).max() / np.abs(found.values).max()
    assert 0.01 < share < 0.05
    assert found.diagnostics is not None
    (said,) = [note for note in found.diagnostics.notes if "more or less than this" in note]
    stated = float(said.split("by up to ")[1].split(" ")[0])
    assert stated == pytest.approx(share, rel=0.05)


def test_removals_that_change_nothing() -> None:
    x, y = _data(load_diabetes, 1)
    y = 1e-9 * y  # all within the corridor
    objective = whence.from_sklearn(SVR().fit(x[:_N], y[:_N]), x[:_N], y[:_N])
    found = whence.leave_one_out(objective, [0, 1], (x[_N:], y[_N:]), measure="prediction")
    assert not found.any()


def test_a_stop_by_chance_is_found_among_the_removals_that_are_shown() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))[:156]
    x, y = StandardScaler().fit_transform(x)[order, :6], y[order]
    x, y, query = x[:150], y[:150], (x[150:], y[150:])
    model = SGDClassifier(loss="log_loss", alpha=0.01, tol=1e-9, max_iter=200, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fits take as many steps as they are allowed
        fitted = clone(model).fit(x, y)
        early = clone(model).fit(np.delete(x, 50, 0), np.delete(y, 50))
    assert (fitted.n_iter_, early.n_iter_) == (200, 9)  # one removal in 15
    objective = whence.from_sklearn(fitted, x, y)
    with pytest.warns(NotConvergedWarning, match="without 20 of these examples"):
        whence.leave_one_out(objective, np.r_[50, :19], query)
    steady = whence.LeaveOneOut().fit(objective).scores(query, indices=np.r_[:30])
    assert steady.diagnostics is not None
    assert "20 of the estimator's own fits were compared" in steady.diagnostics.notes[-1]


def test_own_fits_of_a_regression_by_sgd_are_its_own() -> None:
    x, y = _data(load_diabetes, 1)
    x, y, query = x[:_N], y[:_N], (x[_N:], y[_N:])
    weights = np.random.default_rng(0).uniform(0.2, 3, _N)
    model = SGDRegressor(alpha=0.1, tol=1e-4, max_iter=2000, random_state=0)
    fitted = clone(model).fit(x, y, sample_weight=weights)
    objective = whence.from_sklearn(fitted, x, y, sample_weight=weights)
    with pytest.warns(NotConvergedWarning):
        whence.leave_one_out(objective, [3, 5], query)
    rest = objective.weights.clone()
    rest[3] = 0
    assert objective.statistics is not None
    found = objective.statistics.own_fit(objective, rest)
    kept = np.delete(np.arange(_N), 3)
    own = clone(model).fit(x[kept], y[kept], sample_weight=weights[kept])
    assert found is not None
    assert found.params[:-1].numpy() == pytest.approx(own.coef_, abs=1e-9)
    least = Ridge(alpha=0.1 * _N).fit(x, y, sample_weight=weights)  # (1/n) Σ s ½(f − y)² + α ½‖w‖²
    assert objective.refit().params[:-1].numpy() == pytest.approx(least.coef_, abs=1e-8)


_ASKED: dict[str, Any] = {
    "group": lambda trained, x, y: whence.group_effect(
        trained, _REMOVED, (x[_N:], y[_N:]), order="refit"
    ),
    "edit": lambda trained, x, y: whence.edit(
        trained, 5, x[5], 1 - y[5], (x[_N:], y[_N:]), order="refit"
    ),
    "flip set": lambda trained, x, y: whence.flip_set(trained, (x[_N], y[_N])).positions,
}


@pytest.mark.parametrize("asked", _ASKED)
def test_one_refit_far_from_the_estimators_own_says_so(asked: str) -> None:
    x, y = _data(load_breast_cancer, 1.0)
    newton = LogisticRegression(solver="newton-cholesky", **_TIGHT).fit(x[:_N], y[:_N])
    assert _ASKED[asked](whence.from_sklearn(newton, x[:_N], y[:_N]), x, y).any()  # no warning
    sgd = SGDClassifier(loss="log_loss", random_state=0, max_iter=2000).fit(x[:_N], y[:_N])
    with pytest.warns(NotConvergedWarning, match="own fit to the changed data"):
        _ASKED[asked](whence.from_sklearn(sgd, x[:_N], y[:_N]), x, y)
