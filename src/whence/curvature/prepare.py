"""Pick the solver, the precision and the damping by a stated rule, and keep what was prepared.

The rule. Every model linear in its parameters is factored below 4,000 of them, and so is a network
on data few enough for its Gauss-Newton matrix to be formed in seconds. Above that, a linear model
is factored when that takes fewer operations than conjugate gradients for the right-hand sides at
hand, and the matrix fits in memory; everything else is iterated.

A large model with dense features and several outputs is solved in float32, to a relative residual
of 1e-5 that is measured in float64, and scored in float32: on MNIST the scores are within 1e-5 of
those in float64. A solver of the user's own works in the precision of the model throughout:
`solver=Cholesky()` gives the float64 factor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from whence.curvature.exact import GGN, Curvature, Hessian
from whence.curvature.inverse import KroneckerInverse
from whence.curvature.kronecker import KroneckerSolver
from whence.curvature.two_level import applies, two_level
from whence.errors import InvalidInput, NotPositiveDefinite
from whence.linalg.cg import CG
from whence.linalg.cholesky import Cholesky, CholeskyInverse, factor_in_place
from whence.linalg.mixed import MixedInverse
from whence.linalg.operator import LinearOperator
from whence.linalg.solver import Inverse, Solver
from whence.linalg.spectral import LowRank
from whence.linalg.structured import Dense
from whence.linear.objective import LinearObjective
from whence.network.objective import ModuleObjective
from whence.objective.cache import cached, is_cached
from whence.objective.objective import Objective

_SMALL = 4_000  # parameters up to which a linear model's Hessian is always factored
_TINY = 600  # the same for a module's
_MATRIX_BYTES = 2 * 2**30  # the largest Hessian that is held in memory
_JACOBIANS = 2e12  # operations up to which a module's curvature is formed: tens of seconds
_CG_STEPS = 60  # products a well-damped convex problem takes to 1e-8
_TWO_LEVEL_STEPS = 18  # the same from a two-level start, the start's own work included
_SAMPLE = 1_024  # training examples that tell the mean eigenvalue
_PROBES = 8
_HALF = 0.6  # of the operations of a product [d, n] by [n, d] that a symmetric one takes
_SINGLE_RTOL = 1e-5  # float32 stops at 2e-7 on MNIST, so that worse conditioning has room
_SINGLE_STEPS = 10  # products to 1e-5 for one column, k^(1/6) times fewer for k
_SINGLE_MOST = 100  # products after which float32 is given up
_SKINNY = 2.5  # how much slower a product with few columns runs, bound by memory


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """An inverse of the (damped) curvature and the reasons for it.

    Args:
        inverse: (H + λ I)⁻¹, on the range of H where H has flat directions.
        solver: What it is and why, in words.
        damping: λ.
        damping_reason: Why this λ.
        smallest_eigenvalue: Of the damped curvature, where it was computed.
        largest_eigenvalue: Of the damped curvature, where it was computed.
        scored: The objective in a lower precision, where that is enough for scores; else `None`.
    """

    inverse: Inverse
    solver: str
    damping: float
    damping_reason: str
    smallest_eigenvalue: float | None = None
    largest_eigenvalue: float | None = None
    scored: Objective | None = None


def prepare(
    objective: Objective,
    k: int,
    *,
    solver: Solver | None = None,
    damping: float | None = None,
) -> Prepared:
    """Return an inverse of the objective's curvature, made once per objective and kept.

    Args:
        objective: R at θ̂.
        k: How many right-hand sides are coming.
        solver: What to solve with; chosen by cost if `None`.
        damping: λ >= 0; chosen by the rule of `choose_damping` if `None`.

    Returns:
        The inverse with its reasons.

    Raises:
        NotPositiveDefinite: If the curvature is singular or indefinite under the damping.
    """
    direct = isinstance(solver, Cholesky) or (solver is None and _factor_is_cheaper(objective, k))
    if solver is None and not direct and is_cached(objective, _key(None, damping, True, 0)):
        direct = True  # a factor that was paid for serves any number of columns
    # The preconditioner that pays grows with the columns: one for each order of magnitude.
    magnitude = 0 if direct or solver is not None else len(str(k - 1))
    return cached(
        objective,
        _key(solver, damping, direct, magnitude),
        lambda twin: _prepare(twin, k, solver, damping, direct),
    )


def _key(
    solver: Solver | None, damping: float | None, direct: bool, magnitude: int
) -> tuple[object, ...]:
    """Return what an inverse is cached under."""
    return prepare, solver, damping, direct, magnitude


def _prepare(
    objective: Objective, k: int, solver: Solver | None, damping: float | None, direct: bool
) -> Prepared:
    """Return the inverse by the chosen route."""
    if isinstance(solver, KroneckerSolver) and damping is None and not objective.convex:
        approximation = solver.approximate(GGN(objective))
        amount = approximation.mean_eigenvalue()
        closed = solver.inverse(approximation, amount)
        return Prepared(
            inverse=closed,
            scored=_in_half(objective, closed),
            solver=f"{solver}, as asked",
            damping=amount,
            damping_reason=f"the mean eigenvalue of {type(solver).__name__}, penalty aside",
        )
    curvature, amount, reason = choose_damping(objective, damping)
    if solver is None and isinstance(objective, LinearObjective) and _single_suffices(objective):
        single = objective.single()
        mixed = None if single is None else _in_single(curvature, single, k, amount, direct)
        if mixed is not None:
            return replace(mixed, damping_reason=reason)
    p = len(objective.params)
    smallest = largest = None
    if solver is not None:
        words = f"{solver}, as asked"
    elif direct:
        solver = Cholesky()
        name = "Hessian" if objective.convex else "Gauss-Newton matrix"
        words = f"Cholesky factor of the {p} x {p} {name}: exact, and the cheapest for {k} solves"
    else:
        solver = CG(
            rtol=1e-8 if curvature.dtype == torch.float64 else 1e-5,
            preconditioner=two_level(objective, amount, k)
            if isinstance(objective, LinearObjective)
            else None,
        )
        words = f"conjugate gradients on Hessian-vector products: the cheapest for {k} solves"
    operator: LinearOperator = curvature
    flat = objective.flat_directions()
    if direct:
        hessian = curvature.dense() if isinstance(curvature, GGN) else objective.dense_hessian()
        if flat.shape[1]:
            hessian.addmm_(flat, flat.T, alpha=float(hessian.diagonal().mean()))
        if p <= _TINY:
            # Flat directions were lifted to the mean: the extremes are those of the rest.
            eigenvalues = torch.linalg.eigvalsh(hessian)
            smallest, largest = float(eigenvalues[0]) + amount, float(eigenvalues[-1]) + amount
        hessian.diagonal().add_(amount)
        operator = Dense(hessian)
    else:
        operator = _lifted(curvature, flat).damped(amount)
    try:
        inverse = solver.prepare(operator)
    except NotPositiveDefinite as error:
        raise NotPositiveDefinite(
            f"{error} Without a penalty the answer is not unique: columns may be linearly "
            "dependent. Fit with an l2 penalty, drop columns, or pass damping=.",
            sufficient_damping=error.sufficient_damping,
        ) from error
    return Prepared(
        inverse=inverse,
        solver=words,
        damping=amount,
        damping_reason=reason,
        smallest_eigenvalue=smallest,
        largest_eigenvalue=largest,
        scored=_in_half(objective, inverse),
    )


def _in_half(objective: Objective, inverse: Inverse) -> Objective | None:
    """Return the objective in bfloat16, if an inverse that forms gradients allows their error."""
    if not isinstance(inverse, KroneckerInverse) or inverse.factors:
        return None
    assert isinstance(objective, ModuleObjective)
    rough = objective.within(inverse.rtol)
    return rough if rough.bf16 else None


def _lifted(curvature: LinearOperator, flat: Tensor) -> LinearOperator:
    """Return the curvature with eigenvalue 1 along flat directions, [p, r], instead of 0."""
    if not flat.shape[1]:
        return curvature
    return curvature + LowRank(flat, flat.new_ones(flat.shape[1]))


def _single_suffices(objective: LinearObjective) -> bool:
    """Return whether float32 is worth while: a large model with the two-level start."""
    return len(objective.params) > _SMALL and objective.convex and applies(objective)


def _in_single(
    curvature: Curvature, single: LinearObjective, k: int, amount: float, direct: bool
) -> Prepared | None:
    """Return the inverse in float32, checked in float64; `None` where float32 cannot factor it."""
    flat = curvature.objective.flat_directions()
    p, narrow = len(single.params), _lifted(Hessian(single), flat.float()).damped(amount)
    fast: Inverse
    rough: LinearOperator
    if direct:
        hessian = single.dense_hessian()
        hessian.addmm_(flat.float(), flat.float().T).diagonal().add_(amount)
        factor = factor_in_place(hessian)
        if factor is None:
            return None
        fast = rough = CholeskyInverse(narrow, factor, refine=0, rtol=_SINGLE_RTOL)
        way = f"Cholesky factor of the {p} x {p} Hessian"
    else:
        start = two_level(single, amount, k)
        if start is None:
            return None
        rough = start
        solver = CG(rtol=_SINGLE_RTOL, max_iterations=_SINGLE_MOST, preconditioner=rough)
        fast = solver.prepare(narrow)
        way = "conjugate gradients on Hessian-vector products"
    return Prepared(
        inverse=MixedInverse(
            _lifted(curvature, flat).damped(amount), fast, rough, rtol=_SINGLE_RTOL
        ),
        solver=f"{way} in float32, its residual measured in float64 on at most 8 columns or random "
        f"combinations of them: the cheapest for {k} solves",
        damping=amount,
        damping_reason="",
        scored=single,
    )


def _factor_is_cheaper(objective: Objective, k: int) -> bool:
    """Return whether factoring the Hessian beats k conjugate-gradient solves."""
    p, n = len(objective.params), len(objective.train)
    if not isinstance(objective, LinearObjective):
        c = objective.outputs(objective.train.subset(np.arange(1))).shape[1:].numel()
        cheap = not objective.convex and p <= _SMALL and 2 * n * c * p * p <= _JACOBIANS
        return cheap or p <= _TINY
    if p <= _SMALL:
        return True
    itemsize = 4 if _single_suffices(objective) else objective.params.element_size()
    if p * p * itemsize > _MATRIX_BYTES:
        return False
    c, d = objective.c, p // objective.c
    factor = _HALF * c * (c + 1) * n * d * d + p**3 / 3 + 2 * p * p * k
    steps: float = _TWO_LEVEL_STEPS if applies(objective) else _CG_STEPS
    if _single_suffices(objective):
        steps = _SINGLE_STEPS * k ** (-1 / 6)
    iterate = steps * 4 * n * p * k * (_SKINNY if c * k < 64 else 1.0)
    return factor < iterate


def choose_damping(objective: Objective, damping: float | None) -> tuple[Curvature, float, str]:
    """Return the curvature to invert, the damping to add to it, and the reason in words.

    A convex objective needs none. Otherwise the Gauss–Newton matrix replaces the Hessian, and
    the damping is the mean of its eigenvalues, the penalty aside, as 8 random directions tell it on
    at most 1,024 training examples (KFAC and EKFAC know their own). On an MLP of digits, linear
    datamodeling scores were flat from 1 to 10 times the mean and fell by a tenth at the customary
    0.1.

    Args:
        objective: R at θ̂.
        damping: What the user asked for, or `None`.

    Returns:
        The curvature operator, λ and the reason.

    Raises:
        InvalidInput: If the damping is negative or not finite.
    """
    if damping is not None and not 0 <= damping < float("inf"):
        raise InvalidInput(f"Expected damping >= 0. Got {damping}.")
    if objective.convex:
        curvature: Curvature = Hessian(objective)
        if damping is None:
            return curvature, 0.0, "none: the objective is convex"
        return curvature, damping, "as asked"
    curvature = GGN(objective)
    if damping is not None:
        return curvature, damping, "as asked; Gauss-Newton, since the objective is not convex"
    return curvature, _mean_eigenvalue(objective), "the mean Gauss-Newton eigenvalue, penalty aside"


def _mean_eigenvalue(objective: Objective) -> float:
    """Return tr(G)/p less the penalty, estimated by Hutchinson's method on a sample."""
    n, p = len(objective.train), len(objective.params)
    sample = np.random.default_rng(0).permutation(n)[:_SAMPLE]
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (p, _PROBES), generator=generator).mul_(2).sub_(1)
    probes = signs.to(objective.params)
    product = objective.restricted(sample).ggnvp(probes)
    product -= objective.l2.unsqueeze(1) * probes
    return max(float((probes * product).sum() / (p * _PROBES)), 0.0)
