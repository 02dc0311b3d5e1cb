"""The expected effect of removals, for models whose single retrainings are mostly noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from whence.checked import Float
from whence.evaluation.correlation import constant_columns, pearson, slope


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class ExpectedChanges:
    """Mean changes of q queries without each of k examples, over random parts of the data.

    Args:
        mean: Mean change of query q without the k-th example, [q, k].
        error: Its standard error, [q, k].
        spread: The standard deviation of a single change about its mean.
        subsets: How many parts of the data the mean is over.

    Examples:
        >>> mean = np.array([[0.1, 0.3]])
        >>> found = ExpectedChanges(mean=mean, error=mean / 10, spread=0.2, subsets=8)
        >>> found.compared(mean / 2)
        (1.0, 2.0)
    """

    mean: Float
    error: Float
    spread: float
    subsets: int

    def compared(self, predicted: Float) -> tuple[float, float]:
        """Return Pearson's R of predicted and mean changes, pooled, and the slope of the mean.

        Args:
            predicted: [q, k].
        """
        p, a = predicted.reshape(-1, 1), self.mean.reshape(-1, 1)
        return round(float(pearson(p, a)[0]), 12), round(float(slope(p, a)[0]), 12)

    def said(self, predicted: Float) -> str:
        """Return the comparison with predicted changes, in a line.

        Args:
            predicted: [q, k].
        """
        r, slope_of = self.compared(predicted)
        error = float(np.sqrt(np.square(self.error).mean()))
        size = float(np.sqrt(np.square(self.mean).mean()))
        found = f"R = {r:.4f}, slope = {slope_of:.3f}"
        if np.isnan(r):
            equal = "mean" if constant_columns(self.mean.reshape(-1, 1))[0] else "predicted"
            found = f"no correlation, because all {equal} changes are equal"
        return (
            f"predicted vs the mean over {self.subsets} random parts of the data: {found}; "
            f"mean changes are {size:.2g} ± {error:.2g}, and single "
            f"retrainings differ from them by {self.spread:.2g}"
        )
