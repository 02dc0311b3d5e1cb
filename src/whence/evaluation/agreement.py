"""Agreement of predicted and actual changes: correlation, slope and their intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from whence.checked import Float, checked, floats
from whence.errors import InvalidInput
from whence.evaluation.chance import Chance
from whence.evaluation.correlation import (
    RankCorrelation,
    bootstrap,
    constant_columns,
    draw,
    pearson,
    report_constant,
    slope,
    spearman,
)
from whence.evaluation.expected import ExpectedChanges
from whence.evaluation.figure import axes
from whence.result import Card, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

_CONFIDENCE = 0.95


@final
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Agreement(Result):
    """Predicted changes of q queries beside those that retraining made, for k removals.

    Attributes:
        predicted: Predicted change of query q if the k-th example is removed, [q, k].
        actual: Its change after retraining, [q, k].
        ids: The user's names of the removed examples, [k].
        positions: Their positions in the training data, [k].
        pearson: Pearson's R of all pairs, pooled over queries; NaN where one side does not vary.
        pearson_interval: Its bootstrap interval, over queries and removals.
        spearman: Spearman correlation of all pairs, pooled.
        spearman_interval: Its bootstrap interval.
        slope: Least-squares slope of actual on predicted, pooled, with an intercept:
            Σ (p − p̄)(a − ā) / Σ (p − p̄)². 1 is calibrated; above 1, effects are underestimated.
        slope_interval: Its bootstrap interval.
        confidence: Probability that each interval aims to cover.
        pearson_per_query: [q]; 0 where predictions, NaN where actual changes do not vary.
        spearman_per_query: [q]; likewise.
        slope_per_query: [q]; NaN where predictions do not vary.
        constant_predictions: Queries whose predictions do not vary.
        constant_outcomes: Queries whose actual changes do not vary.
        expected: What the removals do on average, where a single one is mostly noise, or `None`.
        chance: How far fits differ by the order of their examples alone, or `None`.
        own_fits: Where the estimator's own fits stop before the minimum of retraining, a sentence;
            else empty.
    """

    predicted: Float
    actual: Float
    ids: NDArray[Any]
    positions: NDArray[np.intp]
    pearson: float
    pearson_interval: tuple[float, float]
    spearman: float
    spearman_interval: tuple[float, float]
    slope: float
    slope_interval: tuple[float, float]
    confidence: float
    pearson_per_query: Float
    spearman_per_query: Float
    slope_per_query: Float
    constant_predictions: tuple[int, ...]
    constant_outcomes: tuple[int, ...]
    expected: ExpectedChanges | None = None
    chance: Chance | None = None
    own_fits: str = ""

    @property
    def r(self) -> float:
        """Pearson's R of all pairs, as it is printed."""
        return self.pearson

    @property
    def by_chance(self) -> str:
        """What of the actual changes is chance, a sentence; empty where little is known to be."""
        return "" if self.chance is None else self.chance.said(self.actual)

    def to_frame(self) -> pd.DataFrame:
        """Return a row per query and removal: query (from 0), id, position, predicted, actual."""
        q, k = self.predicted.shape
        return pd.DataFrame(
            {
                "query": np.repeat(np.arange(q), k),
                "id": np.tile(self.ids, q),
                "position": np.tile(self.positions, q),
                "predicted": self.predicted.ravel(),
                "actual": self.actual.ravel(),
            }
        )

    def __str__(self) -> str:
        """Return the comparison in one line; others say how far to trust it."""
        return "\n".join(self._lines())

    def card(self) -> Card:
        """Return the comparison, and the pairs."""
        low, high = self.pearson_interval
        facts = {
            "R": f"{self.pearson:.4f}",
            f"{self.confidence:.0%} interval": f"{low:.3f} to {high:.3f}",
            "slope": f"{self.slope:.3f}",
        }
        return Card(
            title=self._lines()[0],
            words=self._lines()[1:],
            facts={} if np.isnan(self.pearson) else facts,
            table=self.to_frame(),
        )

    def _lines(self) -> tuple[str, ...]:
        """Return the comparison, what of it is chance or another fit's, and that with means."""
        q, k = self.predicted.shape
        queries = "" if q == 1 else f" and {q} queries"
        found = f"R = {self.pearson:.4f}, slope = {self.slope:.3f}"
        if np.isnan(self.pearson):
            equal = "retrained" if constant_columns(self.actual.reshape(-1, 1))[0] else "predicted"
            found = f"no correlation, because all {equal} changes are equal"
        line = f"predicted vs retrained on {k} removals{queries}: {found}"
        expected = "" if self.expected is None else self.expected.said(self.predicted)
        return (line, *filter(None, (self.by_chance, self.own_fits, expected)))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw actual against predicted changes, with the identity and the fitted line.

        Args:
            ax: Axes to draw on; a new figure by default.

        Returns:
            The axes.
        """
        ax = axes(ax)
        x, y = self.predicted.ravel(), self.actual.ravel()
        ax.plot(x, y, ".", alpha=0.6, color="C0")
        ends = np.array([x.min(), x.max()])
        ax.plot(ends, ends, color="0.5", linestyle="--", label="predicted = actual")
        fitted = y.mean() + self.slope * (ends - x.mean())
        label = f"R {self.pearson:.4f}, slope {self.slope:.3f}"
        ax.plot(ends, fitted, color="C3", label=label)
        ax.set_xlabel("predicted change if removed")
        ax.set_ylabel("change after retraining")
        ax.legend()
        return ax


@checked
def loo_correlation(
    predicted: Tensor | NDArray[Any],
    actual: Tensor | NDArray[Any],
    *,
    confidence: float = _CONFIDENCE,
    resamples: int = 1000,
    seed: int = 0,
    ids: NDArray[Any] | None = None,
    positions: NDArray[np.intp] | None = None,
) -> Agreement:
    """Compare predicted changes with those that retraining without the example really made.

    Pooled values treat all q · k pairs as one cloud, as figures of predicted against actual do;
    they also reward telling queries apart, which the values per query do not. The slope says what
    a correlation cannot: whether the predicted *size* is right (see `Agreement.slope`).

    Args:
        predicted: Predicted change of query q's measure if its k-th example is removed, [q, k].
        actual: The change measured by retraining, [q, k]; the same pairs, the same unit. k ≥ 2.
        confidence: Probability that each interval aims to cover, in (0, 1).
        resamples: Bootstrap resamples; each draws queries and columns with replacement. Columns are
            drawn for all queries at once: one retraining without an example serves them all.
        seed: Seed of the bootstrap.
        ids: The names of the removed examples, [k]; their positions if `None`.
        positions: Their positions in the training data, [k]; 0..k−1 if `None`.

    Returns:
        Pearson, Spearman and slope, pooled with intervals and per query.

    Raises:
        InvalidInput: If shapes disagree, an entry is not finite, or nothing varies.

    Warns:
        UserWarning: If predictions or actual changes of some queries do not vary.

    Cost:
        O(resamples · q · k).

    References:
        Koh & Liang (2017), arXiv:1703.04730, §4.1, Figure 2.

    Examples:
        >>> import torch
        >>> actual = torch.tensor([[0.2, -0.1, 0.4]])
        >>> result = loo_correlation(actual / 2, actual)  # right order, half the size
        >>> round(result.pearson, 6), round(result.slope, 6)
        (1.0, 2.0)
    """
    p, a = _pairs(predicted, actual)
    pooled_p, pooled_a = p.reshape(-1, 1), a.reshape(-1, 1)
    blank, fixed = constant_columns(p.T), constant_columns(a.T)
    constant_predictions, constant_outcomes = report_constant(blank, fixed)
    # Ranks would see order in rounding; a column without spread is made exactly constant.
    columns_p, columns_a = np.where(blank, 0.0, p.T), np.where(fixed, 0.0, a.T)
    ranks = RankCorrelation(pooled_p, pooled_a)

    def counts(generator: np.random.Generator) -> Float:
        """Return how often each pair is present in one resample, [qk]."""
        queries = draw(generator, len(p)) if len(p) > 1 else np.ones(1)
        return np.outer(queries, draw(generator, p.shape[1])).ravel()

    def per_query(correlation: Callable[[Float, Float], Float]) -> Float:
        """Return a correlation within each query; 0 where there is no prediction, [q]."""
        return np.where(blank & ~fixed, 0.0, correlation(columns_p, columns_a))

    intervals = bootstrap(
        counts,
        [
            lambda c: pearson(pooled_p, pooled_a, c),
            lambda c: ranks.under(c)[0],
            lambda c: slope(pooled_p, pooled_a, c),
        ],
        resamples=resamples,
        confidence=confidence,
        seed=seed,
    )
    where = np.arange(p.shape[1]) if positions is None else positions
    return Agreement(
        predicted=p,
        actual=a,
        ids=where if ids is None else ids,
        positions=where,
        pearson=float(pearson(pooled_p, pooled_a)[0]),
        pearson_interval=intervals[0],
        spearman=float(spearman(pooled_p, pooled_a)[0]),
        spearman_interval=intervals[1],
        slope=float(slope(pooled_p, pooled_a)[0]),
        slope_interval=intervals[2],
        confidence=confidence,
        pearson_per_query=per_query(pearson),
        spearman_per_query=per_query(spearman),
        slope_per_query=slope(columns_p, columns_a),
        constant_predictions=constant_predictions,
        constant_outcomes=constant_outcomes,
    )


def _pairs(predicted: Tensor | NDArray[Any], actual: Tensor | NDArray[Any]) -> tuple[Float, Float]:
    """Return predicted and actual changes as arrays of one shape, of which neither is constant."""
    p, a = floats("predicted", predicted, "q, k"), floats("actual", actual, "q, k")
    if p.shape != a.shape or p.shape[1] < 2:
        raise InvalidInput(
            "predicted and actual must have the same shape [q, k] with at least k = 2 removals. "
            f"Got {list(p.shape)} and {list(a.shape)}."
        )
    for name, changes in (("predicted", p), ("actual", a)):
        if constant_columns(changes.reshape(-1, 1))[0]:
            raise InvalidInput(
                f"No correlation exists with a constant: all {p.size} {name} changes are "
                f"{changes.flat[0]:g}. Check that the removed examples were really removed."
            )
    return p, a


def agreement(
    predicted: Float, actual: Float, ids: NDArray[Any], positions: NDArray[np.intp]
) -> Agreement:
    """Compare as `loo_correlation` does; where nothing varies, R and slope are NaN.

    Args:
        predicted: [q, k].
        actual: [q, k].
        ids: The names of the removed examples, [k].
        positions: Their positions in the training data, [k].

    Returns:
        The comparison.
    """
    pooled = predicted.reshape(-1, 1), actual.reshape(-1, 1)
    if predicted.shape[1] > 1 and not any(constant_columns(each)[0] for each in pooled):
        return loo_correlation(predicted, actual, ids=ids, positions=positions)
    nan, each = float("nan"), np.full(len(predicted), np.nan)
    every = tuple(range(len(predicted)))
    return Agreement(
        predicted=predicted,
        actual=actual,
        ids=ids,
        positions=positions,
        pearson=nan,
        pearson_interval=(nan, nan),
        spearman=nan,
        spearman_interval=(nan, nan),
        slope=nan,
        slope_interval=(nan, nan),
        confidence=_CONFIDENCE,
        pearson_per_query=each,
        spearman_per_query=each,
        slope_per_query=each,
        constant_predictions=every,
        constant_outcomes=every,
    )
