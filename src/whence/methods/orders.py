"""The orders of influence fitted to a model: first order, a Newton step, refined steps.

`whence.methods.influence` is their public face.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.curvature.changes import change_tiles
from whence.curvature.damping import CurvatureName, check_curvature
from whence.curvature.exact import Gradients
from whence.curvature.intercepts import with_held_intercepts
from whence.curvature.leverages import dual_leverages, in_columns
from whence.curvature.minimum import gradient
from whence.curvature.prepare import Prepared, prepare
from whence.fitting.refit import follows_pieces
from whence.linalg.solver import Solution, Solver
from whence.linear.objective import LinearObjective
from whence.methods.directed import Directed
from whence.methods.features import Side
from whence.methods.finishing import finishing_by_sums, finishing_change, finishing_effect
from whence.methods.fit_quality import diagnostics, quality_beside, residual_of, root_mean_square
from whence.methods.prediction import (
    ORDERS,
    Order,
    as_array,
    check_order,
    measure_changes,
)
from whence.methods.relatif import PER, Normalize, check_normalize, relative
from whence.methods.removals import (
    effects_alone,
    moves_more,
    refined_steps,
    removal,
    unsettled,
)
from whence.methods.screening import affordable, beyond_first_order, size_error
from whence.methods.subsets import Positions, train_subset
from whence.objective.measures import Measure
from whence.objective.objective import Objective
from whence.objective.statistics import Question
from whence.objective.trained import Examples
from whence.progress import progress
from whence.scores import Diagnostics
from whence.tiles import spread

_LOOSE = (
    "No training row lies on the margin, by which the intercept would follow a removal: the first "
    "order leaves it where it is. order='newton' and 'refined' follow it."
)
_CHECKED, _CHECKED_QUERIES = 8, 2  # scores from bfloat16 that are done again in full precision


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of influence: the fields of `whence.Influence`.

    Args:
        order: "first", "newton" or "refined".
        solver: What inverts the curvature; chosen by cost if `None`.
        damping: λ >= 0 added to the curvature; chosen by rule if `None`.
        curvature: "hessian", "ggn" or "auto".
        normalize: RelatIF, for the first order.
    """

    order: Order = "first"
    solver: Solver | None = None
    damping: float | None = None
    curvature: CurvatureName = "auto"
    normalize: Normalize = "none"

    def __post_init__(self) -> None:
        """Check the options."""
        check_order(self.order)
        check_curvature(self.curvature)
        check_normalize(self.normalize, self.order)


@dataclass(frozen=True, eq=False)
class _OnObjective(Directed):
    """What both ways to predict share.

    Args:
        trained: R at θ̂.
        options: The options.
    """

    trained: Objective
    options: Options

    @property
    def words(self) -> str:
        """The order, with its source."""
        return ORDERS[self.options.order]

    @property
    def unit(self) -> str:
        """What RelatIF divides by."""
        return PER[self.options.normalize]

    def prepared(self, k: int) -> Prepared:
        """Return the inverse curvature for k right-hand sides."""
        own = self.options
        return prepare(
            self.trained, k, solver=own.solver, damping=own.damping, curvature=own.curvature
        )

    def directions(
        self, examples: Examples, measure: Measure, side: Side
    ) -> tuple[Tensor, Diagnostics]:
        """Return H⁻¹ ∇m, which is symmetric: the same from both sides."""
        objective, prepared = self.trained, self.prepared(len(examples))
        solution = prepared.inverse.solve(objective.gradient_columns(examples, measure))
        return solution.value, diagnostics(objective, prepared, solution)

    def input_gradient(self, queries: Examples, measure: Measure, where: Positions) -> Tensor:
        """Return −(wᵢ/n) ∇m̄ᵀ H⁻¹ ∇_x ∇_θ ℓ(zᵢ, θ̂), [k, ...]."""
        objective = self.trained
        prepared, gradients = self.prepared(1), Gradients(objective, queries, measure)
        solution = prepared.inverse.solve(gradients.mean())
        mixed = objective.input_gradient(objective.train.subset(where), solution.value.squeeze(1))
        removals = objective.gradient_dot(objective.train, objective.loss, solution.value)
        effects = removals.squeeze(1).abs() * objective.weights / len(objective.train)
        finishing = solution.value.T @ gradient(objective)
        quality = quality_beside(objective, finishing.norm(), effects, norm=False)
        diagnostics(objective, prepared, solution, quality=quality)
        scale = -objective.weights[where] / len(objective.train)
        moved = mixed * scale.reshape(-1, *[1] * (mixed.ndim - 1))
        if objective.statistics is None:
            return moved
        question = Question(objective, queries, measure, gradients.equal_shares, solution.value)
        through = objective.statistics.through_inputs(question, where)
        return moved if through is None else moved + through


