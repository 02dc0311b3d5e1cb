"""Curvatures and gradients as operators, against matrices and gradients one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.linear.test_objective import CASES, gradients, hessian
from tests.network.zoo import ZOO, objective_of
from whence.curvature import exact
from whence.curvature.exact import GGN, EmpiricalFisher, Gradients, Hessian
from whence.linalg import materialize


@pytest.mark.parametrize("name", ZOO)
def test_formed_from_gradients_it_is_what_multiplies(name: str) -> None:
    objective = objective_of(name)
    weights = torch.linspace(0, 2, len(objective.train), dtype=objective.params.dtype)
    curvature = GGN(replace(objective, weights=weights))
    torch.testing.assert_close(curvature.dense(), materialize(curvature), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", [Hessian, GGN])
def test_a_sample_is_the_curvature_on_the_examples_drawn(kind: type[Hessian] | type[GGN]) -> None:
    objective = CASES["softmax"]()
    drawn = torch.randint(40, (6,), generator=torch.Generator().manual_seed(3))
    found = kind(objective).batched(6).sample(torch.Generator().manual_seed(3))
    expected = hessian(objective.restricted(drawn.numpy()))
    torch.testing.assert_close(materialize(found), expected)
    torch.testing.assert_close(materialize(kind(objective).batched(6)), hessian(objective))
    one = kind(objective).sample(torch.Generator().manual_seed(3))
    expected = hessian(objective.restricted(drawn[:1].numpy()))
    torch.testing.assert_close(materialize(one), expected)


def test_the_empirical_fisher_is_the_second_moment_of_gradients() -> None:
    objective = CASES["softmax"]()
    G = gradients(objective, objective.params)
    moment = (objective.weights * G.T) @ G / len(G) + torch.diag(objective.l2)
    found = EmpiricalFisher(objective)
    torch.testing.assert_close(materialize(found), moment)
    torch.testing.assert_close(materialize(found.T), moment)
    assert (found.shape, found.dtype) == (tuple(moment.shape), torch.float64)


def test_gradients_are_rows_that_come_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = CASES["softmax"]()  # of 18 parameters
    G = gradients(objective, objective.params)
    found = Gradients(objective, objective.train, objective.loss)
    assert (found.shape, found.dtype) == (tuple(G.shape), torch.float64)
    torch.testing.assert_close(found.mean()[:, 0], G.mean(0))
    (whole,) = found.row_blocks()
    torch.testing.assert_close(whole, G.T)
    monkeypatch.setattr(exact, "_COLUMNS", 18 * 15)
    blocks = list(found.row_blocks())
    assert [block.shape[1] for block in blocks] == [15, 15, 10]
    torch.testing.assert_close(torch.cat(blocks, 1), G.T)
    assert [list(where) for where in exact.blocks(5, 18 * 7)] == [[0, 1], [2, 3], [4]]
