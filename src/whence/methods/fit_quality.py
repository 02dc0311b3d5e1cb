"""What a result says about itself: was the fit converged, was the solve exact."""

from __future__ import annotations

import warnings
import weakref
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from whence.curvature.exact import Gradients
from whence.curvature.factors import Layer
from whence.curvature.inverse import KroneckerInverse
from whence.curvature.prepare import Prepared
from whence.errors import NotConvergedWarning
from whence.linalg.solver import Inverse, Solution
from whence.linear.wide import columns_of
from whence.network.objective import ModuleObjective
from whence.objective.objective import Objective, risk_gradient, with_penalty
from whence.scores import Diagnostics

_PROBES = 16
_FAR = 10  # typical examples' pulls from which rounded gradients tell how far a fit is
_TYPICAL = 2048  # examples that tell the size of a typical gradient
_FITS: weakref.WeakKeyDictionary[Objective, tuple[float, float]] = weakref.WeakKeyDictionary()
_WARNED: weakref.WeakSet[Objective] = weakref.WeakSet()


def fit_quality(objective: Objective) -> tuple[float, float]:
    """Return ‖∇R(θ̂)‖, and the same in units of one typical example's pull.

    The pull of example i is wᵢ‖gᵢ‖/n, what the gradient becomes when i is removed from an exact
    fit. Its root mean square is estimated with 16 random signs, since E (gᵀz)² = ‖g‖², on at most
    2,048 examples unless a pass over all is made anyway.

    Args:
        objective: R at θ̂.

    Returns:
        The gradient norm and the number of typical examples that would pull as hard.

    Warns:
        NotConvergedWarning: Once per objective, if the fit is further from its optimum than the
            removal of one typical example would bring it.
    """
    if objective not in _FITS:
        # Norms are the same in all coordinates, and a wide model's columns are there already.
        _FITS[objective] = _fit(columns_of(objective) or objective)
    norm, in_examples = _FITS[objective]
    smooth = objective.trained_loss == objective.loss
    if smooth and in_examples > 1 and objective not in _WARNED:
        _WARNED.add(objective)
        remedy = (
            "Continue with objective.refit()"
            if objective.convex
            else "Train further, or read the scores as those of a damped local quadratic"
        )
        warnings.warn(
            f"Expected a converged fit on the data given. Got gradient norm {norm:.1e} at the "
            f"fitted parameters, as far from the optimum as removing {in_examples:.2g} typical "
            f"training examples. {remedy}; if the number is large, check that X and y are "
            "exactly what the model was fitted on.",
            NotConvergedWarning,
            stacklevel=4,
        )
    return norm, in_examples


def _fit(objective: Objective) -> tuple[float, float]:
    """Return what `fit_quality` does, from a pass over the training data."""
    n, weights = len(objective.train), objective.weights
    if n <= _TYPICAL:
        _pass(objective, objective.params.new_zeros(len(objective.params), 0))
        return _FITS[objective]
    norm = float(risk_gradient(objective).norm())
    some = np.random.default_rng(0).permutation(n)[:_TYPICAL]
    few = Gradients(objective, objective.train.subset(some), objective.loss)
    return _quality(norm, weights[some], few.matmat(_probes(objective)), n)


def product_and_fit(objective: Objective, gradients: Gradients, V: Tensor) -> Tensor:
    """Return G V; if G holds all training examples of a network, note its `fit_quality` as well.

    A network's pass over its data costs far more than the columns that the quality adds to it.

    Args:
        objective: R at θ̂.
        gradients: G, [b, p]; of the objective, or of it in a lower precision.
        V: [p, k].

    Returns:
        G V, [b, k].
    """
    if not _tell_the_fit(gradients, objective):
        return gradients.matmat(V)
    rough = gradients.objective
    product = _pass(rough, V)
    # The sum of rounded gradients is nothing near a minimum, where it cancels.
    if rough is objective or _FITS[rough][1] > _FAR:
        _FITS[objective] = _FITS[rough]
    return product


def _tell_the_fit(gradients: Gradients, objective: Objective) -> bool:
    """Return whether a pass over these gradients of a network shows a fit not yet known."""
    whole = gradients.examples is objective.train and gradients.measure is objective.loss
    return whole and objective not in _FITS and isinstance(objective, ModuleObjective)


