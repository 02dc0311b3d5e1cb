"""Curves that evaluate a ranking: mislabeled examples found, and the effect of removals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.integrate import trapezoid
from torch import Tensor

from whence.checked import booleans, checked, floats
from whence.errors import InvalidInput
from whence.evaluation.correlation import bootstrap, draw
from whence.evaluation.figure import axes
from whence.result import Card, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@final
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DetectionCurve(Result):
    """How many flipped labels are found by checking examples in the order of a ranking.

    Attributes:
        checked: Fraction of all examples checked, rising from 0 to 1; one point per tied group.
        found: Fraction of the flipped examples among them, from 0 to 1.
        auc: Area under the ROC curve: the probability that a flipped example ranks above one that
            is not, a tie counting one half. 0.5 is chance.
        flipped: Number of flipped examples.
        n: Number of examples.
    """

    checked: Tensor
    found: Tensor
    auc: float
    flipped: int
    n: int

    def card(self) -> Card:
        """Return the area, and what is found in the first tenths."""
        tenths = {f"in the first {f:.0%}": f"{self.found_at(f):.1%}" for f in (0.1, 0.2, 0.3)}
        title = f"AUC {self.auc:.3f}: {self.flipped:,} flipped labels among {self.n:,} examples"
        return Card(title=title, facts=tenths)

    def found_at(self, fraction: float) -> float:
        """Return the fraction of flipped examples found after checking a fraction of all.

        Interpolated linearly between the points, which within a tied group is the expectation over
        a random order.

        Args:
            fraction: Fraction of all examples checked, in [0, 1].

        Returns:
            Fraction of the flipped examples found, in [0, 1].

        Raises:
            InvalidInput: If `fraction` is outside [0, 1].
        """
        if not 0 <= fraction <= 1:
            raise InvalidInput(f"fraction must lie in [0, 1]. Got {fraction}.")
        return float(np.interp(fraction, self.checked.numpy(), self.found.numpy()))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the fraction found over the fraction checked, between chance and the best possible.

        Args:
            ax: Axes to draw on; a new figure by default.

        Returns:
            The axes.
        """
        ax = axes(ax)
        ax.plot(self.checked.numpy(), self.found.numpy(), label=f"AUC {self.auc:.3f}")
        ax.plot([0, self.flipped / self.n, 1], [0, 1, 1], color="0.5", linestyle=":", label="best")
        ax.plot([0, 1], [0, 1], color="0.5", linestyle="--", label="random order")
        ax.set_xlabel("fraction of training data checked")
        ax.set_ylabel("fraction of flipped labels found")
        ax.legend()
        return ax