@final
class FirstOrder(_OnObjective):
    """(wᵢ/n) ∇m_qᵀ H⁻¹ gᵢ: query gradients · inverse curvature · training gradients."""

    def values(
        self, queries: Examples, measure: Measure, where: Positions
    ) -> tuple[Tensor, Diagnostics]:
        """Return the products, [q, k]."""
        objective = self.trained
        prepared = self.prepared(len(queries))
        model = prepared.scored or objective  # in a lower precision where that is enough
        candidates = train_subset(model, where)
        values, solution = prepared.inverse.between(
            Gradients(objective, queries, measure), Gradients(model, candidates, model.loss)
        )
        rounded = prepared.scored is not None and solution is None
        notes = _rounding(objective, prepared, queries, measure, where, values) if rounded else ()
        shares = model.weights[where] / len(model.train)
        sizes = torch.linalg.vector_norm(values, dim=0) * shares
        if by_sums := prepared.inverse.substitute and candidates is model.train:
            total = (values @ shares).to(objective.params.dtype)
            finishing = finishing_by_sums(objective, prepared, queries, measure, total)
        else:
            finishing = finishing_effect(objective, prepared, queries, measure, solution)
        quality = quality_beside(objective, finishing.norm(), sizes, norm=not by_sums)
        found = diagnostics(objective, prepared, solution, quality=quality)
        if self.options.normalize == "none":
            unit = torch.eye(len(queries), dtype=objective.params.dtype)
            values = values.mul_(shares)
            values = self._with_statistics(values, queries, measure, unit, solution, where)
        else:
            whole = objective.train.subset(where)
            values = relative(values, objective, whole, prepared.inverse, self.options.normalize)
        return values, self._noted(replace(found, notes=(*found.notes, *notes)))

    def sized_values(
        self, queries: Examples, measure: Measure, where: Positions
    ) -> tuple[Tensor, Diagnostics]:
        """Return the products, [q, k], and how far the largest are from refined effects."""
        values, found = self.values(queries, measure, where)
        if self.options.solver is not None or self.options.normalize != "none":
            return values, found
        refined = Evaluated(self.trained, Options(order="refined"))

        def effects(some: Examples, removed: Positions) -> Tensor:
            return refined.values(some, measure, removed)[0]

        error = size_error(self.trained, queries, values, effects, where)
        return values, replace(found, size_error=error)

    def mean_values(
        self, queries: Examples, measure: Measure, where: Positions
    ) -> tuple[Tensor, Diagnostics]:
        """Return (wᵢ/n) ∇m̄ᵀ H⁻¹ gᵢ, [k], by one solve."""
        if self.options.normalize != "none":
            return super().mean_values(queries, measure, where)
        objective, prepared = self.trained, self.prepared(1)
        gradients = Gradients(objective, queries, measure)
        solution = prepared.inverse.solve(gradients.mean())
        candidates = train_subset(objective, where)
        dots = objective.gradient_dot(candidates, objective.loss, solution.value)
        values = (dots * (objective.weights[where] / len(objective.train)).unsqueeze(1)).T
        shares = gradients.equal_shares
        values = self._with_statistics(values, queries, measure, shares, solution, where)[0]
        finishing = solution.value.T @ gradient(objective)
        quality = quality_beside(objective, finishing.norm(), values.abs())
        return values, self._noted(diagnostics(objective, prepared, solution, quality=quality))

    def _noted(self, measured: Diagnostics) -> Diagnostics:
        """Return diagnostics with what the first order holds though it follows the data."""
        statistics = self.trained.statistics
        held = [] if statistics is None else [statistics.held]
        if with_held_intercepts(self.trained) is not self.trained:
            held.append(_LOOSE)
        return replace(measured, notes=(*measured.notes, *filter(None, held)))

    def _with_statistics(
        self,
        values: Tensor,
        queries: Examples,
        measure: Measure,
        shares: Tensor,
        solution: Solution | None,
        where: Positions,
    ) -> Tensor:
        """Return values [k, m] with wᵢ (∇mᵀ H⁻¹ ∂²R/∂θ∂s − ∂m/∂s) ds/dwᵢ added."""
        objective = self.trained
        if objective.statistics is None:
            return values
        if solution is None:
            gradients = Gradients(objective, queries, measure).rmatmat(shares)
            directions = self.prepared(len(shares)).inverse.matmat(gradients)
        else:
            directions = solution.value
        question = Question(
            objective, queries, measure, shares, directions.to(objective.params.dtype)
        )
        through = objective.statistics.effects(question)
        return values if through is None else values + through[:, torch.from_numpy(where)]

    def ranking_values(
        self, queries: Examples, measure: Measure, values: NDArray[np.floating[Any]]
    ) -> NDArray[np.floating[Any]]:
        """Return the scores with what the linear prediction leaves out of a row's own removal."""
        if self.options.normalize != "none":
            return values
        objective, inverse = self.trained, self.prepared(len(queries)).inverse
        most = affordable(objective, inverse)
        if not most:
            return values
        n = values.shape[1]
        where = np.arange(n)
        if most < n:
            sizes = np.linalg.norm(values, axis=0)
            where = np.sort(np.argpartition(-sizes, most)[:most])
        ranked = values.copy()
        ranked[:, where] += as_array(
            beyond_first_order(objective, inverse, queries, measure, where)
        )
        return ranked

    def self_values(self, where: Positions) -> tuple[Tensor, Diagnostics]:
        """Return (wᵢ/n) gᵢᵀ H⁻¹ gᵢ, [k]: self-influence; never negative."""
        objective = self.trained
        columns = in_columns(objective) if self.options.solver is None else None
        if columns is not None:
            return _by_products_of_rows(columns, where, self.options.damping)
        prepared = self.prepared(len(where))
        some = train_subset(objective, where)
        squares = prepared.inverse.quadratic(Gradients(objective, some, objective.loss))
        values = squares * objective.weights[where] / len(objective.weights)
        finishing = finishing_effect(objective, prepared, some, objective.loss)
        quality = quality_beside(objective, root_mean_square(finishing), values)
        return values, diagnostics(objective, prepared, quality=quality)


