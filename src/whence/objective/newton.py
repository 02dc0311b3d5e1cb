"""Newton's method for a smooth convex function, to full precision."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, cg
from torch import Tensor


def newton_minimize(
    params: Tensor,
    *,
    value: Callable[[Tensor], float],
    gradient: Callable[[Tensor], Tensor],
    hessian: Callable[[Tensor], Tensor] | None,
    product: Callable[[Tensor, Tensor], Tensor],
    precondition: Callable[[Tensor], Tensor] | None = None,
    gradient_norm: float,
    max_steps: int,
) -> tuple[Tensor, float]:
    """Return the minimizer and the gradient norm reached there.

    Args:
        params: Where to start, [p].
        value: θ ↦ R(θ).
        gradient: θ ↦ ∇R(θ), [p].
        hessian: θ ↦ ∇²R(θ), [p, p], to factor at each step; `None` for conjugate gradients.
        product: (θ, V) ↦ ∇²R(θ) V for V [p, 1], for conjugate gradients.
        precondition: V ↦ ∇²R⁻¹ V roughly, for V [p, 1]; kept from step to step.
        gradient_norm: Stop when ‖∇R‖ is at most this.
        max_steps: Give up after this many steps.

    Returns:
        θ and ‖∇R(θ)‖.

    References:
        Nocedal & Wright (2006), algorithms 3.1 and 7.1.
    """
    slope_vector = gradient(params)
    for _ in range(max_steps):
        norm = float(slope_vector.norm())
        if norm <= gradient_norm:
            break
        if hessian is not None:
            step = _solve(hessian(params), slope_vector)
        else:
            step = _truncated_solve(product, precondition, params, slope_vector, norm)
        at = _backtrack(params, step, slope_vector, value, gradient)
        if at is None:
            break
        params, slope_vector = at
    return params, float(slope_vector.norm())


def _solve(matrix: Tensor, b: Tensor) -> Tensor:
    """Return A⁻¹ b, or the least-norm solution where A is singular."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if not failed:
        return torch.cholesky_solve(b.unsqueeze(1), factor).squeeze(1)
    solution: Tensor = torch.linalg.lstsq(matrix, b.unsqueeze(1), driver="gelsd").solution
    return solution.squeeze(1)


def _truncated_solve(
    product: Callable[[Tensor, Tensor], Tensor],
    precondition: Callable[[Tensor], Tensor] | None,
    params: Tensor,
    b: Tensor,
    norm: float,
) -> Tensor:
    """Return A⁻¹ b by conjugate gradients, more exactly as the minimum comes near."""

    def operator(function: Callable[[Tensor], Tensor]) -> LinearOperator:
        def matvec(v: NDArray[np.float64]) -> NDArray[np.float64]:
            column = torch.from_numpy(v.reshape(-1, 1)).to(params.dtype)
            return np.asarray(function(column).squeeze(1))

        return LinearOperator((len(params), len(params)), matvec=matvec, dtype=np.float64)

    hessian = operator(lambda v: product(params, v))
    inverse = None if precondition is None else operator(precondition)
    rtol = min(0.1, norm**0.5)
    solution, _ = cg(hessian, b.numpy(), rtol=rtol, maxiter=200, M=inverse)
    return torch.from_numpy(solution).to(params.dtype)


def _backtrack(
    params: Tensor,
    step: Tensor,
    slope_vector: Tensor,
    value: Callable[[Tensor], float],
    gradient: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor] | None:
    """Return the first point along −step that is better, and the gradient there.

    Near the minimum R no longer changes in its last digit: there the gradient norm decides.
    """
    start, slope = value(params), float(slope_vector @ step)
    flat = slope < 1e-10 * max(1.0, abs(start))
    for halvings in range(40):
        size = 0.5**halvings
        trial = params - size * step
        slope_there = gradient(trial)
        if value(trial) <= start - 1e-4 * size * slope:
            return trial, slope_there
        if flat and float(slope_there.norm()) < float(slope_vector.norm()):
            return trial, slope_there
    return None
