"""Differences of linear datamodeling scores, their intervals from the same resamples."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from whence.evaluation.correlation import Ranks

_RESAMPLES, _TAILS = 1000, (0.025, 0.975)

Array = NDArray[np.float64]


class Judge:
    """Retrainings on subsets, and resamples of them and of the queries, for all scores alike.

    A resample draws subsets and queries with replacement; ranks are those among all subsets.
    """

    def __init__(self, masks: NDArray[np.bool_], outcomes: Array) -> None:
        """Keep masks [m, n] and the ranks of outcomes [s, m, q], averaged over seeds."""
        self.removed = ~masks
        actual = outcomes.mean(0)
        m, q = actual.shape
        self.actual = Ranks(actual).under(np.ones(m))
        generator = np.random.default_rng(0)
        self.subsets = _counts(generator, m)
        self.queries = _counts(generator, q)

    def lds(self, scores: NDArray[Any]) -> Array:
        """Return the LDS of scores [q, n], and in each resample, [1 + r]."""
        sums = self.removed @ np.asarray(scores, dtype=np.float64).T
        predicted = Ranks(sums).under(np.ones(len(sums)))
        r = _correlations(predicted, self.actual, self.subsets)
        found: Array = (r * self.queries).sum(0) / self.queries.sum(0)
        return found


def _counts(generator: np.random.Generator, size: int) -> Array:
    """Return how often each of some things is drawn, once each in the first column, [size, 1+r]."""
    drawn = generator.multinomial(size, np.full(size, 1 / size), size=_RESAMPLES).T
    return np.hstack([np.ones((size, 1)), drawn])


def _correlations(x: Array, y: Array, counts: Array) -> Array:
    """Return the correlation of columns x and y [m, q] under counts [m, r], [q, r]; 0 of none."""
    total = counts.sum(0)
    mean_x, mean_y = x.T @ counts / total, y.T @ counts / total
    both = (x * y).T @ counts / total - mean_x * mean_y
    spread = (x * x).T @ counts / total - mean_x**2, (y * y).T @ counts / total - mean_y**2
    norm = np.sqrt(np.clip(spread[0], 0, None) * np.clip(spread[1], 0, None))
    found: Array = np.divide(both, norm, out=np.zeros_like(both), where=norm > 0)
    return found


def interval(values: Array) -> list[float]:
    """Return the first of some values, and the interval of the others, at 95 %."""
    return [float(values[0]), *(float(end) for end in np.quantile(values[1:], _TAILS))]
