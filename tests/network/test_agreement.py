"""Modules that mix up the examples of a batch, against differentiation of the user's own module."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import whence
from whence.errors import UnsupportedModel

_LENGTHS = [5, 5, 5, 3, 2, 4, 1, 5]


def texts() -> Tensor:
    """Texts of which the first are of one length, filled up by zeros."""
    torch.manual_seed(0)
    tokens = torch.randint(1, 9, (len(_LENGTHS), 5))
    return tokens * (torch.arange(5) < torch.tensor(_LENGTHS)[:, None])


class Sorted(nn.Module):
    """Sorts its batch by length, as is done before packing, and puts the answers back in order."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 4, padding_idx=0)
        self.layer, self.last = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        order = (tokens != 0).sum(1).argsort(descending=True, stable=True)
        hidden = self.layer(self.table(tokens[order])).tanh().sum(1)
        found: Tensor = self.last(hidden[order.argsort()])
        return found


class Unpadded(Sorted):
    """Puts only tokens through its layer, the padding left out."""

    def forward(self, tokens: Tensor) -> Tensor:
        there = tokens != 0
        hidden = self.table(tokens)
        found = torch.zeros_like(hidden)
        found[there] = self.layer(hidden[there]).tanh()
        answer: Tensor = self.last(found.sum(1))
        return answer


