r"""The exact minimum of a smooth loss with an L1 penalty: Newton steps on the coefficients in use.

```
min over θ   R(θ) + Σⱼ penaltyⱼ |θⱼ|        R smooth and convex, with its own quadratic penalty
```

With the signs of the nonzero coefficients A fixed, the penalty is linear there, and a Newton step
is taken on A, no further than to where the first coefficient would change its sign: it stops at
zero and leaves A. At the minimum on A, a coefficient outside with |∂R/∂θⱼ| > penaltyⱼ enters, with
the sign that lowers the sum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from whence.errors import UnsupportedModel, warn_user
from whence.linear.flat import lift
from whence.linear.objective import LinearObjective
from whence.objective.loss import gradient_by_scale
from whence.objective.objective import risk, risk_gradient

_ENTERING = 64  # coefficients that enter at once
_TOLERANCE = 1e-11  # of the sizes of the terms that cancel in a parameter's gradient
_UNREACHED = 1e3  # times that: what rounding does not explain
_ROUNDING = 1e-4  # of the outputs: the least residual that counts as a term, for its rounding
_FLAT = 1e-10  # share of the sum below which a step's gain is lost in the rounding of the sum
_HALVINGS, _FLAT_HALVINGS = 40, 6
_STEPS = 500


def fit_l1(objective: LinearObjective, penalty: Tensor) -> LinearObjective:
    """Return the objective at the minimum of R + Σ penaltyⱼ |θⱼ|, from θ̂.

    Args:
        objective: R without the L1 penalty, smooth and convex, over all columns of X.
        penalty: >= 0, [p]; 0 for parameters without one.

    Returns:
        The objective at the minimum; coefficients that are zero are exactly zero.

    Raises:
        UnsupportedModel: If R is not smooth.

    Warns:
        NotConvergedWarning: If the optimality conditions do not hold to 1e-11 of the terms of each
            parameter's gradient in the end.

    Cost:
        A Hessian and its factor per step, of the coefficients in use alone; about two steps each
        time that the set changes.

    References:
        Osborne, Presnell & Turlach (2000), "A new approach to variable selection in least squares
        problems"; Park & Hastie (2007) for other losses.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.linear_model import Lasso, Ridge
        >>> X, y = load_diabetes(return_X_y=True)
        >>> smooth = whence.from_sklearn(Ridge(alpha=0).fit(X, y), X, y)
        >>> penalty = torch.cat([torch.full((10,), 0.1, dtype=torch.float64), torch.zeros(1)])
        >>> solved = fit_l1(smooth, penalty)
        >>> lasso = Lasso(0.1, tol=1e-12).fit(X, y)
        >>> bool(abs(solved.params[:10].numpy() - lasso.coef_).max() < 1e-6)
        True
    """
    if objective.trained_loss != objective.loss:
        raise UnsupportedModel(
            "Expected a smooth loss to minimize with an L1 penalty. Got the true hinge."
        )
    point = _start(objective, penalty)
    for _ in range(_STEPS):
        point, settled = _step(point)
        if settled:
            entering = _violations(point)
            if not len(entering):
                break
            signs = point.signs.clone()
            signs[entering] = -point.gradient[entering].sign()
            point = replace(point, signs=signs)
    worst = _TOLERANCE * float((point.residual().abs() / point.close).nan_to_num(0.0).max())
    if worst > _UNREACHED * _TOLERANCE:
        warn_user(
            f"Expected the optimality conditions of the L1 penalty to hold to {_TOLERANCE:.0e} of "
            f"the gradient's terms. Got {worst:.1e}. Scale the features to similar ranges, or "
            "accept the stated share."
        )
    return point.objective


@dataclass(frozen=True, eq=False)
class _Point:
    """Where the minimization is.

    Args:
        objective: R at θ.
        penalty: [p].
        gradient: ∇R(θ), [p].
        signs: The sign that each coefficient has or may take; 0 for one that stays at zero, [p].
        value: R(θ) + Σ penaltyⱼ |θⱼ|.
        close: How near 0 each parameter's gradient is at the minimum, [p].
    """

    objective: LinearObjective
    penalty: Tensor
    gradient: Tensor
    signs: Tensor
    value: float
    close: Tensor

    @property
    def used(self) -> Tensor:
        """Which parameters move: those without a penalty, and those with a sign."""
        return (self.penalty == 0) | (self.signs != 0)

    def residual(self) -> Tensor:
        """Return the gradient of the whole sum on the parameters that move, 0 elsewhere, [p]."""
        slope = self.gradient + self.penalty * self.signs
        return torch.where(self.used, slope, torch.zeros_like(slope))


def _start(objective: LinearObjective, penalty: Tensor) -> _Point:
    """Return the point at θ̂."""
    signs = torch.where(penalty > 0, objective.params.sign(), torch.zeros_like(penalty))
    return _at(objective, penalty, signs, _TOLERANCE * _sizes(objective))


def _sizes(objective: LinearObjective) -> Tensor:
    """Return (1/n) Σ wᵢ |xᵢⱼ| |∂ℓᵢ/∂f|: the sizes of the terms of each parameter's gradient, [p].

    A residual counts as no less than 1e-4 of its output: what is left of it is as exact as that.
    """
    train, n = objective.train, len(objective.train)
    outputs = objective.outputs(train)
    bent = gradient_by_scale(objective.loss, outputs, train.targets)
    slopes = objective.loss.gradient(outputs, train.targets).abs()
    terms = torch.maximum(slopes, _ROUNDING * bent.abs()) * (objective.weights / n).unsqueeze(1)
    sizes = train.features.absolute().rmatmul(terms).T.flatten()
    if objective.constant is None:
        return sizes
    return torch.cat([sizes, abs(objective.constant) * terms.sum(0)])


def _at(objective: LinearObjective, penalty: Tensor, signs: Tensor, close: Tensor) -> _Point:
    """Return the point at an objective's parameters."""
    value = risk(objective) + float(penalty @ objective.params.abs())
    return _Point(objective, penalty, risk_gradient(objective), signs, value, close)


