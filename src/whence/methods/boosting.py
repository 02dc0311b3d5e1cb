"""Boosted trees: the derivative of predictions in the weights of rows, over retrained halves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from whence.checked import checked
from whence.errors import InvalidInput
from whence.methods.attribution import Attribution
from whence.methods.halves import Halves, boosted, halves_of
from whence.methods.mean_derivative import (
    derivatives_of,
    held_out_lds,
    held_out_note,
    mean_derivative,
    unconfirmed,
)
from whence.methods.method import Method
from whence.methods.response import can_be_sized, effects_of, followed, response_of, unsized
from whence.methods.subsets import Positions
from whence.methods.tree_changes import boosted_edit, boosted_relabeling
from whence.objective.measures import Measure
from whence.objective.trained import Examples, Trained
from whence.progress import progress
from whence.scores import Diagnostics
from whence.tiles import tiles
from whence.trees.model import BoostedModel

_NUMBERS = 2**24  # of queries by training rows at a time


@final
@checked
@dataclass(frozen=True, kw_only=True)
class Boosting(Method):
    r"""Predict removals from boosted trees by the derivative of predictions in row weights.

    score[q, i] = −wᵢ dm_q/dwᵢ, with every tree's splits held fixed and every later round's
    gradients following, back to the start value. One model's splits say little of those that
    another sample would give: the derivative is taken in retrainings on random halves, with leaf
    values of all rows in the trees of each half, each of the same size, so that none outweighs the
    others. A score is a weighted sum of the mean over the halves that have the row, the mean over
    those without it, and the derivative of the model itself. Of a classification, m is followed
    along its slope at the model's own outputs: a loss near 0 is another under half of the rows,
    outputs are not. The weights are learned from the outcomes of the retrainings on training rows
    that they have not seen, of a regression per measure; they hold the effect of rows on splits.
    What the sum leaves over of the outcomes on the queries is regressed on the rows (a datamodel),
    whose coefficients are drawn to 0 by the size of their derivatives.

    The retrainings also tell how well the scores predict: the linear datamodeling score of each
    retraining's outcomes, predicted from the others alone, is in the notes of the diagnostics.

    Args:
        ensemble: How many retrainings, even; 0 for the derivative of the fitted model alone. If
            `None`, 60 up to 2,000 rows, 40 up to 20,000 and 20 beyond; up to 200 rows, where fits
            are quick, as many as grow 24,000 trees, from 60 to 240.
        seed: Seed of the halves.

    Raises:
        InvalidInput: If an option cannot be used.

    Cost:
        A fit per retraining, once per model; then O(q n T c²) for q queries and T rounds, each.

    References:
        Sharchilev et al. (2018), sections 3.2 and 4, for the derivative; Park et al. (2023),
        definition 2.3, for the score; Ilyas et al. (2022) for datamodels.

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

    ensemble: int | None = None
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


def check_ensemble(ensemble: int | None, *, least: int = 2) -> None:
    """Raise unless the number of retrainings on halves is even.

    Args:
        ensemble: The number, or `None`.
        least: The smallest allowed.

    Raises:
        InvalidInput: If it cannot be used.
    """
    if ensemble is not None and (ensemble < least or ensemble % 2):
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
            "a mean over retrainings, whence.Boosting()."
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
    def calibrated(self) -> bool:
        """Whether the retrainings give scores the size of a removal."""
        return can_be_sized(self.trained)

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
        model, halves = self.trained, self.halves
        response = response_of(model, halves, measure)
        asked, quantity = followed(model, queries, measure)
        values = np.empty((len(queries), len(where)))
        predicted, actual = [], []
        parts = list(tiles(len(queries), len(model.train), _NUMBERS))
        for part in progress(parts, desc="queries", unit="part"):
            some = asked.subset(np.arange(part.start, part.stop))
            mean = mean_derivative(halves, halves.whole, some, quantity)
            own = effects_of(model.trees, some, quantity, model.trees.weights)
            chosen = unsized(mean) if response is None else response
            scored = chosen.scores(mean, own, halves.inside)
            values[part] = -scored.effects[:, where] / 2**chosen.decay
            predicted.append(scored.predicted)
            actual.append(mean.actual)
        notes = [*model.notes] if response is None else [*model.notes, response.note]
        lds = held_out_lds(np.hstack(predicted), np.hstack(actual))
        notes.append(held_out_note(lds, len(halves), len(queries)))
        found = Diagnostics(notes=tuple(notes), unconfirmed=unconfirmed(lds, len(halves)))
        return torch.from_numpy(values), found

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