@final
@dataclass(frozen=True, eq=False)
class FitInPassing:
    """What `fit_quality` says, from the factors of all training gradients as scores are made.

    Args:
        objective: R at θ̂, a network whose layers see one position per example.
        sums: (1/n) Σ wᵢ gᵢ of each layer.
        squares: ‖gᵢ‖², [n].
    """

    objective: ModuleObjective
    sums: dict[Layer, Tensor]
    squares: Tensor

    def add(self, part: slice, rows: dict[Layer, tuple[Tensor, Tensor]]) -> None:
        """Add a micro-batch of gradients δ āᵀ: ‖δ āᵀ‖² = ‖δ‖² ‖ā‖²."""
        shares = self.objective.weights[part].unsqueeze(1) / len(self.squares)
        for layer, (delta, a) in rows.items():
            self.sums[layer].addmm_((delta * shares).T, a)
            norms = (torch.linalg.vector_norm(side, dim=1) for side in (delta, a))
            self.squares[part] += torch.stack(list(norms)).prod(0).square()

    def note(self) -> None:
        """Note the quality of the fit."""
        data = torch.empty_like(self.objective.params)
        for layer, total in self.sums.items():
            data[layer.places()] = total.flatten()
        norm = float(with_penalty(self.objective, data.unsqueeze(1)).norm())
        n = len(self.squares)
        pull = float((self.objective.weights.square() * self.squares).mean().sqrt()) / n
        _FITS[self.objective] = norm, norm / pull if pull > 0 else 0.0


def fit_in_passing(
    objective: Objective, inverse: Inverse, gradients: Gradients
) -> FitInPassing | None:
    """Return what notes the fit where scores come of factors; `None` where there is no need or way.

    Args:
        objective: R at θ̂.
        inverse: H⁻¹.
        gradients: G, [b, p], whose scores are asked for.
    """
    if not isinstance(inverse, KroneckerInverse) or not _tell_the_fit(gradients, objective):
        return None
    assert isinstance(objective, ModuleObjective)
    names = {name for layer in inverse.layers if layer.single for name in layer.names}
    if names != set(objective.shapes):
        return None
    sums = {layer: torch.zeros_like(layer.values) for layer in inverse.layers}
    return FitInPassing(objective, sums, torch.zeros_like(objective.weights))


def _pass(objective: Objective, V: Tensor) -> Tensor:
    """Return the training gradients' products with V, [n, k], and note the quality of the fit."""
    n, weights = len(objective.train), objective.weights
    dots, data = objective.gradient_products(
        objective.train,
        objective.loss,
        torch.cat([V, _probes(objective)], 1),
        weights.unsqueeze(1) / n,
    )
    norm = float(with_penalty(objective, data).norm())
    _FITS[objective] = _quality(norm, weights, dots[:, V.shape[1] :], n)
    return dots[:, : V.shape[1]]


def _probes(objective: Objective) -> Tensor:
    """Return random signs, [p, 16]."""
    generator = torch.Generator().manual_seed(0)
    shape = len(objective.params), _PROBES
    signs = torch.randint(0, 2, shape, generator=generator, dtype=torch.int8)
    return signs.mul_(2).sub_(1).to(objective.params)


def _quality(norm: float, weights: Tensor, dots: Tensor, n: int) -> tuple[float, float]:
    """Return the norm of ∇R, and the same in pulls wᵢ‖gᵢ‖/n, from products with random signs."""
    pull = float((weights.unsqueeze(1) * dots).square().mean().sqrt()) / n
    return norm, norm / pull if pull > 0 else 0.0


def diagnostics(
    objective: Objective, prepared: Prepared, solution: Solution | None = None
) -> Diagnostics:
    """Return the diagnostics of a result.

    Args:
        objective: R at θ̂.
        prepared: The inverse that was used.
        solution: The solve it was used for, if one.

    Returns:
        The record.

    Warns:
        NotConvergedWarning: If the fit or the solve has not converged.
    """
    norm, in_examples = fit_quality(objective)
    if solution is not None and not solution.converged:
        warnings.warn(
            f"Expected the solve to converge. Got relative residual {solution.residual:.1e} "
            f"after {solution.iterations} iterations. Allow more iterations, or add damping.",
            NotConvergedWarning,
            stacklevel=3,
        )
    return Diagnostics(
        solver=prepared.solver,
        gradient_norm=norm,
        gradient_in_examples=in_examples,
        damping=prepared.damping,
        damping_reason=prepared.damping_reason,
        residual=solution.residual if solution else 0.0,
        iterations=solution.iterations if solution else 0,
        converged=solution.converged if solution else True,
        smallest_eigenvalue=prepared.smallest_eigenvalue,
        largest_eigenvalue=prepared.largest_eigenvalue,
        notes=objective.notes,
    )
