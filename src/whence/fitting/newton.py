"""Newton's method for a smooth convex objective, to full precision."""

from __future__ import annotations

import torch
from torch import Tensor

from whence.curvature.exact import Hessian
from whence.curvature.two_level import two_level
from whence.errors import UnsupportedModel, warn_user
from whence.fitting.least_norm import least_norm
from whence.linalg.cg import CG
from whence.linalg.operator import LinearOperator
from whence.linalg.spectral import LowRank
from whence.objective.objective import AnyObjective, Objective, risk, risk_gradient

_ARRIVED = 1e-12  # gradient norm below which no step is worth while
_NEGLIGIBLE = 1e-20  # share of R that a last step could still gain, in any unit of the columns
_NEAR = 1e-10  # squared length of a step, beside the longest, after which none is worth while
_DENSE = 3_000  # parameters up to which a Newton step factors the whole Hessian


def newton(
    objective: AnyObjective,
    *,
    gradient_norm: float = 1e-10,
    max_steps: int = 100,
    inverse: LinearOperator | None = None,
) -> AnyObjective:
    """Return the objective at its minimum, by Newton's method with backtracking from θ̂.

    Args:
        objective: R at θ̂, smooth and convex.
        gradient_norm: Stop when ‖∇R‖ is at most this.
        max_steps: Give up after this many Newton steps.
        inverse: An approximate H⁻¹, [p, p], such as that of an objective nearby; with it, no step
            factors a Hessian.

    Returns:
        The objective at the converged parameters.

    Raises:
        UnsupportedModel: If R is not smooth and convex.

    Warns:
        NotConvergedWarning: If the gradient norm could not be reached, and finishing would lower R
            by more than 1e-20 of itself.

    Cost:
        A Hessian and its factor per step up to 3,000 parameters; conjugate gradients above.

    References:
        Nocedal & Wright (2006), algorithms 3.1 and 7.1.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.linear_model import LogisticRegression
        >>> X, y = load_iris(return_X_y=True)
        >>> objective = whence.from_sklearn(LogisticRegression(max_iter=1000).fit(X, y), X, y)
        >>> bool(risk_gradient(newton(objective)).norm() <= 1e-10)
        True
    """
    if objective.trained_loss != objective.loss or not objective.convex:
        kind = "a true hinge" if objective.convex else "one that is not known to be convex"
        raise UnsupportedModel(
            f"Expected a smooth convex objective to refit by Newton's method. Got {kind}. "
            "Record its training with whence.train: a recorded training can be repeated."
        )
    factor = inverse is None and len(objective.params) <= _DENSE
    flat = objective.flat_directions()
    if not factor and inverse is None:
        inverse = two_level(objective)
    slope, decrease = risk_gradient(objective), float("inf")
    for _ in range(max_steps):
        norm = float(slope.norm())
        if norm <= gradient_norm:
            break
        if factor:
            step = _solve(objective.dense_hessian() + flat @ flat.T, slope)
        else:  # more exactly as the minimum comes near
            step = _iterated(objective, slope, min(0.1, norm**0.5), inverse)
        better, decrease = _backtrack(objective, step, slope), float(slope @ step)
        if better is None:
            break
        objective, slope = better
    if slope.norm() > gradient_norm and decrease > _NEGLIGIBLE * max(1.0, abs(risk(objective))):
        warn_user(
            f"Expected to reach a gradient norm of {gradient_norm:.1e}. Got "
            f"{float(slope.norm()):.1e}. Scale the features to similar ranges, or accept the "
            "stated norm."
        )
    return least_norm(objective)


def newton_steps(objective: AnyObjective, steps: int, inverse: LinearOperator) -> AnyObjective:
    """Return the objective after a few Newton steps from θ̂; fewer if it arrives before.

    Args:
        objective: R at θ̂, of the loss that influence differentiates.
        steps: How many, >= 1.
        inverse: An approximate H⁻¹, [p, p], from which conjugate gradients start.

    Returns:
        The objective at the last point.

    Cost:
        A few products with H per step, as many as the inverse is far from H⁻¹.
    """
    slope, enough = risk_gradient(objective), 0.0
    for _ in range(steps):
        if float(slope.norm()) <= _ARRIVED:
            break
        step = _iterated(objective, slope, 1e-6 if steps == 1 else 1e-3, inverse)
        decrease = float(slope @ step)
        enough = max(enough, _NEAR * decrease)
        better = _backtrack(objective, step, slope)
        if better is None:
            break
        objective, slope = better
        if decrease <= enough:
            break
    return least_norm(objective)


def _iterated(
    objective: Objective, slope: Tensor, rtol: float, inverse: LinearOperator | None
) -> Tensor:
    """Return H⁻¹ ∇R by conjugate gradients, flat directions lifted to curvature 1."""
    curvature: LinearOperator = Hessian(objective)
    flat = objective.flat_directions()
    if flat.shape[1]:
        curvature = curvature + LowRank(flat, flat.new_ones(flat.shape[1]))
    solver = CG(rtol=rtol, max_iterations=200, preconditioner=inverse)
    return solver.prepare(curvature).unchecked(slope.unsqueeze(1))[0].squeeze(1)


def _solve(matrix: Tensor, b: Tensor) -> Tensor:
    """Return A⁻¹ b, or the least-norm solution where A is singular."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if not failed:
        return torch.cholesky_solve(b.unsqueeze(1), factor).squeeze(1)
    solution: Tensor = torch.linalg.lstsq(matrix, b.unsqueeze(1), driver="gelsd").solution
    return solution.squeeze(1)


def _backtrack(
    objective: AnyObjective, step: Tensor, slope: Tensor
) -> tuple[AnyObjective, Tensor] | None:
    """Return the first point along −step that is better, and the gradient there.

    Near the minimum R no longer changes in its last digit: there the gradient norm decides.
    """
    start, decrease = risk(objective), float(slope @ step)
    flat = decrease < 1e-10 * max(1.0, abs(start))
    for halvings in range(40):
        size = 0.5**halvings
        trial = objective.at(objective.params - size * step)
        slope_there = risk_gradient(trial)
        if risk(trial) <= start - 1e-4 * size * decrease:
            return trial, slope_there
        if flat and float(slope_there.norm()) < float(slope.norm()):
            return trial, slope_there
    return None
