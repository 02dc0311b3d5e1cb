"""The linear datamodeling score, and its upper limit given the noise of the ground truth.

Scores are read in whence's one sign: `scores[q, i]` predicts the change of query q's measure **if
example i is removed**. A set of removed examples is predicted by the sum over the set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.checked import Bool, Float, array, booleans, checked, floats
from whence.errors import InvalidInput
from whence.evaluation.correlation import (
    RankCorrelation,
    Ranks,
    bootstrap,
    constant_columns,
    draw,
    pearson,
    report_constant,
)
from whence.evaluation.figure import axes
from whence.result import Card, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@final
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class NoiseCeiling(Result):
    """What a perfect predictor of the expected outcome would reach, and how far seeds agree.

    Attributes:
        mean: Mean ceiling over the queries whose outcomes vary, in [0, 1].
        per_query: Ceiling of each query, [q]; NaN where its outcomes do not vary.
        agreement: Mean over queries of the seed-to-seed agreement, in [-1, 1].
        agreement_per_query: Mean Spearman correlation over all pairs of seeds, [q].
    """

    mean: float
    per_query: Tensor
    agreement: float
    agreement_per_query: Tensor

    def card(self) -> Card:
        """Return the ceiling."""
        return Card(
            title=f"noise ceiling {self.mean:.3f} of {len(self.per_query):,} queries; seeds agree "
            f"with {self.agreement:.3f}"
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the histogram of the queries' ceilings, and their mean.

        Args:
            ax: Axes to draw on; a new figure by default.

        Returns:
            The axes.
        """
        ax = axes(ax)
        values = self.per_query[self.per_query.isfinite()].numpy()
        ax.hist(values, bins=min(20, max(5, len(values) // 4)), color="0.8")
        ax.axvline(self.mean, color="C3", linestyle="--", label=f"noise ceiling {self.mean:.3f}")
        ax.set_xlabel(f"noise ceiling; agreement of seeds {self.agreement:.3f}")
        ax.set_ylabel("queries")
        ax.legend()
        return ax


@final
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class LDS(Result):
    """The linear datamodeling score, with its interval and the ceiling of its ground truth.

    Attributes:
        mean: Mean of `per_query` over the queries whose outcomes vary.
        interval: Bootstrap interval of the mean, over subsets and queries.
        confidence: Probability that the interval aims to cover.
        per_query: Spearman correlation of each query, [q]; NaN where its outcomes do not vary.
        ceiling: What a perfect predictor would reach; `None` with one seed, which cannot tell.
        subsets: Number m of subsets.
        seeds: Number s of trainings averaged for each subset.
        constant_predictions: Queries with the same prediction for all subsets; they count as 0.
        constant_outcomes: Queries with the same outcome for all subsets; they are left out.
    """

    mean: float
    interval: tuple[float, float]
    confidence: float
    per_query: Tensor
    ceiling: NoiseCeiling | None
    subsets: int
    seeds: int
    constant_predictions: tuple[int, ...]
    constant_outcomes: tuple[int, ...]

    def card(self) -> Card:
        """Return the score with its interval."""
        low, high = self.interval
        title = (
            f"LDS {self.mean:.3f}, {self.confidence:.0%} interval {low:.3f} to {high:.3f}, over "
            f"{len(self.per_query):,} queries and {self.subsets:,} subsets"
        )
        facts = {"LDS": f"{self.mean:.3f}", "interval": f"{low:.3f} to {high:.3f}"}
        if self.ceiling is not None:
            facts["a perfect prediction would reach"] = f"{self.ceiling.mean:.3f}"
        return Card(title=title, facts=facts)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the histogram of the queries, the mean with its interval, and the ceiling.

        Args:
            ax: Axes to draw on; a new figure by default.

        Returns:
            The axes.
        """
        ax = axes(ax)
        values = self.per_query[self.per_query.isfinite()].numpy()
        ax.hist(values, bins=min(20, max(5, len(values) // 4)), color="0.8")
        ax.axvspan(*self.interval, color="C0", alpha=0.25, linewidth=0)
        ax.axvline(self.mean, color="C0", label=f"mean {self.mean:.3f}")
        if self.ceiling is not None:
            ceiling = self.ceiling.mean
            ax.axvline(ceiling, color="C3", linestyle="--", label=f"noise ceiling {ceiling:.3f}")
        ax.set_xlabel(f"Spearman correlation over {self.subsets} subsets, {self.seeds} seed(s)")
        ax.set_ylabel("queries")
        ax.legend()
        return ax


@checked
def noise_ceiling(outcomes: Tensor | NDArray[Any]) -> NoiseCeiling:
    """Estimate the LDS of a perfect predictor of the expected outcome, from agreement of seeds.

    With r the mean Spearman correlation between two seeds over all pairs of the s seeds, the mean
    of s seeds has reliability ρ = s r / (1 + (s − 1) r) (Spearman–Brown; the split-half correction
    is s = 2), and the expectation itself correlates with that mean as **ceiling = √ρ** (correction
    for attenuation). r below 0 gives 0. The formula is exact for Pearson correlation under noise
    that is independent between seeds; for Spearman it is within about 0.02 on normal outcomes.
    Where the true r is near 0 the estimate is too high, because √max(r, 0) is never negative.

    Args:
        outcomes: Measure of query q after training on subset j with seed i, [s, m, q], s ≥ 2.

    Returns:
        The ceiling of each query and the mean, with the agreement it was computed from.

    Raises:
        InvalidInput: If there are fewer than two seeds or three subsets, or no outcome varies.

    Cost:
        s rankings of an [m, q] matrix.

    References:
        Spearman (1910), Brown (1910), "Correlation calculated from faulty data".

    Examples:
        >>> import torch
        >>> one_seed = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
        >>> noise_ceiling(torch.stack([one_seed, one_seed])).mean
        1.0
    """
    y = floats("outcomes", outcomes, "s, m, q")
    s, m, _ = y.shape
    if s < 2 or m < 3:
        raise InvalidInput(
            f"A noise ceiling needs at least 2 seeds and 3 subsets. Got outcomes {list(y.shape)}; "
            "train the subsets again with another seed."
        )
    fixed = constant_columns(y.mean(0))
    _refuse_all_constant(fixed)
    once = np.ones(m)
    ranks = [Ranks(seed).under(once) for seed in y]
    # A seed that does not vary at all agrees with none of the others.
    pairs = [np.nan_to_num(pearson(ranks[i], ranks[j])) for i in range(s) for j in range(i)]
    r = np.where(fixed, np.nan, np.mean(pairs, axis=0))
    positive = np.maximum(r, 0.0)
    ceiling = np.sqrt(s * positive / (1 + (s - 1) * positive))
    return NoiseCeiling(
        mean=float(np.nanmean(ceiling)),
        per_query=torch.from_numpy(ceiling),
        agreement=float(np.nanmean(r)),
        agreement_per_query=torch.from_numpy(r),
    )


@checked
def lds(
    scores: Tensor | NDArray[Any],
    masks: Tensor | NDArray[Any],
    outcomes: Tensor | NDArray[Any],
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> LDS:
    """Compute the linear datamodeling score of `scores` against retraining on subsets.

    For query q: Spearman_j( Σ_{i not kept by j} scores[q, i],  mean over s of outcomes[s, j, q] ).
    The left side predicts how far the measure moves when subset j's missing examples are removed,
    so it rises with the outcome itself: correct scores give a *positive* LDS.

    Args:
        scores: Predicted change of the measure if example i is removed, [q, n].
        masks: Which examples subset j keeps, [m, n]; booleans or 0/1. m ≥ 3.
        outcomes: Measure of each query after training on subset j, [m, q], or [s, m, q] with seeds;
            the same measure and unit as the scores.
        confidence: Probability that the interval aims to cover, in (0, 1).
        resamples: Bootstrap resamples; each draws subsets and queries with replacement.
        seed: Seed of the bootstrap.

    Returns:
        The score per query and on average, its interval, and the noise ceiling beside it (`None`
        without a second seed).

    Raises:
        InvalidInput: If shapes disagree, an entry is not finite, or no query's outcomes vary.

    Warns:
        UserWarning: If predictions or outcomes of some queries do not vary.

    Cost:
        One [q, n] × [n, m] product, then O(resamples · m · q).

    References:
        Park et al. (2023), "TRAK", arXiv:2303.14186, §2, Definition 2.3.

    Examples:
        >>> import torch
        >>> scores = torch.tensor([[3.0, 2.0, 1.0]])  # removing example 0 raises the loss most
        >>> masks = torch.tensor([[0, 1, 1], [1, 0, 1], [1, 1, 0]]).bool()
        >>> lds(scores, masks, outcomes=torch.tensor([[0.9], [0.5], [0.4]])).mean
        1.0
    """
    tau, removed, y = _checked(scores, masks, outcomes)
    # Once for equal subsets, whose sums would differ by rounding and rank one before the other.
    distinct, which = np.unique(removed, axis=0, return_inverse=True)
    predicted = (distinct @ tau.T)[which.ravel()]
    # Equal scores on subsets of equal size sum to the same number only up to rounding.
    blank = constant_columns(predicted, scale=np.abs(tau).sum(1))
    predicted[:, blank] = 0.0
    mean_outcome = y.mean(0)
    fixed = constant_columns(mean_outcome)
    mean_outcome[:, fixed] = 0.0
    _refuse_all_constant(fixed)
    constant_predictions, constant_outcomes = report_constant(blank, fixed)

    ranks = RankCorrelation(predicted, mean_outcome)

    def correlations(counts: Float) -> Float:
        """Return the correlation of each query, [q, r], with subset j present counts[j] times."""
        r = ranks.under(counts)
        r[blank & ~fixed] = 0.0
        return r

    def mean(counts: Float) -> Float:
        """Return the mean over drawn queries of the correlation over drawn subsets, [r]."""
        r = correlations(counts[: len(removed)])
        weights = counts[len(removed) :] * np.isfinite(r)
        total = weights.sum(0)
        values = (weights * np.nan_to_num(r)).sum(0)
        return np.where(total > 0, values / np.where(total > 0, total, 1.0), np.nan)

    (interval,) = bootstrap(
        lambda generator: np.concatenate(
            [draw(generator, len(removed)), draw(generator, len(tau))]
        ),
        [mean],
        resamples=resamples,
        confidence=confidence,
        seed=seed,
    )
    per_query = correlations(np.ones((len(removed), 1)))[:, 0]
    return LDS(
        mean=float(np.nanmean(per_query)),
        interval=interval,
        confidence=confidence,
        per_query=torch.from_numpy(per_query),
        ceiling=noise_ceiling(y) if len(y) > 1 else None,
        subsets=len(removed),
        seeds=len(y),
        constant_predictions=constant_predictions,
        constant_outcomes=constant_outcomes,
    )


def _checked(
    scores: Tensor | NDArray[Any], masks: Tensor | NDArray[Any], outcomes: Tensor | NDArray[Any]
) -> tuple[Float, NDArray[np.bool_], Float]:
    """Return scores [q, n], which examples subsets leave out [m, n], and outcomes [s, m, q]."""
    tau = floats("scores", scores, "q, n")
    removed = ~booleans("masks", masks, "m, n")
    axes_of_outcomes = "m, q" if array("outcomes", outcomes).ndim == 2 else "s, m, q"
    y = floats("outcomes", outcomes, axes_of_outcomes)
    y = y[None] if y.ndim == 2 else y
    if removed.shape[1] != tau.shape[1]:
        raise InvalidInput(
            "scores [q, n] and masks [m, n] must be about the same n training examples. "
            f"Got {list(tau.shape)} and {list(removed.shape)}."
        )
    if y.shape[1:] != (len(removed), len(tau)):
        raise InvalidInput(
            f"outcomes must have shape [m, q] or [s, m, q], with m = {len(removed)} masks and "
            f"q = {len(tau)} rows of scores. Got {list(y.shape)}."
        )
    if len(removed) < 3:
        raise InvalidInput(f"A rank correlation needs at least 3 subsets. Got {len(removed)}.")
    return tau, removed, y


def _refuse_all_constant(fixed: Bool) -> None:
    """Raise if no query has outcomes that vary."""
    if fixed.all():
        raise InvalidInput(
            f"Outcomes must vary between subsets. Got the same outcome for all subsets in each of "
            f"{len(fixed)} queries; was the retraining given its weights?"
        )
