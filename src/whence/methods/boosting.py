"""Boosted trees: the derivative of predictions in the weights of rows, over retrained halves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.checked import checked
from whence.errors import InvalidInput
from whence.evaluation.correlation import spearman
from whence.methods.halves import Halves, boosted, halves_of
from whence.methods.method import Attribution, Method, Positions
from whence.methods.tree_changes import boosted_edit, boosted_relabeling
from whence.objective.measures import Measure
from whence.objective.trained import Examples, Trained
from whence.scores import Diagnostics
from whence.tiles import tiles
from whence.trees.adjoint import adjoint
from whence.trees.form import BoostedTrees
from whence.trees.leaves import Integers
from whence.trees.model import BoostedModel

Floats = NDArray[np.float64]

_NUMBERS = 2**24  # of queries by training rows at a time


@final
@checked
@dataclass(frozen=True, kw_only=True)
class Boosting(Method):
    r"""Predict removals from boosted trees by the derivative of predictions in row weights.

    score[q, i] = −wᵢ dm_q/dwᵢ, with every tree's splits held fixed and every later round's
    gradients following, back to the start value. The derivative is the mean over retrainings on
    random halves, with leaf values of all rows in the trees of each half; each retraining counts
    with the same size, so that none outweighs the others.

    One model's splits say little of those that another sample would give. The retrainings also
    tell how well the scores predict: the linear datamodeling score of each retraining's outcomes,
    predicted from the others alone, is in the notes of the diagnostics.

    Args:
        ensemble: How many retrainings, even; 0 for the derivative of the fitted model alone.
        seed: Seed of the halves.

    Raises:
        InvalidInput: If an option cannot be used.

    Cost:
        A fit per retraining, once per model; then O(q n T c²) for q queries and T rounds, each.

    References:
        Sharchilev et al. (2018), sections 3.2 and 4, for the derivative; Park et al. (2023),
        definition 2.3, for the score.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.ensemble import HistGradientBoostingRegressor
        >>> X, y = load_diabetes(return_X_y=True)
        >>> model = HistGradientBoostingRegressor(max_iter=20).fit(X, y)
        >>> trained = whence.from_sklearn(model, X, y)
        >>> scores = whence.Boosting(ensemble=4).fit(trained).scores((X[:2], y[:2]))
        >>> scores.values.shape
        (2, 442)
    """

    ensemble: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the options."""
        check_ensemble(self.ensemble, least=0)

    def attribution(self, trained: Trained) -> Attribution:
        """Return the derivatives of a boosting model."""
        model = boosted(trained)
        if self.ensemble == 0:
            return _Derivative(model)
        return _Averaged(model, halves_of(model, self.ensemble, self.seed))


def check_ensemble(ensemble: int, *, least: int = 2) -> None:
    """Raise unless the number of retrainings on halves is even.

    Args:
        ensemble: The number.
        least: The smallest allowed.

    Raises:
        InvalidInput: If it cannot be used.
    """
    if ensemble < least or ensemble % 2:
        raise InvalidInput(
            f"Expected an even number of retrainings, >= {least}: halves come in pairs. "
            f"Got ensemble={ensemble}."
        )


@final
@dataclass(frozen=True, eq=False)
class _Derivative(Attribution):
    """The derivative of one model.

    Args:
        trained: The model.
    """

    trained: BoostedModel

    @property
    def words(self) -> str:
        """The derivative, with its source."""
        return "derivative of boosting, fixed splits (Sharchilev et al. 2018)"

    def values(
        self, queries: Examples, measure: Measure, where: Positions
    ) -> tuple[Tensor, Diagnostics]:
        """Return −w dm/dw, [q, k]."""
        trees = self.trained.trees
        leaves = trees.leaves_of(queries.inputs)
        derivatives = derivatives_of(trees, leaves, measure, queries.targets, where)
        values = torch.from_numpy(-trees.weights[where] * derivatives)
        note = (
            "The splits are those of one model: its score on other samples is lower than that of "
            "a mean over retrainings, whence.Boosting(ensemble=20)."
        )
        return values, Diagnostics(notes=(*self.trained.notes, note))

    def edit_effects(
        self, queries: Examples, measure: Measure, index: int, new: Examples
    ) -> Tensor:
        """Return the changes with the leaf values recomputed, [q]."""
        return boosted_edit(self.trained, [self.trained.trees], queries, measure, index, new)

    def relabel_effects(
        self, queries: Examples, measure: Measure, where: Positions, targets: Tensor
    ) -> Tensor:
        """Return the changes of the mean measure by the derivative, [k]."""
        model = self.trained
        return boosted_relabeling(model, [model.trees], queries, measure, where, targets)


