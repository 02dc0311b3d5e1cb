"""What scikit-learn computes from the rows besides coefficients, and refits that follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.adapters.fitted import Fitted
from whence.errors import InvalidInput
from whence.fitting.hinge import is_hinge
from whence.fitting.l1 import fit_l1
from whence.fitting.newton import newton
from whence.fitting.refit import CONVERGED, refit
from whence.linalg.structured import Identity
from whence.linear.objective import LinearObjective
from whence.linear.wide import columns_of
from whence.objective.measures import Measure
from whence.objective.objective import Objective, Statistics
from whence.objective.trained import Examples

Floats = NDArray[np.float64]


def objective_of(fitted: Fitted) -> LinearObjective:
    """Return the objective that an estimator minimized, with how it is fitted again.

    Args:
        fitted: The estimator with its data.
    """
    return fitted.objective(_attached(fitted))


def _attached(fitted: Fitted) -> Callable[[LinearObjective], LinearObjective]:
    """Return what gives an objective its statistics, and its way to be fitted again."""
    statistics = DataStatistics(fitted)
    follows = (
        fitted.features_follow
        or fitted.weights.depend_on_others
        or fitted.problem.l1 > 0
        or len(statistics._only_of_their_class()) > 0
    )

    def attach(objective: LinearObjective) -> LinearObjective:
        return replace(
            objective,
            refit_with=statistics.refit,
            statistics=statistics if follows else None,
        )

    return attach


@final
@dataclass(frozen=True, eq=False)
class DataStatistics(Statistics):
    """The preprocessing, class weights, divisor, kernel scale and active set of a fit.

    Args:
        fitted: The estimator with its data.
    """

    fitted: Fitted

    def only_weights(self, where: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Return for which rows a removal changes nothing but weights."""
        fitted = self.fitted
        if fitted.features_follow or fitted.problem.l1:
            return np.zeros(len(where), dtype=bool)
        return ~np.isin(where, self._only_of_their_class())

    def weights(self, kept: Tensor) -> Tensor:
        """Return the weights of all rows where some are removed."""
        there = torch.from_numpy(self.fitted.kept.astype(np.float64))
        return self.fitted.weights(kept * there.unsqueeze(1))

    def _only_of_their_class(self) -> NDArray[np.intp]:
        """Return the rows without which a class has none."""
        fitted = self.fitted
        if fitted.classes is None:
            return np.empty(0, dtype=np.intp)
        where = np.flatnonzero(fitted.kept & (fitted.row_weights.numpy() > 0))
        _, first, counts = np.unique(fitted.labels[where], return_index=True, return_counts=True)
        alone: NDArray[np.intp] = where[first[counts == 1]]
        return alone

    def changed(self, objective: Objective, weights: Tensor) -> LinearObjective:
        """Return R of reweighted rows at θ̂, its preprocessing fitted again."""
        assert isinstance(objective, LinearObjective)
        kept, sample = self._rows_of(weights)
        fitted = self.fitted
        if fitted.features_follow:
            return objective_of(fitted.at(objective).again(kept=kept, sample=sample))
        weighted = replace(fitted.weights, sample=torch.from_numpy(sample))
        after = replace(fitted, kept=kept, weights=weighted)
        return _attached(after)(replace(objective, weights=after.row_weights))

    def effects(
        self, objective: Objective, queries: Examples, measure: Measure, directions: Tensor
    ) -> Tensor:
        """Return what a removal does to measures through the statistics, to first order."""
        raise NotImplementedError

    def refit(self, objective: LinearObjective, weights: Tensor) -> LinearObjective:
        """Return what the estimator's own fit gives with other weights, to full precision.

        Args:
            objective: R at θ̂.
            weights: wᵢ >= 0 in the unit of `objective.weights`, [n]; the row with 0 is gone.
        """
        if len(weights) != len(self.fitted.labels):
            return _smooth_or_hinge(objective.reweighted(weights))
        if torch.equal(weights, objective.weights):
            return self._minimum(objective)
        if self._loses_a_class(weights):
            return self._without_a_class(weights)
        if objective.statistics is None:
            return self._minimum(objective.reweighted(weights))
        changed = self.changed(objective, weights)
        assert isinstance(changed.statistics, DataStatistics)
        return changed.statistics._minimum(changed)

    def _rows_of(self, weights: Tensor) -> tuple[NDArray[np.bool_], Floats]:
        """Return which rows stay, and their sample weights, [n] each."""
        before, after = self.fitted.row_weights.numpy(), weights.double().numpy()
        if (after[before == 0] > 0).any():
            raise InvalidInput(
                "Expected weight 0 for a training example whose weight is 0. Got "
                f"{after[before == 0].max():g}. Make the objective with other sample weights."
            )
        ratio = np.divide(after, before, out=np.ones_like(before), where=before > 0)
        ratio[np.abs(ratio - 1) < 1e-12] = 1.0
        kept = self.fitted.kept & (ratio > 0)
        if not kept.any():
            raise InvalidInput("Expected at least one training example to stay. Got none.")
        return kept, np.where(kept, ratio, 1.0) * self.fitted.weights.sample.numpy()

    def _minimum(self, objective: LinearObjective) -> LinearObjective:
        """Return the objective at its minimum, from θ̂."""
        fitted = self.fitted
        if fitted.problem.l1 and not is_hinge(objective.trained_loss):
            whole, penalty = fitted.at(objective).whole()
            sparse_fit = fit_l1(whole.reweighted(objective.weights), penalty)
            return objective_of(fitted.at(sparse_fit))
        columns = columns_of(objective) if fitted.features_follow else None
        if columns is None:
            return _smooth_or_hinge(objective)
        # A wide model's own columns: no coordinates are made for a fit that is asked once.
        solved = newton(columns, gradient_norm=CONVERGED, inverse=Identity(len(columns.params)))
        assert isinstance(solved, LinearObjective)
        return objective_of(fitted.at(solved))

    def _loses_a_class(self, weights: Tensor) -> bool:
        """Return whether a class that has rows has none with these weights."""
        labels, fitted = self.fitted.weights.labels, self.fitted
        if labels is None or fitted.classes is None:
            return False
        there = np.unique(labels.numpy()[fitted.kept])
        left = np.unique(labels.numpy()[fitted.kept & (weights.numpy() > 0)])
        return len(left) < len(there)

    def _without_a_class(self, weights: Tensor) -> LinearObjective:
        """Return the fit on rows that leave out a whole class."""
        raise NotImplementedError


def _smooth_or_hinge(objective: LinearObjective) -> LinearObjective:
    """Return an objective without an L1 penalty at its minimum."""
    fitted = refit(objective, objective.weights)
    assert isinstance(fitted, LinearObjective)
    return fitted
