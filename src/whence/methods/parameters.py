"""How the fitted parameters change if a training example is removed."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from whence.arrays import Floats
from whence.checked import checked
from whence.curvature.changes import change_tiles
from whence.curvature.damping import CurvatureName
from whence.curvature.prepare import Prepared, prepare
from whence.linalg.solver import Inverse, Solver
from whence.methods.fit_quality import fit_quality
from whence.methods.prediction import Indices, Order, as_array, check_order, positions
from whence.methods.removals import (
    models_after,
    moves_more,
    refined_steps,
    removal,
    unsettled,
    without,
)
from whence.methods.subsets import Positions
from whence.objective.objective import Objective, objective_of
from whence.objective.statistics import Question
from whence.objective.trained import Trained


@checked
def influence_on_parameters(
    objective: Trained,
    indices: Indices,
    *,
    order: Order = "first",
    solver: Solver | None = None,
    damping: float | None = None,
    curvature: CurvatureName = "auto",
) -> Floats:
    """Predict how the fitted parameters change if each training example is removed.

    first: θ̂₋ᵢ − θ̂ ≈ (wᵢ/n) H⁻¹ gᵢ = −(wᵢ/n) I_up,params.

    Args:
        objective: R at θ̂.
        indices: Positions of the k examples.
        order: "first", "newton" or "refined".
        solver: What inverts the curvature; chosen by cost if `None`.
        damping: λ >= 0 added to the curvature; chosen by rule if `None`.
        curvature: "hessian", "ggn" (the Gauss–Newton matrix) or "auto": the exact Hessian of a
            convex objective or at a strict minimum, elsewhere the damped Gauss–Newton matrix.

    Returns:
        Changes of the user's own parameters, [k, p]: for scikit-learn `coef_` row by row, then
        `intercept_`.

    Raises:
        InvalidInput: If the indices are no positions.
        NotPositiveDefinite: If the curvature is singular or indefinite.

    Cost:
        k c solves.

    References:
        Koh & Liang (2017), section 2.1, equation 1.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.linear_model import Ridge
        >>> X, y = load_diabetes(return_X_y=True)
        >>> objective = whence.from_sklearn(Ridge().fit(X, y), X, y)
        >>> whence.influence_on_parameters(objective, [0, 5]).shape
        (2, 11)
    """
    check_order(order)
    objective = objective_of(objective)
    where = positions(objective, indices)
    c = objective.outputs(objective.train.subset(where[:1])).shape[1]
    prepared = prepare(
        objective, len(where) * c, solver=solver, damping=damping, curvature=curvature
    )
    if order == "first":
        changes = _first_changes(objective, prepared.inverse, where)
    else:
        changes = _evaluated_changes(objective, prepared, where, order)
    fit_quality(objective, prepared)  # warns of an unfinished fit
    return as_array(changes)


def _evaluated_changes(
    objective: Objective, prepared: Prepared, where: Positions, order: Order
) -> Tensor:
    """Return θ̂₋ᵢ − θ̂ by Newton steps, in the user's parameters, [k, p]."""
    alone = moves_more(objective, order, where)
    together = np.flatnonzero(~alone)
    parts, c = [], objective.outputs(objective.train.subset(where[:1])).shape[1]
    for tile in change_tiles(objective, len(together), c):
        change = removal(objective, prepared.inverse, where[together[tile]])
        if order == "newton":
            deltas = change.newton()
        else:
            nearly, deltas = refined_steps(objective, prepared.damping, change)
            alone[together[tile]] = unsettled(objective, prepared.damping, nearly, deltas)
        parts.append(objective.lift(deltas).T)
    if not alone.any():
        return torch.cat(parts)
    rows = [partial(without, where=np.array([at])) for at in where[alone]]
    base, models = models_after(objective, rows, order, prepared.inverse)
    before = base.lift(base.params.unsqueeze(1))
    lifted = torch.cat([model.lift(model.params.unsqueeze(1)) - before for model in models], 1)
    changes = lifted.new_empty(len(where), len(lifted))
    if len(together):
        changes[torch.from_numpy(together)] = torch.cat(parts)
    changes[torch.from_numpy(alone)] = lifted.T
    return changes


def _first_changes(objective: Objective, inverse: Inverse, where: Positions) -> Tensor:
    """Return (wᵢ/n) H⁻¹ gᵢ, with what goes through the statistics, in the user's parameters."""
    gradients = objective.gradient_columns(objective.train.subset(where), objective.loss)
    deltas = inverse.matmat(gradients) * (objective.weights[where] / len(objective.train))
    if objective.statistics is not None:
        unit = torch.eye(len(objective.params), dtype=deltas.dtype)
        through = objective.statistics.effects(
            Question(
                objective,
                objective.train.subset(where[:1]),
                objective.loss,
                deltas.new_zeros(1, len(unit)),
                inverse.matmat(unit),
            )
        )
        deltas = deltas if through is None else deltas + through[:, torch.from_numpy(where)]
    return objective.lift(deltas).T
