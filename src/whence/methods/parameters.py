"""Influence of training examples on the fitted parameters."""

from __future__ import annotations

import torch

from whence.curvature.changes import tiles
from whence.curvature.damping import CurvatureName
from whence.curvature.prepare import prepare
from whence.linalg.solver import Solver
from whence.methods.fit_quality import diagnostics
from whence.methods.prediction import (
    Floats,
    Indices,
    Order,
    as_array,
    check_order,
    deltas_of,
    positions,
    removal,
)
from whence.objective.objective import objective_of
from whence.objective.trained import Trained


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
    parts = []
    for tile in tiles(objective, len(where), c):
        deltas = deltas_of(removal(objective, prepared.inverse, where[tile]), order)
        parts.append(objective.lift(deltas).T)
    diagnostics(objective, prepared)
    return as_array(torch.cat(parts))
