"""Removals that change all weights, against the dense equations of each changed objective."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.linear.test_objective import CASES, gradients, hessian, random
from whence.curvature.changes import single_changes
from whence.curvature.reweighting import Reweightings, kept_without
from whence.linalg import Cholesky, Dense
from whence.linear.objective import LinearObjective
from whence.objective.objective import risk_gradient

_EXACT = {"rtol": 1e-7, "atol": 1e-10}
_WHERE = [0, 7, 39]


@pytest.fixture(params=["softmax without intercept", "logistic"])
def objective(request: pytest.FixtureRequest) -> LinearObjective:
    return CASES[request.param]()


@pytest.fixture
def change(objective: LinearObjective) -> Reweightings:
    """Removals after which the other weights are a few percent larger or smaller."""
    inverse = Cholesky().prepare(Dense(hessian(objective)))
    removed = objective.train.subset(np.array(_WHERE))
    removals = single_changes(objective, inverse, removed, -objective.weights[_WHERE])
    scales = 1 + 0.05 * random(len(objective.train), 3)
    kept = kept_without(len(objective.train), torch.tensor(_WHERE))
    return Reweightings(removals=removals, after=objective.weights.unsqueeze(1) * scales * kept)


def pull(change: Reweightings) -> Tensor:
    """(1/n) Σ (Wᵢ − wᵢ) gᵢ, from gradients one by one."""
    objective = change.objective
    G = gradients(objective, objective.params)
    return G.T @ (change.after - objective.weights.unsqueeze(1)) / len(G)


def test_who_is_there() -> None:
    assert kept_without(3, torch.tensor([2, 0])).tolist() == [[1, 0], [1, 1], [0, 1]]


def test_steps_are_those_of_the_dense_matrices(change: Reweightings) -> None:
    objective = change.objective
    torch.testing.assert_close(change.initial_gradient(), pull(change), **_EXACT)
    first = -torch.linalg.solve(hessian(objective), pull(change))
    torch.testing.assert_close(change.first(), first, **_EXACT)
    v, newton, solved = random(len(first), 3), change.newton(), change.solve(random(len(first), 3))
    for j in range(3):
        matrix = hessian(objective.reweighted(change.after[:, j]))
        step = -torch.linalg.solve(matrix, pull(change)[:, j])
        torch.testing.assert_close(newton[:, j], step, **_EXACT)
        torch.testing.assert_close(solved[:, j], torch.linalg.solve(matrix, v[:, j]), **_EXACT)
    one = change.select(torch.tensor([2]))
    torch.testing.assert_close(one.newton(), newton[:, 2:], **_EXACT)
    assert one.residual == pytest.approx(0, abs=1e-9)


def test_the_gradient_is_that_of_the_changed_objective(change: Reweightings) -> None:
    objective = change.objective
    deltas = 0.1 * random(len(objective.params), 3)
    found = change.gradient(deltas)
    for j in range(3):
        moved = objective.at(objective.params + deltas[:, j]).reweighted(change.after[:, j])
        expected = risk_gradient(moved) - risk_gradient(objective)
        torch.testing.assert_close(found[:, j], expected, **_EXACT)


def test_weights_that_stay_are_a_plain_removal(change: Reweightings) -> None:
    objective = change.objective
    kept = kept_without(len(objective.train), torch.tensor(_WHERE))
    plain = replace(change, after=objective.weights.unsqueeze(1) * kept)
    torch.testing.assert_close(plain.newton(), change.removals.newton(), **_EXACT)
