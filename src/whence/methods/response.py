"""Calibration of tree scores: actual changes of retrainings relative to predicted ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from whence.methods.halves import Halves
from whence.methods.mean_derivative import derivatives_of, mean_derivative
from whence.objective.cache import cached
from whence.objective.measures import Measure
from whence.trees.form import BoostedTrees
from whence.trees.model import BoostedModel

Floats = NDArray[np.float64]

_ASKED = 30  # training rows that are asked as queries
_SHARE = 10  # at most one row in as many is taken out to be asked
_SIZED = 4  # retrainings whose derivatives are compared in size with the model's own


@final
@dataclass(frozen=True, kw_only=True)
class Response:
    r"""What a score must be multiplied by to have the size of a removal.

    Args:
        slope: Of the outcomes of retrainings on halves, in what the others predict of them.
        error: Its jackknife error over retrainings.
        decay: a >= 0: an effect on n rows is as n^−a.
    """

    slope: float
    error: float
    decay: float

    @property
    def factor(self) -> float:
        """The slope on all rows: slope / 2^a."""
        return self.slope / 2**self.decay

    @property
    def note(self) -> str:
        """What was done, in a sentence."""
        return (
            f"Derivatives with held splits are multiplied by {self.factor:.2g}: retrainings on "
            f"halves move {self.slope:.2g} ± {self.error:.1g} times as far as the others predict, "
            f"and an effect on a half is {2**self.decay:.2g} times that on all rows."
        )


def response_of(model: BoostedModel, halves: Halves, measure: Measure) -> Response | None:
    r"""Return how far retrainings move beside their derivatives, learned once per measure.

    Some training rows are asked as queries: their weight is zero in the leaf values that are
    differentiated, and of the retrainings only those count that have not seen them. The slope of
    the outcomes y_b in the predictions p_b of the others,

        s = Σ (p − p̄)(y − ȳ) / Σ (p − p̄)²,

    holds the effect of rows on splits, which derivatives lack. It is that on halves. With splits
    held, the sum of squared derivatives is as n^−a where an effect is as n^−a (a = 1 for a mean of
    all rows, 0 where leaves keep their size); the halves and the model give a, between 0 and 1.

    Args:
        model: The model.
        halves: Its retrainings.
        measure: m.

    Returns:
        The response; `None` where there are too few rows, or nothing varies.

    Cost:
        The derivatives of 30 queries in each retraining.
    """
    return cached(model, (Response, halves, measure), lambda twin: _learned(twin, halves, measure))


def can_be_sized(model: BoostedModel) -> bool:
    """Return whether there are rows enough to learn a response from.

    Args:
        model: The model.
    """
    return len(_asked(model)) >= 2


def _asked(model: BoostedModel) -> NDArray[np.intp]:
    """Return the training rows that are asked as queries, sorted."""
    present = np.flatnonzero(model.weights.numpy() > 0)
    count = min(_ASKED, len(present) // _SHARE)
    return np.sort(np.random.default_rng(0).choice(present, count, replace=False))


def _learned(model: BoostedModel, halves: Halves, measure: Measure) -> Response | None:
    """Return the response of a measure."""
    asked = _asked(model)
    if len(asked) < 2:
        return None
    queries = model.train.subset(asked)
    whole = [_without(trees, asked) for trees in halves.whole]
    mean = mean_derivative(halves, whole, queries, measure)
    out = ~halves.inside[:, asked]
    products, squares = _moments(mean.predicted, mean.actual, out)
    if squares.sum() <= 0 or products.sum() <= 0:
        return None
    slope = products.sum() / squares.sum()
    each = (products.sum() - products) / (squares.sum() - squares)
    error = float(np.sqrt((len(each) - 1) * each.var()))
    few = halves.models[:_SIZED]
    own = _squares(_without(model.trees, asked), asked, queries.inputs, measure, model)
    half = np.mean(
        [_squares(_without(one.trees, asked), asked, queries.inputs, measure, model) for one in few]
    )
    decay = float(np.clip(np.log2(half / own), 0, 1)) if own > 0 and half > 0 else 1.0
    return Response(slope=float(slope), error=error, decay=decay)


def _moments(predicted: Floats, actual: Floats, out: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return what each retraining adds to Σ (p − p̄)(y − ȳ) and to Σ (p − p̄)², [B] each."""
    counts = out.sum(0).clip(1)
    p, y = ((each - (each * out).sum(0) / counts) * out for each in (predicted, actual))
    return (p * y).sum(1), np.square(p).sum(1)


def _without(trees: BoostedTrees, rows: NDArray[np.intp]) -> BoostedTrees:
    """Return the same trees, their leaf values without some rows."""
    weights = trees.weights.copy()
    weights[rows] = 0
    return trees.on(trees.leaves, trees.targets, weights)


def _squares(
    trees: BoostedTrees,
    asked: NDArray[np.intp],
    inputs: object,
    measure: Measure,
    model: BoostedModel,
) -> float:
    """Return Σ (w dm/dw)² over rows and queries."""
    targets = model.train.targets[asked]
    everyone = np.arange(len(trees.weights))
    found = derivatives_of(trees, trees.leaves_of(inputs), measure, targets, everyone)
    return float(np.square(found * trees.weights).sum())
