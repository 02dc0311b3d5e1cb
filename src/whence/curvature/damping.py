r"""Which curvature is inverted, the damping that is added to it, and why.

The rule. A convex objective, and any other at a strict minimum, has the exact Hessian inverted as
it is. Elsewhere the Hessian may be indefinite or near singular: the Gauss–Newton matrix replaces
it, damped by the mean of its eigenvalues over the parameters that the data reach, the penalty
aside, or by more where the fit is far from finished: by so much that the damped matrix predicts the
loss to fall by a tenth at most, and ten times the mean at most. KFAC and EKFAC, whose eigenvalues
are averages, take less: the least damping with which they predict the loss to fall by a half at
most, from a hundredth of their mean eigenvalue to three times it. See
`whence.curvature.trust_region`.

On small networks trained to a strict minimum, influence by the exact Hessian correlates better with
retraining than by the damped Gauss–Newton matrix (a test holds that). The shares of the loss are
measured on perceptrons trained for 5 to 160 epochs, a residual network and a transformer:
docs/explanation/methods/kronecker.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, final

import torch

from whence.curvature import trust_region
from whence.curvature.exact import GGN, Hessian, RiskCurvature
from whence.curvature.minimum import Minimum, minimum
from whence.curvature.trust_region import REACHED
from whence.errors import InvalidInput
from whence.linalg.signs import random_signs
from whence.linalg.solver import Solver
from whence.objective.cache import cached
from whence.objective.objective import Objective
from whence.tiles import drawn

CurvatureName: TypeAlias = Literal["auto", "hessian", "ggn"]

_NAMES = ("auto", "hessian", "ggn")
_SAMPLE = 1_024  # training examples that determine the mean eigenvalue
_PROBES = 8  # random directions that do
_STEPS = 12  # Lanczos steps from the gradient


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """A curvature and the damping to add to it.

    Args:
        curvature: The matrix, not damped.
        damping: λ >= 0.
        reason: Why this matrix and this λ, in words.
        hessian: The Hessian as a matrix, [p, p], where the choice has formed it.
    """

    curvature: RiskCurvature
    damping: float
    reason: str
    hessian: torch.Tensor | None = None

    @property
    def name(self) -> str:
        """What the matrix is called in results."""
        return self.curvature.called


def check_curvature(name: str) -> None:
    """Raise `InvalidInput` unless the name is "auto", "hessian" or "ggn"."""
    if name not in _NAMES:
        raise InvalidInput(f"Expected curvature to be one of {', '.join(_NAMES)}. Got {name!r}.")


def choose(
    objective: Objective,
    *,
    curvature: CurvatureName = "auto",
    damping: float | None = None,
    solver: Solver | None = None,
) -> Choice:
    """Return the curvature to invert and the damping to add to it, with the reason.

    Args:
        objective: R at θ̂.
        curvature: "hessian", "ggn" (the Gauss–Newton matrix), or "auto" for the rule above.
        damping: λ >= 0; by the rule if `None`.
        solver: What will invert it; one that inverts an approximation says which damping suits it.

    Returns:
        The choice.

    Raises:
        InvalidInput: If an option cannot be used.

    Cost:
        Nothing for a convex objective; else as `whence.curvature.minimum.minimum`, and eight
        Gauss–Newton products on at most 1,024 training examples where λ is chosen.
    """
    check_curvature(curvature)
    if damping is not None and not 0 <= damping < float("inf"):
        raise InvalidInput(f"Expected damping >= 0. Got {damping}.")
    approximates = solver is not None and solver.approximates
    if approximates and curvature == "hessian":
        raise InvalidInput(
            f"Expected curvature='ggn' or 'auto' with {type(solver).__name__}, which approximates "
            "the Gauss-Newton matrix. Got 'hessian'. Use it as a preconditioner: "
            f"solver=whence.CG(preconditioner=whence.{type(solver).__name__}())."
        )
    if objective.convex:
        matrix: RiskCurvature = GGN(objective) if curvature == "ggn" else Hessian(objective)
        reason = "none: the objective is convex" if damping is None else "as asked"
        return Choice(curvature=matrix, damping=damping or 0.0, reason=reason)
    if approximates or curvature == "ggn":
        matrix = GGN(objective)
        amount, reason = (damping, "as asked") if damping is not None else _by_rule(matrix, solver)
        return Choice(curvature=matrix, damping=amount, reason=reason)
    found = minimum(objective)
    if curvature == "auto" and not found.strict:
        matrix = GGN(objective)
        amount, reason = (damping, "as asked") if damping is not None else _by_rule(matrix, solver)
        return Choice(
            curvature=matrix,
            damping=amount,
            reason=f"{reason}; Gauss-Newton, since the fit is {found.reason}",
        )
    return _of_hessian(objective, found, damping, solver)


def _of_hessian(
    objective: Objective, found: Minimum, damping: float | None, solver: Solver | None
) -> Choice:
    """Return the exact Hessian, undamped at a strict minimum unless the user asks for damping."""
    if damping is not None:
        amount, reason = damping, "as asked"
    elif found.strict:
        amount, reason = 0.0, "none: the fit is at a strict local minimum"
    else:
        amount, reason = _by_rule(GGN(objective), solver)
        reason += f", since the fit is {found.reason}"
    return Choice(
        curvature=Hessian(objective), damping=amount, reason=reason, hessian=found.hessian
    )


def _by_rule(curvature: GGN, solver: Solver | None) -> tuple[float, str]:
    """Return the damping of a Gauss–Newton matrix, or of what a solver takes for it, and why."""
    own = None if solver is None else solver.default_damping(curvature)
    return own or cached(curvature.objective, _by_rule, _of_gauss_newton)


def _of_gauss_newton(objective: Objective) -> tuple[float, str]:
    """Return the mean eigenvalue, or more where the fit is far from finished, and the reason."""
    mean, unit = mean_eigenvalue(objective), f"the mean Gauss-Newton eigenvalue {REACHED}"
    slope = trust_region.slope(objective)
    if not (mean > 0 and slope.bounded) or slope.vanishes:
        return mean, unit
    sampled = GGN(objective.restricted(drawn(len(objective.train), _SAMPLE)))
    decrease = trust_region.decrease_of_products(sampled, slope, _STEPS)
    return trust_region.EXACT.damping(decrease, slope.risk, mean, matrix="Gauss-Newton", unit=unit)


def mean_eigenvalue(objective: Objective) -> float:
    """Return the mean eigenvalue of the Gauss–Newton matrix without the penalty, on a sample.

    Its trace, by Hutchinson's method with eight random sign vectors on at most 1,024 training
    examples, is divided by the number of parameters whose estimated diagonal entry is not zero: a
    parameter that no example reaches, such as an unused row of an embedding, does not count.

    Args:
        objective: R at θ̂.

    Returns:
        tr(G) over the number of parameters reached, >= 0; computed once per objective.

    References:
        Hutchinson (1990).
    """
    return cached(objective, mean_eigenvalue, _mean_eigenvalue)


def _mean_eigenvalue(objective: Objective) -> float:
    """Return the mean eigenvalue; see `mean_eigenvalue`."""
    p = len(objective.params)
    sample = drawn(len(objective.train), _SAMPLE)
    generator = torch.Generator().manual_seed(0)
    probes = random_signs((p, _PROBES), generator, objective.params)
    product = objective.restricted(sample).ggnvp(probes)
    product -= objective.l2.unsqueeze(1) * probes
    reached = int(product.any(1).sum())
    return max(float((probes * product).sum() / (max(reached, 1) * _PROBES)), 0.0)
