"""Gradients of what has no rule, mapped over examples, against the user's own module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import whence
from whence.network.objective import ModuleObjective


class Called(nn.Module):
    """A module, and a linear layer on what a function makes of its answer."""

    def __init__(self, inner: nn.Module, answer: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.answer, self.last = inner, answer, nn.LazyLinear(3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.answer(self.inner, x).flatten(1))
        return found


def plain(inner: Any, x: Tensor) -> Tensor:
    found: Tensor = inner(x).tanh()
    return found


def states(inner: Any, x: Tensor) -> Tensor:
    found: Tensor = inner(x)[0]
    return found


def time_first(inner: Any, x: Tensor) -> Tensor:
    found: Tensor = inner(x.transpose(0, 1)).mean(0)
    return found


def begun(inner: Any, x: Tensor) -> Tensor:
    found: Tensor = inner(x, torch.ones(1, len(x), 5).to(x))[0]
    return found


def bilinear(inner: Any, x: Tensor) -> Tensor:
    found: Tensor = inner(x, x.sin()).tanh()
    return found


def picked(inner: Any, x: Tensor) -> Tensor:
    """A function of some of the examples, which no pass can be mapped over."""
    found = torch.zeros(len(x), 5).to(x)
    found[x[:, 0] > 0] = inner(x[x[:, 0] > 0]).tanh()
    return found


_NORMS = nn.utils.parametrizations
_MODULES: dict[str, tuple[Callable[[], nn.Module], Any, tuple[int, ...]]] = {
    "weight norm": (lambda: _NORMS.weight_norm(nn.Linear(4, 5)), plain, (4,)),
    "spectral norm": (lambda: _NORMS.spectral_norm(nn.Linear(4, 5)), plain, (4,)),
    "orthogonal": (lambda: _NORMS.orthogonal(nn.Linear(4, 4)), plain, (4,)),
    "bilinear": (lambda: nn.Bilinear(4, 4, 5), bilinear, (4,)),
    "convolution": (lambda: nn.Conv3d(2, 4, 2), plain, (2, 3, 3, 3)),
    "transposed": (lambda: nn.ConvTranspose2d(2, 4, 3), plain, (2, 4, 4)),
    "lstm": (lambda: nn.LSTM(4, 5, 2, bidirectional=True, proj_size=2, batch_first=True), states,
             (6, 4)),
    "gru": (lambda: nn.GRU(4, 5, batch_first=True), states, (6, 4)),
    "begun gru": (lambda: nn.GRU(4, 5, batch_first=True), begun, (6, 4)),
    "time first": (lambda: nn.TransformerEncoderLayer(4, 2, 8), time_first, (6, 4)),
}  # fmt: skip


def objective_of(
    inner: Callable[[], nn.Module], answer: Any, shape: tuple[int, ...]
) -> tuple[nn.Module, Any, ModuleObjective]:
    """A module in float64 with its data and its objective."""
    torch.manual_seed(0)
    x, y = torch.randn(7, *shape, dtype=torch.float64), torch.arange(7) % 3
    model = Called(inner(), answer).double()
    model(x)
    model.eval()
    return model, (x, y), whence.from_torch(model, whence.CrossEntropy(), (x, y))


def exact(model: nn.Module, data: Any) -> Tensor:
    """The gradient of each example by itself, by the user's own module, [n, p]."""
    rows = []
    for x, y in zip(*data, strict=True):
        loss = nn.functional.cross_entropy(model(x[None]), y[None])
        pieces = torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)
        rows.append(torch.cat([piece.flatten() for piece in pieces]))
    return torch.stack(rows)


@pytest.mark.parametrize("name", _MODULES)
def test_gradients_are_those_of_each_example(name: str) -> None:
    model, data, objective = objective_of(*_MODULES[name])
    assert objective.mapped
    found = objective.gradient_columns(objective.train, objective.loss).T
    torch.testing.assert_close(found, exact(model, data), rtol=1e-10, atol=1e-12)


def test_modules_that_cannot_be_mapped_are_looped() -> None:
    model, data, objective = objective_of(lambda: nn.Linear(4, 5), picked, (4,))
    assert not objective.mapped
    for each in (objective, replace(objective, mapped=True)):
        found = each.gradient_columns(each.train, each.loss).T
        torch.testing.assert_close(found, exact(model, data), rtol=1e-10, atol=1e-12)


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
def test_ekfac_is_the_same() -> None:
    _, data, objective = objective_of(*_MODULES["lstm"])
    query = data[0][:2], data[1][:2]
    found, looped = (
        whence.influence(each, query, solver=whence.EKFAC()).values
        for each in (objective, replace(objective, mapped=False))
    )
    np.testing.assert_allclose(found, looped, rtol=1e-8)
