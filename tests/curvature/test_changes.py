"""Newton steps of changed objectives against the dense equations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.linear.test_objective import CASES, gradients, hessian
from whence.curvature.changes import GroupChange, change_tiles, single_changes
from whence.linalg import Cholesky, Dense
from whence.linear.objective import LinearObjective

_NAMES = ["softmax without intercept", "logistic", "squared"]
_EXACT = {"rtol": 1e-8, "atol": 1e-10}


@pytest.fixture(params=_NAMES)
def objective(request: pytest.FixtureRequest) -> LinearObjective:
    return CASES[request.param]()


def without(objective: LinearObjective, *indices: int) -> Tensor:
    """The dense Hessian with some examples' weights at zero."""
    weights = objective.weights.clone()
    weights[list(indices)] = 0
    return hessian(objective.reweighted(weights))


def test_single_removals(objective: LinearObjective) -> None:
    inverse = Cholesky().prepare(Dense(hessian(objective)))
    where = np.array([0, 7, 39])
    weights = objective.weights[where]
    change = single_changes(objective, inverse, objective.train.subset(where), -weights)
    G = gradients(objective, objective.params)
    n = len(objective.train)
    v = torch.randn(len(objective.params), 3, dtype=torch.float64)
    for column, index in enumerate(where):
        pull = weights[column] / n * G[index]
        H = without(objective, int(index))
        torch.testing.assert_close(
            change.first()[:, column], torch.linalg.solve(hessian(objective), pull), **_EXACT
        )
        torch.testing.assert_close(
            change.newton()[:, column], torch.linalg.solve(H, pull), **_EXACT
        )
        torch.testing.assert_close(
            change.solve(v)[:, column], torch.linalg.solve(H, v[:, column]), **_EXACT
        )


def test_groups(objective: LinearObjective) -> None:
    inverse = Cholesky().prepare(Dense(hessian(objective)))
    where = np.arange(0, 20, 2)
    weights = objective.weights[where].unsqueeze(1)
    parts = ((objective.train.subset(where), -weights),)
    change = GroupChange(objective=objective, parts=parts, inverse=inverse)
    pull = gradients(objective, objective.params)[where].T @ weights / len(objective.train)
    exact = torch.linalg.solve(without(objective, *where.tolist()), pull)
    torch.testing.assert_close(change.newton(), exact, **_EXACT)
    assert not torch.allclose(change.first(), exact, rtol=0.01)


def test_refining_ends_at_the_changed_minimum(objective: LinearObjective) -> None:
    objective = objective.refit()
    inverse = Cholesky().prepare(Dense(hessian(objective)))
    where = np.array([3])
    change = single_changes(
        objective, inverse, objective.train.subset(where), -objective.weights[where]
    )
    deltas = change.newton()
    for _ in range(8):
        deltas = change.refine(deltas)
    weights = objective.weights.clone()
    weights[3] = 0
    refit = objective.reweighted(weights).refit()
    torch.testing.assert_close(deltas[:, 0], refit.params - objective.params, **_EXACT)


def test_tiles_cover_all_once() -> None:
    objective = CASES["logistic"]()
    covered = [i for tile in change_tiles(objective, 1200, 1) for i in range(1200)[tile]]
    assert covered == list(range(1200))


def test_refining_no_step_is_a_newton_step() -> None:
    """A step of length zero shows no curvature along itself: there is nothing to put in."""
    objective = CASES["logistic"]()
    inverse = Cholesky().prepare(Dense(hessian(objective)))
    where = np.array([3, 5])
    change = single_changes(
        objective, inverse, objective.train.subset(where), -objective.weights[where]
    )
    none = torch.zeros(len(objective.params), 2, dtype=torch.float64)
    torch.testing.assert_close(change.refine(none), change.newton(), **_EXACT)
