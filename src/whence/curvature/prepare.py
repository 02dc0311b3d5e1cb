"""Pick the solver by its cost and prepare it once for all right-hand sides.

The rule. A model of several outputs and more than two parameters for each row is solved by matrices
of its rows. Every other model linear in its parameters is factored below 4,000 of them, and so is a
network on data few enough for its curvature to be formed in seconds; that of sequences takes a
product for each parameter, and is formed where iterations take as many. Above that, a linear model
is factored when that takes fewer operations than conjugate gradients for the right-hand sides at
hand, and the matrix fits in memory; otherwise it is iterated. A network is iterated where that
takes seconds too, or its objective is convex, and approximated by EKFAC, in a few passes over its
data, where it takes more. Which curvature, which damping and which precision are chosen in
`whence.curvature.damping` and `whence.curvature.precision`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch

import numpy as np
from torch import Tensor, linalg

from whence.curvature.damping import Choice, CurvatureName, choose
from whence.curvature.dual import by_rows, dual
from whence.curvature.exact import GGN, Hessian
from whence.curvature.intercepts import with_held_intercepts
from whence.curvature.kronecker import EKFAC
from whence.curvature.minimum import DENSE
from whence.curvature.precision import (
    FLOAT32_RTOL,
    SMALL,
    bf16_twin,
    float32_suffices,
    float32_twin,
    iteration_rtol,
)
from whence.curvature.two_level import applies, two_level
from whence.errors import NotPositiveDefinite
from whence.linalg.cg import CG
from whence.linalg.cholesky import (
    Cholesky,
    CholeskyInverse,
    factor_in_place,
    factored_by_column,
)
from whence.linalg.mixed import MixedInverse
from whence.linalg.operator import LinearOperator
from whence.linalg.solver import Inverse, Solver
from whence.linalg.spectral import LowRank
from whence.linalg.structured import Dense
from whence.linear.flat import lift
from whence.linear.objective import LinearObjective
from whence.network.objective import ModuleObjective
from whence.network.operations import forward_operations
from whence.objective.cache import cached, is_cached
from whence.objective.objective import Objective

_MATRIX_BYTES = 2 * 2**30  # the largest matrix that is held in memory
_JACOBIANS = 2e12  # operations up to which a Gauss-Newton matrix is formed: tens of seconds
_ITERATIONS = 1e11  # operations up to which a network is iterated: about ten seconds of one core
_FORWARD = 8  # forward passes that take as long as a product of a network's curvature
_CG_STEPS = 60  # products a well-damped convex problem takes to 1e-8
_TWO_LEVEL_STEPS = 18  # the same from a two-level start, the start's own work included
_SYMMETRIC = 0.6  # of the operations of a product [d, n] by [n, d] that a symmetric one takes
_FLOAT32_STEPS = 10  # products to 1e-5 for one column, k^(1/6) times fewer for k
_FLOAT32_MOST = 100  # products after which float32 is given up
_FEW_COLUMNS = 2.5  # how much slower a product with few columns runs, bound by memory


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """An inverse of the (damped) curvature and the reasons for it.

    Args:
        inverse: (H + λ I)⁻¹, on the range of H where H has flat directions.
        curvature: What H is: the Hessian or the Gauss–Newton matrix.
        solver: What the inverse is and why, in words.
        damping: λ.
        damping_reason: Why this curvature and this λ.
        smallest_eigenvalue: Of the damped curvature, where it was computed.
        largest_eigenvalue: Of the damped curvature, where it was computed.
        scored: The objective in a lower precision, where that is enough for scores; else `None`.
        notes: What else the reader of a result must know, a sentence each.
    """

    inverse: Inverse
    curvature: str
    solver: str
    damping: float
    damping_reason: str
    smallest_eigenvalue: float | None = None
    largest_eigenvalue: float | None = None
    scored: Objective | None = None
    notes: tuple[str, ...] = ()


def prepare(
    objective: Objective,
    k: int,
    *,
    solver: Solver | None = None,
    damping: float | None = None,
    curvature: CurvatureName = "auto",
) -> Prepared:
    """Return an inverse of the objective's curvature, made once per objective and options.

    Args:
        objective: R at θ̂.
        k: How many right-hand sides are coming.
        solver: What to solve with; chosen by cost if `None`.
        damping: λ >= 0; by the rule of `whence.curvature.damping` if `None`.
        curvature: "hessian", "ggn", or "auto" for that rule.

    Returns:
        The inverse with its reasons.

    Raises:
        InvalidInput: If an option cannot be used.
        NotPositiveDefinite: If the curvature is singular or indefinite under the damping.
    """
    objective = with_held_intercepts(objective)
    asked = solver is not None
    if not asked and curvature != "hessian" and _iterates_too_long(objective, k):
        solver = EKFAC()
    options = solver, damping, curvature
    choice = cached(
        objective,
        (choose, *options),
        lambda twin: choose(twin, curvature=curvature, damping=damping, solver=solver),
    )
    wide = by_rows(objective) if solver is None else None
    if wide is not None:
        return cached(wide, (prepare, *options), lambda twin: _by_rows(twin, k, choice))
    direct = _factor_is_cheaper(objective, k, choice) if solver is None else solver.forms
    if solver is None and not direct and is_cached(objective, (prepare, *options, True, 0, False)):
        direct = True  # a factor that was paid for serves any number of columns
    # The preconditioner that pays grows with the columns: one for each order of magnitude.
    magnitude = 0 if direct or solver is not None else len(str(k - 1))
    return cached(
        objective,
        (prepare, *options, direct, magnitude, asked),
        lambda twin: _prepare(twin, k, solver, choice, direct, asked),
    )


def _solves(k: int) -> str:
    """Return a number of solves in words."""
    return "1 solve" if k == 1 else f"{k} solves"


def _by_rows(objective: LinearObjective, k: int, choice: Choice) -> Prepared:
    """Return the inverse of a wide model with several outputs, by matrices of its rows."""
    operator = _lifted(choice.curvature, objective.flat_directions()).damped(choice.damping)
    inverse = dual(objective, operator, choice.damping)
    return Prepared(
        inverse=inverse,
        curvature=choice.name,
        solver=f"Cholesky factors of {len(inverse.per_output) + 1} matrices of the products of "
        f"{inverse.rows.shape[0]:,} rows: exact, and the cheapest for {_solves(k)}",
        damping=choice.damping,
        damping_reason=choice.reason,
        notes=_dependent(objective),
    )


def _prepare(
    objective: Objective, k: int, solver: Solver | None, choice: Choice, direct: bool, asked: bool
) -> Prepared:
    """Return the inverse by the chosen route."""
    flat = objective.flat_directions()
    narrow = None if solver is not None else float32_twin(objective)
    found = None if narrow is None else _in_float32(choice, narrow, k, direct, flat)
    inverse, words, ends = found or _in_own_precision(objective, choice, k, solver, direct, flat)
    if solver is not None and not asked:
        name, p = type(solver).__name__, len(objective.params)
        words = f"{name}: to iterate over {p:,} parameters would take minutes"
        if not _iterates_too_long(objective, 1):  # the same query alone has the other answer
            words += " for so many queries; few are iterated, to the exact answer, which differs"
    scored = narrow if found is not None else bf16_twin(objective, inverse)
    return Prepared(
        inverse=inverse,
        curvature=choice.name,
        solver=words,
        damping=choice.damping,
        damping_reason=choice.reason,
        smallest_eigenvalue=None if ends is None else ends[0],
        largest_eigenvalue=None if ends is None else ends[1],
        scored=scored,
        notes=_dependent(objective),
    )


def _dependent(objective: Objective) -> tuple[str, ...]:
    """Return a note if parameters are not unique."""
    found = objective.dependent_columns
    if not found:
        return ()
    return (
        f"Without a penalty {found} of the columns are linear combinations of others: predictions "
        "are unique, single parameters are not. Their effects are those of least norm.",
    )


def _in_own_precision(
    objective: Objective,
    choice: Choice,
    k: int,
    solver: Solver | None,
    direct: bool,
    flat: Tensor,
) -> tuple[Inverse, str, tuple[float, float] | None]:
    """Return the inverse in the precision of the model, in words, with the extreme eigenvalues."""
    curvature, amount, ends = choice.curvature, choice.damping, None
    p = len(objective.params)
    if solver is not None:
        words = f"{solver}, as asked"
    elif direct:
        solver = Cholesky()
        words = f"Cholesky factor of the {p} x {p} {choice.name}: exact, and the cheapest "
        words += f"for {_solves(k)}"
    else:
        solver = CG(
            rtol=iteration_rtol(curvature.dtype),
            preconditioner=two_level(objective, amount, k),
        )
        words = f"conjugate gradients on products with the {choice.name}: the cheapest for "
        words += _solves(k)
    operator: LinearOperator = _lifted(curvature, flat).damped(amount)
    if direct:
        matrix = _matrix(choice)
        lift(matrix, flat)
        if p <= DENSE:
            # Flat directions were lifted to what is there: the extremes are those of the rest.
            eigenvalues = linalg.eigvalsh(matrix)
            ends = float(eigenvalues[0]) + amount, float(eigenvalues[-1]) + amount
        matrix.diagonal().add_(amount)
        operator = Dense(matrix)
    try:
        if direct and objective.linear and objective.convex:
            return factored_by_column(operator), words, ends
        return solver.prepare(operator), words, ends
    except NotPositiveDefinite as error:
        raise NotPositiveDefinite(
            f"{error} Without a penalty the answer is not unique: columns may be linearly "
            "dependent, or the model certain of every training row, as of columns that were not "
            "scaled. Scale the columns, fit with an l2 penalty, drop columns, or pass damping=.",
            sufficient_damping=error.sufficient_damping,
        ) from error


def _matrix(choice: Choice) -> Tensor:
    """Return the curvature as a matrix that may be overwritten, [p, p]."""
    if choice.hessian is not None:
        return choice.hessian.clone()
    return choice.curvature.dense()


def _in_float32(
    choice: Choice, narrow: Objective, k: int, direct: bool, flat: Tensor
) -> tuple[Inverse, str, None] | None:
    """Return the inverse in float32, checked in float64; `None` where float32 cannot factor it."""
    p, amount = len(narrow.params), choice.damping
    operator = _lifted(Hessian(narrow), flat.float()).damped(amount)
    fast: Inverse
    preconditioner: LinearOperator
    if direct:
        matrix = narrow.dense_hessian()
        lift(matrix, flat.float()).diagonal().add_(amount)
        factor = factor_in_place(matrix)
        if factor is None:
            return None
        fast = preconditioner = CholeskyInverse(operator, factor, refine=0, rtol=FLOAT32_RTOL)
        way = f"Cholesky factor of the {p} x {p} Hessian"
    else:
        start = two_level(narrow, amount, k)
        if start is None:
            return None
        preconditioner = start
        solver = CG(rtol=FLOAT32_RTOL, max_iterations=_FLOAT32_MOST, preconditioner=start)
        fast = solver.prepare(operator)
        way = "conjugate gradients on products with the Hessian"
    exact = _lifted(choice.curvature, flat).damped(amount)
    return (
        MixedInverse(exact, fast, preconditioner, rtol=FLOAT32_RTOL),
        f"{way} in float32, its residual measured in float64 on at most 8 columns or random "
        f"combinations of them: the cheapest for {_solves(k)}",
        None,
    )


def _lifted(curvature: LinearOperator, flat: Tensor) -> LinearOperator:
    """Return the curvature with eigenvalue 1 along flat directions, [p, r], instead of 0."""
    if not flat.shape[1]:
        return curvature
    return curvature + LowRank(flat, flat.new_ones(flat.shape[1]))


def _factor_is_cheaper(objective: Objective, k: int, choice: Choice) -> bool:
    """Return whether factoring the curvature beats k conjugate-gradient solves."""
    p, n = len(objective.params), len(objective.train)
    c = objective.outputs(objective.train.subset(np.arange(1))).shape[1:].numel()
    if not objective.linear:
        if choice.curvature.by_products:
            return p <= DENSE or p <= min(SMALL, _CG_STEPS * k)
        return p <= DENSE or (p <= SMALL and 2 * n * c * p * p <= _JACOBIANS)
    if p <= SMALL:
        return True
    narrow = float32_suffices(objective)
    if p * p * (4 if narrow else objective.params.element_size()) > _MATRIX_BYTES:
        return False
    steps: float = _TWO_LEVEL_STEPS if applies(objective) else _CG_STEPS
    if narrow:
        steps = _FLOAT32_STEPS * k ** (-1 / 6)
    return _factoring(n, p, c, k) < steps * _product(n, p, c, k)


def _iterates_too_long(objective: Objective, k: int) -> bool:
    """Return whether conjugate gradients for k right-hand sides of a network take minutes."""
    p = len(objective.params)
    if objective.linear or objective.convex or (p <= SMALL and not GGN(objective).by_products):
        return False  # a convex problem has one answer
    product = _FORWARD * len(objective.train) * _forward(objective)
    return min(_CG_STEPS * k, p) * product > _ITERATIONS


@singledispatch
def _forward(objective: Objective) -> float:
    """Return the operations of one example's forward pass; 0 for a model that has no layers."""
    return 0.0


_forward.register(ModuleObjective)(forward_operations)


def _factoring(n: int, p: int, c: int, k: int) -> float:
    """Return the operations of a linear model's Hessian, its factor and k solves with that."""
    gram = _SYMMETRIC * 2 * n * (p // c) ** 2  # one for each pair of outputs
    return gram * c * (c + 1) / 2 + p**3 / 3 + 2 * p * p * k


def _product(n: int, p: int, c: int, k: int) -> float:
    """Return the operations, or as much time, of the Hessian times k columns."""
    return 4 * n * p * k * (_FEW_COLUMNS if c * k < 64 else 1.0)
