"""The fit of a linear or smooth convex model to other example weights, to full precision."""

from __future__ import annotations

from torch import Tensor

from whence.curvature.prepare import prepare
from whence.errors import NotPositiveDefinite
from whence.fitting.hinge import fit_hinge
from whence.fitting.newton import newton
from whence.linalg.operator import LinearOperator
from whence.objective.objective import AnyObjective, Objective

_SHARED = range(100, 3_001)  # parameters of which refits share one factor: none makes its own


def refit(
    objective: AnyObjective, weights: Tensor, *, nearby: Objective | None = None
) -> AnyObjective:
    """Return the objective at its minimum under other example weights, from θ̂.

    By Newton's method until another step would gain nothing; a true hinge by walking its support
    vectors, to margins exact to 1e-10.

    Args:
        objective: R at θ̂.
        weights: wᵢ >= 0, [n]; the 1/n is kept.
        nearby: The model that this is one of many changes of: they share the factor of its Hessian.

    Returns:
        The objective with these weights, at its minimum.

    Raises:
        UnsupportedModel: If R is not known to be convex.

    Warns:
        NotConvergedWarning: If the minimum could not be reached.

    Cost:
        A few Hessians and their factors, or a few dozen Hessian-vector products each.

    References:
        Koh & Liang (2017), section 4.1: leave-one-out retraining from θ̂.

    Examples:
        >>> import torch, whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.linear_model import Ridge
        >>> X, y = load_diabetes(return_X_y=True)
        >>> objective = whence.from_sklearn(Ridge().fit(X, y), X, y)
        >>> weights = torch.ones(len(y), dtype=torch.float64)
        >>> bool(torch.allclose(refit(objective, weights).params, objective.params))
        True
    """
    changed = objective.reweighted(weights)
    if changed.hinged:
        return changed.at(fit_hinge(changed).objective.params)
    inverse = None if nearby is None else _shared(nearby, len(objective.params))
    return newton(changed, inverse=inverse)


def _shared(nearby: Objective, p: int) -> LinearOperator | None:
    """Return the inverse Hessian from which refits of p parameters start, where that is quicker."""
    if p not in _SHARED or len(nearby.params) != p or nearby.hinged or not nearby.convex:
        return None
    try:
        return prepare(nearby, 1).inverse
    except NotPositiveDefinite:
        return None


def is_piecewise(objective: Objective) -> bool:
    """Return whether the minimum moves from piece to piece as weights change: hinges, L1 penalties.

    Args:
        objective: R at θ̂.

    Returns:
        Whether Newton steps within one piece can miss where the minimum goes.
    """
    return objective.slope is not None or objective.hinged


def follows_pieces(objective: Objective, order: str) -> bool:
    """Return whether an order of prediction is the minimum itself, from piece to piece.

    Args:
        objective: R at θ̂.
        order: "first", "newton" or "refined".

    Returns:
        True of the refined order of hinges and L1 penalties; of hinges also of a Newton step, whose
        quadratic model of a corner predicts nothing.
    """
    return (order == "refined" and is_piecewise(objective)) or (
        order == "newton" and objective.hinged
    )
