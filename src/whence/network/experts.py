"""The rule of fused experts: a stack of matrices, of which each token goes through a few.

The transformers library has the experts of a mixture in one module, with parameters of three
dimensions: U [E, 2 m, d] leads into the experts, D [E, d, m] out of them, or both are stored
transposed. Its outputs are Σ_j s_tj D_e h(U_e x_t) for the experts e = index_tj of token t, with
shares s. A stack's gradient is a sum of outer products for each expert, made from the module's
inputs, its output gradients and one more pass through U.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from whence.network.calls import ModuleCall
from whence.network.gradients import Contribution, Outer, Rows, TwoSided
from whence.network.rule import Rule

_MARKS = ("has_gate", "has_bias", "is_transposed", "_apply_gate")


@final
@dataclass(frozen=True, eq=False)
class Routed(TwoSided):
    """Gradients of a stack of E matrices, one below the other, of which examples use some.

    Args:
        stacked: For each matrix in use its number, the examples that use it, [·], and their
            gradients.
        count: The number of examples, b.
        size: E.
        shape: The sides of one matrix, m and d.
    """

    stacked: tuple[tuple[int, Tensor, Outer], ...]
    count: int
    size: int
    shape: tuple[int, int]

    @property
    def sides(self) -> tuple[int, int]:
        """E m and d."""
        return self.size * self.shape[0], self.shape[1]

    def dot(self, v: Tensor) -> Tensor:
        """Return G V, matrix by matrix."""
        total = v.new_zeros(self.count, v.shape[1])
        for number, where, outer in self.stacked:
            total[where] += outer.dot(self._of(v, number)).to(total.dtype)
        return total

    def sum(self, w: Tensor) -> Tensor:
        """Return Gᵀ W, matrix by matrix."""
        m, d = self.sides
        total = w.new_zeros(m * d, w.shape[1])
        for number, where, outer in self.stacked:
            self._of(total, number).copy_(outer.sum(w[where]))
        return total

    def squares(self, w: Tensor) -> Tensor:
        """Return (G²)ᵀ w, matrix by matrix."""
        m, d = self.sides
        total = w.new_zeros(m * d, 1)
        for number, where, outer in self.stacked:
            self._of(total, number)[:, 0] = outer.squares(w[where])
        return total[:, 0]

    def between(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the products, matrix by matrix."""
        total = left.new_zeros(self.count, left.shape[1] * right.shape[1])
        for number, where, outer in self.stacked:
            total[where] += outer.between(self._of(left, number), right)
        return total

    def _of(self, rows: Tensor, number: int) -> Tensor:
        """Return the rows that belong to one matrix, of a tensor with as many for each."""
        each = len(rows) // self.size
        return rows[number * each : (number + 1) * each]


