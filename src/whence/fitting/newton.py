"""Newton's method for a smooth convex objective, to full precision."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias, final

import torch
from torch import Tensor

from whence.curvature.exact import Hessian
from whence.curvature.two_level import two_level
from whence.errors import UnsupportedModel, warn_user
from whence.fitting.least_norm import least_norm
from whence.linalg.cg import CG
from whence.linalg.operator import LinearOperator
from whence.linalg.spectral import LowRank
from whence.linalg.structured import Identity
from whence.linear.flat import lift
from whence.objective.loss import gradient_by_scale
from whence.objective.objective import AnyObjective, Objective, risk, risk_gradient

_NEGLIGIBLE = 1e-24  # share of R that a last step may still gain, in any unit of the data
_ROUNDING = 1e-15  # of the outputs: what their rounding can gain is no gain
_UNREACHED = 1e4  # times that: what is left of a fit that ended before its minimum
_NEAR = 1e-10  # squared length of a step, beside the longest, after which none is worth while
_FLAT = 1e-10  # share of R below which a step's gain is lost in the rounding of R
_STEPS = 100  # after which Newton's method gives up
_HALVINGS, _FLAT_HALVINGS = 40, 6
_DENSE = 3_000  # parameters up to which a Newton step factors the whole Hessian

_Metric: TypeAlias = "LinearOperator | _Factor"


def newton(objective: AnyObjective, *, inverse: LinearOperator | None = None) -> AnyObjective:
    """Return the objective at its minimum, by Newton's method with backtracking from θ̂.

    The minimum is where a further step would lower R by less than 1e-24 of itself, or by what the
    rounding of the outputs can do: in no unit of the rows, the targets or the weights.

    Args:
        objective: R at θ̂, smooth and convex.
        inverse: An approximate H⁻¹, [p, p], such as that of an objective nearby; with it, no step
            factors a Hessian.

    Returns:
        The objective at the converged parameters.

    Raises:
        UnsupportedModel: If R is not smooth and convex.

    Warns:
        NotConvergedWarning: If the steps ended where another would lower R by more than 1e-20 of
            itself.

    Cost:
        A Hessian and its factor per step up to 3,000 parameters; conjugate gradients above.

    References:
        Nocedal & Wright (2006), algorithms 3.1 and 7.1; Boyd & Vandenberghe (2004), section 9.5.1,
        for the decrement ∇Rᵀ H⁻¹ ∇R as the criterion.

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
    metric: _Metric = _identity(objective) if inverse is None else inverse
    slope, ratio = risk_gradient(objective), float("inf")  # of ∇Rᵀ H⁻¹ ∇R to the same by `metric`
    for _ in range(_STEPS):
        enough, rough = negligible(objective), float(slope @ (metric @ slope))
        if ratio * rough <= enough or not rough:
            break
        if factor:
            metric = _Factor(lift(objective.dense_hessian(), flat))
            step = metric @ slope
        else:  # more exactly as the minimum comes near
            share = ratio * rough * _NEGLIGIBLE / enough if enough else 0.0
            step = _iterated(objective, slope, min(0.1, share**0.25), inverse)
        gain, rough = float(slope @ step), float(slope @ (metric @ slope))
        better = None if gain <= enough else _backtrack(objective, step, slope, metric, enough)
        if better is None:
            ratio = gain / rough if rough > 0 else 0.0
            break
        ratio = gain / rough if rough > 0 else float("inf")
        objective, slope = better
    left = ratio * float(slope @ (metric @ slope))
    if left > _UNREACHED * negligible(objective):
        warn_user(
            f"Expected to reach the minimum of the penalized loss, {risk(objective):.4g}. Got a "
            f"point where another Newton step promises {left / 2:.1e} less. Scale the features to "
            "similar ranges, or accept the stated difference."
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
    slope, none = risk_gradient(objective), negligible(objective)
    enough = none
    for _ in range(steps):
        step = _iterated(objective, slope, 1e-6 if steps == 1 else 1e-3, inverse)
        gain = float(slope @ step)
        if gain <= none:
            break
        enough = max(enough, _NEAR * gain)
        better = _backtrack(objective, step, slope, inverse, none)
        if better is None:
            break
        objective, slope = better
        if gain <= enough:
            break
    return least_norm(objective)


def negligible(objective: Objective) -> float:
    """Return the decrease of R that no step is worth, in the unit of R.

    Args:
        objective: R at θ̂.

    Returns:
        1e-24 of |R|, and what outputs f that are off by 1e-15 of themselves change of it.
    """
    train = objective.train
    outputs = objective.outputs(train)
    bent = gradient_by_scale(objective.loss, outputs, train.targets)
    sizes = (bent * outputs).flatten(1).sum(1)
    size = float((objective.weights * sizes).sum() / len(train))
    return _NEGLIGIBLE * abs(risk(objective)) + _ROUNDING**2 * max(size, 0.0)


@final
@dataclass(frozen=True, eq=False)
class _Factor:
    """H⁻¹ by a factor; by the least-norm solution where H is singular.

    Args:
        matrix: H, [p, p].
    """

    matrix: Tensor

    @cached_property
    def _cholesky(self) -> Tensor | None:
        """The lower factor, or `None` of a singular matrix."""
        factor, failed = torch.linalg.cholesky_ex(self.matrix)
        return None if failed else factor

    def __matmul__(self, v: Tensor) -> Tensor:
        """Return H⁻¹ v, [p]."""
        if self._cholesky is not None:
            return torch.cholesky_solve(v.unsqueeze(1), self._cholesky).squeeze(1)
        found: Tensor = torch.linalg.lstsq(self.matrix, v.unsqueeze(1), driver="gelsd").solution
        return found.squeeze(1)


def _identity(objective: Objective) -> Identity:
    """Return I on the parameters."""
    params = objective.params
    return Identity(len(params), dtype=params.dtype, device=params.device)


def _iterated(
    objective: Objective, slope: Tensor, rtol: float, inverse: LinearOperator | None
) -> Tensor:
    """Return H⁻¹ ∇R by conjugate gradients, flat directions lifted to the curvature along ∇R."""
    curvature: LinearOperator = Hessian(objective)
    flat = objective.flat_directions()
    if flat.shape[1]:
        along = slope.unsqueeze(1) / slope.norm().clamp_min(torch.finfo(slope.dtype).tiny)
        size = (along * (curvature @ along)).sum()
        curvature = curvature + LowRank(flat, size.expand(flat.shape[1]))
    solver = CG(rtol=rtol, max_iterations=200, preconditioner=inverse)
    return solver.prepare(curvature).unchecked(slope.unsqueeze(1))[0].squeeze(1)


def _backtrack(
    objective: AnyObjective, step: Tensor, slope: Tensor, metric: _Metric, enough: float
) -> tuple[AnyObjective, Tensor] | None:
    """Return the first point along −step that is better, and the gradient there.

    Near the minimum R no longer changes in its last digit: there the gradient decides, measured by
    an approximate H⁻¹, in which columns of different units count alike.
    """
    start, decrease = risk(objective), float(slope @ step)
    flat = decrease < _FLAT * abs(start) + enough * (_FLAT / _NEGLIGIBLE)
    here = float(slope @ (metric @ slope))
    for halvings in range(_FLAT_HALVINGS if flat else _HALVINGS):
        size = 0.5**halvings
        trial = objective.at(objective.params - size * step)
        slope_there = risk_gradient(trial)
        there = risk(trial)
        if there <= start - 1e-4 * size * decrease:
            return trial, slope_there
        level = there <= start + _FLAT * abs(start) + enough * (_FLAT / _NEGLIGIBLE)
        if flat and level and float(slope_there @ (metric @ slope_there)) < here:
            return trial, slope_there
    return None
