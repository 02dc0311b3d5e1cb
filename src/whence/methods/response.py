"""How derivatives of boosted trees become scores: what retrainings on halves tell of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls

from whence.arrays import Floats
from whence.methods.halves import Halves
from whence.methods.mean_derivative import MeanDerivative, derivatives_of, mean_derivative
from whence.objective.cache import cached
from whence.objective.loss import measure_of
from whence.objective.measures import Measure
from whence.objective.sets.measure import Along
from whence.objective.trained import Examples
from whence.trees.form import BoostedTrees
from whence.trees.model import BoostedModel

_ASKED = 30  # training rows that are asked as queries
_SHARE = 10  # at most one row in as many is taken out to be asked
_SIZED = 4  # retrainings whose derivatives are compared in size with the model's own
_EQUAL = np.array([0.5, 0.5, 0.0])  # weights before anything is learned: the mean over all halves
_TOWARD_EQUAL = 0.3  # how strongly learned weights are drawn to equal ones
_NOISE = 6.0  # variance of an outcome that no row explains, over that which rows explain


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Response:
    r"""What derivatives are multiplied by, and what else retrainings say of each row.

    Args:
        weights: Of the mean derivative over the halves with a row, of that over the halves without
            it, and of the model's own derivative, [3].
        spread: The mean square of the derivatives of queries in each row's weight, [n].
        decay: a >= 0: an effect on n rows is as n^−a.
    """

    weights: Floats
    spread: Floats
    decay: float

    @property
    def factor(self) -> float:
        """What the mean derivative is multiplied by on all rows: the sum of weights over 2^a."""
        return float(self.weights.sum()) / 2**self.decay

    @property
    def note(self) -> str:
        """What was done, in a sentence."""
        inside, outside, own = self.weights
        return (
            f"Derivatives with held splits are multiplied by {self.factor:.2g}, as retrainings on "
            f"halves move: {inside:.2g} for those of halves with the row, {outside:.2g} for those "
            f"without it, {own:.2g} for those of the model; an effect on a half is "
            f"{2**self.decay:.2g} times that on all rows. What they leave over of the outcomes is "
            "shared among rows by their size."
        )

    def scores(self, mean: MeanDerivative, own: Floats, inside: NDArray[np.bool_]) -> Scored:
        r"""Return effects of rows on halves, and what the other halves predict of each.

        β = a K_in + b K_out + c K_own + σ² Zᵀ (Z σ² Zᵀ + λ)⁻¹ r, with Z which rows a half has, r
        the outcomes that the first three terms leave over, each predicted from other halves, and
        σ²ᵢ the mean squares of derivatives in wᵢ, of this query and of others: a ridge regression
        of r on rows, where a row whose derivatives are large is free to have more.

        Args:
            mean: The mean derivatives of q queries.
            own: The derivatives of the model, w dm/dw, [q, n].
            inside: Which rows each half has, [B, n].
        """
        first, second, third = self.weights.tolist()
        effects = third * own
        effects += first * mean.inside
        effects += second * mean.outside
        predicted = first * mean.from_inside + second * mean.from_outside
        predicted += third * (inside @ own.T)
        left = mean.actual - predicted
        left -= left.mean(0)
        rows = inside - inside.mean(0)
        for query, spread in enumerate(mean.spread):
            spanned = rows * (spread + self.spread)
            gram = spanned @ rows.T
            gram[np.diag_indices_from(gram)] += _NOISE * gram.trace() / len(gram)
            inverse = np.linalg.pinv(gram, hermitian=True)
            dual = inverse @ left[:, query]
            effects[query] += dual @ spanned
            # The outcome of a half is left out of what predicts it.
            own_part = dual / np.where(inverse.diagonal() > 0, inverse.diagonal(), 1)
            predicted[:, query] += left[:, query] - own_part
        return Scored(effects=effects, predicted=predicted)


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Scored:
    """Effects of rows on queries.

    Args:
        effects: w dm/dw as retrainings on halves show it, [q, n].
        predicted: What the other halves predict of each half, up to a constant, [B, q].
    """

    effects: Floats
    predicted: Floats


def followed(model: BoostedModel, queries: Examples, measure: Measure) -> tuple[Examples, Measure]:
    """Return what is followed through retrainings in place of a measure of queries, and of which.

    Of a classification, the outputs along the slopes of the measure at the model's own outputs:
    outputs move about as far in every retraining. A loss does not: one of 3e-5 is a hundred times
    as large, and moves a hundred times as far, where half of the rows leave the model less sure.
    Of a regression, the measure: the slope of its loss has another sign in every retraining.

    Args:
        model: The model.
        queries: The q queries.
        measure: m.
    """
    if not model.loss.classifies:
        return queries, measure
    slopes = measure.gradient(model.outputs(queries), queries.targets)
    return queries.relabeled(slopes), Along()


def response_of(model: BoostedModel, halves: Halves, measure: Measure) -> Response | None:
    r"""Return how far retrainings move beside their derivatives.

    Learned once per measure of a regression; of a classification once, on margins. Some training
    rows are asked as queries: their weight is zero in the leaf values that are
    differentiated, and of the retrainings only those count that have not seen them. Their outcomes
    are regressed on what the other retrainings predict of them, by derivatives of the halves with
    each row, of those without it, and of the model, each weight >= 0 and drawn to equal ones. The
    weights hold the effect of rows on splits, which derivatives lack. It is that on halves. With
    splits held, the sum of squared derivatives is as n^−a where an effect is as n^−a (a = 1 for a
    mean of all rows, 0 where leaves keep their size); the halves and the model give a, between 0
    and 1.

    Args:
        model: The model.
        halves: Its retrainings.
        measure: m.

    Returns:
        The response; `None` where there are too few rows, or nothing varies.

    Cost:
        The derivatives of 30 queries in each retraining.
    """
    learned = measure_of(model.loss, "margin") if model.loss.classifies else measure
    return cached(model, (Response, halves, learned), lambda twin: _learned(twin, halves, learned))


def can_be_sized(model: BoostedModel) -> bool:
    """Return whether there are rows enough to learn a response from.

    Args:
        model: The model.
    """
    return len(_asked(model)) >= 2


def unsized(mean: MeanDerivative) -> Response:
    """Return the response that leaves derivatives as they are.

    Args:
        mean: The mean derivatives.
    """
    return Response(weights=_EQUAL, spread=np.zeros(mean.spread.shape[1]), decay=0.0)


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
    queries, quantity = followed(model, model.train.subset(asked), measure)
    mean = mean_derivative(
        halves, [_without(trees, asked) for trees in halves.whole], queries, quantity
    )

    def effects(one: BoostedModel) -> Floats:
        return effects_of(_without(one.trees, asked), queries, quantity, one.trees.weights)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        own, *few = pool.map(effects, (model, *halves.models[:_SIZED]))
    predicted = np.stack([mean.from_inside, mean.from_outside, halves.inside @ own.T])
    weights = _weights(predicted, mean.actual, ~halves.inside[:, asked])
    if weights is None:
        return None
    size, half = (
        float(np.mean([np.square(np.delete(each, asked, 1)).sum() for each in some]))
        for some in ([own], few)
    )
    decay = float(np.clip(np.log2(half / size), 0, 1)) if size > 0 and half > 0 else 1.0
    mean.spread[np.arange(len(asked)), asked] = 0  # a row's effect on itself is another matter
    return Response(weights=weights, spread=mean.spread.mean(0), decay=decay)


def effects_of(trees: BoostedTrees, queries: Examples, measure: Measure, weights: Floats) -> Floats:
    """Return w dm/dw of queries in all rows, [q, n].

    Args:
        trees: The trees.
        queries: The queries.
        measure: m.
        weights: w, [n].
    """
    leaves, everyone = trees.leaves_of(queries.inputs), np.arange(len(weights))
    return derivatives_of(trees, leaves, measure, queries.targets, everyone) * weights


def _weights(predicted: Floats, actual: Floats, out: NDArray[np.bool_]) -> Floats | None:
    """Return the weights >= 0 of several predictions of outcomes, drawn to equal ones.

    Args:
        predicted: [3, B, q].
        actual: [B, q].
        out: Which outcomes count, [B, q].
    """
    counts = out.sum(0).clip(1)

    def centered(values: Floats) -> Floats:
        return np.asarray((values - (values * out).sum(0) / counts) * out)

    x, y = np.stack([centered(each) for each in predicted]), centered(actual)
    sizes = np.sqrt(np.square(y).sum(0) / counts)
    scaled = np.divide(
        1, sizes, out=np.zeros_like(sizes), where=sizes > 0
    )  # each query counts alike
    flat, outcomes = (x * scaled).reshape(len(x), -1), (y * scaled).ravel()
    gram, products = flat @ flat.T, flat @ outcomes
    square, product = _EQUAL @ gram @ _EQUAL, _EQUAL @ products
    if square <= 0 or product <= 0:
        return None
    penalty = np.diag(_TOWARD_EQUAL * gram.diagonal())
    factor = np.linalg.cholesky(gram + penalty + np.eye(3) * 1e-12 * gram.trace())
    right = products + penalty @ (_EQUAL * product / square)
    weights = nnls(factor.T, np.linalg.solve(factor, right))[0]
    whole = np.einsum("k,kbq->bq", weights, x)
    return np.asarray(weights * ((whole * y).sum() / np.square(whole).sum()), dtype=np.float64)


def _without(trees: BoostedTrees, rows: NDArray[np.intp]) -> BoostedTrees:
    """Return the same trees, their leaf values without some rows."""
    weights = trees.weights.copy()
    weights[rows] = 0
    return trees.on(trees.leaves, trees.targets, weights)
