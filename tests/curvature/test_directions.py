"""Columns of a square root of the loss Hessian: their outer products add up to it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import whence
from whence.curvature.directions import Directions, Fisher
from whence.objective.derived_losses import CallableLoss, OneVersusRest
from whence.objective.losses import Loss, output_hessian

_B = 3


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


CASES: dict[str, tuple[Loss, Tensor, Tensor]] = {
    "softmax": (whence.CrossEntropy(), drawn(_B, 4), torch.tensor([0, 3, 1])),
    "two numbers": (whence.SquaredError(), drawn(_B, 2), drawn(_B, 2)),
    "classes apart": (OneVersusRest(whence.Logistic()), drawn(_B, 3), torch.tensor([0, 2, 1])),
    "one sum": (CallableLoss(lambda f, y: (f.sum(1) - y).square()), drawn(_B, 3), drawn(_B)),
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


TOKENS = torch.tensor([[0, 3, -100], [2, 2, 1], [1, -100, -100]])


def test_columns_of_tokens_give_the_hessian_of_each() -> None:
    outputs, loss = drawn(_B, 3, 4), whence.CrossEntropy()
    roots = Directions(loss, "expected", 0)(outputs, TOKENS)
    p = outputs.softmax(-1)
    exact = torch.diag_embed(p) - p.unsqueeze(3) * p.unsqueeze(2)
    exact *= (TOKENS >= 0)[..., None, None]
    torch.testing.assert_close(roots @ roots.mT, exact)


@pytest.mark.parametrize("fisher", ["expected", "sampled"])
def test_columns_of_different_tokens_cancel_in_the_mean(fisher: Fisher) -> None:
    times, loss = 3000, whence.CrossEntropy()
    many = drawn(1, 2, 3).repeat(times, 1, 1), torch.tensor([[0, 2]]).repeat(times, 1)
    columns = Directions(loss, fisher, 0)(*many)
    first, second = columns[:, 0], columns[:, 1]
    own, between = (first @ first.mT).mean(0), (first @ second.mT).mean(0)
    assert float(between.norm()) < 0.1 * float(own.norm())
    p = many[0][0, 0].softmax(-1)
    exact = torch.diag(p) - torch.outer(p, p)
    assert float((own - exact).norm() / exact.norm()) < 0.1


def test_draws_do_not_depend_on_padding_nor_on_batches() -> None:
    outputs, loss = drawn(_B, 3, 4), whence.CrossEntropy()
    for fisher in ("expected", "sampled"):
        whole = Directions(loss, fisher, 5)(outputs, TOKENS)
        apart = Directions(loss, fisher, 5)
        parts = [apart(outputs[i : i + 1], TOKENS[i : i + 1]) for i in range(_B)]
        torch.testing.assert_close(torch.cat(parts), whole)
        padded = functional.pad(outputs, (0, 0, 0, 2)), functional.pad(TOKENS, (0, 2), value=-100)
        torch.testing.assert_close(Directions(loss, fisher, 5)(*padded)[:, :3], whole)


def test_numbers_of_a_sequence_curve_alone() -> None:
    outputs, targets = drawn(_B, 3, 2), torch.zeros(_B, 3, 2)
    roots = Directions(whence.SquaredError(), "expected", 0)(outputs, targets)
    flat = roots.flatten(1, 2)
    torch.testing.assert_close(flat @ flat.mT, torch.eye(6).double().expand(_B, 6, 6))
