"""A group taken out of a Kronecker inverse against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import whence
from tests.curvature.approximations import kronecker
from tests.network.zoo import SIZE, objective_of
from whence.curvature.downdate import downdated
from whence.linalg import Dense, materialize
from whence.network.objective import ModuleObjective
from whence.objective.losses import output_hessian

pytestmark = pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")


def spd(p: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    M = torch.randn(p, p, generator=generator, dtype=torch.float64)
    return M @ M.T / p + 0.1 * torch.eye(p).double()


def kept_positive(A: Tensor, C: Tensor, least: float) -> Tensor:
    """(A − C)⁻¹ by the generalized eigenproblem C x = k A x, no 1 − k below μ ‖x‖²."""
    root = torch.linalg.cholesky(A)
    half = torch.linalg.solve_triangular(root, C, upper=False)
    k, vectors = torch.linalg.eigh(torch.linalg.solve_triangular(root, half.T, upper=False))
    X = torch.linalg.solve_triangular(root.T, vectors, upper=True)
    return X @ torch.diag(1 / torch.maximum(1 - k, least * X.square().sum(0))) @ X.T


def test_it_is_the_inverse_while_that_is_positive() -> None:
    A = spd(12, 0)
    U = 0.1 * torch.randn(12, 4, generator=torch.Generator().manual_seed(1)).double()
    signs = torch.tensor([-1.0, 1.0, -1.0, -1.0]).double()
    found = downdated(Dense(torch.linalg.inv(A)), U, signs, 1e-6)
    exact = torch.linalg.inv(A + U @ torch.diag(signs) @ U.T)
    torch.testing.assert_close(materialize(found), exact, rtol=1e-9, atol=1e-12)


def test_columns_that_depend_on_each_other_do_no_harm() -> None:
    A = spd(8, 0)
    u = 0.2 * torch.randn(8, 1, generator=torch.Generator().manual_seed(1)).double()
    found = downdated(
        Dense(torch.linalg.inv(A)), torch.cat([u, u], 1), -torch.ones(2).double(), 1e-6
    )
    exact = torch.linalg.inv(A - 2 * u @ u.T)
    torch.testing.assert_close(materialize(found), exact, rtol=1e-8, atol=1e-10)


def test_no_direction_keeps_less_than_the_least_curvature() -> None:
    A, least = spd(9, 2), 0.05
    U = 2.0 * torch.randn(9, 3, generator=torch.Generator().manual_seed(3)).double()
    signs = -torch.ones(3).double()
    assert torch.linalg.eigvalsh(A - U @ U.T)[0] < 0
    found = materialize(downdated(Dense(torch.linalg.inv(A)), U, signs, least))
    exact = kept_positive(A, U @ U.T, least)
    torch.testing.assert_close(found, exact, rtol=1e-8, atol=1e-10)
    assert torch.linalg.eigvalsh(found)[0] > 0


def group_curvature(objective: ModuleObjective, where: list[int]) -> Tensor:
    """(1/n) Σ wᵢ Jᵢᵀ Sᵢ Jᵢ of a group, from whole Jacobians."""
    total = torch.zeros(len(objective.params), len(objective.params)).double()
    for i in where:
        one = objective.train.subset(np.array([i]))
        outputs = objective.outputs(one)
        c = outputs.shape[1]
        J = objective.vjp(one, torch.eye(c).double().unsqueeze(0)).T
        S = output_hessian(objective.loss, outputs, one.targets)[0]
        total += objective.weights[i] / SIZE * J.T @ S @ J
    return total


@pytest.mark.parametrize("name", ["mlp", "cnn", "shared"])
def test_group_effect_in_the_metric_of_ekfac(name: str) -> None:
    objective = objective_of(name)
    where, damping, solver = [0, 3], 2.0, whence.EKFAC()
    queries = objective.train.subset(np.arange(2))
    A = materialize(kronecker(objective)) + damping * torch.eye(len(objective.params)).double()
    weights = torch.zeros(SIZE, 1).double()
    weights[where, 0] = objective.weights[where] / SIZE
    pull = objective.gradient_sum(objective.train, objective.loss, weights)
    options = {"solver": solver, "damping": damping}
    first = whence.group_effect(objective, where, queries, order="first", **options)
    slopes = objective.gradient_dot(queries, objective.loss, torch.linalg.solve(A, pull))
    np.testing.assert_allclose(first, slopes[:, 0], rtol=1e-8)
    least = float(torch.linalg.eigvalsh(A)[0])
    delta = kept_positive(A, group_curvature(objective, where), least) @ pull
    moved = objective.at(objective.params + delta[:, 0])
    before = objective.loss(objective.outputs(queries), queries.targets)
    after = objective.loss(moved.outputs(queries), queries.targets)
    newton = whence.group_effect(objective, where, queries, **options)
    np.testing.assert_allclose(newton, after - before, rtol=1e-7)


def test_large_groups_of_an_undamped_metric_give_finite_numbers() -> None:
    objective = objective_of("mlp")
    queries = objective.train.subset(np.arange(2))
    for order in ("newton", "refined"):
        found = whence.group_effect(
            objective, [0, 2, 3], queries, order=order, solver=whence.EKFAC(), damping=0.05
        )
        assert np.isfinite(found).all()


def test_groups_of_sequences_iterate() -> None:
    objective = objective_of("gpt2")
    queries = objective.train.subset(np.arange(2))
    found = whence.group_effect(objective, [0, 3], queries, solver=whence.EKFAC(), damping=1e4)
    first = whence.group_effect(
        objective, [0, 3], queries, order="first", solver=whence.EKFAC(), damping=1e4
    )
    np.testing.assert_allclose(found, first, rtol=0.01)


def test_nothing_taken_out_changes_nothing() -> None:
    A = spd(6, 4)
    inverse = Dense(torch.linalg.inv(A))
    found = downdated(inverse, torch.zeros(6, 2).double(), -torch.ones(2).double(), 1e-6)
    torch.testing.assert_close(materialize(found), materialize(inverse))
    small = 1e-7 * torch.randn(6, 2, generator=torch.Generator().manual_seed(5)).double()
    found = downdated(inverse, small, -torch.ones(2).double(), 1e-6)
    assert found.directions.shape == (6, 2)