class Scaled(Sorted):
    """Sorts, then scales each text by a parameter that enters by broadcasting."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(4))

    def forward(self, tokens: Tensor) -> Tensor:
        order = (tokens != 0).sum(1).argsort(descending=True, stable=True)
        hidden = (self.table(tokens[order]).sum(1) * self.scale).tanh()
        found: Tensor = self.last(hidden[order.argsort()])
        return found


@pytest.mark.parametrize("kind", [Sorted, Unpadded, Scaled])
@pytest.mark.parametrize("batch_size", [None, 1, 4])
def test_layers_that_see_the_batch_in_another_order(
    kind: type[nn.Module], batch_size: int | None
) -> None:
    """The first texts stay where they are in their batch, where all rules hold."""
    tokens = texts()
    model, y = kind().double(), torch.arange(len(tokens)) % 3
    data = (tokens, y)
    objective = whence.from_torch(model, whence.CrossEntropy(), data, batch_size=batch_size)
    found = objective.gradient_columns(objective.train, objective.loss).T
    for row, x, label in zip(found, tokens, y, strict=True):
        loss = nn.functional.cross_entropy(model(x[None]), label[None])
        pieces = torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)
        exact = torch.cat([piece.flatten() for piece in pieces])
        torch.testing.assert_close(row, exact, rtol=1e-10, atol=1e-12)


def test_outputs_that_depend_on_the_others_in_the_middle_of_a_batch_are_refused() -> None:
    class Leaning(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            found = super().forward(x)
            if len(found) > 3:
                found = torch.cat([found[:2], found[2:3] + found[1:2], found[3:]])
            return found

    data = torch.randn(8, 4), torch.arange(8) % 3
    with pytest.raises(UnsupportedModel, match="came in another order"):
        whence.from_torch(Leaning(4, 3), whence.CrossEntropy(), data)


def test_models_that_need_a_batch_are_refused() -> None:
    class Squeezed(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).squeeze()

    data = torch.randn(8, 4), torch.arange(8) % 3
    with pytest.raises(UnsupportedModel, match=r"\[1, 3\] for one example alone. Got \[3\]"):
        whence.from_torch(Squeezed(4, 3), whence.CrossEntropy(), data)
    norm = nn.BatchNorm1d(4, track_running_stats=False)
    model = nn.Sequential(norm, nn.Linear(4, 3)).eval()
    with pytest.raises(UnsupportedModel, match="one example alone. Got one that says: Expected"):
        whence.from_torch(model, whence.CrossEntropy(), data)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit
def test_models_that_torch_does_not_differentiate_are_refused_in_words() -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            hidden = torch.utils.checkpoint.checkpoint(self.first, x.tanh(), use_reentrant=False)
            found: Tensor = self.second(hidden)
            return found

    class Changing(Checkpointed):
        def forward(self, x: Tensor) -> Tensor:
            hidden = x.clone()
            found: Tensor = self.second(self.first(hidden))
            hidden.zero_()
            return found

    data = torch.randn(8, 4), torch.arange(8) % 3
    for kind in (Checkpointed, Changing):
        with pytest.raises(UnsupportedModel, match="Switch off gradient checkpointing"):
            whence.from_torch(kind(), whence.CrossEntropy(), data)
    plain = nn.Linear(4, 3)
    with pytest.raises(UnsupportedModel, match=r"Got DataParallel, .*Pass model\.module"):
        whence.from_torch(nn.DataParallel(plain), whence.CrossEntropy(), data)
    with pytest.raises(UnsupportedModel, match="not what torch.jit made of it"):
        whence.from_torch(torch.jit.trace(plain, data[0]), whence.CrossEntropy(), data)


class Codes(nn.Parameter):
    """Weights that are frozen, and know whether they are packed."""

    quant_state: Any

    def __deepcopy__(self, memo: dict[int, Any]) -> Codes:
        found = Codes(self.data.clone(), requires_grad=False)
        found.quant_state = copy.copy(self.quant_state)
        return found


class InFourBits(nn.Module):
    """As bitsandbytes has it on a CPU: packed for an operation that has no derivative."""

    def __init__(self) -> None:
        super().__init__()
        self.support_avx512bf16_for_cpu = True
        self.weight = Codes(torch.randn(4, 4, dtype=torch.float64), requires_grad=False)
        self.weight.quant_state = SimpleNamespace(packing_format_for_cpu=False)

    def forward(self, x: Tensor) -> Tensor:
        found = x @ self.weight.T
        packs = self.support_avx512bf16_for_cpu and not self.training and not x.requires_grad
        state = self.weight.quant_state
        state.packing_format_for_cpu |= packs
        return found.detach() if state.packing_format_for_cpu else found


def test_layers_in_four_bits_compute_as_in_training() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), InFourBits(), nn.Tanh(), nn.Linear(4, 3)).double().eval()
    x, y = torch.randn(5, 4, dtype=torch.float64), torch.arange(5) % 3
    objective = whence.from_torch(model, whence.CrossEntropy(), (x, y))
    found = objective.gradient_sum(objective.train, objective.loss, torch.ones(5, 1).double())
    plain = nn.Sequential(model[0], nn.Linear(4, 4, bias=False), *model[2:]).double()
    plain[1].weight = model[1].weight
    loss = nn.functional.cross_entropy(plain(x), y, reduction="sum")
    pieces = torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])
    exact = torch.cat([piece.flatten() for piece in pieces])
    torch.testing.assert_close(found[:, 0], exact, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        model[1](x)  # as an answer in eval mode does
    with pytest.raises(UnsupportedModel, match="packed for inference"):
        whence.from_torch(model, whence.CrossEntropy(), (x, y))


def test_functions_that_say_they_have_no_derivative() -> None:
    class Scaled(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, x: Tensor, scale: Tensor) -> Tensor:
            context.save_for_backward(scale)
            return x * scale

        @staticmethod
        def backward(context: Any, slope: Tensor) -> tuple[Tensor, None]:
            (scale,) = context.saved_tensors
            return slope * scale, None

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 3)
            self.scale = nn.Parameter(torch.randn(4))

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.last(Scaled.apply(self.first(x), self.scale))  # type: ignore[no-untyped-call]
            return found

    torch.manual_seed(0)
    data = torch.randn(5, 4, dtype=torch.float64), torch.arange(5) % 3
    objective = whence.from_torch(Model().double(), whence.CrossEntropy(), data)
    found = objective.gradient_columns(objective.train, objective.loss)
    exact = objective.per_example.looped(*data, objective.loss.gradient)
    torch.testing.assert_close(found.T, exact, rtol=1e-10, atol=1e-12)
    assert not found[objective.slices["scale"]].any()
