"""Stability of scores over trainings with other seeds and orders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from whence.arrays import Floats
from whence.checked import checked, positions
from whence.errors import InvalidInput
from whence.methods.choose import chosen
from whence.methods.method import Method
from whence.methods.prediction import MeasureLike
from whence.objective.trained import Data, Trained
from whence.pages import Status
from whence.result import Card, Result
from whence.scores import Scores, average
from whence.training.run import Run
from whence.training.train import reordered
from whence.views.statuses import resolved_of

_CONFIDENCE = 0.95
_RESOLVED = 0.8  # of the list that another training must name for it to count as resolved


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Stability(Result):
    """How far the scores of several trainings agree; made by `stability`.

    Args:
        mean: The mean scores over the trainings, [q, n].
        low: Lower ends of the 95 % intervals of the expected score of a training, [q, n].
        high: Upper ends.
        again: For each query, how much of the k examples with the largest mean scores by size each
            training names among its own k, on average, in [0, 1], [q].
        k: How many examples a list has.
        trainings: How many trainings.
    """

    mean: Scores
    low: Floats
    high: Floats
    again: Floats
    k: int
    trainings: int

    @property
    def resolved(self) -> NDArray[np.bool_]:
        """Which queries' lists another training would name again, by four fifths or more, [q]."""
        return self.again >= _RESOLVED

    @checked
    def to_frame(self, query: int = 0) -> pd.DataFrame:
        """Return the k examples with the largest mean scores by size, with their intervals.

        Args:
            query: Position of the query.

        Raises:
            InvalidInput: If there is no such query.
        """
        query = int(positions("query", query, len(self.again))[0])
        ranking = self.mean.largest(self.k)
        where = np.searchsorted(self.mean.positions, ranking.positions[query])
        return pd.DataFrame(
            {
                "id": ranking.ids[query],
                "score": ranking.values[query],
                "low": self.low[query, where],
                "high": self.high[query, where],
                "sign_is_clear": (self.low[query, where] > 0) | (self.high[query, where] < 0),
            }
        )

    def statuses(self) -> tuple[Status, ...]:
        """Return what the page of the one query says: whether other trainings name its list again.

        Raises:
            InvalidInput: If there are several queries.
        """
        if len(self.again) != 1:
            raise InvalidInput(
                f"Expected the stability of one query for its page. Got {len(self.again)} queries. "
                "Pass the explained query alone to whence.stability."
            )
        return (resolved_of(float(self.again[0]), _RESOLVED, self.k, self.trainings),)

    def card(self) -> Card:
        """Return how many lists are resolved, and that of the first query."""
        agreed = int(self.resolved.sum())
        have = "has" if agreed == 1 else "have"
        title = (
            f"Of {len(self.again)} queries, {agreed} {have} a list of {self.k} "
            f"that {self.trainings} trainings agree on: a training names {self.again.mean():.0%} "
            "of it on average."
        )
        words = f"Query {self.mean.query_ids[0]}, with 95 % intervals:"
        return Card(title=title, table=self.to_frame(), words=(words,))


@checked
def stability(
    models: Run | Sequence[Trained],
    queries: Data,
    *,
    seeds: Sequence[int] = (1, 2, 3, 4),
    k: int = 10,
    measure: MeasureLike = "loss",
    method: Method | None = None,
) -> Stability:
    """Score training examples under several trainings of one model, and say what is there again.

    With s_t the score under training t, the interval is the mean over t ± t_{0.975} · sd / √T: of
    the score to expect from another seed and order. What one training alone shows is not worth
    quoting where the interval holds both signs.

    Args:
        models: One training recorded by `whence.train`, which is repeated; or at least two on the
            same examples, from other starts or in other orders, recorded or objectives.
        queries: (X, y) of q queries.
        seeds: Of one training: it is repeated once for each, from the same start, with its examples
            in the order that the seed decides.
        k: How many examples a list has, >= 1.
        measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b].
        method: What scores the examples; `whence.Influence` if `None`.

    Returns:
        Mean scores with intervals, and which lists are resolved.

    Raises:
        InvalidInput: If there are fewer than two models, or their examples differ.

    Cost:
        The scores of each model; of one training also a training for each seed.

    References:
        Nguyen, Seo & Oh (2023), "A Bayesian approach to analysing training data attribution in
        deep learning", section 3, on the noise of a single training.

    Examples:
        >>> import torch, whence
        >>> data = torch.randn(40, 4), torch.arange(40) % 3
        >>> runs = []
        >>> for seed in range(3):
        ...     _ = torch.manual_seed(seed)
        ...     recipe = whence.Recipe(learning_rate=0.1, batch_size=10, epochs=5, seed=seed)
        ...     net = torch.nn.Linear(4, 3)
        ...     runs.append(whence.train(net, whence.CrossEntropy(), data, recipe))
        >>> found = whence.stability(runs, data, k=5, method=whence.TracIn())
        >>> found.again.shape
        (40,)
        >>> whence.stability(runs[0], data, seeds=(1, 2), method=whence.TracIn()).trainings
        3
    """
    models = _trainings(models, seeds)
    if len(models) < 2 or k < 1:
        raise InvalidInput(f"Expected at least 2 models and k >= 1. Got {len(models)} and k={k}.")
    scorer = chosen(models[0], method)
    each = [scorer.fit(model).scores(queries, measure=measure) for model in models]
    mean = average(each)
    values = np.stack([scores.values for scores in each])
    spread = values.std(0, ddof=1) / np.sqrt(len(each))
    reach = float(stats.t.ppf((1 + _CONFIDENCE) / 2, len(each) - 1)) * spread
    top = mean.largest(k).positions
    overlap = np.stack(
        [
            [len(np.intersect1d(a, b)) / len(a) for a, b in zip(top, own, strict=True)]
            for own in (scores.largest(k).positions for scores in each)
        ]
    )
    return Stability(
        mean=mean,
        low=mean.values - reach,
        high=mean.values + reach,
        again=overlap.mean(0),
        k=k,
        trainings=len(each),
    )


@singledispatch
def _trainings(models: Any, seeds: Sequence[int]) -> Sequence[Trained]:
    """Return the trainings that are compared."""
    return tuple(models)


@_trainings.register
def _repeated(models: Run, seeds: Sequence[int]) -> Sequence[Trained]:
    return models, *(reordered(models, seed) for seed in seeds)


@_trainings.register
def _refused(models: Trained, seeds: Sequence[int]) -> Sequence[Trained]:
    raise InvalidInput(
        "Expected a training recorded by whence.train, which can be repeated, or a list of several "
        f"models. Got one, {models!r}. Fit it several times, and pass all of them."
    )
