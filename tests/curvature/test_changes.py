"""Newton steps of changed objectives against the dense equations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.linear.test_objective import CASES, gradients, hessian, random
from whence.curvature import changes
from whence.curvature.changes import (
    Changes,
    GroupChange,
    _CurvatureRoots,
    change_tiles,
    inverse_or_zero,
    single_changes,
)
from whence.linalg import Cholesky, Dense
from whence.linear.objective import LinearObjective
from whence.objective.objective import risk_gradient

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


def prepared(objective: LinearObjective) -> list[tuple[Changes, list[Tensor]]]:
    """Changes of both kinds, each with the example weights after it, column by column."""
    inverse = Cholesky().prepare(Dense(hessian(objective)))
    where = np.array([3, 5])
    some, w = objective.train.subset(where), objective.weights
    deltas = torch.tensor([-float(w[3]), 0.75], dtype=torch.float64)
    single = single_changes(objective, inverse, some, deltas)
    other = objective.train.subset(np.array([8]))
    parts = ((some, deltas.unsqueeze(1)), (other, -w[8:9].unsqueeze(1)))
    group = GroupChange(objective=objective, parts=parts, inverse=inverse)
    after = [w.clone() for _ in range(3)]
    after[0][3] = 0
    after[1][5] += 0.75
    after[2][[3, 5, 8]] = torch.tensor([0, float(w[5]) + 0.75, 0], dtype=torch.float64)
    return [(single, after[:2]), (group, after[2:])]


def test_gradients_are_those_of_the_changed_objective(objective: LinearObjective) -> None:
    for change, after in prepared(objective):
        deltas = 0.2 * random(len(objective.params), len(after))
        none = torch.zeros_like(deltas)
        torch.testing.assert_close(change.initial_gradient(), change.gradient(none), **_EXACT)
        for j, weights in enumerate(after):
            moved = objective.at(objective.params + deltas[:, j]).reweighted(weights)
            expected = risk_gradient(moved) - risk_gradient(objective)
            torch.testing.assert_close(change.gradient(deltas)[:, j], expected, **_EXACT)


def test_refining_is_a_step_with_the_updated_matrix(objective: LinearObjective) -> None:
    """Nocedal and Wright (2006), equation 6.17, with matrices."""
    for change, after in prepared(objective):
        deltas = change.newton() + 0.01 * random(len(objective.params), len(after))
        for j, weights in enumerate(after):
            s, here = deltas[:, j], change.gradient(deltas)[:, j]
            y = here - change.initial_gradient()[:, j]
            H = torch.linalg.inv(hessian(objective.reweighted(weights)))
            rho = 1 / (y @ s)
            left = torch.eye(len(s)).double() - rho * torch.outer(s, y)
            updated = left @ H @ left.T + rho * torch.outer(s, s)
            found = change.refine(deltas)[:, j]
            torch.testing.assert_close(found, s - updated @ here, rtol=1e-7, atol=1e-9)


def test_columns_alone_and_the_residual_of_their_solves(objective: LinearObjective) -> None:
    single = prepared(objective)[0][0]
    assert isinstance(single, changes.SingleChanges)
    second = single.select(torch.tensor([1]))
    torch.testing.assert_close(second.newton(), single.newton()[:, 1:])
    torch.testing.assert_close(second.initial_gradient(), single.initial_gradient()[:, 1:])
    assert single.residual == pytest.approx(0, abs=1e-10)
    assert replace(single, b=1.1 * single.b).residual == pytest.approx(0.1)


def test_rows_of_curvature_add_up_to_it(objective: LinearObjective) -> None:
    group, (weights,) = prepared(objective)[1]
    roots, p = _CurvatureRoots(objective, group.parts), len(objective.params)
    signs = torch.tensor([-1.0, 1.0, -1.0]).double().repeat_interleave(roots.c)
    assert roots.shape == (3 * objective.c, p)
    eye = torch.eye(p, dtype=torch.float64)
    rows = roots @ eye
    torch.testing.assert_close(roots.T @ torch.eye(len(rows)).double(), rows.T)
    after = hessian(objective.reweighted(weights))
    torch.testing.assert_close(
        rows.T @ (signs.unsqueeze(1) * rows), after - hessian(objective), rtol=1e-8, atol=1e-12
    )


def test_singular_matrices_are_zero_along_what_they_lack() -> None:
    matrices = torch.tensor([[[2.0, 1.0], [0.0, 4.0]], [[5.0, 0.0], [0.0, 1e-12]]]).double()
    found = inverse_or_zero(matrices)
    torch.testing.assert_close(found[0], torch.linalg.inv(matrices[0]))
    torch.testing.assert_close(found[1], torch.diag(torch.tensor([0.2, 0.0]).double()))
    regular = inverse_or_zero(matrices[:1])
    torch.testing.assert_close(regular[0], torch.linalg.inv(matrices[0]))


def test_tiles_hold_as_many_changes_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = CASES["logistic"]()  # of 6 parameters
    monkeypatch.setattr(changes, "_TILE", 40)
    assert [len(range(7)[tile]) for tile in change_tiles(objective, 7, 3)] == [2, 2, 2, 1]
