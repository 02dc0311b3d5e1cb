"""Influence against the equations written out densely, and against retraining."""

from __future__ import annotations

import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression, PoissonRegressor
from torch.autograd.functional import hessian

import whence
from tests.fitted import Fitted
from whence.errors import InvalidInput
from whence.linalg import CG
from whence.linear.objective import LinearObjective
from whence.objective.objective import risk


def dense_first_order(objective: LinearObjective, fitted: Fitted) -> np.ndarray:
    """(wᵢ/n) g_qᵀ H⁺ gᵢ with every derivative taken by autograd, one example at a time."""
    theta = objective.params.clone()
    h = hessian(lambda t: _risk(objective, t), theta)

    def gradient(examples, row):
        leaf = theta.clone().requires_grad_()
        one = examples.subset(np.array([row]))
        loss = objective.loss(_outputs(objective, one, leaf), one.targets).sum()
        return torch.autograd.grad(loss, leaf)[0]

    queries = objective.examples(fitted.queries)
    g_train = torch.stack([gradient(objective.train, i) for i in range(len(objective.train))])
    g_query = torch.stack([gradient(queries, i) for i in range(len(queries))])
    weights = (objective.weights / len(objective.train)).unsqueeze(1)
    if isinstance(fitted.estimator, PoissonRegressor):  # a mean: its divisor falls by wᵢ too
        g_train = g_train - (weights * g_train).sum(0)
    return (g_query @ torch.linalg.pinv(h) @ (weights * g_train).T).numpy()


def _outputs(objective, examples, theta):
    x = examples.features.dense()
    c = objective.c
    if objective.constant is None:
        return x @ theta.reshape(c, -1).T
    return x @ theta[:-c].reshape(c, -1).T + objective.constant * theta[-c:]


def _risk(objective, theta):
    train = objective.train
    losses = objective.loss(_outputs(objective, train, theta), train.targets)
    return (objective.weights * losses).mean() + (objective.l2 * theta.square()).sum() / 2


def test_objective_is_the_one_minimized(fitted: Fitted) -> None:
    objective = fitted.objective
    assert risk(objective) == pytest.approx(float(_risk(objective, objective.params)), rel=1e-12)
    leaf = objective.params.clone().requires_grad_()
    assert torch.autograd.grad(_risk(objective, leaf), leaf)[0].abs().max() < 1e-7


def test_first_order_is_the_paper_s_equation(fitted: Fitted) -> None:
    objective = fitted.objective
    scores = whence.influence(objective, fitted.queries)
    np.testing.assert_allclose(scores.values, dense_first_order(objective, fitted), atol=1e-10)
    np.testing.assert_allclose(scores.upweight(), -len(fitted.x) * scores.values)


def test_iterating_equals_factoring(fitted: Fitted) -> None:
    objective = fitted.objective
    direct = whence.influence(objective, fitted.queries)
    iterated = whence.influence(objective, fitted.queries, solver=CG(rtol=1e-12))
    np.testing.assert_allclose(iterated.values, direct.values, atol=1e-9)
    assert iterated.diagnostics is not None
    assert iterated.diagnostics.iterations > 0


def test_indices_restrict_the_candidates(fitted: Fitted) -> None:
    objective = fitted.objective
    whole = whence.influence(objective, fitted.queries)
    part = whence.influence(objective, fitted.queries, indices=[7, 3])
    np.testing.assert_allclose(part.values, whole.values[:, [7, 3]], rtol=1e-10)
    assert part.positions.tolist() == [7, 3]


def test_queries_in_any_order(fitted: Fitted) -> None:
    objective, (x, y) = fitted.objective, fitted.queries
    forward = whence.influence(objective, (x, y)).values
    backward = whence.influence(objective, (x[::-1], y[::-1])).values
    np.testing.assert_allclose(backward[::-1], forward, rtol=1e-9, atol=1e-14)


def test_newton_is_exact_for_squared_loss(ridge: Fitted) -> None:
    predicted = whence.influence(ridge.objective, ridge.queries, order="newton").values
    before = ridge.losses(ridge.estimator)
    for i in range(0, 120, 10):
        actual = ridge.losses(ridge.refit_without(i)) - before
        np.testing.assert_allclose(predicted[:, i], actual, rtol=1e-8, atol=1e-8)


def test_each_order_is_closer_to_retraining(fitted: Fitted) -> None:
    objective = fitted.objective
    first = whence.influence(objective, fitted.queries)
    where = first.largest(20).positions[0]
    actual = whence.leave_one_out(objective, where, fitted.queries)
    error = {
        order: np.abs(
            whence.influence(objective, fitted.queries, order=order, indices=where).values - actual
        ).max()
        for order in ("first", "newton", "refined")
    }
    assert error["newton"] < 0.5 * error["first"]
    assert error["refined"] <= error["newton"] + 1e-9


def test_self_influence_is_the_diagonal(fitted: Fitted) -> None:
    objective = fitted.objective
    own = whence.self_influence(objective)
    plain = replace(objective, statistics=None)  # class weights and divisors held
    scores = whence.influence(plain, (fitted.x, fitted.y))
    np.testing.assert_allclose(own, scores.values.diagonal(), atol=1e-12)
    np.testing.assert_allclose(whence.self_influence(objective, indices=[4]), own[[4]])
    assert (own >= 0).all()


