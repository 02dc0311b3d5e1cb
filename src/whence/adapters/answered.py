"""Models that are known through their answers: the user's estimator, its rows, its predictions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from whence.adapters.answers import Answer
from whence.adapters.refitting import Refitting, template_of
from whence.adapters.rows import RowExamples, encoded
from whence.arrays import Floats
from whence.errors import InvalidInput
from whence.objective.losses import Loss
from whence.objective.trained import Data, Examples, Trained

# From a fitted estimator, its rows, targets and weights to a model; `None` of another kind.
Reader: TypeAlias = Callable[[Any, Any, Any, Floats | None], Trained | None]


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
        reader: Reads a fitted estimator of this kind with its rows and targets, all of weight 1;
            `None` where edits are followed otherwise, or not.
    """

    fitted: Any
    answer: Answer
    train: RowExamples
    weights: Tensor
    names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    reader: Reader | None = None
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

    def refit_edited(self, where: NDArray[np.intp], new: Examples) -> Trained:
        """Return what the estimator's own fit gives with some rows replaced.

        It is fitted to all rows once, as its library does it; then those without weight go.

        Args:
            where: Positions of the rows that go.
            new: Those that come.

        Raises:
            UnsupportedModel: If there is no way to read the fit.
            InvalidInput: If the edit takes away a class.
        """
        if self.reader is None:
            return super().refit_edited(where, new)
        train = self.train.replaced(where, new)
        labels, n = self.answer.labels_of(train.targets), len(train)
        if len(np.unique(labels)) < len(self.classes):
            raise InvalidInput(
                "Expected an edit that leaves a training row to each class. Got one that takes the "
                "last of a class. Remove the row instead."
            )
        template, _ = template_of(self.fitted, n)
        refitting = Refitting(
            template=template,
            rows=train.inputs,
            labels=labels,
            idle=np.zeros(n, dtype=bool),
            weighted=False,
            classifies=bool(self.classes),
        )
        model = self.reader(refitting(np.ones(n))[0], train.inputs, labels, None)
        if model is None:
            return super().refit_edited(where, new)
        return model.refit(self.weights)

    def examples(self, data: Data) -> RowExamples:
        """Check and encode (X, y): one row or many."""
        rows = self.train.inputs
        width = int(np.shape(rows)[1]) if np.ndim(rows) > 1 else None  # texts have no columns
        return encoded(data, width, self.names, self.answer.targets)
