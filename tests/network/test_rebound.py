"""Functions that a module holds, in its copy, against differentiation of the user's own module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import whence
from whence.errors import UnsupportedModel

_MODELS: list[Any] = []  # that functions know as a global name


class Holding(nn.Module):
    """Two layers, the first of which is called by what a maker makes of the module."""

    def __init__(self, make: Callable[[Any], Any], call: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 3)
        self.call = call
        self.held = make(self)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.call(self.held, x).tanh())
        return found


def encloses(module: Any) -> Any:
    return lambda x: module.first(x)


def in_containers(module: Any) -> Any:
    layers = [module.first]
    return {"inner": [lambda x: layers[0](x)]}


def by_default(module: Any) -> Any:
    return lambda x, layer=module.first: layer(x)


def by_keyword(module: Any) -> Any:
    def call(x: Tensor, *, layers: tuple[Any, ...] = (module.first,)) -> Tensor:
        found: Tensor = layers[0](x)
        return found

    return call


def encloses_itself(module: Any) -> Any:
    def call(x: Tensor, depth: int = 2) -> Tensor:
        return x if depth == 0 else call(module.first(x).sin(), depth - 1)

    return call


def plain(held: Any, x: Tensor) -> Tensor:
    found: Tensor = held(x)
    return found


@pytest.mark.parametrize(
    ("make", "call"),
    [
        (encloses, plain),
        (in_containers, lambda held, x: held["inner"][0](x)),
        (by_default, plain),
        (by_keyword, plain),
        (encloses_itself, plain),
    ],
)
def test_functions_call_the_copy(make: Any, call: Any) -> None:
    """They called the user's own module, whose parameters were constants: gradients of zero."""
    check(Holding(make, call))


def test_hooks_call_the_copy() -> None:
    model = Holding(lambda module: None, lambda _, x: x)
    model.last.register_forward_hook(lambda layer, given, out: out + model.first(given[0])[:, :3])
    check(model)


def check(model: nn.Module) -> None:
    """Compare gradients with those of the user's own module."""
    torch.manual_seed(0)
    model = model.double()
    x, y = torch.randn(5, 4, dtype=torch.float64), torch.arange(5) % 3
    objective = whence.from_torch(model, whence.CrossEntropy(), (x, y))
    found = objective.gradient_columns(objective.train, objective.loss).T
    for row, one, label in zip(found, x, y, strict=True):
        loss = nn.functional.cross_entropy(model(one[None]), label[None])
        pieces = torch.autograd.grad(loss, list(model.parameters()))
        exact = torch.cat([piece.flatten() for piece in pieces])
        torch.testing.assert_close(row, exact, rtol=1e-10, atol=1e-12)


def test_what_still_reads_the_users_module_is_refused() -> None:
    data = torch.randn(5, 4), torch.arange(5) % 3
    model = Holding(lambda module: None, lambda _, x: _MODELS[0].first(x))
    _MODELS[:] = [model]
    with pytest.raises(UnsupportedModel, match="reads 'first.weight' of the module it was made"):
        whence.from_torch(model, whence.CrossEntropy(), data)
