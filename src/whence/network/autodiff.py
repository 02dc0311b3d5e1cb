"""Products with the Jacobian of tensors in the parameters of a module, given as leaves.

Each parameter is a leaf of its own, so that a backward pass costs what it costs the plain module:
the gradient of each is added to its place in one flat vector as soon as it is known, and freed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from whence.errors import UnsupportedModel

Leaf: TypeAlias = tuple[slice, Tensor]  # where in θ, and the values


class _Along(torch.autograd.Function):
    """A number whose gradient in f is u, with no product computed and no copy of either made."""

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, cotangent: Tensor) -> Tensor:
        """Return any number."""
        ctx.save_for_backward(cotangent)
        return outputs.new_zeros(())

    @staticmethod
    def backward(ctx: Any, one: Tensor) -> tuple[Tensor, None]:
        """Return u."""
        (cotangent,) = ctx.saved_tensors
        return cotangent, None


def along(outputs: Tensor, cotangent: Tensor) -> Tensor:
    """Return a number whose gradient is Jᵀ u, to be differentiated once.

    torch asked for Jᵀ u outright loads its symbolic algebra first, a quarter of a second.

    Args:
        outputs: f, any shape.
        cotangent: u, the same shape.
    """
    with torch.enable_grad():
        found: Tensor = _Along.apply(outputs, cotangent)  # type: ignore[no-untyped-call]
    return found


def empty_sums(p: int, k: int, like: Tensor) -> Tensor:
    """Return zeros [k, p] that take memory as they are written, where the system can.

    A backward pass holds most where it begins, and writes most of a gradient where it ends.

    Args:
        p: The number of parameters.
        k: The number of sums.
        like: A tensor of their dtype, on their device.
    """
    if like.device.type != "cpu":
        return like.new_zeros(k, p)
    return torch.from_numpy(np.zeros((k, p), like.new_zeros(0).numpy().dtype))


def gradient(value: Tensor, leaves: Sequence[Leaf]) -> Tensor:
    """Return the gradient of a number in all leaves, flat, to be differentiated again.

    Args:
        value: One number.
        leaves: Where to differentiate, in the order of θ.

    Returns:
        The gradient, [p].
    """
    every = [leaf for _, leaf in leaves]
    pieces = torch.autograd.grad(value, every, create_graph=True, materialize_grads=True)
    return torch.cat([piece.reshape(-1) for piece in pieces])


def add_pullback(
    total: Tensor, value: Tensor, leaves: Sequence[Leaf], *, last: bool = False
) -> None:
    """Add Jᵀ u to a flat vector, a leaf at a time.

    Args:
        total: Changed in place, [p].
        value: A number with this gradient, of `along`: it alone holds f and u, if the caller lets
            go of them, until they are used.
        leaves: Where to differentiate, each with its place in θ, which several may share.
        last: Whether the graph may go; else it stays for the next call.
    """
    if not value.requires_grad:
        return
    for where, leaf in leaves:
        leaf.grad = total[where].view(leaf.shape)
    try:  # each gradient is freed as soon as it is added, so that no second θ is in memory
        with _derivatives():
            every = [leaf for _, leaf in leaves]
            torch.autograd.backward(value, inputs=every, retain_graph=not last)
    finally:
        for _, leaf in leaves:
            leaf.grad = None


def pushforward(outputs: Tensor, leaves: Sequence[Leaf], v: Tensor) -> Tensor:
    """Return J V, differentiating u ↦ Jᵀ u, which is linear, in u.

    Args:
        outputs: f, any shape.
        leaves: Where to differentiate, in the order of θ.
        v: V, [p, k].

    Returns:
        The products, in the shape of f, [..., k].
    """
    seed = torch.zeros_like(outputs, requires_grad=True)
    transposed = gradient(_product(outputs, seed), leaves)
    with _derivatives():
        columns = [
            torch.autograd.grad(_product(transposed, column), seed, retain_graph=True)[0]
            for column in v.T.contiguous()
        ]
    return torch.stack(columns, -1)


def _product(outputs: Tensor, cotangent: Tensor) -> Tensor:
    """Return uᵀ f, a function of both."""
    return torch.dot(outputs.reshape(-1), cotangent.reshape(-1))


@contextmanager
def _derivatives() -> Iterator[None]:
    """Say in words where torch has no derivative of a backward pass."""
    try:
        yield
    except NotImplementedError as error:
        raise UnsupportedModel(
            "Expected a model that can be differentiated twice. Got one of which torch says: "
            f"{error}. Replace the operation (nn.EmbeddingBag by nn.Embedding and a sum), leave "
            "out its parameters with params=, or take a method that differentiates once, such as "
            "whence.TracIn."
        ) from error
