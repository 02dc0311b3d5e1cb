"""How many labels are wrong? An estimate from what a model says of rows it has not seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from whence.arrays import Floats

_RESAMPLES = 200  # of the bootstrap
_ROUNDING = 1e-9  # of a mean probability
_NUMBERS = 2e8  # probabilities that it looks at, at most


@final
@dataclass(frozen=True, kw_only=True)
class WrongLabels:
    """An estimate of the number of wrong labels.

    Args:
        count: The estimate.
        error: Its standard error over resamples of the rows.
        n: The number of labels.
    """

    count: float
    error: float
    n: int

    @property
    def worth_a_look(self) -> int:
        """How many rows of the ranking are worth a look: the estimate and its error, at least 1."""
        return max(1, round(self.count + self.error))


def wrong_labels(probabilities: Floats, labels: NDArray[np.intp]) -> WrongLabels:
    """Estimate how many labels are wrong by confident learning.

    Class j is believed of a row if its probability is at least t_j, the mean probability of j over
    the rows labeled j; of several, the likeliest. The shares of rows labeled a and believed b ≠ a,
    among those labeled a of which a class is believed, times the number of rows labeled a, sum to
    the estimate. Rows that lie between classes by nature count too, so that it is a number of rows
    to look at, and no proof that so many are wrong.

    Args:
        probabilities: Of each class, by a model that has not seen the row, [n, c].
        labels: The labels as positions among the classes, [n].

    Returns:
        The estimate with its standard error.

    Cost:
        201 passes over the probabilities, fewer above a million of them.

    References:
        Northcutt, Jiang & Chuang (2021), "Confident Learning", section 3.

    Examples:
        >>> import numpy as np
        >>> sure = np.array([[0.9, 0.1]] * 10 + [[0.1, 0.9]] * 10)
        >>> labels = np.repeat([0, 1], 10)
        >>> labels[3] = 1
        >>> round(wrong_labels(sure, labels).count)
        1
    """
    n, c = probabilities.shape
    resamples = int(min(_RESAMPLES, max(20, _NUMBERS / (n * c))))
    generator = np.random.default_rng(0)
    drawn = [
        _count(probabilities, labels, generator.multinomial(n, np.full(n, 1 / n)).astype(float))
        for _ in range(resamples)
    ]
    return WrongLabels(
        count=_count(probabilities, labels, np.ones(n)), error=float(np.std(drawn, ddof=1)), n=n
    )


def _count(p: Floats, labels: NDArray[np.intp], weights: Floats) -> float:
    """Return the estimate for rows that count so often, [n]."""
    c = p.shape[1]
    of_class = np.bincount(labels, weights, c)
    own = np.bincount(labels, weights * p[np.arange(len(p)), labels], c)
    thresholds = np.where(of_class > 0, own / np.maximum(of_class, 1e-300), np.inf)
    above = np.where(p >= thresholds - _ROUNDING, p, -1.0)
    believed = above.argmax(1)
    sure = above[np.arange(len(p)), believed] >= 0
    counted = np.bincount(labels[sure] * c + believed[sure], weights[sure], c * c).reshape(c, c)
    of_sure = counted.sum(1)
    wrong = of_sure - np.diag(counted)
    return float((wrong / np.maximum(of_sure, 1e-300) * of_class).sum())