@final
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class BrittlenessCurve(Result):
    """What happens to the queries as more of their top-ranked examples are removed (brittleness).

    Attributes:
        removed: Numbers of examples removed, rising, [k].
        outcomes: Outcome of each query after each removal and retraining, [k, q].
        mean: Mean over queries, [k].
        low: Lower end of the bootstrap interval of the mean over queries, [k].
        high: Upper end, [k].
        area: Mean height of the curve of means over the range of `removed` (trapezoids): smaller is
            better where the outcome is meant to fall.
        confidence: Probability that each interval aims to cover.
    """

    removed: Tensor
    outcomes: Tensor
    mean: Tensor
    low: Tensor
    high: Tensor
    area: float
    confidence: float

    def card(self) -> Card:
        """Return the mean outcome after each removal."""
        names = ("removed", "mean", "low", "high")
        table = pd.DataFrame({name: getattr(self, name).numpy() for name in names})
        q, k = self.outcomes.shape[1], len(self.removed)
        title = f"mean outcome of {q:,} queries after {k} removals: mean height {self.area:.4g}"
        return Card(title=title, table=table)

    def first_below(self, threshold: float) -> Tensor:
        """Return how many removals first took each query's outcome below a threshold.

        With margins as outcomes and threshold 0, this is the size of the smallest tested set that
        flips the prediction.

        Args:
            threshold: In the unit of the outcomes.

        Returns:
            One of `removed` per query, [q]; infinite where no tested removal sufficed.
        """
        below = self.outcomes < threshold
        first = self.removed[below.int().argmax(dim=0)]
        return torch.where(below.any(dim=0), first, torch.inf)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the mean outcome over the number removed, with its interval.

        Args:
            ax: Axes to draw on, for example those of another method's curve; a new figure by
                default.

        Returns:
            The axes.
        """
        ax = axes(ax)
        k = self.removed.numpy()
        (line,) = ax.plot(k, self.mean.numpy(), marker=".")
        low, high = self.low.numpy(), self.high.numpy()
        ax.fill_between(k, low, high, color=line.get_color(), alpha=0.25, linewidth=0)
        ax.set_xlabel("top-ranked training examples removed")
        ax.set_ylabel(f"mean outcome of {self.outcomes.shape[1]} queries")
        return ax


@checked
def detection_curve(
    ranking: Tensor | NDArray[Any], flipped: Tensor | NDArray[Any]
) -> DetectionCurve:
    """Measure how early a ranking puts the examples whose labels were flipped.

    Examples are checked from the **highest** value down, so pass what is high for a suspect: self
    influence as it is, or a helpfulness with its sign turned.

    Args:
        ranking: How suspicious each training example is, [n].
        flipped: Which labels were flipped, [n]; booleans or 0/1, at least one of each.

    Returns:
        The curve and the area under the ROC curve.

    Raises:
        InvalidInput: If lengths differ, an entry is not finite, or all or no labels are flipped.

    Cost:
        One sort, O(n log n).

    References:
        Koh & Liang (2017), arXiv:1703.04730, §5.4, Figure 6.

    Examples:
        >>> import torch
        >>> curve = detection_curve(torch.tensor([0.1, 5.0, 0.3, 0.2]), torch.tensor([0, 1, 0, 0]))
        >>> curve.auc, curve.found_at(0.25)
        (1.0, 1.0)
    """
    score, wrong = floats("ranking", ranking, "n"), booleans("flipped", flipped, "n")
    if score.shape != wrong.shape:
        raise InvalidInput(
            "ranking and flipped must be about the same n examples. "
            f"Got {len(score)} and {len(wrong)}."
        )
    n, count = len(score), int(wrong.sum())
    if count in (0, n):
        raise InvalidInput(
            f"A detection curve needs flipped and unflipped labels. Got {count} flipped of {n}."
        )
    order = np.argsort(-score, kind="stable")
    # A point only where the value changes: within a tied group the order would be arbitrary.
    last_of_group = np.append(np.flatnonzero(np.diff(score[order])), n - 1)
    hits = np.append(0, np.cumsum(wrong[order])[last_of_group])
    seen = np.append(0, last_of_group + 1)
    found, false_alarms = hits / count, (seen - hits) / (n - count)
    return DetectionCurve(
        checked=torch.from_numpy(seen / n),
        found=torch.from_numpy(found),
        auc=float(trapezoid(found, false_alarms)),
        flipped=count,
        n=n,
    )


@checked
def brittleness_curve(
    removed: Tensor | NDArray[Any],
    outcomes: Tensor | NDArray[Any],
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> BrittlenessCurve:
    """Summarize outcomes after removing each query's top-k examples, for several k.

    Args:
        removed: The values of k, strictly rising, [k]; start with 0 to show the full model.
        outcomes: Outcome of each query after removing so many of *its* top-ranked examples and
            training again, [k, q]: a margin, a loss, or whether the prediction still stands (0/1).
        confidence: Probability that each interval aims to cover, in (0, 1).
        resamples: Bootstrap resamples of the queries.
        seed: Seed of the bootstrap; the same resamples serve all k.

    Returns:
        The curve of means with intervals, and its area.

    Raises:
        InvalidInput: If shapes disagree, an entry is not finite, or `removed` does not rise.

    Cost:
        O(resamples · k · q).

    References:
        Ilyas et al. (2022), "Datamodels", arXiv:2202.00622, §4.1 (brittleness of predictions).

    Examples:
        >>> import torch
        >>> margins = torch.tensor([[2.0, 1.0], [0.5, -1.0], [-0.5, -2.0]])
        >>> brittleness_curve(torch.tensor([0, 10, 20]), margins).first_below(0.0)
        tensor([20., 10.], dtype=torch.float64)
    """
    k, y = floats("removed", removed, "k"), floats("outcomes", outcomes, "k, q")
    if len(k) != len(y) or len(k) < 2 or (np.diff(k) <= 0).any() or k[0] < 0:
        raise InvalidInput(
            "removed must be at least two strictly rising numbers, one per row of outcomes [k, q]. "
            f"Got {k.tolist()[:10]} for outcomes {list(y.shape)}."
        )

    ends = bootstrap(
        lambda generator: draw(generator, y.shape[1]),
        [lambda c, row=row: row @ c / len(row) for row in y],  # type: ignore[misc]
        resamples=resamples,
        confidence=confidence,
        seed=seed,
    )
    mean = y.mean(1)
    return BrittlenessCurve(
        removed=torch.from_numpy(k),
        outcomes=torch.from_numpy(y),
        mean=torch.from_numpy(mean),
        low=torch.tensor([low for low, _ in ends], dtype=torch.float64),
        high=torch.tensor([high for _, high in ends], dtype=torch.float64),
        area=float(trapezoid(mean, k) / (k[-1] - k[0])),
        confidence=confidence,
    )
