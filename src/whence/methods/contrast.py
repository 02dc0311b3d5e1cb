"""Scores of two answers: why this one and not that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from whence.errors import UnsupportedModel
from whence.methods.attribution import Attribution
from whence.methods.directed import Directed, directed
from whence.methods.features import Side
from whence.methods.method import Method
from whence.methods.subsets import Positions
from whence.objective.measures import Measure
from whence.objective.trained import Examples, Trained
from whence.scores import Diagnostics


@final
@dataclass(frozen=True)
class Contrast(Method):
    """Score by what a method predicts of a query less what it predicts of another answer.

    Args:
        method: The method.
        other: The other answer, one.
    """

    method: Method
    other: Examples

    def attribution(self, trained: Trained) -> Attribution:
        """Return the method fitted to a model, asked twice."""
        return _Contrasted(trained, self.method.fit(trained), self.other)

    def refined(self) -> Method | None:
        """Return the difference of refined scores, where the method has them."""
        return self._of(self.method.refined())

    def rougher(self) -> Method | None:
        """Return the difference of rougher scores, where the method has them."""
        return self._of(self.method.rougher())

    def answers(self, query: Examples) -> tuple[tuple[Method, Examples, float], ...]:
        """Return the two answers."""
        return (self.method, query, 1.0), (self.method, self.other, -1.0)

    def _of(self, method: Method | None) -> Method | None:
        return None if method is None else Contrast(method, self.other)


@final
@dataclass(frozen=True, eq=False)
class _Contrasted(Directed):
    """Scores of each query less those of one other answer.

    Args:
        trained: The model.
        inner: What scores both.
        other: The other answer.
    """

    trained: Trained
    inner: Attribution
    other: Examples

    @property
    def words(self) -> str:
        """What scores both."""
        return self.inner.words

    @property
    def unit(self) -> str:
        """The unit of both."""
        return self.inner.unit

    @property
    def calibrated(self) -> bool:
        """As of both."""
        return self.inner.calibrated

    @property
    def exact(self) -> bool:
        """As of both."""
        return self.inner.exact

    @property
    def splits(self) -> bool:
        """Whether both split."""
        return directed(self.inner) is not None

    def values(
        self, queries: Examples, measure: Measure, where: Positions
    ) -> tuple[Tensor, Diagnostics]:
        """Return the differences, [q, k]."""
        own, measured = self.inner.values(queries, measure, where)
        return own - self.inner.values(self.other, measure, where)[0], measured

    def directions(
        self, examples: Examples, measure: Measure, side: Side
    ) -> tuple[Tensor, Diagnostics]:
        """Return the differences, [p, b]; the tokens are those of training examples."""
        if side == "query":
            raise UnsupportedModel(
                "Expected side='training' for two answers told apart. Got side='query', whose "
                "tokens belong to one answer or the other. Split the scores of each by itself."
            )
        inner = directed(self.inner)
        assert inner is not None  # as `splits` says
        own, measured = inner.directions(examples, measure, side)
        return own - inner.directions(self.other, measure, side)[0], measured
