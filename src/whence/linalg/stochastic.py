"""Operators that are means over examples, and can be estimated from a few of them."""

from __future__ import annotations

from abc import abstractmethod

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
    match A:
        case StochasticOperator():
            return A.sample(generator)
        case Damped():
            return Damped(sample(A.operator, generator), A.damping)
        case Scaled():
            return Scaled(sample(A.operator, generator), A.factor)
        case Transposed():
            return Transposed(sample(A.operator, generator))
        case Sum():
            return Sum(sample(A.operator, generator), sample(A.other, generator))
        case Composed():
            return Composed(sample(A.operator, generator), sample(A.other, generator))
        case BlockDiagonal():
            return BlockDiagonal(tuple(sample(block, generator) for block in A.blocks))
        case _:
            return A
