r"""A transformer as a differentiable function of which training rows it was fitted on.

A fitted transformer is x ↦ φ(x; s) with statistics s(k) of the training rows, where k is 1 for a
row that is there. As written here both are functions that torch differentiates, so that one
backward pass gives what every row does, through every statistic, to any number made of the columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from whence.preprocessing.columns import Columns, Rows
from whence.preprocessing.table import transformed


class Step(ABC):
    """A fitted transformer, applied to the training rows and to others at once.

    Args:
        selects: Whether it selects columns, a choice that is held though it may follow the data.
    """

    selects: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, train: Rows, others: Rows, kept: Tensor) -> tuple[Columns, Columns]:
        """Return both as columns, the statistics those of the kept training rows.

        Args:
            train: The training rows, as the step before returns them.
            others: Other rows.
            kept: 1 for each training row, to be differentiated, [n].
        """


class Leaf(Step):
    """A transformer that does the same to training rows and to others: φ(x; s(k))."""

    def __call__(self, train: Rows, others: Rows, kept: Tensor) -> tuple[Columns, Columns]:
        """Return φ of both."""
        rows = train.numbers()
        statistics = self.statistics(rows, kept)
        return self.apply(rows, *statistics), self.apply(others.numbers(), *statistics)

    @abstractmethod
    def statistics(self, x: Columns, kept: Tensor) -> tuple[Tensor, ...]:
        """Return s, [..., d] each.

        Args:
            x: The training rows.
            kept: 1 for each row that is there, [n].
        """

    @abstractmethod
    def apply(self, x: Columns, *statistics: Tensor) -> Columns:
        """Return φ(x; s).

        Args:
            x: Rows.
            statistics: s.
        """


@dataclass(frozen=True, eq=False)
class Held(Step):
    """A transformer as it was fitted, its statistics constant.

    Args:
        transformer: Fitted.
        train: The training rows as it transformed them.
    """

    transformer: Any
    train: Columns

    def __call__(self, train: Rows, others: Rows, kept: Tensor) -> tuple[Columns, Columns]:
        """Return the transformed rows, constant."""
        return self.train, transformed(self.transformer, others).numbers()
