"""Support vector machines retrained exactly, against scikit-learn fitted from scratch."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR

import whence
from whence.fitting import machine
from whence.fitting.hinge import fit_hinge

_MODELS = {
    "svc-linear": SVC(kernel="linear", C=0.3, tol=1e-12),
    "svc-rbf": SVC(kernel="rbf", gamma=0.03, C=2.0, tol=1e-12),
    "svc-balanced": SVC(kernel="linear", C=0.1, class_weight="balanced", tol=1e-12),
    "linear-svc": LinearSVC(loss="hinge", C=0.3, tol=1e-10, max_iter=10**6),
    "linear-svc-no-intercept": LinearSVC(
        loss="hinge", C=0.3, fit_intercept=False, tol=1e-10, max_iter=10**6
    ),
}


def data(n: int = 90) -> tuple[np.ndarray, np.ndarray]:
    x, y = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(4).permutation(len(x))[:n]
    return StandardScaler().fit_transform(x[order]), y[order]


@pytest.mark.parametrize("name", _MODELS)
def test_equals_refits_from_scratch(name: str) -> None:
    x, y = data()
    weights = np.random.default_rng(5).uniform(0.5, 2.0, len(x))
    model = clone(_MODELS[name]).fit(x, y, sample_weight=weights)
    objective = whence.from_sklearn(model, x, y, sample_weight=weights)
    queries = x[:6] + 0.05, y[:6]
    dual = np.abs(fit_hinge(objective).machines[0].beta)
    by_influence = np.argsort(-dual)
    where = np.r_[by_influence[:12], by_influence[-2:]]

    def outputs(f: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return f[:, 0]

    actual = whence.leave_one_out(objective, where, queries, measure=outputs)
    for column, i in enumerate(where):
        keep = np.arange(len(x)) != i
        refit = clone(model).fit(x[keep], y[keep], sample_weight=weights[keep])
        expected = refit.decision_function(queries[0]) - model.decision_function(queries[0])
        np.testing.assert_allclose(actual[:, column], expected, atol=2e-5)
    if name != "svc-balanced":  # there every row moves the class weights
        assert not actual[:, -1].any()


@pytest.mark.parametrize("near", [1, 12])
@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_rows_far_from_the_margin_join_where_a_removal_needs_them(
    kind: str, near: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As rows beyond the first 2,048 do: with 12 that are near, or 1, nothing differs."""
    monkeypatch.setattr(machine, "_NEAR", near)
    x, y = data()
    estimator: Any = SVC(kernel="linear", C=0.3, tol=1e-10)
    if kind == "numbers":
        x, y = load_diabetes(return_X_y=True)
        x, y = StandardScaler().fit_transform(x[:90]), (y[:90] - y[:90].mean()) / y[:90].std()
        estimator = SVR(gamma=0.05, tol=1e-10)
    objective = whence.from_sklearn(estimator.fit(x, y), x, y)
    first = fit_hinge(objective).machines[0]
    assert len(first.near) < len(first.signs)
    where = np.argsort(-np.abs(first.beta.reshape(-1, len(x)).sum(0)), kind="stable")[:12]
    found = whence.leave_one_out(objective, where, (x[:6], y[:6]), measure=lambda f, y: f[:, 0])
    for column, i in enumerate(where):
        refit = clone(estimator).fit(np.delete(x, i, 0), np.delete(y, i))
        before, after = (
            getattr(each, "decision_function", each.predict)(x[:6]) for each in (estimator, refit)
        )
        np.testing.assert_allclose(found[:, column], after - before, rtol=0, atol=5e-6)


def test_one_versus_rest_and_groups() -> None:
    x, y = load_wine(return_X_y=True)
    x = StandardScaler().fit_transform(x)
    model = LinearSVC(loss="hinge", C=0.05, class_weight={2: 2.0}, tol=1e-10, max_iter=10**6)
    model.fit(x, y)
    objective = whence.from_sklearn(model, x, y)
    group = [0, 70, 90, 140, 150]
    changed = whence.group_effect(
        objective, group, (x[:3], y[:3]), order="refit", measure=lambda f, y: f[:, 1]
    )
    keep = np.setdiff1d(np.arange(len(x)), group)
    refit = clone(model).fit(x[keep], y[keep])
    expected = (refit.decision_function(x[:3]) - model.decision_function(x[:3]))[:, 1]
    np.testing.assert_allclose(changed, expected, atol=2e-5)


def kkt_violation(objective: Any, weights: torch.Tensor) -> float:
    """How far a fit is from the conditions of optimality, in units of the margin."""
    fit = fit_hinge(objective.reweighted(weights))
    at = fit.objective
    signs = 2 * objective.train.targets - 1
    slack = 1 - signs * at.outputs(at.train)[:, 0]
    bounds, dual = weights / len(signs), torch.from_numpy(np.abs(fit.machines[0].beta))
    pull = at.vjp(at.train, (-signs * dual).reshape(-1, 1, 1))[:, 0] + at.l2 * at.params
    inside = (dual > 1e-12) & (dual < bounds - 1e-12)
    return max(
        float(pull.abs().max()),
        float((slack * (dual <= 1e-12) * (bounds > 0)).clamp_min(0).max()),
        float((-slack * (dual >= bounds - 1e-12) * (bounds > 0)).clamp_min(0).max()),
        float((slack * inside).abs().max()),
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.01, 0.3, 5.0]), st.booleans())
def test_optimality_on_random_data(seed: int, c: float, intercept: bool) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(40, 4))
    y = (x[:, 0] + rng.normal(size=40) > 0).astype(int)
    y[:2] = [0, 1]
    if intercept:
        model: Any = SVC(kernel="linear", C=c).fit(x, y)
    else:
        model = LinearSVC(loss="hinge", C=c, max_iter=10**5).fit(x, y)
    objective = whence.from_sklearn(model, x, y)
    weights = torch.ones(40, dtype=torch.float64)
    weights[torch.from_numpy(rng.permutation(40)[:5])] = 0
    assert kkt_violation(objective, weights) < 1e-7