def _violations(point: _Point) -> Tensor:
    """Return the coefficients at zero that should enter, the worst first, at most 64."""
    excess = point.gradient.abs() - point.penalty
    excess = torch.where(point.used, torch.zeros_like(excess), excess)
    worst = excess.argsort(descending=True)[:_ENTERING]
    return worst[excess[worst] > point.close[worst]]


def _step(point: _Point) -> tuple[_Point, bool]:
    """Return the point after a Newton step on the parameters that move, and whether it settled."""
    slope = point.residual()
    if bool((slope.abs() <= point.close).all()):
        return _settle(point), True
    step = _direction(point, slope)
    objective, params = point.objective, point.objective.params
    moving = point.penalty > 0
    wrong = moving & (params == 0) & (-step * point.signs < 0)
    if wrong.any():  # of several that entered together, some would leave zero the other way
        signs = torch.where(wrong, torch.zeros_like(point.signs), point.signs)
        return replace(point, signs=signs), False
    crossing = moving & (params != 0) & (params * (params - step) <= 0)
    lengths = torch.where(crossing, params / step, torch.full_like(step, torch.inf))
    longest = min(1.0, float(lengths.min()))
    decrease = float(slope @ step)
    flat = decrease < _FLAT * abs(point.value)
    units = point.close.clamp_min(torch.finfo(slope.dtype).tiny)
    here = float((slope / units).norm())
    for halvings in range(_FLAT_HALVINGS if flat else _HALVINGS):
        length = longest * 0.5**halvings
        there = params - length * step
        if not halvings:
            there = torch.where(lengths <= longest, torch.zeros_like(there), there)
        trial = _at(objective.at(there), point.penalty, point.signs, point.close)
        if trial.value <= point.value - 1e-4 * length * decrease:
            return _settle(trial), False
        level = trial.value <= point.value + _FLAT * abs(point.value)
        if flat and level and float((trial.residual() / units).norm()) < here:
            return _settle(trial), False
    return _settle(point), True


def _settle(point: _Point) -> _Point:
    """Return the point with the coefficients at zero out of the set in use."""
    at_zero = (point.penalty > 0) & (point.objective.params == 0)
    signs = torch.where(at_zero, torch.zeros_like(point.signs), point.signs)
    return replace(point, signs=signs)


def _direction(point: _Point, slope: Tensor) -> Tensor:
    """Return H_AA⁻¹ ∇ on the parameters that move, 0 elsewhere, [p]."""
    objective, used = point.objective, point.used
    c, d = objective.c, objective.train.features.shape[1]
    columns = used[: c * d].reshape(c, d).any(0).nonzero().flatten()
    narrow = replace(
        objective.train, features=objective.train.features.taken(columns), encoded_by=None
    )
    inside = torch.zeros(c, d, dtype=torch.bool)
    inside[:, columns] = True
    kept = torch.cat([inside.flatten(), torch.ones(len(used) - c * d, dtype=torch.bool)])
    small = replace(
        objective,
        train=narrow,
        params=objective.params[kept],
        l2=objective.l2[kept],
        free=None if bool(used[kept].all()) else used[kept],
    )
    hessian = small.dense_hessian()
    if small.free is not None:
        hessian.diagonal().add_((~small.free).double())
    flat = small.flat_directions()
    free_of_penalty = ~((flat != 0) & (point.penalty[kept] > 0).unsqueeze(1)).any(0)
    flat = flat[:, free_of_penalty]
    lift(hessian, flat)
    step = torch.zeros_like(slope)
    step[kept] = _solve(hessian, slope[kept])
    return torch.where(used, step, torch.zeros_like(step))


def _solve(matrix: Tensor, b: Tensor) -> Tensor:
    """Return A⁻¹ b; where A is singular, a long step along what it does not see."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if failed:
        matrix = matrix.clone()
        matrix.diagonal().add_(1e-8 * matrix.diagonal().mean().clamp_min(1e-300))
        factor = torch.linalg.cholesky(matrix)
    return torch.cholesky_solve(b.unsqueeze(1), factor).squeeze(1)