def _rounding(
    objective: Objective,
    prepared: Prepared,
    queries: Examples,
    measure: Measure,
    where: Positions,
    values: Tensor,
) -> tuple[str]:
    """Return how far scores from passes in bfloat16 are from those of the objective's precision.

    Args:
        objective: R.
        prepared: The inverse.
        queries: The queries.
        measure: The quantity.
        where: The candidates.
        values: ∇mᵀ H⁻¹ gᵢ from rounded passes, [q, k].

    Returns:
        A sentence, measured on a few queries and candidates spread over all.
    """
    rows, columns = (
        spread(n, min(n, most))
        for n, most in ((len(queries), _CHECKED_QUERIES), (len(where), _CHECKED))
    )
    some = objective.train.subset(where[columns])
    exact, _ = prepared.inverse.between(
        Gradients(objective, queries.subset(rows), measure),
        Gradients(objective, some, objective.loss),
    )
    rough = values[torch.from_numpy(rows)][:, torch.from_numpy(columns)]
    error = float((rough - exact).norm() / exact.norm().clamp_min(torch.finfo(exact.dtype).tiny))
    return (
        f"Gradients of training examples are from passes in bfloat16: {len(columns)} examples done "
        f"again in {str(exact.dtype).removeprefix('torch.')} for {len(rows)} of the queries differ "
        f"by {100 * error:.1g} % (root mean square). rtol= below 1e-2 takes no such passes.",
    )