@final
@dataclass(frozen=True, eq=False)
class _Averaged(Attribution):
    """The mean derivative over retrainings on halves.

    Args:
        trained: The model.
        halves: The retrainings.
    """

    trained: BoostedModel
    halves: Halves

    @property
    def words(self) -> str:
        """The derivative, with its source."""
        return (
            f"derivative of boosting, mean over {len(self.halves)} halves (after Sharchilev et al. "
            "2018)"
        )

    def values(
        self, queries: Examples, measure: Measure, where: Positions
    ) -> tuple[Tensor, Diagnostics]:
        """Return the mean of −w dm/dw, [q, k]."""
        weights, n = self.trained.trees.weights, len(self.trained.train)
        values = np.empty((len(queries), len(where)))
        predicted, actual = [], []
        for part in tiles(len(queries), n, _NUMBERS):
            mean = self._mean(queries.subset(np.arange(part.start, part.stop)), measure)
            values[part] = -(weights * mean.derivatives)[:, where]
            predicted.append(mean.predicted)
            actual.append(mean.actual)
        notes = [*self.trained.notes, held_out_note(np.hstack(predicted), np.hstack(actual))]
        return torch.from_numpy(values), Diagnostics(notes=tuple(notes))

    def self_values(self, where: Positions) -> tuple[Tensor, Diagnostics]:
        """Return the mean loss of models without a row less that of models with it, [k]."""
        rise = self.halves.mean_loss(inside=False) - self.halves.mean_loss(inside=True)
        rise = torch.where(self.trained.weights > 0, rise, 0.0)
        note = (
            f"Own effects are mean losses over the {len(self.halves)} halves without the row less "
            "those over the halves with it."
        )
        return rise[torch.from_numpy(where)], Diagnostics(notes=(*self.trained.notes, note))

    def edit_effects(
        self, queries: Examples, measure: Measure, index: int, new: Examples
    ) -> Tensor:
        """Return the mean changes with the leaf values recomputed, [q]."""
        return boosted_edit(self.trained, self.halves.whole, queries, measure, index, new)

    def relabel_effects(
        self, queries: Examples, measure: Measure, where: Positions, targets: Tensor
    ) -> Tensor:
        """Return the changes of the mean measure by the mean derivative, [k]."""
        model, whole = self.trained, self.halves.whole
        return boosted_relabeling(model, whole, queries, measure, where, targets)

    def _mean(self, queries: Examples, measure: Measure) -> _Mean:
        """Return the mean derivative of few queries."""
        halves, n = self.halves, len(self.trained.train)
        b, everyone = len(halves), np.arange(n)
        total = np.zeros((len(queries), n))
        sizes, own = np.zeros((b, len(queries))), np.zeros((b, len(queries)))
        actual = np.zeros((b, len(queries)))
        for at, (model, trees) in enumerate(zip(halves.models, halves.whole, strict=True)):
            leaves = trees.leaves_of(queries.inputs)
            found = derivatives_of(trees, leaves, measure, queries.targets, everyone)
            sizes[at] = np.sqrt(np.square(found).mean(axis=1))
            found /= np.where(sizes[at] > 0, sizes[at], 1.0)[:, None]
            total += found
            own[at] = found @ halves.inside[at]
            outputs = torch.from_numpy(model.trees.replay.predict(leaves))
            actual[at] = measure(outputs, queries.targets).numpy()
        scale = np.median(sizes, axis=0)
        predicted = (halves.inside @ total.T - own) / (b - 1) * scale
        return _Mean(total / b * scale[:, None], predicted, actual)


@dataclass(frozen=True, eq=False)
class _Mean:
    """A mean over retrainings, and what it predicts of each from the others.

    Args:
        derivatives: The mean of dm/dw, [q, n].
        predicted: Σ dm/dw over the rows of each half, by the other retrainings alone, [B, q].
        actual: m of each retraining, [B, q].
    """

    derivatives: Floats
    predicted: Floats
    actual: Floats


def derivatives_of(
    trees: BoostedTrees, leaves: Integers, measure: Measure, targets: Tensor, rows: Positions
) -> Floats:
    """Return dm/dw of queries in the weights of training rows, [q, k].

    Args:
        trees: The trees, with their rows.
        leaves: The leaves of the queries, [t, c, q].
        measure: m.
        targets: The targets of the queries, [q].
        rows: Positions of the k rows.
    """
    outputs = torch.from_numpy(trees.replay.predict(leaves))
    return adjoint(trees, leaves, measure.gradient(outputs, targets).numpy(), rows=rows)


def held_out_note(predicted: Floats, actual: Floats) -> str:
    """Return the estimate that retrainings give of the linear datamodeling score, in a sentence.

    Args:
        predicted: What other retrainings predict of each, [B, q].
        actual: What each gave, [B, q].
    """
    b, q = actual.shape
    mean, error = held_out_lds(predicted, actual)
    queries = "1 query" if q == 1 else f"{q} queries"
    if not np.isfinite(mean):
        return f"The {b} retrainings do not differ on these queries: nothing tells how good it is."
    return (
        f"The linear datamodeling score is estimated at {mean:.2f} ± {error:.2f} for {queries}: "
        f"the rank correlation of the outcomes of {b} retrainings on halves with what the others "
        "predict of them."
    )


def held_out_lds(predicted: Floats, actual: Floats) -> tuple[float, float]:
    """Return the mean rank correlation over queries, and its jackknife error over retrainings.

    Args:
        predicted: [B, q].
        actual: [B, q].

    Returns:
        The mean over the queries whose outcomes differ, NaN if there is none, and its error.

    Examples:
        >>> held_out_lds(np.array([[1.0], [2.0], [3.0]]), np.array([[1.0], [2.0], [3.0]]))
        (1.0, 0.0)
    """
    differ = np.ptp(actual, axis=0) > 0
    if not differ.any():
        return float("nan"), float("nan")
    predicted, actual = predicted[:, differ], actual[:, differ]
    mean = _mean_correlation(predicted, actual)
    b = len(actual)
    without = np.array(
        [
            _mean_correlation(np.delete(predicted, at, 0), np.delete(actual, at, 0))
            for at in range(b)
        ]
    )
    error = float(np.sqrt((b - 1) * without.var()))
    return mean, error


def _mean_correlation(predicted: Floats, actual: Floats) -> float:
    """Return the mean rank correlation; 0 for a query whose predictions or outcomes are equal."""
    return float(np.nan_to_num(spearman(predicted, actual)).mean())
