"""Columns of a square root of the loss Hessian: their outer products add up to it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import whence
from whence.curvature.directions import Directions
from whence.objective.losses import Loss, output_hessian

_B = 3


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


CASES: dict[str, tuple[Loss, Tensor, Tensor]] = {
    "softmax": (whence.CrossEntropy(), drawn(_B, 4), torch.tensor([0, 3, 1])),
    "two numbers": (whence.SquaredError(), drawn(_B, 2), drawn(_B, 2)),
    "one number": (whence.Logistic(), drawn(_B, 1), torch.tensor([0.0, 1.0, 1.0]).double()),
}


@pytest.mark.parametrize("name", CASES)
def test_all_columns_give_the_hessian(name: str) -> None:
    loss, outputs, targets = CASES[name]
    roots = Directions(loss, "expected", 0)(outputs, targets)
    exact = output_hessian(loss, outputs, targets)
    torch.testing.assert_close(roots @ roots.mT, exact)


@pytest.mark.parametrize("name", CASES)
def test_one_random_column_gives_it_in_the_mean(name: str) -> None:
    loss, outputs, targets = CASES[name]
    times = 4000
    many = outputs.repeat(times, 1), targets.repeat(times, *[1] * (targets.ndim - 1))
    columns = Directions(loss, "sampled", 0)(*many)
    assert columns.shape == (_B * times, outputs.shape[1], 1)
    mean = (columns @ columns.mT).unflatten(0, (times, _B)).mean(0)
    exact = output_hessian(loss, outputs, targets)
    assert float((mean - exact).norm() / exact.norm()) < 0.1


@pytest.mark.parametrize("name", CASES)
def test_the_empirical_column_is_the_gradient_of_the_loss(name: str) -> None:
    loss, outputs, targets = CASES[name]
    leaf = outputs.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(leaf, targets).sum(), leaf)
    found = Directions(loss, "empirical", 0)(outputs, targets)
    torch.testing.assert_close(found, slope.unsqueeze(2))
