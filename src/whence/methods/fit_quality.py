"""Diagnostics of a result: convergence of the fit, and the residual of the solve.

Convergence is judged by what finishing the fit would change. To first order it moves the parameters
by −H⁻¹ ∇R and a query's measure by −∇mᵀ H⁻¹ ∇R. Beside the effects of removals that are shown, this
says whether the fit is good enough for them; no unit of the parameters enters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import final

import torch
from torch import Tensor

from whence.curvature.changes import SingleChanges
from whence.curvature.fidelity import approximation_error
from whence.curvature.minimum import decrement, gradient
from whence.curvature.prepare import Prepared
from whence.curvature.reweighting import Reweightings
from whence.diagnostics import fit_status, two_digits
from whence.errors import warn_user
from whence.linalg.solver import Solution
from whence.methods.prediction import Order
from whence.objective.cache import cached, first_time
from whence.objective.loss import gradient_by_scale
from whence.objective.objective import Objective
from whence.objective.trained import Trained
from whence.scores import Diagnostics

_CHECKED = 8  # removals whose remaining gradient is computed
_REFINED = 0.1  # share of the initial gradient up to which a refined result counts as converged
_ROUNDING = 1e-12  # nats, or share of the outputs in a residual: what is less is rounding
_SOLVED = 1e-3  # relative residual up to which Newton steps do: their quadratic model errs by more
_UNSHOWN: ContextVar[bool] = ContextVar("unshown", default=False)
_TINY = 1e-6  # of the largest initial gradient: what is smaller is not divided by


@final
@dataclass(frozen=True, kw_only=True)
class FitQuality:
    """How far a fit is from its optimum.

    Args:
        gradient_norm: ‖∇R(θ̂)‖, `None` where no pass over the data was spent on it.
        in_examples: What finishing the fit would change, in units of what removing one typical
            example does.
        of_largest: The same beside the largest effect shown; `None` where no effects are at hand.
        exact: Whether the minimum itself was found, of the loss that was minimized.
    """

    gradient_norm: float | None
    in_examples: float
    of_largest: float | None = None
    exact: bool = False


def fit_quality(objective: Objective, prepared: Prepared) -> FitQuality:
    """Return how far a fit is from its optimum, by the Newton decrement.

    Args:
        objective: R at θ̂.
        prepared: The inverse curvature in whose metric it is measured.

    Returns:
        The quality, computed once per inverse.

    Warns:
        NotConvergedWarning: Once per objective, if finishing the fit would move it further than the
            removal of one typical example.
    """

    def measured(twin: Objective) -> FitQuality:
        found = decrement(twin, prepared.inverse)
        return FitQuality(gradient_norm=found.gradient_norm, in_examples=found.in_examples)

    quality = cached(objective, (fit_quality, prepared), measured)
    warn_if_unfinished(objective, quality)
    return quality


def quality_beside(
    objective: Objective,
    change: Tensor,
    effects: Tensor,
    *,
    norm: bool = True,
    exact: bool = False,
) -> FitQuality:
    """Return how far a fit is from its optimum, beside the effects of removals that are shown.

    Args:
        objective: R at θ̂.
        change: The size of what finishing the fit changes, in the unit of the effects.
        effects: The size >= 0 of the effect of each removal, [k].
        norm: Whether ‖∇R‖ is worth a pass over the training data.
        exact: Whether the change is to the minimum itself.

    Returns:
        The size of the change beside the root mean square of the effects and the largest of them.

    Warns:
        NotConvergedWarning: Once per objective, if finishing the fit changes more than half of the
            largest effect shown; a tenth where the model says that its fit stopped early.
    """
    quality = replace(
        change_beside(objective, change, effects),
        gradient_norm=float(gradient(objective).norm()) if norm else None,
        exact=exact,
    )
    warn_if_unfinished(objective, quality)
    return quality


def change_beside(trained: Trained, change: Tensor, effects: Tensor) -> FitQuality:
    """Return the size of what finishing a fit changes, beside the effects that are shown.

    Args:
        trained: The model.
        change: The size, in the unit of the effects.
        effects: The size >= 0 of the effect of each removal, [k].
    """
    return FitQuality(
        gradient_norm=None,
        in_examples=_ratio(trained, float(change), float(root_mean_square(effects))),
        of_largest=_ratio(trained, float(change), float(effects.max())),
    )


@contextmanager
def not_shown() -> Iterator[None]:
    """Keep silent about an unfinished fit beside effects that choose what is shown, no more."""
    before = _UNSHOWN.set(True)
    try:
        yield
    finally:
        _UNSHOWN.reset(before)


def warn_if_unfinished(objective: Objective, quality: FitQuality) -> None:
    """Warn if finishing the fit would change more than most of what is shown.

    Args:
        objective: R at θ̂.
        quality: How far the fit is from its optimum.

    Warns:
        NotConvergedWarning: Once per objective, and not where nothing of it is shown. For a loss
            that is smoothed for derivatives, whose minimum the fit was never to reach, only if the
            model says that its fit stopped early, or the minimum itself was found.
    """
    shown = quality.of_largest
    stopped = objective.stopped
    status = fit_status(quality.in_examples, shown, stopped=bool(stopped))
    far = status == "not converged"
    smoothed = objective.trained_loss != objective.loss and not (stopped or quality.exact)
    if smoothed or not far or _UNSHOWN.get():
        return
    if not first_time(objective, "warning about the fit"):
        return
    remedy = (
        f"{'Raise max_iter, scale the columns, or continue' if stopped else 'Continue'} with "
        "objective.refit()"
        if objective.convex
        else f"{'Raise max_iter' if stopped else 'Train further'}, or read the scores as those of "
        "a damped local quadratic"
    )
    beside = "" if shown is None else f", {two_digits(shown)} times the largest effect shown"
    norm = quality.gradient_norm
    warn_user(
        f"Expected a converged fit on the data given. Got {f'{stopped}, and ' if stopped else ''}"
        f"fitted parameters at which {'' if norm is None else f'the gradient norm is {norm:.1e}: '}"
        "finishing the fit would change as much as removing "
        f"{two_digits(quality.in_examples)} typical training examples{beside}. {remedy}; if the "
        "number is large, check that X and y are exactly what the model was fitted on."
    )


@singledispatch
def warn_of(trained: Trained, found: Diagnostics | None) -> None:
    """Warn of an unfinished fit by what was measured while nothing of it was shown.

    Args:
        trained: The model; without parameters nothing was measured.
        found: The diagnostics of scores that are shown after all.

    Warns:
        NotConvergedWarning: As `warn_if_unfinished`.
    """


@warn_of.register
def _(trained: Objective, found: Diagnostics | None) -> None:
    if found is None or found.gradient_in_examples is None:
        return
    quality = FitQuality(
        gradient_norm=found.gradient_norm,
        in_examples=found.gradient_in_examples,
        of_largest=found.unfinished,
    )
    warn_if_unfinished(trained, quality)


def diagnostics(
    objective: Objective,
    prepared: Prepared,
    solution: Solution | None = None,
    *,
    quality: FitQuality | None = None,
    residual: Residual | None = None,
) -> Diagnostics:
    """Return the diagnostics of a result.

    Args:
        objective: R at θ̂.
        prepared: The inverse that was used.
        solution: The solve it was used for, where its residual was measured.
        quality: How far the fit is from its optimum; by the Newton decrement if `None`.
        residual: The residual of the result, where it is not that of one solve.

    Returns:
        The record.

    Warns:
        NotConvergedWarning: If the fit or the solve has not converged.
    """
    fit = fit_quality(objective, prepared) if quality is None else quality
    if solution is not None:
        residual = Residual(solution.residual, solution.converged)
        if not solution.converged:
            warn_user(
                f"Expected the solve to converge. Got relative residual {solution.residual:.1e} "
                f"after {solution.iterations} iterations. Pass a larger damping=, or allow more by "
                "solver=whence.CG(max_iterations=10_000)."
            )
    return Diagnostics(
        solver=prepared.solver,
        curvature=prepared.curvature,
        gradient_norm=fit.gradient_norm,
        gradient_in_examples=fit.in_examples,
        unfinished=fit.of_largest,
        stopped=objective.stopped,
        damping=prepared.damping,
        damping_reason=prepared.damping_reason,
        residual=None if residual is None else residual.value,
        approximation_error=approximation_error(objective, prepared.inverse),
        iterations=0 if solution is None else solution.iterations,
        converged=residual is None or residual.converged,
        smallest_eigenvalue=prepared.smallest_eigenvalue,
        largest_eigenvalue=prepared.largest_eigenvalue,
        notes=(*objective.notes, *prepared.notes),
    )


@final
@dataclass(frozen=True)
class Residual:
    """A relative residual, and whether it reached its tolerance.

    Args:
        value: The largest one.
        converged: Whether it is at most what was asked for.
    """

    value: float
    converged: bool


def residual_of(
    change: SingleChanges | Reweightings, deltas: Tensor, order: Order
) -> Residual | None:
    """Return how exactly the parameters without some examples were computed.

    newton: the relative residual of the solves H⁻¹ Jᵀ behind the steps; refined: the gradient of
    the changed objective that is left, beside the gradient at θ̂, on at most eight removals.

    Args:
        change: The removals.
        deltas: The predicted changes of the parameters, [p, m].
        order: How they were predicted.

    Returns:
        The largest residual; `None` for Newton steps by an approximation of the curvature.
    """
    if order == "newton":
        value = change.residual
        return None if value is None else Residual(value, value <= _SOLVED)
    m = deltas.shape[1]
    some = torch.arange(0, m, -(-m // _CHECKED))
    part = change.select(some)
    left, initial = part.gradient(deltas[:, some]), part.initial_gradient()
    sizes = initial.norm(dim=0)  # of a gradient near zero only rounding is left
    value = float((left.norm(dim=0) / sizes.clamp_min(_TINY * float(sizes.max()))).max())
    return Residual(value, value <= _REFINED) if sizes.any() else Residual(0.0, True)


def root_mean_square(values: Tensor) -> Tensor:
    """Return the root mean square of some numbers."""
    return values.double().square().mean().sqrt()


def _rounding(trained: Trained) -> float:
    """Return how many times its effects a regression's rounding is, 1 at least.

    Where every row is fitted, its residual is the rounding of its output, and so is every effect:
    in the unit of the targets, whatever that is.
    """
    train = trained.train
    outputs = trained.outputs(train)
    slopes = trained.loss.gradient(outputs, train.targets)
    bent = gradient_by_scale(trained.loss, outputs, train.targets)
    size, left = float(bent.abs().mean()), float(slopes.abs().mean())
    return max(1.0, _ROUNDING * size / left) if left > 0 else math.inf


def _ratio(trained: Trained, size: float, unit: float) -> float:
    """Return size/unit, a unit that is rounding counted as the least number beyond it."""
    if not trained.loss.regresses:
        return size / max(unit, _ROUNDING)
    ratio = size / unit if unit > 0 else math.inf if size > 0 else 0.0
    if ratio <= _REFINED:  # no warning, whatever rounding does: a pass is spared
        return ratio
    times = cached(trained, _rounding, _rounding)
    return ratio / times if times < math.inf else 0.0
