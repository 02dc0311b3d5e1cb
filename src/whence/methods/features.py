r"""Features of single examples whose inner products are scores: what an index on disk stores.

```
score[q, i] = (wᵢ/n) Σ_t slope_t(zᵢ) ⟨(K_t + (l2 + λ) I)⁻¹ φ_t(m_q), φ_t(zᵢ)⟩
```

A `FeatureMap` gives φ and the slopes of any example, whatever the others are, so that rows can be
computed shard by shard, on any machine and once. t runs over its parts, such as checkpoints. K is
the second moment (1/n) Σ wᵢ φᵢ φᵢᵀ of groups of columns; a map without groups inverts nothing.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, final

import torch
from torch import Tensor

from whence.errors import NotPositiveDefinite, UnsupportedModel
from whence.linalg.cholesky import Cholesky
from whence.linalg.operator import LinearOperator
from whence.linalg.structured import Dense, Reordered
from whence.objective.measures import Measure
from whence.objective.trained import Examples, Trained
from whence.scores import Diagnostics

Side = Literal["training", "query"]


@final
@dataclass(frozen=True)
class Block:
    """Columns of features that belong together.

    Args:
        name: What they come from, such as the name of a parameter.
        shape: (d,), or (r, r′) where they are a matrix, row by row.
    """

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of columns."""
        return math.prod(self.shape)


class FeatureMap(ABC):
    """Features of examples, one by one.

    Attributes:
        trained: The model.
        words: What makes the scores, with its source.
    """

    trained: Trained
    words: str

    @property
    @abstractmethod
    def parts(self) -> tuple[tuple[Block, ...], ...]:
        """The blocks of each part, in the order of the columns."""

    @property
    def groups(self) -> tuple[slice, ...]:
        """Columns whose second moment is inverted together; none where nothing is inverted."""
        return ()

    @property
    def damping(self) -> float | None:
        """λ, or `None` for the mean eigenvalue of each group."""
        return None

    @property
    def penalty(self) -> float:
        """What is added to λ: the l2 of the model."""
        return 0.0

    @property
    def averaged(self) -> bool:
        """Whether scores hold wᵢ/n: a predicted change rather than a likeness."""
        return True

    @property
    def unit(self) -> str:
        """What follows the name of the measure where scores are in another unit than its own."""
        return ""

    @abstractmethod
    def rows(self, examples: Examples) -> Tensor:
        """Return φ of training examples, [b, d]."""

    def slopes(self, examples: Examples) -> Tensor:
        """Return what the product of each part is multiplied by, [b, t]."""
        return torch.ones(len(examples), len(self.parts))

    @abstractmethod
    def queries(self, examples: Examples, measure: Measure) -> Tensor:
        """Return φ of a measure of queries, [q, d], before the inverse second moment."""

    @property
    def splits(self) -> bool:
        """Whether features are projected gradients at θ̂, so that `directions` can be asked for."""
        return False

    def directions(self, rows: Tensor, side: Side) -> Tensor:
        """Return the directions of θ along which derivatives of losses are scores.

        Args:
            rows: What rows of training examples are multiplied with, [q, d]; for the side of
                queries, what rows of queries are multiplied with.
            side: Whose loss is differentiated: "training" or "query".

        Returns:
            Pᵀ rows where φ = P ∇ℓ, [p, q].

        Raises:
            UnsupportedModel: If features are no such projection, or not on this side.
        """
        raise UnsupportedModel(f"Expected features that are projections at θ̂. Got {self.words}.")

    def curvature(self) -> Reordered | None:
        """Return what queries are multiplied with before they are features, to be stored, if any.

        Cost: passes over the training data.
        """
        return None

    def given(self, inverse: LinearOperator) -> FeatureMap:
        """Return the same features by a `curvature` that was stored."""
        return self

    def measured(self) -> Diagnostics:
        """Return how queries become features."""
        return Diagnostics(notes=self.trained.notes)

    @final
    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks of all parts."""
        return tuple(block for part in self.parts for block in part)

    @final
    @property
    def columns(self) -> tuple[slice, ...]:
        """The columns of each part."""
        return places([sum(block.size for block in part) for part in self.parts])


@final
@dataclass(frozen=True)
class Damped:
    """(K + (l2 + λ) I)⁻¹.

    Args:
        apply: C ↦ (K + (l2 + λ) I)⁻¹ C for C [d, q].
        damping: λ.
    """

    apply: Callable[[Tensor], Tensor]
    damping: float


def of_moment(moment: Tensor, damping: float | None, penalty: float) -> Damped:
    """Return the damped inverse of a second moment.

    Args:
        moment: K, [d, d].
        damping: λ >= 0; the mean eigenvalue of K if `None`.
        penalty: l2, added to λ.

    Raises:
        NotPositiveDefinite: If K is singular and not damped.
    """
    gram = moment.double()
    gram = (gram + gram.T) / 2
    amount = float(gram.diagonal().mean()) if damping is None else damping
    gram.diagonal().add_(amount + penalty)
    inverse = Cholesky().prepare(Dense(gram))
    return Damped(lambda columns: (inverse @ columns.double()).to(columns), amount)


def of_rows(rows: Tensor, weights: Tensor, damping: float | None, penalty: float) -> Damped:
    """Return the damped inverse of the second moment of rows, from the smaller Gram matrix.

    Args:
        rows: φᵢ, [n, d].
        weights: wᵢ, [n].
        damping: λ >= 0; the mean eigenvalue tr(K)/d if `None`.
        penalty: l2, added to λ.

    Raises:
        NotPositiveDefinite: If K is singular and not damped.
    """
    n, d = rows.shape
    scaled = rows * (weights / n).sqrt().unsqueeze(1)
    if d <= n:
        return of_moment((scaled.T @ scaled).double(), damping, penalty)
    gram = (scaled @ scaled.T).double()
    gram = (gram + gram.T) / 2  # products of rows round differently on the two sides
    amount = float(gram.diagonal().sum()) / d if damping is None else damping
    total = amount + penalty
    if total == 0:
        raise NotPositiveDefinite(
            f"Expected damping > 0 for {n} examples in {d} dimensions, where the second moment of "
            "the gradients is singular. Got 0. Leave damping out, or lower size."
        )
    gram.diagonal().add_(total)
    inverse = Cholesky().prepare(Dense(gram))

    def woodbury(columns: Tensor) -> Tensor:
        inside = inverse @ (scaled @ columns).double()
        return (columns - scaled.T @ inside.to(rows)) / total

    return Damped(woodbury, amount)


def blockwise(groups: Sequence[slice], inverses: Sequence[Damped]) -> Damped:
    """Return the inverse of a second moment of which the groups are the diagonal blocks.

    Args:
        groups: Columns of each group; together all columns, in order.
        inverses: The inverse of each.

    Returns:
        The inverse; its λ is the mean over the groups.
    """
    return Damped(
        lambda columns: torch.cat(
            [each.apply(columns[where]) for where, each in zip(groups, inverses, strict=True)]
        ),
        sum(each.damping for each in inverses) / max(1, len(inverses)),
    )


def places(sizes: Sequence[int]) -> tuple[slice, ...]:
    """Return consecutive slices of these sizes, the first from 0."""
    return tuple(slice(end - size, end) for size, end in zip(sizes, accumulate(sizes), strict=True))
