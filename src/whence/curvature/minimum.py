r"""How far θ̂ is from a minimum of R, and whether that minimum is strict.

Both are judged in units that do not depend on the scale of the parameters. The Newton decrement
√(∇Rᵀ H⁻¹ ∇R) is the length, in the metric of H, of the step that finishes the fit. Removing example
i takes a step of length (wᵢ/n) √(gᵢᵀ H⁻¹ gᵢ) in the same metric, and their ratio is the number of
typical examples whose removal moves the fit as far as finishing it would.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from whence.curvature.exact import Hessian
from whence.diagnostics import two_digits
from whence.errors import NotPositiveDefinite
from whence.linalg.cg import CG
from whence.linalg.cholesky import Cholesky
from whence.linalg.eigenvalues import ExtremeEigenvalues, extreme_eigenvalues
from whence.linalg.signs import random_signs
from whence.linalg.solver import Inverse
from whence.linalg.structured import Dense
from whence.objective.cache import cached
from whence.objective.objective import Objective, risk_gradient
from whence.tiles import drawn

DENSE = 600  # parameters up to which the Hessian of a module is formed
_TYPICAL = 512  # training examples that determine the size of a typical gradient
_PROBES = 8  # random combinations of their gradients
_NOTHING = 1e-9  # of a typical example's gradient: what a fit to full precision may leave
_FAR = 30.0  # typical examples above which no curvature is computed to measure the decrement
_FIRST, _LAST = 12, 64  # Lanczos steps: a saddle shows within the first few
_EPS = 1e-9  # smallest eigenvalue, relative to the largest, that counts as positive in float64


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Decrement:
    """How far θ̂ is from the minimum of the quadratic model of R.

    Args:
        gradient_norm: ‖∇R(θ̂)‖.
        in_examples: The Newton decrement in units of one typical example's removal.
        step: H⁻¹ ∇R(θ̂), [p]: the minimum of the quadratic model is at θ̂ − step.
    """

    gradient_norm: float
    in_examples: float
    step: Tensor


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Minimum:
    """Whether θ̂ is a strict local minimum of R.

    Args:
        strict: Whether the gradient is small beside removals and the Hessian positive definite.
        reason: Which of the two is not the case, in words; empty where both are.
        smallest: The smallest eigenvalue of the Hessian, as far as it was looked for.
        largest: The largest.
        hessian: The Hessian as a matrix, [p, p], where it was formed.
    """

    strict: bool
    reason: str = ""
    smallest: float | None = None
    largest: float | None = None
    hessian: Tensor | None = None


def gradient(objective: Objective) -> Tensor:
    """Return ∇R(θ̂), [p], computed once per objective.

    Args:
        objective: R at θ̂.

    Returns:
        The gradient.
    """
    return cached(objective, gradient, risk_gradient)


def at_minimum(objective: Objective) -> bool:
    """Return whether the fit is finished: no parameter's gradient is 1e-9 of one removal's.

    Each parameter is compared with itself, so that no unit of columns, targets or weights enters.

    Args:
        objective: R at θ̂.

    Returns:
        The answer.

    Cost:
        One gradient of R and those of at most 512 examples, without curvature.
    """
    sums = cached(objective, _random_sums, _random_sums)
    typical = sums.square().mean(1).sqrt()
    return bool((gradient(objective).abs() <= _NOTHING * typical).all())


def decrement(objective: Objective, inverse: Inverse) -> Decrement:
    """Return the Newton decrement in the metric of an inverse curvature.

    The size of a typical removal is the root mean square of (wᵢ/n) √(gᵢᵀ H⁻¹ gᵢ) over at most 512
    training examples, from eight random signed sums v of them: E vᵀ H⁻¹ v = Σ gᵢᵀ H⁻¹ gᵢ.

    Args:
        objective: R at θ̂.
        inverse: H⁻¹.

    Returns:
        The decrement.

    Cost:
        One gradient of R, those of at most 512 examples, and nine columns solved together.

    References:
        Boyd & Vandenberghe (2004), section 9.5.1, for the Newton decrement and its invariance;
        Hutchinson (1990) for the random sums.
    """
    slope, sums = gradient(objective), cached(objective, _random_sums, _random_sums)
    solved, _ = inverse.unchecked(torch.cat([slope.unsqueeze(1), sums], 1))
    step = solved[:, 0]
    typical = float((sums * solved[:, 1:]).sum(0).mean().clamp_min(0))
    square = max(float(slope @ step), 0.0)
    return Decrement(
        gradient_norm=float(slope.norm()),
        in_examples=_ratio(square**0.5, typical**0.5),
        step=step,
    )


def ends(objective: Objective, iterations: int = _LAST) -> ExtremeEigenvalues:
    """Return the smallest and the largest eigenvalue of the Hessian, computed once.

    Args:
        objective: R at θ̂.
        iterations: Lanczos steps, >= 1.

    Returns:
        Both, with error bounds.
    """
    steps = min(iterations, len(objective.params))
    return cached(objective, (ends, steps), lambda twin: extreme_eigenvalues(Hessian(twin), steps))


def minimum(objective: Objective) -> Minimum:
    """Return whether θ̂ is a strict local minimum: converged, with a positive definite Hessian.

    Converged means that finishing the fit moves it less than removing one typical example does.

    Args:
        objective: R at θ̂.

    Returns:
        The answer with its reason, computed once per objective.

    Cost:
        One gradient of R and those of at most 512 examples. Unless the gradient is large, the
        Hessian as a matrix up to 600 parameters; above, up to 64 Lanczos steps and a few dozen
        products with nine columns.
    """
    return cached(objective, minimum, _minimum)


def floor(objective: Objective, largest: float) -> float:
    """Return the value above which an eigenvalue of the Hessian is positive beyond rounding.

    Args:
        objective: R at θ̂.
        largest: The largest eigenvalue.

    Returns:
        A number > 0.
    """
    eps = float(torch.finfo(objective.params.dtype).eps)
    return max(1e3 * eps, _EPS) * abs(largest)


def _minimum(objective: Objective) -> Minimum:
    """Return whether θ̂ is a strict local minimum; see `minimum`."""
    sums = cached(objective, _random_sums, _random_sums)
    typical = float(sums.square().sum(0).mean().sqrt())
    far = _ratio(float(gradient(objective).norm()), typical)
    if far > _FAR:
        return Minimum(strict=False, reason=_unconverged(far))
    hessian = objective.dense_hessian() if len(objective.params) <= DENSE else None
    if hessian is None:
        found = ends(objective, _FIRST)
        found = ends(objective, _LAST) if found.smallest > 0 else found
        smallest, largest = found.smallest, found.largest
    else:
        eigenvalues = torch.linalg.eigvalsh(hessian)
        smallest, largest = float(eigenvalues[0]), float(eigenvalues[-1])
    reason = ""
    if not smallest > floor(objective, largest):
        reason = (
            f"not at a strict minimum: the Hessian has eigenvalues from {smallest:.1e} to "
            f"{largest:.1e}"
        )
    else:
        try:
            in_examples = decrement(objective, _inverse(objective, hessian)).in_examples
        except NotPositiveDefinite:  # along a direction that Lanczos did not see
            reason = "not at a strict minimum: the Hessian has a negative eigenvalue"
        else:
            reason = _unconverged(in_examples) if in_examples > 1 else ""
    return Minimum(
        strict=not reason, reason=reason, smallest=smallest, largest=largest, hessian=hessian
    )


def _inverse(objective: Objective, hessian: Tensor | None) -> Inverse:
    """Return H⁻¹, from the matrix or by conjugate gradients to two digits."""
    if hessian is None:
        return CG(rtol=1e-2).prepare(Hessian(objective))
    return Cholesky().prepare(Dense(hessian))


def _random_sums(objective: Objective) -> Tensor:
    """Return random signed sums v of (wᵢ/n) gᵢ, [p, 8]: E ‖v‖² = mean of ‖(wᵢ/n) gᵢ‖²."""
    n = len(objective.train)
    some = np.sort(drawn(n, _TYPICAL))
    examples = objective.train if len(some) == n else objective.train.subset(some)
    generator = torch.Generator().manual_seed(0)
    shares = objective.weights[some] / (n * len(some) ** 0.5)
    signs = random_signs((len(some), _PROBES), generator, shares)
    return objective.gradient_sum(examples, objective.loss, signs * shares.unsqueeze(1))


def _ratio(size: float, unit: float) -> float:
    """Return size/unit, with 0/0 = 0."""
    return size / unit if unit > 0 else float("inf") if size > 0 else 0.0


def _unconverged(in_examples: float) -> str:
    """Return the reason in words."""
    return (
        "not converged: finishing the fit would move it as far as removing "
        f"{two_digits(in_examples)} typical examples"
    )
