"""Models that are known through their answers: the user's estimator, its rows, its predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from whence.adapters.answers import Answer
from whence.adapters.rows import RowExamples, encoded
from whence.objective.losses import Loss
from whence.objective.trained import Data, Trained


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Answered(Trained):
    """A fitted estimator with its rows, without parameters to differentiate in.

    Args:
        fitted: The estimator.
        answer: How its predictions are read.
        train: The training rows.
        weights: wᵢ >= 0, [n]; rows with 0 were left out.
        names: The columns it was fitted on, or `None` for an array.
        notes: What a reader must know, a sentence each.
    """

    fitted: Any
    answer: Answer
    train: RowExamples
    weights: Tensor
    names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    convex: bool = False

    @property
    def loss(self) -> Loss:
        """The loss of its predictions, which need not be what was minimized."""
        return self.answer.loss

    @property
    def trained_loss(self) -> Loss:
        """The same loss."""
        return self.loss

    @property
    def classes(self) -> tuple[Any, ...]:
        """The user's names of the classes."""
        return self.answer.classes

    def __repr__(self) -> str:
        """Return the estimator and the number of rows."""
        return f"<{type(self.fitted).__name__} on {len(self.weights):,} rows>"

    def identity(self) -> tuple[Tensor | str, ...]:
        """Return the estimator's settings."""
        return (repr(self), repr(self.fitted))

    def examples(self, data: Data) -> RowExamples:
        """Check and encode (X, y): one row or many."""
        rows = self.train.inputs
        width = int(np.shape(rows)[1]) if np.ndim(rows) > 1 else None  # texts have no columns
        return encoded(data, width, self.names, self.answer.targets)
