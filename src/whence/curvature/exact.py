"""Exact curvatures and gradients of an objective as linear operators, known by their products."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Generic, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.curvature.directions import Directions
from whence.linalg.operator import LinearOperator
from whence.linalg.stochastic import StochasticOperator
from whence.linalg.structured import materialize
from whence.objective.measures import Measure
from whence.objective.objective import AnyObjective, Objective
from whence.objective.trained import Examples
from whence.tiles import tiles

_COLUMNS = 2**24  # numbers in the gradients that are materialized at once: 128 MB of float64


class OfParameters(LinearOperator):
    """An operator on the parameters of an objective, in their precision and on their device."""

    objective: Objective

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters."""
        return self.objective.params.dtype

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return self.objective.params.device


class Curvature(OfParameters):
    """A symmetric [p, p] operator that belongs to an objective."""

    @property
    def shape(self) -> tuple[int, int]:
        """p by p."""
        p = len(self.objective.params)
        return p, p

    @abstractmethod
    def matmat(self, V: Tensor) -> Tensor:
        """Return A V."""

    def rmatmat(self, W: Tensor) -> Tensor:
        """Return Aᵀ W = A W."""
        return self.matmat(W)


class RiskCurvature(Curvature, StochasticOperator):
    """A curvature of R that influence inverts.

    Attributes:
        called: What it is called in results.
    """

    called: ClassVar[str]

    @property
    @abstractmethod
    def by_products(self) -> bool:
        """Whether `dense` takes p products with it, where f is not linear in θ."""

    @abstractmethod
    def dense(self) -> Tensor:
        """Return the matrix, which may be overwritten, [p, p]."""


@final
@dataclass(frozen=True, eq=False, repr=False)
class Hessian(RiskCurvature):
    """The Hessian H = ∇²R(θ̂), penalty included.

    Args:
        objective: R at θ̂.
        batch_size: Training examples in a random sample of the operator; the paper took 1.

    Cost:
        One product takes a forward and a backward pass over the training data per column.

    References:
        Koh & Liang (2017), section 2.1; Pearlmutter (1994).
    """

    called: ClassVar[str] = "Hessian"

    objective: Objective
    batch_size: int = 1

    @property
    def by_products(self) -> bool:
        """Whether `dense` takes p products with it, where f is not linear in θ: it does."""
        return True

    def matmat(self, V: Tensor) -> Tensor:
        """Return H V."""
        return self.objective.hvp(V)

    def dense(self) -> Tensor:
        """Return H as a matrix, [p, p]."""
        return self.objective.dense_hessian()

    def sample(self, generator: torch.Generator) -> Hessian:
        """Return the Hessian on a random batch, drawn with replacement."""
        return Hessian(_restricted(self.objective, self.batch_size, generator))

    def batched(self, size: int) -> Hessian:
        """Return the Hessian with samples of `size` training examples."""
        return Hessian(self.objective, size)


@final
@dataclass(frozen=True, eq=False, repr=False)
class GGN(RiskCurvature):
    """The generalized Gauss–Newton matrix (1/n) Σ wᵢ Jᵢᵀ ∂²ℓ/∂f² Jᵢ + Ω″.

    Positive semidefinite for convex losses; equal to the Hessian where f is linear in θ.

    Args:
        objective: R at θ̂.
        batch_size: Training examples in a random sample of the operator.

    References:
        Schraudolph (2002); Martens (2020), section 8.
    """

    called: ClassVar[str] = "Gauss-Newton matrix"

    objective: Objective
    batch_size: int = 1

    @property
    def by_products(self) -> bool:
        """Whether `dense` takes p products with it: for a model of sequences."""
        one = self.objective.train.subset(np.arange(1))
        return self.objective.outputs(one).ndim > 2

    def matmat(self, V: Tensor) -> Tensor:
        """Return G V."""
        return self.objective.ggnvp(V)

    def dense(self) -> Tensor:
        """Return G as a matrix, [p, p].

        Each example contributes the gradients of its outputs along the c columns of a square root
        of the loss Hessian: c passes over the training data and 2 n c p² operations. A model of
        sequences has many more such columns; there it takes p products with G. Where f is linear
        in θ, G is the Hessian.
        """
        objective = self.objective
        if objective.linear:
            return objective.dense_hessian()
        if self.by_products:
            found = materialize(self)  # layers of a float64 model may compute in float32
            return (found + found.T) / 2
        directions = Directions(objective.loss, "expected", seed=0)
        total = torch.diag(objective.l2)
        for part in blocks(*Gradients(objective, objective.train, objective.loss).shape):
            examples = objective.train.subset(part)
            weights = objective.weights[part] / len(objective.train)
            for r in range(directions(objective.outputs(examples), examples.targets).shape[-1]):
                columns = objective.gradient_columns(examples, _Along(directions, r))
                total.addmm_(columns * weights, columns.T)
        return total

    def sample(self, generator: torch.Generator) -> GGN:
        """Return the matrix on a random batch, drawn with replacement."""
        return GGN(_restricted(self.objective, self.batch_size, generator))

    def batched(self, size: int) -> GGN:
        """Return the matrix with samples of `size` training examples."""
        return GGN(self.objective, size)


