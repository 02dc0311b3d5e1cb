"""What comes out: scores with their sign and unit, and how far they can be trusted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from whence.checked import checked
from whence.checked import positions as known_positions
from whence.diagnostics import Diagnostics as Diagnostics
from whence.errors import InvalidInput
from whence.result import Card, Result

Floats = NDArray[np.floating[Any]]

_ORDER_ONLY = (
    "Read the order of these scores: their sizes are not known. Train again without an example to "
    "know what it does."
)
_FIRST_ORDER_ONLY = (
    "Read the order of these scores: where they are largest their sizes differ by {error:.0%} from "
    'those of refined effects. order="refined" (--order refined) computes them.'
)


@dataclass(frozen=True, repr=False)
class Ranking(Result):
    """The k training examples that come first, for each query.

    Args:
        ids: The user's names of the examples, [q, k].
        positions: Their positions in the training data, [q, k].
        values: Their scores, [q, k].
    """

    ids: NDArray[Any]
    positions: NDArray[np.intp]
    values: Floats

    def __iter__(self) -> Iterator[tuple[Any, float]]:
        """Yield (id, score) of the first query: `for id, effect in scores.top(5)`."""
        return iter(zip(self.ids[0].tolist(), self.values[0].tolist(), strict=True))

    def __str__(self) -> str:
        """Return the examples of the first query, one a line."""
        words = self.card().words
        return "\n".join([self._table().to_string(index=False), *words])

    def card(self) -> Card:
        """Return the examples of the first query."""
        q, k = self.ids.shape
        words = () if q == 1 else (f"The first of {q:,} queries is shown.",)
        return Card(title=f"the first {k} of {q:,} queries", table=self._table(), words=words)

    def _table(self) -> pd.DataFrame:
        """Return the examples of the first query with their scores."""
        return pd.DataFrame(list(self), columns=["id", "score"])


@dataclass(frozen=True, kw_only=True, repr=False)
class Scores(Result):
    """Predicted change of each query's measure if each training example is removed.

    `values[q, i]` predicts measure_q(θ̂₋ᵢ) − measure_q(θ̂). For the loss, in nats, a positive
    score means that example i helped: without it the loss would be higher. Removal means
    weight zero with all else equal, the 1/n of the mean kept.

    Args:
        values: [q, k], for k candidates; k = n unless `indices=` restricted them. float32 where
            they were computed in it, as the diagnostics say.
        query_ids: The user's names of the queries, [q].
        train_ids: The user's names of the candidates, [k].
        positions: Positions of the candidates in the training data, [k].
        n: The number of training examples.
        method: What made the scores, in words.
        measure: What is predicted: "loss", "margin", "probability" or a function's name.
        diagnostics: How far to trust them.
        order_only: Whether only their order is to be read. Sizes are known at the minimum of a
            convex objective and where the method has compared them with retrainings; those from one
            checkpoint of a network can be a hundred times too large, and the first order more than
            a fifth off refined effects (`diagnostics.size_error`).

    Examples:
        >>> import numpy as np
        >>> scores = Scores(values=np.array([[0.2, -0.1, 0.0]]), query_ids=np.array([7]),
        ...                 train_ids=np.array(["a", "b", "c"]), positions=np.arange(3), n=3,
        ...                 method="example", measure="loss")
        >>> list(scores.top(1)), list(scores.bottom(1))
        ([('a', 0.2)], [('b', -0.1)])
    """

    values: Floats
    query_ids: NDArray[Any]
    train_ids: NDArray[Any]
    positions: NDArray[np.intp]
    n: int
    method: str
    measure: str
    diagnostics: Diagnostics | None = field(default=None, repr=False)
    order_only: bool = False

    def __post_init__(self) -> None:
        """Check that names and values agree, and that no value is missing."""
        expected = (len(self.query_ids), len(self.train_ids))
        if self.values.shape != expected or len(self.positions) != expected[1]:
            raise InvalidInput(f"Expected values of shape {expected}. Got {self.values.shape}.")
        # NaN and infinity reach the extremes; a mask would be as long as the scores.
        if self.values.size and not np.isfinite([self.values.min(), self.values.max()]).all():
            raise InvalidInput(
                "Expected finite scores. Got NaN or infinity: the curvature or a gradient "
                "overflowed. Scale the inputs, or add damping."
            )

    @property
    def caution(self) -> str:
        """What to say beside scores of which only the order is to be read; else empty."""
        if not self.order_only:
            return ""
        found = Diagnostics() if self.diagnostics is None else self.diagnostics
        if found.size_error is not None:
            return _FIRST_ORDER_ONLY.format(error=found.size_error)
        return f"{found.unconfirmed} {_ORDER_ONLY}".strip()

    @checked
    def top(self, k: int = 10) -> Ranking:
        """Return the k most helpful examples per query: the largest scores first."""
        return self._ranking(-self.values, k)

    @checked
    def bottom(self, k: int = 10) -> Ranking:
        """Return the k most harmful examples per query: the smallest scores first."""
        return self._ranking(self.values, k)

    @checked
    def largest(self, k: int = 10) -> Ranking:
        """Return the k most influential examples per query: the largest absolute scores first."""
        return self._ranking(-np.abs(self.values), k)

    def at(self, positions: Sequence[int] | NDArray[np.intp]) -> Scores:
        """Return the scores of some of the candidates.

        Args:
            positions: Their positions in the training data, [m], sorted or not.

        Raises:
            InvalidInput: If one is not among the candidates, or there is none.
        """
        wanted = known_positions("positions", positions, self.n)
        unknown = np.setdiff1d(wanted, self.positions)
        if len(unknown):
            raise InvalidInput(
                f"Expected positions of candidates. Got {unknown[0]}, which is none."
            )
        order = np.argsort(self.positions, kind="stable")
        where = order[np.searchsorted(self.positions, wanted, sorter=order)]
        return replace(
            self,
            values=self.values[:, where],
            train_ids=self.train_ids[where],
            positions=self.positions[where],
        )

    @checked
    def against(self, other: Scores) -> Scores:
        """Return the scores of these queries less those of others: why this answer and not that.

        They predict the change of the difference of the two measures. Of the losses of two answers
        to one prompt, a positive one means that the example favored this answer over the other.

        Args:
            other: Scores by the same method of the same candidates: one query for each, or one.

        Raises:
            InvalidInput: If they are of other candidates, another measure, or other in number.

        Examples:
            >>> import numpy as np
            >>> one = Scores(values=np.array([[0.5, 0.4]]), query_ids=np.array(["Paris"]),
            ...              train_ids=np.arange(2), positions=np.arange(2), n=2,
            ...              method="example", measure="loss")
            >>> other = replace(one, values=np.array([[0.1, 0.6]]), query_ids=np.array(["Rome"]))
            >>> [(id, round(effect, 2)) for id, effect in one.against(other).top(1)]
            [(0, 0.4)]
        """
        for name in ("positions", "n", "measure", "method"):
            if not np.array_equal(getattr(other, name), getattr(self, name)):
                raise InvalidInput(
                    f"Expected scores with the same {name}. Got another. Score both answers by one "
                    "method and one measure."
                )
        check_answers(len(self.query_ids), len(other.query_ids))
        measure = differing(self.measure, True)
        return replace(self, values=self.values - other.values, measure=measure)

    def upweight(self) -> Floats:
        """Return the paper's I_up,loss = −n × score: the derivative per unit of extra weight.

        References:
            Koh & Liang (2017), equation 2.
        """
        return -self.n * self.values

    def to_frame(self) -> pd.DataFrame:
        """Return a frame with a row per training example and a column per query."""
        return pd.DataFrame(self.values.T, index=self.train_ids, columns=self.query_ids)

    def card(self) -> Card:
        """Return what the scores are, and those of the first query that are largest either way."""
        q, k = self.values.shape
        first = self.largest(min(10, k)) if q and k else None
        table = None if first is None else pd.DataFrame(list(first), columns=["id", "score"])
        words = (f"The largest of query {self.query_ids[0]}:",) if first is not None else ()
        together = self.query_ids.tolist() == [self.measure]  # so a number of all is named
        count = "all" if together else f"{q:,}"
        return Card(
            title=f"{self.measure} of {count} {'query' if count == '1' else 'queries'} without "
            f"each of {k:,} of {self.n:,} training examples, by {self.method}"
            f"{'; order only' if self.order_only else ''}",
            facts={"queries": count, "candidates": f"{k:,}", "measure": self.measure},
            table=table,
            words=(self.caution, *words) if self.order_only else words,
        )

    def _ranking(self, keys: Floats, k: int) -> Ranking:
        """Return the k smallest keys of each row; ties in the order of the training data."""
        if k < 1:
            raise InvalidInput(f"Expected k >= 1. Got {k}.")
        least = [_least(row, k) for row in keys]
        order = np.array(least, dtype=np.intp).reshape(len(keys), min(k, keys.shape[1]))
        return Ranking(
            ids=self.train_ids[order],
            positions=self.positions[order],
            values=np.take_along_axis(self.values, order, axis=1),
        )


def _least(keys: Floats, k: int) -> NDArray[np.intp]:
    """Return the positions of the k smallest keys, ties in order: only those are sorted."""
    if k >= len(keys):
        return np.argsort(keys, kind="stable")
    some = np.flatnonzero(keys <= np.partition(keys, k - 1)[k - 1])
    return some[np.argsort(keys[some], kind="stable")[:k]]


def check_answers(queries: int, others: int) -> None:
    """Raise unless other answers are one for each query, or one for all.

    Raises:
        InvalidInput: If they are other in number.
    """
    if others not in (1, queries):
        raise InvalidInput(
            f"Expected one other answer, or {queries}, one for each query. Got {others}."
        )


def differing(measure: str, differs: bool) -> str:
    """Return the name of a measure, or of its difference between two answers."""
    return f"difference of the {measure}" if differs else measure


@checked
def average(scores: Sequence[Scores]) -> Scores:
    """Return the mean of several scores of the same pairs: of checkpoints, or of trainings.

    The noise of a single training is shared by all its scores, and only other trainings average
    it out.

    Args:
        scores: At least one, of the same queries, training examples and measure.

    Returns:
        Their mean, without diagnostics: those of each part hold for that part.

    Raises:
        InvalidInput: If there is none, or they are not of the same pairs or measure.

    References:
        Park et al. (2023), section 3.2, on ensembles of trainings.

    Examples:
        >>> import numpy as np
        >>> one = Scores(values=np.array([[0.2, 0.4]]), query_ids=np.array([7]),
        ...              train_ids=np.arange(2), positions=np.arange(2), n=2,
        ...              method="example", measure="loss")
        >>> average([one, one]).method
        'mean of 2: example'
    """
    if not scores:
        raise InvalidInput("Expected at least one Scores to average. Got none.")
    first = scores[0]
    for place, other in enumerate(scores):
        for name in ("query_ids", "train_ids", "positions", "n", "measure"):
            if not np.array_equal(getattr(other, name), getattr(first, name)):
                raise InvalidInput(
                    f"Expected scores with the same {name} to average. Got another {name} in "
                    f"entry {place} than in entry 0. Ask each for the same queries and candidates."
                )
    methods = list(dict.fromkeys(score.method for score in scores))
    return replace(
        first,
        values=np.mean([score.values for score in scores], axis=0),
        method=f"mean of {len(scores)}: {'; '.join(methods)}",
        diagnostics=None,
    )
