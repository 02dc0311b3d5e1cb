r"""Leaf values and starts that are quantiles of residuals, with derivatives that are smoothed.

A quantile is one residual, or lies between two: its derivative in the weight of any other row is
zero almost everywhere, and says nothing of removals. The derivatives here are those of a quantile
whose distribution is smooth: with the m rows nearest to v, of width d and weight W,
∂v/∂wᵢ = (q − 1[rᵢ < v]) d/W, and ∂v/∂F(xᵢ) = −wᵢ/W for those rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.stats import _weighted_percentile

from whence.arrays import Floats
from whence.trees.leaves import Integers, LeafRule, Round
from whence.trees.starts import Start

# Returns the quantile of values under positive weights at a level in (0, 1).
Quantile = Callable[[Floats, Floats, float], float]

_WINDOW = 2.0  # times the square root of the number of rows: those that tell the density
_LEAST = 4


@dataclass(frozen=True, eq=False)
class QuantileLeaves(LeafRule):
    """Leaf values v = η quantile_q(y − F) of their rows, for losses of one output.

    Args:
        level: q, in (0, 1).
        quantile: The library's quantile.
        rates: η of each round, [t].
        size: The number of leaves that room is kept for.
    """

    level: float
    quantile: Quantile
    rates: Floats
    size: int

    def values(
        self, t: int, leaf: Integers, outputs: Floats, targets: Floats, weights: Floats
    ) -> Floats:
        """Return the quantiles, times η."""
        residuals, found = targets - outputs[:, 0], np.zeros((1, self.size))
        scale = self._scale(residuals, weights[:, 0])
        for at, rows in _rows(leaf[0], self.size):
            inside = rows[weights[rows, 0] > 0]
            if len(inside):
                found[0, at] = self._value(residuals[inside], weights[inside, 0], scale)
        return np.asarray(self.rates[t] * found)

    def round(
        self, t: int, leaf: Integers, outputs: Floats, targets: Floats, weights: Floats
    ) -> Round:
        """Return round t with smoothed derivatives."""
        residuals, n = targets - outputs[:, 0], len(targets)
        by_weight, by_output = np.zeros((n, 1)), np.zeros((n, 1, 1))
        scale = self._scale(residuals, weights[:, 0])
        for _, rows in _rows(leaf[0], self.size):
            inside = weights[rows, 0] > 0
            if inside.any():
                moved = self._derivatives(residuals[rows], weights[rows, 0], inside, scale)
                by_weight[rows, 0], by_output[rows, 0, 0] = moved
        rate = self.rates[t]
        return Round(leaf, rate * by_weight, rate * by_output)

    def _scale(self, residuals: Floats, weights: Floats) -> float:
        """Return what all leaves of a round share; nothing for a quantile."""
        return 0.0

    def _value(self, residuals: Floats, weights: Floats, scale: float) -> float:
        """Return the value of a leaf, before η."""
        return self.quantile(residuals, weights, self.level)

    def _derivatives(
        self, residuals: Floats, weights: Floats, inside: NDArray[np.bool_], scale: float
    ) -> tuple[Floats, Floats]:
        """Return the derivatives of a leaf's value in the weights and outputs of its rows."""
        value = self.quantile(residuals[inside], weights[inside], self.level)
        return smoothed(residuals, weights, value, self.level)


@dataclass(frozen=True, eq=False)
class HuberLeaves(QuantileLeaves):
    """Leaf values v = η (μ + mean of y − F − μ clipped to ±δ), μ the median of the residuals.

    δ is a quantile of all |y − F| of the round, and held where derivatives are taken.

    Args:
        share: The level of that quantile, in (0, 1).
    """

    share: float

    def _scale(self, residuals: Floats, weights: Floats) -> float:
        """Return δ."""
        inside = weights > 0
        return self.quantile(np.abs(residuals[inside]), weights[inside], self.share)

    def _value(self, residuals: Floats, weights: Floats, scale: float) -> float:
        """Return the median and the mean of what is clipped."""
        median = self.quantile(residuals, weights, self.level)
        clipped = np.clip(residuals - median, -scale, scale)
        return float(median + np.average(clipped, weights=weights))

    def _derivatives(
        self, residuals: Floats, weights: Floats, inside: NDArray[np.bool_], scale: float
    ) -> tuple[Floats, Floats]:
        """Return the derivatives, those of the median smoothed."""
        by_weight, by_output = super()._derivatives(residuals, weights, inside, scale)
        median = self.quantile(residuals[inside], weights[inside], self.level)
        apart = residuals - median
        clipped = np.clip(apart, -scale, scale)
        free, total = np.abs(apart) < scale, weights.sum()
        rest = 1 - (weights * free).sum() / total  # how far the value follows the median
        mean = (weights * clipped).sum() / total
        return (
            rest * by_weight + (clipped - mean) / total,
            rest * by_output - weights * free / total,
        )