@final
@dataclass(frozen=True)
class _Along(Measure):
    """The inner product of the outputs with one column of a square root of the loss Hessian."""

    directions: Directions
    r: int

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return u_rᵀ f, [b]."""
        return (self.gradient(outputs, targets) * outputs).flatten(1).sum(1)

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return u_r."""
        return self.directions(outputs, targets)[..., self.r]


def _restricted(objective: Objective, size: int, generator: torch.Generator) -> Objective:
    """Return the objective on a random batch of its training data."""
    batch = torch.randint(len(objective.train), (size,), generator=generator)
    return objective.restricted(batch.numpy())


@final
@dataclass(frozen=True, eq=False, repr=False)
class EmpiricalFisher(Curvature):
    """The second moment of the gradients, (1/n) Σ wᵢ gᵢ gᵢᵀ + Ω″.

    Args:
        objective: R at θ̂.
    """

    objective: Objective

    def matmat(self, V: Tensor) -> Tensor:
        """Return F V."""
        objective = self.objective
        weights = objective.weights.unsqueeze(1) / len(objective.train)
        dots = objective.gradient_dot(objective.train, objective.loss, V)
        data = objective.gradient_sum(objective.train, objective.loss, weights * dots)
        return data + objective.l2.unsqueeze(1) * V


@final
@dataclass(frozen=True, eq=False, repr=False)
class Gradients(OfParameters, Generic[AnyObjective]):
    """The matrix G [b, p] whose rows are the gradients of a measure at some examples.

    Args:
        objective: R at θ̂.
        examples: The b examples.
        measure: What is differentiated; the loss for training examples.
    """

    objective: AnyObjective
    examples: Examples
    measure: Measure

    @property
    def shape(self) -> tuple[int, int]:
        """b by p."""
        return len(self.examples), len(self.objective.params)

    def matmat(self, V: Tensor) -> Tensor:
        """Return G V."""
        return self.objective.gradient_dot(self.examples, self.measure, V)

    def rmatmat(self, W: Tensor) -> Tensor:
        """Return Gᵀ W."""
        return self.objective.gradient_sum(self.examples, self.measure, W)

    @property
    def equal_shares(self) -> Tensor:
        """1/b for each example, [b, 1]."""
        return self.objective.params.new_full((len(self.examples), 1), 1 / len(self.examples))

    def mean(self) -> Tensor:
        """Return the gradient of the mean measure, [p, 1]."""
        return self.rmatmat(self.equal_shares)

    def row_blocks(self) -> Iterator[Tensor]:
        """Yield the gradients as columns, [p, ·], in blocks that fit in memory."""
        for where in blocks(*self.shape):
            part = self.examples.subset(where) if len(where) < len(self.examples) else self.examples
            yield self.objective.gradient_columns(part, self.measure)


def blocks(b: int, p: int) -> Iterator[NDArray[np.intp]]:
    """Yield the positions of b examples, in blocks whose columns of p numbers are held at once."""
    for part in tiles(b, p, _COLUMNS, most=1024):
        yield np.arange(part.start, part.stop)