@final
class FusedExperts(Rule):
    """Σ_t δ_t x_tᵀ for each expert, over the tokens t that go through it."""

    names: ClassVar[frozenset[str]] = frozenset(
        name + end for name in ("gate_up_proj", "up_proj", "down_proj") for end in ("", "_bias")
    )

    def gradients(self, module: Any, name: str, a: Tensor, delta: Tensor) -> None:
        """Return `None`: an input alone does not say which experts it goes through."""

    def of_call(self, call: ModuleCall, name: str, delta: Tensor) -> Contribution | None:
        """Return the gradients of one stack, or of its biases, [E, ·]."""
        module: Any = call.module
        if len(call.rest) < 2 or getattr(module, "has_post_expert_norm", False):
            return None
        b, d = len(delta), delta.shape[-1]
        index, shares = call.rest[:2]
        if index.shape != shares.shape or index.ndim != 2 or call.inputs.shape != delta.shape:
            return None
        x, slopes = call.inputs.reshape(-1, d), delta.reshape(-1, d)
        if len(index) != len(x):
            return None
        stack = call.parameters[name]
        example = torch.arange(len(x), device=x.device) // (len(x) // b)
        found = self._experts(call, name, x, slopes)
        if name.endswith("_bias"):
            biases = stack.new_zeros(len(stack), b, stack.shape[1])
            for number, tokens, _, left in found:
                biases[number].index_add_(0, example[tokens], left.to(stack.dtype))
            return Rows(biases.transpose(0, 1).reshape(b, -1))
        stacked = []
        for number, tokens, right, left in found:
            sides = (right, left) if module.is_transposed else (left, right)
            stacked.append((number, *_by_example(example[tokens], b, *sides)))
        return Routed(tuple(stacked), b, len(stack), (stack.shape[1], stack.shape[2]))

    def _experts(
        self, call: ModuleCall, name: str, x: Tensor, slopes: Tensor
    ) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """Yield each expert in use: its tokens, what a matrix of it multiplies, and its δ."""
        index, shares = call.rest[:2]
        live = slopes.any(1).unsqueeze(1)  # the others, such as padding, are in no gradient
        into = "gate_up_proj" if call.module.has_gate else "up_proj"
        for number in range(len(call.parameters[into])):
            tokens, choice = torch.where((index == number) & live)
            if not len(tokens):
                continue
            tokens, order = torch.sort(tokens, stable=True)
            share = shares[tokens, choice[order]].unsqueeze(1)
            seen, left = x[tokens], slopes[tokens] * share.to(slopes.dtype)
            yield (number, tokens, *_through(call, into, number, name, seen, left))


def _through(
    call: ModuleCall, into: str, number: int, name: str, x: Tensor, left: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what a matrix of one expert multiplies, and the gradients of its products.

    Args:
        call: The call of the experts.
        into: The name of the stack that leads into an expert.
        number: The expert.
        name: The parameter of which the gradients are wanted.
        x: The expert's input, [t, d].
        left: The gradients of what it gives, [t, d].
    """
    module: Any = call.module
    inner = _linear(call, into, number, x.to(call.dtype)).detach()
    with torch.enable_grad():
        inner.requires_grad_()
        hidden = module._apply_gate(inner) if module.has_gate else module.act_fn(inner)
    if name.startswith("down_proj"):
        return hidden.detach(), left.to(call.dtype)
    down = call.parameters["down_proj"][number]
    back = left.to(call.dtype) @ (down.T if module.is_transposed else down)
    (slope,) = torch.autograd.grad(hidden, inner, back)
    return x.to(call.dtype), slope


def _linear(call: ModuleCall, name: str, number: int, x: Tensor) -> Tensor:
    """Return an expert's products with one of its matrices."""
    module: Any = call.module
    weight = call.parameters[name][number]
    bias = call.parameters[f"{name}_bias"][number] if module.has_bias else None
    return functional.linear(x, weight.T if module.is_transposed else weight, bias)


def _by_example(example: Tensor, b: int, left: Tensor, right: Tensor) -> tuple[Tensor, Outer]:
    """Return rows as those of the examples that have any, padded with zeros.

    Args:
        example: The example of each row, in order, [t].
        b: The number of examples.
        left: Rows, [t, m].
        right: Rows, [t, d].

    Returns:
        The examples, [·], and their sums of outer products.
    """
    counts = torch.bincount(example, minlength=b)
    where = counts.nonzero()[:, 0]
    first = counts.cumsum(0) - counts
    place = torch.arange(len(example), device=example.device) - first[example]
    at = (counts > 0).cumsum(0)[example] - 1
    most = int(counts.max())
    padded = [rows.new_zeros(len(where), most, rows.shape[1]) for rows in (left, right)]
    for target, rows in zip(padded, (left, right), strict=True):
        target[at, place] = rows
    return where, Outer(*padded)


def are_fused_experts(module: nn.Module) -> bool:
    """Return whether a module has the experts of a mixture in one, as the transformers library has.

    Args:
        module: Any module.
    """
    down = dict(module.named_parameters(recurse=False)).get("down_proj")
    return down is not None and down.ndim == 3 and all(hasattr(module, name) for name in _MARKS)
