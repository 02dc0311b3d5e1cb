"""The stochastic series that EKFAC starts, against the dense damped Gauss–Newton solve."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import whence
from whence.curvature.exact import GGN
from whence.errors import NotConvergedWarning
from whence.linalg import LinearOperator, materialize
from whence.objective.objective import Objective

_DAMPING = 1e-2


@pytest.fixture(scope="module")
def objective() -> Objective:
    torch.manual_seed(0)
    data = torch.randn(200, 6, dtype=torch.float64), torch.arange(200) % 4
    net = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 4))
    recipe = whence.Recipe(
        learning_rate=0.2, momentum=0.9, batch_size=20, epochs=30, dtype=torch.float64
    )
    run = whence.train(net, whence.CrossEntropy(), data, recipe)
    return whence.from_torch(run.model, whence.CrossEntropy(), data)


@pytest.fixture(scope="module")
def problem(objective: Objective) -> tuple[LinearOperator, Tensor, Tensor]:
    """The operator, five gradients and the exact answers."""
    A = GGN(objective).damped(_DAMPING)
    few = objective.train.subset(np.arange(5))
    B = objective.gradient_sum(few, objective.loss, torch.eye(5, dtype=torch.float64))
    return A, B, torch.linalg.solve(materialize(A), B)


def test_converges_to_the_dense_solve(problem: tuple[LinearOperator, Tensor, Tensor]) -> None:
    A, B, exact = problem
    alone = whence.EKFAC().prepare(A).matmat(B)
    solver = whence.LiSSA(
        depth=200, preconditioner=whence.EKFAC(), batch_size=100, averaged=True, rtol=0.1
    )
    solution = solver.prepare(A).solve(B)
    assert solution.converged
    error, error_alone = (float((X - exact).norm() / exact.norm()) for X in (solution.value, alone))
    assert error < 0.1
    assert error < 0.2 * error_alone


def test_takes_fewer_steps_than_without(problem: tuple[LinearOperator, Tensor, Tensor]) -> None:
    """On the whole data, so that only the number of steps counts."""
    A, B, _ = problem
    whole = whence.linalg.Dense(materialize(A))
    M = whence.EKFAC().prepare(A)
    steps = {}
    for name, preconditioner in (("with", M), ("without", None)):
        for depth in (20, 40, 80, 160, 320):
            solver = whence.LiSSA(depth=depth, preconditioner=preconditioner)
            if solver.prepare(whole).solve(B).residual < 0.02:
                steps[name] = depth
                break
    assert steps["with"] <= steps["without"] / 2


def test_is_a_solver_of_influence(objective: Objective) -> None:
    asked = objective.train.subset(np.arange(3))
    solver = whence.LiSSA(
        depth=200, preconditioner=whence.EKFAC(), batch_size=100, averaged=True, rtol=0.2
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)  # of the fit
        exact = whence.influence(objective, asked, solver=whence.CG(), damping=_DAMPING).values
        found = whence.influence(objective, asked, solver=solver, damping=_DAMPING)
    assert found.diagnostics is not None
    assert 0 < found.diagnostics.residual < 0.2
    for row, expected in zip(found.values, exact, strict=True):
        assert np.corrcoef(row, expected)[0, 1] > 0.99
