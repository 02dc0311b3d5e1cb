"""Correlation down the columns of two matrices, and its bootstrap without sorting again.

A bootstrap resample of m rows is a vector of counts, [m]: how often each row was drawn. Ranks under
counts need no new sort: with the rows sorted once, the average rank of a row is the mean of the
first and last place its tied group takes, and both are entries of one cumulative sum of counts.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import final

import numpy as np
from scipy.stats import rankdata

from whence.checked import Bool, Float
from whence.errors import InvalidInput

# Sums of equal numbers differ by rounding; a spread this small beside the numbers is no spread.
_ROUNDING = 1e-12
# Counts of resamples that a statistic sees at once: 2 MB.
_NUMBERS = 2**18


def constant_columns(x: Float, scale: Float | None = None) -> Bool:
    """Return which columns of `x` [m, q] do not vary beyond rounding.

    Args:
        x: Matrix [m, q].
        scale: The size of the numbers that `x` was summed from, [q]; the largest |x| by default.

    Returns:
        One boolean per column, [q].
    """
    size = np.abs(x).max(axis=0) if scale is None else scale
    return np.asarray(np.ptp(x, axis=0) <= _ROUNDING * size, dtype=np.bool_)


def report_constant(blank: Bool, fixed: Bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Warn about queries that have nothing to correlate, saying what is done about them.

    Args:
        blank: Whether the predictions of each query are all the same, [q].
        fixed: Whether its actual outcomes are, [q].

    Returns:
        The queries with constant predictions, and those with constant outcomes.

    Warns:
        UserWarning: If there are any.
    """
    for flags, what in (
        (blank & ~fixed, "predictions do not vary (their correlation counts as 0)"),
        (fixed, "actual outcomes do not vary (they have no correlation, and are left out)"),
    ):
        if flags.any():
            queries = np.flatnonzero(flags).tolist()
            shown = f"{queries[:10]}{' …' if len(queries) > 10 else ''}"
            warnings.warn(f"In queries {shown} the {what}.", stacklevel=3)
    return tuple(np.flatnonzero(blank).tolist()), tuple(np.flatnonzero(fixed).tolist())


@final
class Ranks:
    """Average ranks of each column of a matrix [m, q], for any resampling of its rows."""

    def __init__(self, x: Float) -> None:
        """Sort each column once."""
        self._order = np.argsort(x, axis=0, kind="stable")
        self._first = rankdata(x, method="min", axis=0).astype(np.intp) - 1
        self._last = rankdata(x, method="max", axis=0).astype(np.intp)

    def under(self, counts: Float) -> Float:
        """Return the average ranks [m, q] when row j is present `counts[j]` times, [m].

        Of one column under several resamples, counts [m, r], those under each: [m, r].
        """
        sorted_counts = np.take_along_axis(_columns(counts), self._order, axis=0)
        places = np.zeros((len(counts) + 1, sorted_counts.shape[1]))
        np.cumsum(sorted_counts, axis=0, out=places[1:])
        first = np.take_along_axis(places, self._first, axis=0)
        last = np.take_along_axis(places, self._last, axis=0)
        return np.asarray((first + last + 1) / 2, dtype=np.float64)


def _columns(counts: Float) -> Float:
    """Return the counts of resamples as columns, [m, 1] or [m, r]."""
    return counts.reshape(len(counts), -1)


def pearson(x: Float, y: Float, counts: Float | None = None) -> Float:
    """Return the Pearson correlation of each column of `x` with the same column of `y`.

    r = Σ c (x − x̄)(y − ȳ) / √(Σ c (x − x̄)² · Σ c (y − ȳ)²), with x̄, ȳ the means under the counts c.

    Args:
        x: Matrix [m, q].
        y: Matrix [m, q].
        counts: How often each row is present, [m]; once by default. Where q = 1 also in each of
            several resamples, [m, r].

    Returns:
        Correlations [q], or [r] of one column; NaN where a column does not vary.
    """
    c = np.ones((len(x), 1)) if counts is None else _columns(counts)
    dx, dy = x - (c * x).sum(0) / c.sum(0), y - (c * y).sum(0) / c.sum(0)
    # Scaled first, so that a spread of 1e-200 or 1e200 neither vanishes nor overflows when squared.
    present = c > 0
    sx, sy = (np.abs(d * present).max(0) for d in (dx, dy))
    varies = (sx > _ROUNDING * np.abs(x).max(0)) & (sy > _ROUNDING * np.abs(y).max(0))
    dx, dy = dx / np.where(varies, sx, 1.0), dy / np.where(varies, sy, 1.0)
    norm = np.sqrt((c * dx**2).sum(0) * (c * dy**2).sum(0))
    r = (c * dx * dy).sum(0) / np.where(varies, norm, 1.0)
    return np.where(varies, np.clip(r, -1.0, 1.0), np.nan)


