r"""A transformer as a differentiable function of which training rows it was fitted on.

A fitted transformer is x ↦ φ(x; s) with statistics s(k) of the training rows, where k is 1 for a
row that is there. As written here both are functions that torch differentiates, so that one
backward pass gives what every row does, through every statistic, to any number made of the columns.
Rows move nothing but statistics: of many numbers, ds/dk is found once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from whence.preprocessing.columns import Columns, Rows
from whence.preprocessing.table import transformed


@dataclass(frozen=True, eq=False)
class Statistics:
    """What transformers computed from the training rows.

    Args:
        own: Those of one step, or of no step.
        steps: Those of each of several steps.
    """

    own: tuple[Tensor, ...] = ()
    steps: tuple[Statistics, ...] = ()

    def tensors(self) -> list[Tensor]:
        """Return all of them in one list."""
        return [*self.own, *(tensor for step in self.steps for tensor in step.tensors())]

    def leaves(self) -> Statistics:
        """Return the same numbers as leaves of the autograd graph, whatever they were made of."""
        own = tuple(tensor.detach().requires_grad_() for tensor in self.own)
        return Statistics(own, tuple(step.leaves() for step in self.steps))


class Step(ABC):
    """A fitted transformer, applied to the training rows and to others at once.

    Args:
        selects: Whether it selects columns, a choice that is held though it may follow the data.
    """

    selects: ClassVar[bool] = False

    def __call__(self, train: Rows, others: Rows, kept: Tensor) -> tuple[Columns, Columns]:
        """Return both as columns, the statistics those of the kept training rows.

        Args:
            train: The training rows, as the step before returns them.
            others: Other rows.
            kept: 1 for each training row, to be differentiated, [n].
        """
        statistics = self.fitted(train, kept)
        return self.of_train(train, statistics), self.of_others(others, statistics)

    @abstractmethod
    def fitted(self, train: Rows, kept: Tensor) -> Statistics:
        """Return s(k).

        Args:
            train: The training rows, as the step before returns them.
            kept: 1 for each training row, to be differentiated, [n].
        """

    @abstractmethod
    def of_train(self, train: Rows, statistics: Statistics) -> Columns:
        """Return the training rows after the step.

        Args:
            train: The training rows.
            statistics: s.
        """

    @abstractmethod
    def of_others(self, others: Rows, statistics: Statistics) -> Columns:
        """Return other rows after the step.

        Args:
            others: Other rows.
            statistics: s.
        """


class Leaf(Step):
    """A transformer that does the same to training rows and to others: φ(x; s(k))."""

    def fitted(self, train: Rows, kept: Tensor) -> Statistics:
        """Return s."""
        return Statistics(self.statistics(train.numbers(), kept))

    def of_train(self, train: Rows, statistics: Statistics) -> Columns:
        """Return φ(x; s)."""
        return self.apply(train.numbers(), *statistics.own)

    def of_others(self, others: Rows, statistics: Statistics) -> Columns:
        """Return φ(x; s)."""
        return self.apply(others.numbers(), *statistics.own)

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

    def fitted(self, train: Rows, kept: Tensor) -> Statistics:
        """Return none."""
        return Statistics()

    def of_train(self, train: Rows, statistics: Statistics) -> Columns:
        """Return the training rows as they were transformed, constant."""
        return self.train

    def of_others(self, others: Rows, statistics: Statistics) -> Columns:
        """Return the transformed rows, constant."""
        return transformed(self.transformer, others).numbers()
