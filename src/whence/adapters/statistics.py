"""What scikit-learn computes from training rows besides coefficients, and refits that follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.adapters.duals import Duals, duals_of
from whence.adapters.effects import preprocessing_of, through_features, through_inputs
from whence.adapters.fitted import Fitted
from whence.adapters.own_fits import own_fit, stops_by_chance
from whence.adapters.tabular import table_of
from whence.adapters.targets import decoded
from whence.adapters.vanished import classes_left, reduced, with_all_classes
from whence.arrays import Floats
from whence.errors import InvalidInput
from whence.fitting.l1 import fit_l1
from whence.fitting.newton import newton
from whence.fitting.refit import refit
from whence.linalg.structured import Identity
from whence.linear.objective import (
    LinearExamples,
    LinearObjective,
    LinearQuestion,
    LinearStatistics,
)
from whence.linear.wide import columns_of
from whence.objective.removed import gone, unchanged
from whence.preprocessing.pipeline import Differentiable
from whence.rows import put


def objective_of(fitted: Fitted, stopped: str = "") -> LinearObjective:
    """Return the objective that an estimator minimized, with how it is fitted again.

    Args:
        fitted: The estimator with its data.
        stopped: What the estimator says of its own fit, if that stopped early.
    """
    return fitted.objective(_attached(fitted, stopped))


def _attached(fitted: Fitted, stopped: str = "") -> Callable[[LinearObjective], LinearObjective]:
    """Return what gives an objective its statistics, and its way to be fitted again."""
    statistics = DataStatistics(fitted)

    def attach(objective: LinearObjective) -> LinearObjective:
        return replace(
            objective, refit_with=statistics.refit, statistics=statistics, stopped=stopped
        )

    return attach


@final
@dataclass(frozen=True, eq=False)
class DataStatistics(LinearStatistics):
    """The preprocessing, class weights, divisor, kernel scale and active set of a fit.

    Args:
        fitted: The estimator with its data.
    """

    fitted: Fitted

    @property
    def reweights(self) -> bool:
        """Whether a removal changes the weights of the rows that stay."""
        return self.fitted.weights.depend_on_others

    @property
    def moves_features(self) -> bool:
        """Whether the preprocessing follows its rows."""
        return self.fitted.features_follow

    @property
    def lacks_a_class(self) -> bool:
        """Whether the objective is the fit itself, of rows without one of the classes."""
        return self.fitted.lacks_a_class

    @property
    def held(self) -> str:
        """What the first order holds, in a sentence."""
        preprocessing = self._preprocessing if self.fitted.features_follow else None
        if preprocessing is None or not preprocessing.held:
            return ""
        return (
            f"The first order holds {' and '.join(preprocessing.held)} as fitted, though a removal "
            "may change it. Newton and refined effects and refits fit it again."
        )

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

    @property
    def indispensable(self) -> NDArray[np.intp]:
        """The only rows of a class, where the estimator cannot be fitted with a class less."""
        fitted = self.fitted
        several = fitted.classes is not None and len(fitted.classes) > 2
        if several and not fitted.problem.signs:
            return np.empty(0, dtype=np.intp)
        return self._only_of_their_class()

    def _only_of_their_class(self) -> NDArray[np.intp]:
        """Return the rows without which a class has none."""
        fitted = self.fitted
        if fitted.classes is None:
            return np.empty(0, dtype=np.intp)
        where = np.flatnonzero(fitted.kept & (fitted.row_weights.numpy() > 0))
        _, first, counts = np.unique(fitted.labels[where], return_index=True, return_counts=True)
        alone: NDArray[np.intp] = where[first[counts == 1]]
        return alone

    def weights_as(self, where: NDArray[np.intp], targets: Tensor) -> Tensor:
        """Return the weight that rows would have with other targets, [k]."""
        fitted = self.fitted
        if fitted.classes is None:
            return fitted.row_weights[torch.from_numpy(where)]
        labels = decoded(fitted.classes, fitted.problem.signs, targets)
        classes = torch.from_numpy(np.searchsorted(fitted.classes, labels))
        return fitted.weights.with_label(where, classes)

    def changed(self, objective: LinearObjective, weights: Tensor) -> LinearObjective:
        """Return R of reweighted rows at θ̂, its preprocessing fitted again."""
        return self._changed(objective, weights, whole=False)[1]

    def _changed(
        self, objective: LinearObjective, weights: Tensor, *, whole: bool
    ) -> tuple[Fitted, LinearObjective]:
        """Return the estimator on reweighted rows too; removed ones transformed if all are."""
        kept, sample = self._rows_of(weights)
        fitted = self.fitted
        if not classes_left(fitted, kept):
            again = fitted.at(objective).again(kept=kept, sample=sample, whole=whole)
            few = reduced(again, kept)
            solved = objective_of(few).refit()
            every = with_all_classes(again, kept, few.at(solved))
            return every, objective_of(every)
        if fitted.features_follow:
            start = self._to_fit_again.at(objective)
            again = start.again(kept=kept, sample=sample, whole=whole)
            return again, objective_of(again)
        weighted = replace(fitted.weights, sample=torch.from_numpy(sample))
        after = replace(fitted, kept=kept, weights=weighted)
        return after, _attached(after)(replace(objective, weights=after.row_weights))

    @property
    def frequencies(self) -> bool:
        """Whether sample weights are numbers of rows."""
        return self.fitted.weights.frequencies

    @property
    def stops_by_chance(self) -> bool:
        """Whether the estimator's own fits stop by a loss that its draws disturb."""
        return stops_by_chance(self.fitted.final)

    def answers(
        self, objective: LinearObjective, weights: Tensor, queries: LinearExamples
    ) -> Tensor | None:
        """Return what a kernel machine whose kernel follows its rows answers after a refit."""
        kept, sample = self._rows_of(weights)
        walks = self.moves_features and classes_left(self.fitted, kept)
        duals = self._duals if walks else None
        if duals is None:
            return None
        again = self._to_fit_again.again(kept=kept, sample=sample, whole=False)
        return duals.answers(again, queries.inputs)

    @cached_property
    def _duals(self) -> Duals | None:
        """The minimum in dual coefficients, from which removals walk."""
        return duals_of(self.fitted)

    def own_fit(self, objective: LinearObjective, weights: Tensor) -> LinearObjective | None:
        """Return the objective where the estimator's own solver ends with other weights."""
        if not classes_left(self.fitted, self._rows_of(weights)[0]):
            return None
        fitted = own_fit(self._changed(objective, weights, whole=False)[0])
        return None if fitted is None else objective_of(fitted)

    def edited(
        self, objective: LinearObjective, index: int, example: LinearExamples
    ) -> LinearObjective:
        """Return R at θ̂ with one row replaced, preprocessing and weights of the new data."""
        fitted, old = self.fitted, self.fitted.labels
        new = decoded(fitted.classes, fitted.problem.signs, example.targets)
        labels = old.astype(np.result_type(old, new), copy=True)
        labels[index] = new[0]
        rows = put(fitted.rows, index, example.inputs)
        return objective_of(self._to_fit_again.at(objective).again(rows=rows, labels=labels))

    def effects(
        self, question: LinearQuestion, added: tuple[LinearExamples, int] | None = None
    ) -> Tensor | None:
        """Return what each removal does to quantities through the statistics, to first order."""
        fitted = self.fitted
        if not self.reweights and not self.moves_features:
            return None
        question = replace(question, queries=question.objective.examples(question.queries))
        total = question.directions.new_zeros(
            len(fitted.labels) + (added is not None), question.directions.shape[1]
        )
        if self.reweights:
            total += self._through_weights(question, added)
        if fitted.features_follow:
            steps = self._preprocessing if added is None else preprocessing_of(fitted, added)
            total += through_features(fitted, steps, question, added)
        return total.T

    def through_inputs(self, question: LinearQuestion, where: NDArray[np.intp]) -> Tensor | None:
        """Return what moving training rows does to one quantity through the statistics."""
        objective = question.objective
        preprocessing = self._preprocessing if self.moves_features else None
        table = table_of(objective)
        if preprocessing is None or table.pullback is None:
            return None
        if table.space is not None and table.space.kernel.name != "linear":
            return None
        question = replace(question, queries=objective.examples(question.queries))
        return through_inputs(self.fitted, preprocessing, question, where)

    @cached_property
    def _to_fit_again(self) -> Fitted:
        """The estimator, prepared for many refits."""
        return self.fitted.to_fit_again()

    @cached_property
    def _preprocessing(self) -> Differentiable | None:
        """The transformers as a function of which rows are there."""
        return preprocessing_of(self.fitted)

    def _through_weights(
        self, question: LinearQuestion, added: tuple[LinearExamples, int] | None
    ) -> Tensor:
        """Return Σⱼ ∂wⱼ/∂kᵢ (eⱼᵀ uⱼ)/n without the row's own term, [n, k] or [n + 1, k]."""
        objective, weights = question.objective, self.fitted.weights
        pulls = objective.gradient_dot(objective.train, objective.loss, question.directions)
        pulls = pulls / len(pulls)
        kept = torch.from_numpy(self.fitted.kept.astype(np.float64))
        if added is not None:
            example, like = added
            weights = weights.with_row(self._class_of(example), like)
            kept = torch.cat([kept, kept.new_zeros(1)])
            own = objective.gradient_dot(example, objective.loss, question.directions)
            pulls = torch.cat([pulls, own / len(objective.train)])
        with torch.enable_grad():
            columns = kept.unsqueeze(1).repeat(1, pulls.shape[1]).requires_grad_()
            (total,) = torch.autograd.grad((weights(columns) * pulls).sum(), columns)
        effects = total - weights.rates(kept).unsqueeze(1) * pulls
        there = kept.clone()
        there[len(objective.train) :] = 1.0
        return effects * there.unsqueeze(1)

    def _class_of(self, example: LinearExamples) -> Tensor | None:
        """Return the class of an example as a position, [1]."""
        fitted = self.fitted
        if fitted.classes is None:
            return None
        label = decoded(fitted.classes, fitted.problem.signs, example.targets)
        return torch.from_numpy(np.searchsorted(fitted.classes, label))

    def refit(self, objective: LinearObjective, weights: Tensor) -> LinearObjective:
        """Return what the estimator's own fit gives with other weights, to full precision.

        Args:
            objective: R at θ̂.
            weights: wᵢ >= 0 in the unit of `objective.weights`, [n]; a row that had weight and has
                0 is gone, and any that `weights_without` took out.
        """
        if len(weights) != len(self.fitted.labels):
            return refit(objective, weights, nearby=objective)
        if unchanged(weights, objective.weights):
            return self._minimum(objective, objective)
        fitted, changed = self._changed(objective, weights, whole=True)
        if not classes_left(self.fitted, fitted.kept):
            return changed
        return DataStatistics(fitted)._minimum(changed, objective)

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
        kept = self.fitted.kept & (ratio > 0) & ~gone(weights)
        if not kept.any():
            raise InvalidInput("Expected at least one training example to stay. Got none.")
        return kept, np.where(kept, ratio, 1.0) * self.fitted.weights.sample.numpy()

    def _minimum(self, objective: LinearObjective, nearby: LinearObjective) -> LinearObjective:
        """Return the objective at its minimum, from θ̂ of one nearby."""
        fitted = self.fitted
        if fitted.problem.l1 and not objective.hinged:
            whole, penalty = fitted.at(objective).whole()
            solved = fit_l1(whole.reweighted(objective.weights), penalty)
            return objective_of(fitted.at(solved))
        columns = columns_of(objective) if fitted.features_follow else None
        if columns is None:
            return refit(objective, objective.weights, nearby=nearby)
        # A wide model's own columns: no coordinates are made for a fit that is asked once.
        start = Identity(len(columns.params))
        narrow = newton(columns, inverse=start)
        return objective_of(fitted.at(narrow))