@pytest.mark.parametrize("order", ["first", "newton", "refined"])
def test_influence_on_parameters_moves_the_loss(fitted: Fitted, order: str) -> None:
    objective = fitted.objective
    changes = whence.influence_on_parameters(objective, [5, 9], order=order)
    assert changes.shape == (2, len(objective.params))
    queries = objective.examples(fitted.queries)
    deltas = torch.from_numpy(changes.T)
    if order == "first":
        moved = objective.gradient_dot(queries, objective.loss, deltas).numpy()
    else:
        before = objective.loss(objective.outputs(queries), queries.targets)
        after = [
            objective.loss(_outputs(objective, queries, objective.params + d), queries.targets)
            for d in deltas.T
        ]
        moved = (torch.stack(after, 1) - before.unsqueeze(1)).numpy()
    scores = whence.influence(objective, fitted.queries, order=order, indices=[5, 9])
    np.testing.assert_allclose(moved, scores.values, atol=1e-12)


def test_measures(multinomial: Fitted) -> None:
    objective = multinomial.objective
    loss = whence.influence(objective, multinomial.queries, order="refined").values
    queries = objective.examples(multinomial.queries)
    before = objective.loss(objective.outputs(queries), queries.targets).numpy()[:, None]
    probability = whence.influence(
        objective, multinomial.queries, order="refined", measure="probability"
    ).values
    np.testing.assert_allclose(np.exp(-before) + probability, np.exp(-(before + loss)), rtol=1e-9)
    margin = whence.influence(
        objective, multinomial.queries, order="refined", measure="margin"
    ).values
    np.testing.assert_allclose(
        -np.log(np.expm1(before)) + margin, -np.log(np.expm1(before + loss)), rtol=1e-6, atol=1e-6
    )
    own = whence.influence(
        objective,
        multinomial.queries,
        measure=lambda outputs, targets: torch.nn.functional.cross_entropy(
            outputs, targets, reduction="none"
        ),
    )
    first = whence.influence(objective, multinomial.queries)
    np.testing.assert_allclose(own.values, first.values, atol=1e-12)


@pytest.mark.parametrize("indices", [[], [120], [-1], [0.5], [[1, 2]], "ab"])
def test_impossible_indices(ridge: Fitted, indices: object) -> None:
    with pytest.raises(InvalidInput, match=r"Expected indices .* Got"):
        whence.influence(ridge.objective, ridge.queries, indices=indices)


@pytest.mark.parametrize(
    "options", [{"order": "second"}, {"measure": "accuracy"}, {"damping": -1.0}]
)
def test_impossible_options(ridge: Fitted, options: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match=r"Expected .* Got"):
        whence.influence(ridge.objective, ridge.queries, **options)


def test_measure_must_give_one_value_per_example(ridge: Fitted) -> None:
    with pytest.raises(InvalidInput, match="one value per example"):
        whence.influence(ridge.objective, ridge.queries, measure=lambda f, y: f)
    with pytest.raises(InvalidInput, match="differentiable"):
        whence.influence(ridge.objective, ridge.queries, measure=lambda f, y: f.detach()[:, 0])


def test_damping_shrinks(ridge: Fitted) -> None:
    plain = whence.influence(ridge.objective, ridge.queries).values
    damped = whence.influence(ridge.objective, ridge.queries, damping=100.0)
    assert np.abs(damped.values).max() < np.abs(plain).max()
    assert damped.diagnostics is not None
    assert damped.diagnostics.damping == 100.0


def test_what_was_prepared_is_freed_with_its_objective() -> None:
    X, y = load_iris(return_X_y=True)
    objective = whence.from_sklearn(LogisticRegression(max_iter=5000, tol=1e-8).fit(X, y), X, y)
    for solver in (None, CG(rtol=1e-8)):
        whence.influence(objective, (X[:1], y[:1]), solver=solver)
    gone = weakref.ref(objective)
    del objective
    assert gone() is None


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("indices", [None, [3, 50, 4]])
def test_large_models_are_scored_in_float32(
    direct: bool, indices: list[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = load_iris(return_X_y=True)
    x = np.column_stack([x, np.zeros(len(x))])  # a column that the float32 twin drops
    estimator = LogisticRegression(C=0.1, tol=1e-10, max_iter=10_000).fit(x, y)
    queries = x[::9], y[::9]
    objective = whence.from_sklearn(estimator, x, y)
    exact = whence.influence(objective, queries, indices=indices).values
    monkeypatch.setattr("whence.curvature.precision.SMALL", 5)
    monkeypatch.setattr("whence.curvature.prepare._factor_is_cheaper", lambda *_: direct)
    large = whence.influence(whence.from_sklearn(estimator, x, y), queries, indices=indices)
    assert exact.dtype == np.float64
    assert large.values.dtype == np.float32
    assert np.linalg.norm(large.values - exact) < 1e-4 * np.linalg.norm(exact)
    assert large.diagnostics is not None
    assert "float32" in large.diagnostics.solver


def test_self_influence_of_wide_sparse_rows_is_that_of_the_dense_hessian() -> None:
    rng = np.random.default_rng(0)
    x = rng.poisson(0.05, size=(120, 400)).astype(float)
    x[:, :10] += rng.poisson(1.0, size=(120, 10))
    y = rng.integers(0, 2, 120)
    rows = sparse.csr_array(x)
    model = LogisticRegression(C=50, tol=1e-12, max_iter=10_000, solver="newton-cg").fit(rows, y)
    p = model.predict_proba(rows)[:, 1]
    design = np.c_[x, np.ones(120)]
    hessian = design.T @ ((p * (1 - p))[:, None] * design) / 120
    hessian[np.diag_indices(400)] += 1 / (50 * 120)
    leverage = np.einsum("ni,ni->n", design, np.linalg.solve(hessian, design.T).T)
    found = whence.self_influence(whence.from_sklearn(model, rows, y))
    np.testing.assert_allclose(found, (p - y) ** 2 * leverage / 120, rtol=1e-6)