def test_smoothing_predicts_what_the_true_hinge_does() -> None:
    x, y = data(400)
    model = LinearSVC(loss="hinge", C=0.1, tol=1e-10, max_iter=10**6).fit(x[:300], y[:300])
    objective = whence.from_sklearn(model, x[:300], y[:300], temperature=0.05)
    queries = x[300:305], y[300:305]
    predicted = whence.influence(objective, queries, measure="margin")
    correlations = []
    for q, where in enumerate(predicted.largest(30).positions):
        query = queries[0][q : q + 1], queries[1][q : q + 1]
        actual = whence.leave_one_out(objective, where, query, measure="margin")
        correlations.append(np.corrcoef(predicted.values[q, where], actual[0])[0, 1])
    assert np.median(correlations) > 0.85


_REGRESSIONS = {
    "svr": SVR(C=1.0, gamma=0.05, tol=1e-10),
    "svr-scaled": SVR(C=2.0, tol=1e-10),
    "svr-linear": SVR(kernel="linear", C=0.3, epsilon=0.2, tol=1e-10),
    "linear-svr": LinearSVR(C=0.3, epsilon=0.1, tol=1e-10, max_iter=10**6),
    "linear-svr-absolute": LinearSVR(C=0.3, tol=1e-10, max_iter=10**6),
    "linear-svr-no-intercept": LinearSVR(
        C=0.3, epsilon=0.1, fit_intercept=False, tol=1e-10, max_iter=10**6
    ),
    "linear-svr-squared": LinearSVR(
        C=0.3, epsilon=0.1, loss="squared_epsilon_insensitive", tol=1e-12, max_iter=10**6
    ),
}


@pytest.mark.parametrize("name", _REGRESSIONS)
def test_regressions_equal_refits_from_scratch(name: str) -> None:
    x, y = load_diabetes(return_X_y=True)
    x, y = StandardScaler().fit_transform(x[:96]), (y[:96] - y[:96].mean()) / y[:96].std()
    queries, x, y = (x[:6], y[:6]), x[6:], y[6:]
    weights = np.random.default_rng(5).uniform(0.5, 2.0, len(x))
    model = clone(_REGRESSIONS[name]).fit(x, y, sample_weight=weights)
    objective = whence.from_sklearn(model, x, y, sample_weight=weights)
    where = np.arange(0, 90, 7)
    expected = np.empty((6, len(where)))
    for column, i in enumerate(where):
        keep = np.arange(len(x)) != i
        refit = clone(model).fit(x[keep], y[keep], sample_weight=weights[keep])
        expected[:, column] = refit.predict(queries[0]) - model.predict(queries[0])
    actual = whence.leave_one_out(objective, where, queries, measure="prediction")
    np.testing.assert_allclose(actual, expected, atol=2e-5)
    refined = whence.influence(
        objective, queries, order="refined", indices=where, measure="prediction"
    )
    assert np.corrcoef(refined.values.ravel(), expected.ravel())[0, 1] > 0.9999
    group = whence.group_effect(objective, where[:5], queries, order="refit", measure="prediction")
    keep = np.setdiff1d(np.arange(len(x)), where[:5])
    refit = clone(model).fit(x[keep], y[keep], sample_weight=weights[keep])
    np.testing.assert_allclose(
        group, refit.predict(queries[0]) - model.predict(queries[0]), atol=2e-5
    )


@pytest.mark.parametrize("gamma", ["scale", 0.1])
@pytest.mark.parametrize("strength", [1e-8, 1e-4])
def test_the_intercept_is_the_middle_where_no_row_is_on_the_margin(
    gamma: Any, strength: float
) -> None:
    """A row that has come to a bound, but for rounding, does not say where the intercept is."""
    x, y = load_diabetes(return_X_y=True)
    order = np.random.default_rng(3).permutation(len(x))[:96]
    x, y = StandardScaler().fit_transform(x)[order, :6], y[order] / 50
    x, y, query = x[:90], y[:90], (x[90:], y[90:])
    model = SVR(C=strength, gamma=gamma, tol=1e-8).fit(x, y)
    objective = whence.from_sklearn(model, x, y)
    assert "any intercept of an interval" in "".join(objective.notes)
    ordinary = whence.from_sklearn(SVR(gamma=gamma).fit(x, y), x, y)
    assert "any intercept of an interval" not in "".join(ordinary.notes)
    where = [0, 5, 7, 20]
    found = whence.leave_one_out(objective, where, query, measure="prediction")
    for column, i in enumerate(where):
        refit = clone(model).fit(np.delete(x, i, 0), np.delete(y, i))
        expected = refit.predict(query[0]) - model.predict(query[0])
        np.testing.assert_allclose(found[:, column], expected, rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_walk_that_rounding_ends_is_said_once() -> None:
    """Columns of 10,000: 2 removals, one sentence each for the fit and for them."""
    x, y = load_diabetes(return_X_y=True)
    order = np.random.default_rng(3).permutation(len(x))[:96]
    x, y = 1e4 * StandardScaler().fit_transform(x)[order, :6], y[order] / 50
    objective = whence.from_sklearn(LinearSVR(random_state=0).fit(x[:90], y[:90]), x[:90], y[:90])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = whence.leave_one_out(objective, [0, 5], (x[90:], y[90:]))
    assert np.isfinite(found).all()
    said = [str(each.message) for each in caught]
    assert 1 <= len([words for words in said if "margins exact" in words]) <= 3
