"""Operators that are means over examples, and can be estimated from a few of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import singledispatch
from typing import TypeAlias

import torch

from whence.linalg.operator import Composed, Damped, LinearOperator, Scaled, Sum, Transposed
from whence.linalg.structured import BlockDiagonal


class StochasticOperator(LinearOperator):
    """An operator that can draw cheap unbiased estimates of itself.

    The operator itself is the full mean, A = (1/n) Σ Aᵢ, say; a sample is the mean over a random
    batch, and is an operator of the same shape, dtype and device.
    """

    @abstractmethod
    def sample(self, generator: torch.Generator) -> LinearOperator:
        """Draw an independent estimate S with E[S] = A.

        Args:
            generator: Where the randomness comes from, on the CPU.

        Returns:
            The estimate: one fixed operator, which gives the same products each time.
        """

    @abstractmethod
    def batched(self, size: int) -> StochasticOperator:
        """Return the same operator with samples that are means over `size` >= 1 examples."""


def sample(A: LinearOperator, generator: torch.Generator) -> LinearOperator:
    """Draw an independent unbiased estimate of A, whatever A is made of.

    Sums, multiples, damping, transposes, products and blocks are sampled part by part; an operator
    that is not stochastic is its own estimate.

    Args:
        A: Any operator.
        generator: Where the randomness comes from, on the CPU.

    Returns:
        An operator S with E[S] = A.
    """
    return _mapped(A, lambda part: part.sample(generator))


def batched(A: LinearOperator, size: int) -> LinearOperator:
    """Return the same operator with samples of `size` examples, whatever A is made of.

    Args:
        A: Any operator.
        size: Examples in a sample, >= 1.

    Returns:
        An operator equal to A.
    """
    return _mapped(A, lambda part: part.batched(size))


_Replaced: TypeAlias = Callable[[StochasticOperator], LinearOperator]


@singledispatch
def _mapped(A: LinearOperator, function: _Replaced) -> LinearOperator:
    """Return A with each stochastic operator that it is made of replaced."""
    return A


@_mapped.register
def _(A: StochasticOperator, function: _Replaced) -> LinearOperator:
    return function(A)


@_mapped.register
def _(A: Damped, function: _Replaced) -> LinearOperator:
    return Damped(_mapped(A.operator, function), A.damping)


@_mapped.register
def _(A: Scaled, function: _Replaced) -> LinearOperator:
    return Scaled(_mapped(A.operator, function), A.factor)


@_mapped.register
def _(A: Transposed, function: _Replaced) -> LinearOperator:
    return Transposed(_mapped(A.operator, function))


@_mapped.register
def _(A: Sum, function: _Replaced) -> LinearOperator:
    return Sum(_mapped(A.operator, function), _mapped(A.other, function))


@_mapped.register
def _(A: Composed, function: _Replaced) -> LinearOperator:
    return Composed(_mapped(A.operator, function), _mapped(A.other, function))


@_mapped.register
def _(A: BlockDiagonal, function: _Replaced) -> LinearOperator:
    return BlockDiagonal(tuple(_mapped(block, function) for block in A.blocks))
