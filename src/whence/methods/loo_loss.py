r"""Leave-one-out outputs of each training example by one Newton step, in closed form.

A model linear in θ needs no step in θ for that, only the example's leverage K = J H⁻¹ Jᵀ [c, c]:
f₋ᵢ = f + (w/n) K M ∂ℓ/∂f with M = (I − (w/n) S K)⁻¹ and S = ∂²ℓ/∂f².
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import singledispatch
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.curvature.changes import change_tiles, inverse_or_zero
from whence.curvature.leverages import leverages
from whence.curvature.precision import SMALL
from whence.curvature.prepare import prepare
from whence.errors import NotPositiveDefinite, UnsupportedModel
from whence.fitting.newton import newton
from whence.linalg.solver import Inverse, Solver
from whence.linear.objective import LinearObjective
from whence.methods.removals import removal
from whence.objective.losses import output_hessian
from whence.objective.objective import Objective, objective_of
from whence.objective.trained import Trained
from whence.progress import progress
from whence.tiles import tiles

_COLUMNS = 64  # removals whose outputs are taken at once
_SAMPLE = 1_024  # training examples whose leave-one-out losses tell penalties apart
_STEP = 10.0  # from one penalty to the next
_MOST = 6  # steps either way
_LESS = 0.99  # of the least mean loss so far: what a step must bring
_A_MINUTE = 1e13  # operations that two cores do in one


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class LooOutputs:
    """What k training examples get from a model trained without each.

    Args:
        outputs: f₋ᵢ, [k, c].
        self_influence: (wᵢ/n) gᵢᵀ H⁻¹ gᵢ, how far to first order their losses rise, [k]; `None`
            where that would take solves of its own.
    """

    outputs: Tensor
    self_influence: Tensor | None


def loo_outputs(
    objective: Objective,
    where: NDArray[np.intp],
    *,
    solver: Solver | None = None,
    damping: float | None = None,
) -> LooOutputs:
    """Return the outputs of each example one Newton step without it, and what comes with them.

    Args:
        objective: R at θ̂.
        where: Positions of the k examples in the training data.
        solver: What inverts the curvature; chosen by cost if `None`.
        damping: λ >= 0 added to the curvature; chosen by rule if `None`.

    Returns:
        Both.

    Cost:
        k c solves, half solves where a model linear in its parameters is factored.

    References:
        Koh & Liang (2017), section 2.1, with the curvature of the example taken out; for linear
        models Cook & Weisberg (1982), section 5.1.
    """
    c = objective.outputs(objective.train.subset(np.arange(1))).shape[1]
    inverse = prepare(objective, len(where) * c, solver=solver, damping=damping).inverse
    return _loo_outputs(objective, where, inverse)


@singledispatch
def _loo_outputs(objective: Objective, where: NDArray[np.intp], inverse: Inverse) -> LooOutputs:
    """Return the outputs by a Newton step in θ each."""
    c = objective.outputs(objective.train.subset(np.arange(1))).shape[1]
    parts = [objective.params.new_zeros(0, c)]
    cut = list(change_tiles(objective, len(where), c))
    for tile in progress(cut, desc="removals"):
        deltas = removal(objective, inverse, where[tile]).newton()
        for few in tiles(deltas.shape[1], budget=_COLUMNS):
            part = objective.train.subset(where[tile][few])
            moved = objective.outputs_at(part, deltas[:, few])
            parts.append(moved.diagonal(dim1=0, dim2=2).T)  # each example without itself alone
    return LooOutputs(outputs=torch.cat(parts), self_influence=None)


@_loo_outputs.register
def _(objective: LinearObjective, where: NDArray[np.intp], inverse: Inverse) -> LooOutputs:
    examples = objective.train.subset(where)
    outputs, targets = objective.outputs(examples), examples.targets
    shares = (objective.weights[where] / len(objective.train)).reshape(-1, 1, 1)
    leverage = shares * leverages(objective, inverse, examples)
    curvature = output_hessian(objective.loss, outputs, targets)
    inner = torch.eye(objective.c, dtype=outputs.dtype) - curvature @ leverage
    gradient = objective.loss.gradient(outputs, targets).unsqueeze(2)
    return LooOutputs(
        outputs=outputs + (leverage @ inverse_or_zero(inner) @ gradient).squeeze(2),
        self_influence=(gradient.mT @ leverage @ gradient).flatten(),
    )


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Regularized:
    """A model at the penalty under which it predicts best what it has not seen.

    Args:
        objective: R at its minimum under that penalty.
        factor: How many times the fitted penalty that is.
    """

    objective: LinearObjective
    factor: float


@singledispatch
def penalty_applies(objective: Trained) -> bool:
    """Return whether other penalties can be tried: a smooth linear model with an L2 penalty."""
    return False


@penalty_applies.register
def _(objective: LinearObjective) -> bool:
    return (
        objective.convex
        and objective.trained_loss == objective.loss
        and objective.slope is None
        and bool((objective.l2 > 0).any())
    )


def solves_each(trained: Trained, solver: Solver | None) -> bool:
    """Return whether a solve for each training example is worth while.

    Of a network of more than 4,000 parameters it takes hours.

    Args:
        trained: The model.
        solver: The one asked for, or `None`.

    Returns:
        False also of a model without derivatives.
    """
    if trained.differentiable() is not trained:
        return False
    objective = objective_of(trained)
    return objective.convex or solver is not None or len(objective.params) <= SMALL


@singledispatch
def quick(objective: Trained) -> bool:
    """Return whether all leave-one-out losses, at the best penalty, take a minute at most.

    Four factors, and c solves for each training example and each of the samples; of a linear model
    no more than two, by the inverse matrix.

    Args:
        objective: The model.

    Returns:
        False also of a classifier whose self-influence tells as much.
    """
    return False


@quick.register
def _(objective: Objective) -> bool:
    tells = objective.hinged or objective.loss.regresses or penalty_applies(objective)
    if not objective.convex or not tells:
        return False
    p, n = len(objective.params), len(objective.train)
    c = objective.outputs(objective.train.subset(np.arange(1))).shape[1]
    one = 2 * p * p * (min(c, 2) if objective.linear else c)  # of one example
    operations = 4 * (n * p * p + p**3) + one * (n + 4 * min(n, _SAMPLE))
    return operations <= _A_MINUTE


@singledispatch
def best_penalty(
    objective: Objective, *, solver: Solver | None = None, damping: float | None = None
) -> Regularized:
    """Return the model at the penalty with the least mean leave-one-out loss.

    From the fitted penalty in steps of ten, upwards while the mean of ℓ(f₋ᵢ, yᵢ) over the training
    examples falls by a hundredth or more, else downwards: leave-one-out cross-validation, each
    example one Newton step away. Only the labels given are looked at.

    Args:
        objective: R at θ̂.
        solver: What inverts the curvature; chosen by cost if `None`.
        damping: λ >= 0 added to the curvature; chosen by rule if `None`.

    Returns:
        The model and how many times the fitted penalty it has.

    Raises:
        UnsupportedModel: If it is no linear model with a smooth loss and an L2 penalty.

    Cost:
        For each penalty tried (at least three) a few Newton steps by conjugate gradients from the
        last one's factor, a factor, and c solves for each of at most 1,024 examples.

    References:
        Stone (1974) for the choice by cross-validation; Rad & Maleki (2020), section 2, for
        leave-one-out by one Newton step in penalized models.
    """
    raise _without_penalties(objective)


def _without_penalties(objective: Objective) -> UnsupportedModel:
    """Return the error that says why no other penalties can be tried."""
    return UnsupportedModel(
        "Expected a linear model with a smooth loss and an L2 penalty, to try other penalties. "
        f"Got {type(objective).__name__} with {objective.trained_loss}. "
        "Pass penalty='fitted' to ask the model as it was fitted."
    )


@best_penalty.register
def _(
    objective: LinearObjective, *, solver: Solver | None = None, damping: float | None = None
) -> Regularized:
    if not penalty_applies(objective):
        raise _without_penalties(objective)
    n = len(objective.train)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    sample = order[:_SAMPLE].sort().values.numpy()
    some = objective.train.subset(sample)

    def mean_loss(model: LinearObjective) -> float:
        without = loo_outputs(model, sample, solver=solver, damping=damping).outputs
        weights = model.weights[sample]
        above = model.loss(without, some.targets) - model.loss.least(some.targets)
        return float((weights * above).sum() / weights.sum())

    best, least, factor = objective, mean_loss(objective), 1.0
    for step in (_STEP, 1 / _STEP):
        for _ in progress(range(_MOST), desc="penalties"):
            inverse = prepare(best, len(sample) * best.c, solver=solver, damping=damping).inverse
            try:
                tried = newton(replace(best, l2=best.l2 * step), inverse=inverse)
                loss = mean_loss(tried)
            except NotPositiveDefinite:  # too weak a penalty to tell the parameters
                break
            if not loss < _LESS * least:
                break
            best, least, factor = tried, loss, factor * step
        if best is not objective:
            break
    return Regularized(objective=best, factor=factor)
