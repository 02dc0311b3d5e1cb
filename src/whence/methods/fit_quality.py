"""What a result says about itself: was the fit converged, was the solve exact."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from whence.curvature.exact import Gradients
from whence.curvature.prepare import Prepared
from whence.errors import warn_user
from whence.linalg.solver import Solution
from whence.linear.wide import columns_of
from whence.objective.cache import cached, first_time
from whence.objective.objective import Objective, risk_gradient, with_penalty
from whence.scores import Diagnostics

_PROBES = 16
_TYPICAL = 512  # examples that tell the size of a typical gradient


def fit_quality(objective: Objective) -> tuple[float, float]:
    """Return ‖∇R(θ̂)‖, and the same in units of one typical example's gradient.

    The gradient of example i is wᵢ‖gᵢ‖/n, what ∇R becomes when i is removed from an exact fit. Its
    root mean square is estimated with 16 random signs, since E (gᵀz)² = ‖g‖², on at most 512
    examples.

    Args:
        objective: R at θ̂.

    Returns:
        The gradient norm and the number of typical examples with a gradient as large.

    Warns:
        NotConvergedWarning: Once per objective, if the fit is further from its optimum than the
            removal of one typical example would bring it.
    """
    # Norms are the same in all coordinates, and a wide model's columns are there already.
    norm, in_examples = cached(objective, _fit, lambda own: _fit(columns_of(own) or own))
    smooth = objective.trained_loss == objective.loss
    if smooth and in_examples > 1 and first_time(objective, "warning about the fit"):
        remedy = (
            "Continue with objective.refit()"
            if objective.convex
            else "Train further, or read the scores as those of a damped local quadratic"
        )
        warn_user(
            f"Expected a converged fit on the data given. Got gradient norm {norm:.1e} at the "
            f"fitted parameters, as far from the optimum as removing {in_examples:.2g} typical "
            f"training examples. {remedy}; if the number is large, check that X and y are "
            "exactly what the model was fitted on."
        )
    return norm, in_examples


def _fit(objective: Objective) -> tuple[float, float]:
    """Return what `fit_quality` does: in one pass over few examples, in two over many."""
    n, weights, probes = len(objective.train), objective.weights, _probes(objective)
    if n <= _TYPICAL:
        shares = weights.unsqueeze(1) / n
        dots, data = objective.gradient_products(objective.train, objective.loss, probes, shares)
        norm = float(with_penalty(objective, data).norm())
    else:
        norm = float(risk_gradient(objective).norm())
        some = np.random.default_rng(0).permutation(n)[:_TYPICAL]
        few = Gradients(objective, objective.train.subset(some), objective.loss)
        dots, weights = few.matmat(probes), weights[some]
    typical = float((weights.unsqueeze(1) * dots).square().mean().sqrt()) / n
    return norm, norm / typical if typical > 0 else 0.0


def _probes(objective: Objective) -> Tensor:
    """Return random signs, [p, 16]."""
    generator = torch.Generator().manual_seed(0)
    shape = len(objective.params), _PROBES
    signs = torch.randint(0, 2, shape, generator=generator, dtype=torch.int8)
    return signs.mul_(2).sub_(1).to(objective.params)


def diagnostics(
    objective: Objective, prepared: Prepared, solution: Solution | None = None
) -> Diagnostics:
    """Return the diagnostics of a result.

    Args:
        objective: R at θ̂.
        prepared: The inverse that was used.
        solution: The solve it was used for, where its residual was measured.

    Returns:
        The record.

    Warns:
        NotConvergedWarning: If the fit or the solve has not converged.
    """
    norm, in_examples = fit_quality(objective)
    if solution is not None and not solution.converged:
        warn_user(
            f"Expected the solve to converge. Got relative residual {solution.residual:.1e} "
            f"after {solution.iterations} iterations. Allow more iterations, or add damping."
        )
    return Diagnostics(
        solver=prepared.solver,
        gradient_norm=norm,
        gradient_in_examples=in_examples,
        damping=prepared.damping,
        damping_reason=prepared.damping_reason,
        residual=None if solution is None else solution.residual,
        iterations=0 if solution is None else solution.iterations,
        converged=solution is None or solution.converged,
        smallest_eigenvalue=prepared.smallest_eigenvalue,
        largest_eigenvalue=prepared.largest_eigenvalue,
        notes=objective.notes,
    )
