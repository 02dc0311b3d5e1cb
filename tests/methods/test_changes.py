"""Groups, edits and perturbations, against refitting on changed data."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import whence
from tests.fitted import Fitted
from tests.linear.test_objective import CASES
from whence.curvature.prepare import prepare
from whence.errors import InvalidInput, NotConvergedWarning
from whence.methods.edits import relabel_gain
from whence.methods.fit_quality import residual_of
from whence.methods.removals import removal
from whence.objective.objective import objective_of, risk_gradient


def test_group_of_a_quadratic_is_exact(ridge: Fitted) -> None:
    group = list(range(0, 60, 2))
    actual = ridge.losses(ridge.refit_without(*group)) - ridge.losses(ridge.estimator)
    for order in ("newton", "refined", "refit"):
        predicted = whence.group_effect(ridge.objective, group, ridge.queries, order=order)
        np.testing.assert_allclose(predicted, actual, rtol=1e-7, atol=1e-7)


def test_group_refit_equals_scikit_learn(fitted: Fitted) -> None:
    group = [1, 5, 8, 30]
    actual = fitted.losses(fitted.refit_without(*group)) - fitted.losses(fitted.estimator)
    refit = whence.group_effect(fitted.objective, group, fitted.queries, order="refit")
    np.testing.assert_allclose(refit, actual, atol=1e-6)
    first = whence.group_effect(fitted.objective, group, fitted.queries, order="first")
    newton = whence.group_effect(fitted.objective, group, fitted.queries)
    assert np.abs(newton - actual).max() < np.abs(first - actual).max()


@pytest.mark.parametrize("strength", [100.0, 1e4])
def test_refined_steps_of_a_group_arrive_where_the_penalty_is_weak(strength: float) -> None:
    """Half of a class at once: the curvature at the old fit is not that of the new one."""
    x, y = load_wine(return_X_y=True)
    order = np.random.default_rng(3).permutation(len(x))[:74]
    x, y = StandardScaler().fit_transform(x[order, :6]), y[order]
    weights = {0: 5.0, 1: 1.0, 2: 0.1}
    model = LogisticRegression(
        C=strength, class_weight=weights, solver="newton-cholesky", tol=1e-12, max_iter=1_000
    ).fit(x[:70], y[:70])
    objective, group = whence.from_sklearn(model, x[:70], y[:70]), np.arange(30, 45)
    keep = np.delete(np.arange(70), group)
    again = clone(model).fit(x[keep], y[keep])
    actual = (again.decision_function(x[70:]) - model.decision_function(x[70:]))[:, 0]
    for order, most in (("refined", 1e-5), ("refit", 1e-6)):
        found = whence.group_effect(
            objective, group, (x[70:], y[70:]), order=order, measure=lambda f, _: f[:, 0]
        )
        assert np.abs(found - actual).max() < most * np.abs(actual).max()


def test_an_edit_that_one_newton_step_overshoots_says_so() -> None:
    """At a sure prediction there is no curvature: a wrong label there goes anywhere."""
    x, y = load_wine(return_X_y=True)
    order = np.random.default_rng(3).permutation(len(x))[:74]
    x, y = StandardScaler().fit_transform(x[order, :6]), y[order]
    model = LogisticRegression(C=100.0, solver="newton-cholesky", tol=1e-12)
    objective = whence.from_sklearn(model.fit(x[:70], y[:70]), x[:70], y[:70])
    queries, other = (x[70:], y[70:]), y[:70].copy()
    other[7] = (y[7] + 1) % 3
    after = clone(model).fit(x[:70], other).decision_function(x[70:])[:, 0]
    actual = after - model.decision_function(x[70:])[:, 0]
    with pytest.warns(NotConvergedWarning, match="Ask with order='refined'"):
        step = whence.edit(objective, 7, x[7], other[7], queries, measure=lambda f, _: f[:, 0])
    assert np.abs(step).max() > 3 * np.abs(actual).max()
    refined = whence.edit(
        objective, 7, x[7], other[7], queries, order="refined", measure=lambda f, _: f[:, 0]
    )
    np.testing.assert_allclose(refined, actual, rtol=0, atol=1e-6 * np.abs(actual).max())


def test_first_order_groups_add_up(fitted: Fitted) -> None:
    singles = whence.influence(fitted.objective, fitted.queries, indices=[2, 3, 11]).values
    group = whence.group_effect(fitted.objective, [2, 3, 11, 3], fitted.queries, order="first")
    np.testing.assert_allclose(group, singles.sum(1), atol=1e-10)


def test_a_group_of_one_is_a_removal(fitted: Fitted) -> None:
    for order in ("newton", "refined"):
        single = whence.influence(fitted.objective, fitted.queries, order=order, indices=[6])
        group = whence.group_effect(fitted.objective, [6], fitted.queries, order=order)
        np.testing.assert_allclose(group, single.values[:, 0], atol=1e-8)


@pytest.mark.parametrize("order", ["newton", "refined"])
def test_a_group_in_float32_is_that_in_float64_without_a_warning(order: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 6, generator=generator)
    y = (x[:, 0] + 0.5 * torch.randn(200, generator=generator) > 0).long()
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))
    recipe = whence.Recipe(learning_rate=1.5, batch_size=200, epochs=600, weight_decay=1e-2)
    run = whence.train(model, whence.CrossEntropy(), (x, y), recipe)
    found, expected = (
        whence.group_effect(
            whence.from_torch(each, whence.CrossEntropy(), (x, y), l2=1e-2),
            range(10),
            (x[:5], y[:5]),
            order=order,
            curvature="ggn",
            damping=1e-3,
        )
        for each in (run.model, deepcopy(run.model).double())
    )
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


def test_edit_equals_refitting_on_edited_data(fitted: Fitted) -> None:
    x, y = fitted.x.copy(), fitted.y.copy()
    x[4], y[4] = x[4] + 0.3, y[0]
    refit = clone(fitted.estimator).fit(x, y, sample_weight=fitted.weights)
    actual = fitted.losses(refit) - fitted.losses(fitted.estimator)
    predicted = whence.edit(fitted.objective, 4, x[4], y[4], fitted.queries, order="refined")
    scale = np.abs(actual).max()
    np.testing.assert_allclose(predicted, actual, atol=0.1 * scale)


def test_edit_of_a_quadratic_is_exact(ridge: Fitted) -> None:
    x, y = ridge.x.copy(), ridge.y.copy()
    x[4], y[4] = -x[4], 2 * y[4]
    refit = clone(ridge.estimator).fit(x, y, sample_weight=ridge.weights)
    actual = ridge.losses(refit) - ridge.losses(ridge.estimator)
    predicted = whence.edit(ridge.objective, 4, x[4], y[4], ridge.queries)
    np.testing.assert_allclose(predicted, actual, rtol=1e-7, atol=1e-7)


def test_an_edit_to_first_order_is_the_derivative_of_refits() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    x, y, query = x[:80, :3], y[:80], (x[80:83, :3], y[80:83])
    model = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-12, max_iter=10_000))
    trained = whence.from_sklearn(clone(model).fit(x, y), x, y)
    new, label = x[5] * [1.5, 0.8, 1.2], 1 - y[5]

    def losses(share: float) -> np.ndarray:
        weights = np.r_[np.ones(80), share]
        weights[5] -= share
        fitted = clone(model).fit(
            np.vstack([x, new]),
            np.r_[y, label],
            standardscaler__sample_weight=weights,
            logisticregression__sample_weight=weights,
        )
        return -np.log(fitted.predict_proba(query[0])[np.arange(3), query[1]])

    slope = (losses(2e-4) - losses(0.0)) / 2e-4
    found = whence.edit(trained, 5, new, label, query, order="first")
    np.testing.assert_allclose(found, slope, rtol=0.01)


@pytest.mark.parametrize("weight", [None, {0: 1.0, 1: 3.0}, "balanced"])
def test_relabeling_is_an_edit_of_the_label_alone(weight: Any) -> None:
    x, y = load_breast_cancer(return_X_y=True)
    x, y, query = x[:80, :3], y[:80], (x[80:83, :3], y[80:83])
    model = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-10, class_weight=weight))
    objective = objective_of(whence.from_sklearn(model.fit(x, y), x, y))
    where = np.array([3, 8, 40])
    targets = objective.examples((x[where], 1 - y[where])).targets
    for measure in ("loss", "probability"):
        gain = relabel_gain(objective, where, targets, query, measure=measure)
        edits = [
            whence.edit(objective, at, x[at], 1 - y[at], query, order="first", measure=measure)
            for at in where.tolist()
        ]
        np.testing.assert_allclose(gain, -np.mean(edits, axis=1), rtol=1e-6)


@pytest.mark.parametrize("counts", [1, 7], ids=["alike", "one of seven"])
def test_a_relabeled_row_keeps_its_sample_weight(counts: int) -> None:
    """Among balanced classes, which count sample weights, one row of weight 7 is seven."""
    x, y = load_iris(return_X_y=True)
    x, y, query = x[:100], y[:100].copy(), (x[45:55], y[45:55])
    weights = np.random.default_rng(0).uniform(0.5, 2.0, 100)
    weights[3] *= counts
    model = LogisticRegression(class_weight="balanced", C=1e-4, tol=1e-12, max_iter=10_000)
    objective = objective_of(
        whence.from_sklearn(clone(model).fit(x, y, weights), x, y, sample_weight=weights)
    )
    where = np.array([3, 8, 70])
    gain = relabel_gain(objective, where, torch.tensor([1.0, 1.0, 0.0], dtype=torch.double), query)
    for at, fall in zip(where, gain, strict=True):
        first = whence.edit(objective, int(at), x[at], 1 - y[at], query, order="first")
        assert fall == pytest.approx(-first.mean(), rel=1e-6)
        other = y.copy()
        other[at] = 1 - y[at]
        losses = [
            log_loss(query[1], clone(model).fit(x, labels, weights).predict_proba(query[0]))
            for labels in (y, other)
        ]
        assert fall == pytest.approx(losses[0] - losses[1], rel=0.15)


def test_relabeling_among_balanced_classes_is_what_refits_say() -> None:
    x, y = load_iris(return_X_y=True)
    x, y, query = x[::2], y[::2].copy(), (x[1::2], y[1::2])
    x, y = x[10:], y[10:]  # of one class fewer
    model = LogisticRegression(class_weight="balanced", C=0.1, tol=1e-10, max_iter=10_000).fit(x, y)
    objective = objective_of(whence.from_sklearn(model, x, y))
    where, labels = np.array([0, 20, 50, 60]), np.array([1, 2, 0, 1])
    targets = objective.examples((x[where], labels)).targets
    gain = relabel_gain(objective, where, targets, query)
    edits = [
        whence.edit(objective, at, x[at], label, query, order="first").mean()
        for at, label in zip(where.tolist(), labels.tolist(), strict=True)
    ]
    np.testing.assert_allclose(gain, -np.array(edits), rtol=1e-6)
    for at, label, fall in zip(where, labels, gain, strict=True):
        other = y.copy()
        other[at] = label
        losses = [
            log_loss(query[1], clone(model).fit(x, labels_).predict_proba(query[0]))
            for labels_ in (y, other)
        ]
        assert fall == pytest.approx(losses[0] - losses[1], rel=0.15)


def test_a_refined_result_is_held_against_the_gradient_that_is_left() -> None:
    objective = CASES["softmax"]().refit()
    where = np.arange(0, 40, 2)
    change = removal(objective, prepare(objective, 1).inverse, where)
    nearly = change.newton()

    def ratio(column: int, delta: torch.Tensor) -> float:
        weights = objective.weights.clone()
        weights[where[column]] = 0
        without = objective.reweighted(weights)
        left = risk_gradient(without.at(objective.params + delta)).norm()
        return float(left / risk_gradient(without).norm())

    found = residual_of(change, nearly, "refined")
    expected = [ratio(column, nearly[:, column]) for column in range(0, 20, 3)]
    assert found is not None
    assert found.value == pytest.approx(max(expected), rel=1e-4)
    assert found.converged == (max(expected) <= 0.1)
    rough = 0.5 * nearly
    found = residual_of(change, rough, "refined")
    assert found is not None
    assert found.value == pytest.approx(max(ratio(c, rough[:, c]) for c in range(0, 20, 3)))
    assert not found.converged
    solved = residual_of(change, nearly, "newton")
    assert solved is not None
    assert (solved.value, solved.converged) == (change.residual, True)


def test_perturbation_is_the_derivative_of_refitting(fitted: Fitted) -> None:
    x_query, y_query = fitted.queries
    query = (x_query[:1], y_query[:1])
    derivatives = whence.perturbation(fitted.objective, [3, 8], query)
    step = 1e-4
    for row, i in enumerate((3, 8)):
        for feature in (0, 2):
            sides = []
            for sign in (1, -1):
                x = fitted.x.copy()
                x[i, feature] += sign * step
                refit = clone(fitted.estimator).fit(x, fitted.y, sample_weight=fitted.weights)
                sides.append(fitted.losses(refit)[0])
            numeric = (sides[0] - sides[1]) / (2 * step)
            assert derivatives[row, feature] == pytest.approx(numeric, rel=1e-3, abs=1e-6)


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
def test_an_edit_by_a_method_takes_all_of_its_options() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(20, 3).double(), torch.arange(20) % 2
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    objective = whence.from_torch(model.double(), whence.CrossEntropy(), (x, y))
    options = {"damping": 1.0, "curvature": "hessian"}
    change = 3, x[4:5], y[5:6], (x[:2], y[:2])
    method = whence.Influence(order="newton", **options)
    found = whence.edit(objective, *change, method=method)
    np.testing.assert_array_equal(found, whence.edit(objective, *change, **options))
    assert abs(found - whence.edit(objective, *change, damping=1.0, curvature="ggn")).max() > 1e-6
    with pytest.raises(InvalidInput, match="without method="):
        whence.edit(objective, *change, method=method, curvature="ggn")


def test_edit_refuses_more_than_one(ridge: Fitted) -> None:
    with pytest.raises(InvalidInput, match="index as a whole number"):
        whence.edit(ridge.objective, [1, 2], ridge.x[0], ridge.y[0], ridge.queries)
    with pytest.raises(InvalidInput, match="one new example"):
        whence.edit(ridge.objective, 1, ridge.x[:2], ridge.y[:2], ridge.queries)