@dataclass(frozen=True)
class QuantileStart(Start):
    """F₀ = quantile_q(y), with smoothed derivatives.

    Args:
        level: q, in (0, 1).
        quantile: The library's quantile.

    Examples:
        >>> QuantileStart(0.5, of_numpy).value(np.array([1.0, 2.0, 9.0]), np.ones(3))
        array([2.])
    """

    level: float
    quantile: Quantile

    def value(self, targets: Floats, weights: Floats) -> Floats:
        """Return the quantile of the targets with weight."""
        inside = weights > 0
        return np.array([self.quantile(targets[inside], weights[inside], self.level)])

    def gradient(self, targets: Floats, weights: Floats) -> Floats:
        """Return the smoothed derivatives."""
        value = float(self.value(targets, weights)[0])
        return smoothed(targets, weights, value, self.level)[0][:, None]


def smoothed(values: Floats, weights: Floats, at: float, level: float) -> tuple[Floats, Floats]:
    """Return how a quantile moves with the weights and, negatively, with shifts of the values.

    Args:
        values: The values, [m].
        weights: Their weights >= 0, [m].
        at: The quantile.
        level: q.

    Returns:
        (q − 1[r < v]) d/W, [m], and −w/W for the rows nearest to v, else 0, [m]; these sum to −1.
    """
    inside = np.flatnonzero(weights > 0)
    window = max(_LEAST, int(np.ceil(_WINDOW * np.sqrt(len(inside)))))
    order = np.argsort(np.abs(values[inside] - at), kind="stable")
    near = inside[order[:window]]
    total = weights[near].sum()
    kernel = np.zeros_like(values)
    kernel[near] = -weights[near] / total
    density = np.ptp(values[near]) / total
    return (level - (values < at)) * density, kernel


def _rows(leaf: Integers, size: int) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Yield each leaf that has rows with them, but for the number of no leaf."""
    order = np.argsort(leaf, kind="stable")
    ends = np.searchsorted(leaf[order], np.arange(size))
    for at in range(size - 1):
        if ends[at + 1] > ends[at]:
            yield at, order[ends[at] : ends[at + 1]]


def of_numpy(values: Floats, weights: Floats, level: float) -> float:
    """Return NumPy's quantile of equal weights, else that of `of_sklearn`: HistGradientBoosting's.

    Args:
        values: [m].
        weights: > 0, [m].
        level: In (0, 1).
    """
    if (weights == weights[0]).all():
        return float(np.percentile(values, 100 * level))
    return of_sklearn(values, weights, level)


def of_sklearn(values: Floats, weights: Floats, level: float) -> float:
    """Return scikit-learn's weighted percentile: GradientBoosting's, with or without weights.

    Args:
        values: [m].
        weights: > 0, [m].
        level: In (0, 1).
    """
    return float(_weighted_percentile(values, weights, 100 * level))


def of_lightgbm(values: Floats, weights: Floats, level: float) -> float:
    """Return LightGBM's percentile: NumPy's, or of weights one of its own.

    Args:
        values: [m].
        weights: > 0, [m].
        level: In (0, 1).

    Examples:
        >>> of_lightgbm(np.array([1.0, 2.0, 3.0, 4.0]), np.ones(4), 0.5)
        2.5
    """
    if (weights == weights[0]).all():
        return float(np.percentile(values, 100 * level))
    order, m = np.argsort(values, kind="stable"), len(values)
    cumulated = np.cumsum(weights[order])
    threshold = cumulated[-1] * level
    at = min(int(np.searchsorted(cumulated, threshold, side="right")), m - 1)
    if at in (0, m - 1):
        return float(values[order[at]])
    below, above = values[order[at - 1]], values[order[at]]
    step = cumulated[at] - cumulated[at - 1]
    if step < 1:
        return float(below)
    return float(below + (threshold - cumulated[at - 1]) / step * (above - below))


def of_xgboost(values: Floats, weights: Floats, level: float) -> float:
    """Return XGBoost's quantile: at q (m + 1), or the first whose cumulated weight reaches q.

    Args:
        values: [m].
        weights: > 0, [m].
        level: In (0, 1).

    Examples:
        >>> of_xgboost(np.array([1.0, 2.0, 3.0, 4.0]), np.ones(4), 0.5)
        2.5
    """
    order, m = np.argsort(values, kind="stable"), len(values)
    if (weights == weights[0]).all():
        if level <= 1 / (m + 1):
            return float(values[order[0]])
        if level >= m / (m + 1):
            return float(values[order[-1]])
        place = level * (m + 1) - 1
        at = int(np.floor(place))
        low, high = values[order[at]], values[order[at + 1]]
        return float(low + (place - at) * (high - low))
    cumulated = np.cumsum(weights[order])
    at = min(int(np.searchsorted(cumulated, cumulated[-1] * level)), m - 1)
    return float(values[order[at]])