def _by_products_of_rows(
    columns: LinearObjective, where: Positions, damping: float | None
) -> tuple[Tensor, Diagnostics]:
    """Return the self-influence of a wide model with one output, and how it was computed."""
    some = columns.train.subset(where)
    slopes = columns.loss.gradient(columns.outputs(some), some.targets).flatten()
    leverage, step = dual_leverages(columns, where, damping, gradient(columns))
    values = slopes.square() * leverage * columns.weights[where] / len(columns.weights)
    finishing = columns.gradient_dot(some, columns.loss, step.unsqueeze(1))
    quality = quality_beside(columns, root_mean_square(finishing), values)
    return values, Diagnostics(
        solver="Cholesky factor of the products of the rows",
        curvature="Hessian",
        gradient_norm=quality.gradient_norm,
        gradient_in_examples=quality.in_examples,
        unfinished=quality.of_largest,
        stopped=columns.stopped,
        damping=damping or 0.0,
        damping_reason="as asked" if damping else "none: the objective is convex",
        notes=columns.notes,
    )


@final
class Evaluated(_OnObjective):
    """m_q(θ̂ + Δᵢ) − m_q(θ̂), with Δᵢ by Newton steps of the objective without example i."""

    @property
    def linear(self) -> bool:
        """Whether measures are linearized: no, they are evaluated."""
        return False

    @property
    def calibrated(self) -> bool:
        """Whether the model is convex: the measure is evaluated at the predicted parameters."""
        return self.trained.convex

    @property
    def exact(self) -> bool:
        """Whether the minimum itself is found, as it is where it moves from piece to piece."""
        return follows_pieces(self.trained, self.options.order)

    def values(
        self, queries: Examples, measure: Measure, where: Positions
    ) -> tuple[Tensor, Diagnostics]:
        """Return the changes, [q, k]."""
        objective, order = self.trained, self.options.order
        c = objective.outputs(queries.subset(np.arange(1))).shape[1]
        prepared = self.prepared(len(where) * c)
        values, residuals = objective.params.new_empty(len(queries), len(where)), []
        alone = moves_more(objective, order, where)
        together = np.flatnonzero(~alone)
        cut = list(change_tiles(objective, len(together), c))
        for tile in progress(cut, desc="removals"):
            change = removal(objective, prepared.inverse, where[together[tile]])
            if order == "newton":
                deltas = change.newton()
            else:
                nearly, deltas = refined_steps(objective, prepared.damping, change)
                moved = [objective.jvp(queries, by).flatten(0, 1) for by in (nearly, deltas)]
                alone[together[tile]] = unsettled(objective, prepared.damping, *moved)
            settled = torch.from_numpy(~alone[together[tile]])
            if settled.any():
                chosen = settled.nonzero().flatten()
                residuals.append(residual_of(change.select(chosen), deltas[:, chosen], order))
            values[:, together[tile]] = measure_changes(objective, queries, measure, deltas)
        if alone.any():
            values[:, alone] = effects_alone(
                objective, queries, measure, where[alone], order, prepared.inverse
            )
        finishing = finishing_change(objective, prepared, queries, measure, exact=self.exact)
        sizes = torch.linalg.vector_norm(values, dim=0)
        return values, diagnostics(
            objective,
            prepared,
            quality=quality_beside(objective, finishing.norm(), sizes, exact=self.exact),
            residual=max(
                (found for found in residuals if found is not None),
                key=lambda found: found.value,
                default=None,
            ),
        )