def spearman(x: Float, y: Float) -> Float:
    """Return the Spearman correlation of each column of `x` with the same column of `y`.

    The Pearson correlation of the average ranks.

    Args:
        x: Matrix [m, q].
        y: Matrix [m, q].

    Returns:
        Correlations [q]; NaN where a column does not vary.
    """
    once = np.ones(len(x))
    return pearson(Ranks(x).under(once), Ranks(y).under(once))


@final
class RankCorrelation:
    """Spearman correlation of each column of `x` [m, q] with that of `y`, for any resampling."""

    def __init__(self, x: Float, y: Float) -> None:
        """Sort each column once."""
        columns = zip(x.T[:, :, None], y.T[:, :, None], strict=True)
        self._ranks = [(Ranks(one), Ranks(other)) for one, other in columns]

    def under(self, counts: Float) -> Float:
        """Return the correlations [q, r] when row j is present `counts[j]` times, [m, r]."""
        return np.stack([pearson(x.under(counts), y.under(counts), counts) for x, y in self._ranks])


def slope(x: Float, y: Float, counts: Float | None = None) -> Float:
    """Return the least-squares slope, with intercept, of each column of `y` on that of `x`.

    Σ c (x − x̄)(y − ȳ) / Σ c (x − x̄)².

    Args:
        x: Matrix [m, q].
        y: Matrix [m, q].
        counts: How often each row is present, as for `pearson`.

    Returns:
        Slopes [q], or [r] of one column; NaN where a column of `x` does not vary.
    """
    c = np.ones((len(x), 1)) if counts is None else _columns(counts)
    dx, dy = x - (c * x).sum(0) / c.sum(0), y - (c * y).sum(0) / c.sum(0)
    # Divided by the spread first, so that changes of 1e-200 do not vanish when squared.
    spread = np.abs(np.where(c > 0, dx, 0.0)).max(0)
    varies = spread > _ROUNDING * np.abs(x).max(0)
    dx = dx / np.where(varies, spread, 1.0)
    slope = (c * dx * dy).sum(0) / np.where(varies, (c * dx**2).sum(0), 1.0)
    return np.where(varies, slope / np.where(varies, spread, 1.0), np.nan)


def bootstrap(
    counts: Callable[[np.random.Generator], Float],
    statistics: Sequence[Callable[[Float], Float]],
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> list[tuple[float, float]]:
    """Return the percentile bootstrap intervals of statistics of counts, all of the same resamples.

    Args:
        counts: Draws one resample: how often each of m things is present, [m].
        statistics: From the counts of several resamples, [m, r], to a value of each, [r].
        resamples: Number of resamples, at least 1.
        confidence: Probability that each interval aims to cover, in (0, 1).
        seed: Seed of the resampling.

    Returns:
        Lower and upper end for each statistic. Values that are NaN are left out.

    Raises:
        InvalidInput: If `resamples` or `confidence` is out of range.
    """
    if resamples < 1:
        raise InvalidInput(f"resamples must be at least 1. Got {resamples}.")
    if not 0 < confidence < 1:
        raise InvalidInput(f"confidence must lie strictly between 0 and 1. Got {confidence}.")
    generator = np.random.default_rng(seed)
    values: list[list[Float]] = []
    done = 0
    while done < resamples:
        block = [counts(generator)]
        at_once = max(1, _NUMBERS // len(block[0]))
        block += [counts(generator) for _ in range(min(at_once, resamples - done) - 1)]
        columns = np.stack(block, axis=1)
        values.append([statistic(columns) for statistic in statistics])
        done += len(block)
    return [_percentiles(np.concatenate(of), confidence) for of in zip(*values, strict=True)]


def _percentiles(values: Float, confidence: float) -> tuple[float, float]:
    """Return the interval that holds the middle of the finite values; NaN if there are none."""
    values = values[np.isfinite(values)]
    if not len(values):
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def draw(generator: np.random.Generator, size: int) -> Float:
    """Return how often each of `size` things is drawn in `size` draws with replacement, [size]."""
    picks = generator.integers(size, size=size)
    return np.bincount(picks, minlength=size).astype(np.float64)
