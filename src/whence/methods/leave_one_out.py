"""What really happens when training examples are removed: retraining, to full precision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from whence.curvature.changes import SingleChanges, tiles
from whence.curvature.prepare import prepare
from whence.curvature.reweighting import Reweightings, kept_without
from whence.errors import UnsupportedModel
from whence.evaluation.retraining import leave_one_out as repeated_without
from whence.fitting.hinge import fit_hinge, is_hinge
from whence.fitting.refit import CONVERGED
from whence.linear.objective import LinearObjective
from whence.methods.fit_quality import fit_quality
from whence.methods.influence import removal
from whence.methods.prediction import (
    Floats,
    Indices,
    MeasureLike,
    as_array,
    measure_change,
    measure_changes,
    positions,
)
from whence.objective.losses import measure_of
from whence.objective.measures import Measure
from whence.objective.objective import Objective
from whence.objective.trained import Examples
from whence.training.run import Run

_CONTRACTION = 0.8  # a step that leaves more of the gradient sends its removal to be refitted alone


def leave_one_out(
    objective: Objective | Run,
    indices: Indices,
    queries: Any,
    *,
    measure: MeasureLike = "loss",
) -> Floats:
    """Remove each training example, retrain for real, and return what changed.

    m_q(θ̂₋ᵢ) − m_q(θ̂), both models at gradient norm 1e-10. All removals are refitted together,
    by Newton steps that share one factor of H and correct it for the missing example; one that
    does not contract quickly is refitted on its own with fresh Hessians. A training recorded by
    `whence.train` is repeated without each example instead, as it was run.

    Args:
        objective: R at θ̂, refitted first if the fit has not converged; or a recorded training.
        indices: Positions of the k examples in the training data.
        queries: (X, y) of q queries, or of one.
        measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b].

    Returns:
        Actual changes, [q, k]; in nats for the loss.

    Raises:
        UnsupportedModel: If R is not known to be convex: record its training with `whence.train`.
        InvalidInput: If queries or indices cannot be used.

    Warns:
        NotConvergedWarning: If the fit given, or a refit, has not converged.

    Cost:
        One factor of H; then 2 to 4 passes over the data per removal, as matrix products. For a
        recorded training, a training per removal.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.linear_model import Ridge
        >>> X, y = load_diabetes(return_X_y=True)
        >>> objective = whence.from_sklearn(Ridge().fit(X, y), X, y)
        >>> actual = whence.leave_one_out(objective, [3, 7], (X[:1], y[:1]))
        >>> predicted = whence.influence(objective, (X[:1], y[:1]), order="newton", indices=[3, 7])
        >>> bool(abs(actual - predicted.values).max() < 1e-8)
        True
    """
    if isinstance(objective, Run):
        return repeated_without(objective, np.atleast_1d(indices), queries, measure=measure)
    where = positions(objective, indices)
    base = converged(objective)
    asked = base.examples(queries)
    quantity = measure_of(base.trained_loss, measure)
    parts = []
    with tqdm(total=len(where), desc="retraining", unit="fit", disable=None) as progress:
        for part in _changes(base, _nearby(objective, base), asked, quantity, where):
            parts.append(part)
            progress.update(part.shape[1])
    return as_array(torch.cat(parts, 1))


def converged(objective: Objective) -> Objective:
    """Return the objective at its minimum: itself, or refitted to convergence.

    Args:
        objective: R at θ̂.

    Returns:
        R with ‖∇R‖ <= 1e-10; for a true hinge, with margins exact to 1e-10.

    Raises:
        UnsupportedModel: If R is not known to be convex.
    """
    if isinstance(objective, LinearObjective) and (
        is_hinge(objective.trained_loss) or objective.slope is not None
    ):
        return objective.refit()
    if not objective.convex:
        raise UnsupportedModel(
            "Expected a convex objective to retrain by Newton's method. Got a model that is not "
            "known to be convex. Record its training with whence.train: leave_one_out takes the "
            "run, and whence.evaluation.subset_bank retrains on subsets."
        )
    norm, _ = fit_quality(objective)
    return objective if norm <= CONVERGED else objective.refit()


def refit_without(objective: Objective, where: NDArray[np.intp]) -> Objective:
    """Retrain once without a set of examples, as the user's own fit on the rest would.

    Args:
        objective: R at its minimum.
        where: Positions of the removed examples.

    Returns:
        The model without them.
    """
    weights = objective.weights.clone()
    weights[where] = 0
    return objective.refit(weights)


def _nearby(objective: Objective, base: Objective) -> Objective:
    """Return whose curvature the retraining steps share: the fit's own where it was good.

    Its factor may have been made already, and every step corrects for what it leaves out.
    """
    _, in_examples = fit_quality(objective)
    return objective if in_examples <= 1 else base


def _changes(
    base: Objective,
    nearby: Objective,
    asked: Examples,
    measure: Measure,
    where: NDArray[np.intp],
) -> Iterator[Tensor]:
    """Yield the changes of the queries' measure [q, m] without each example, block by block."""
    if not _together(base, where):
        for at in where:
            after = refit_without(base, np.array([at]))
            yield measure_change(base, after, asked, measure).unsqueeze(1)
        return
    for deltas in _removals(base, nearby, where):
        yield measure_changes(base, asked, measure, deltas)


def _together(objective: Objective, where: NDArray[np.intp]) -> bool:
    """Return whether the removals change nothing but weights, so that they can share a factor."""
    if objective.statistics is None:
        return True
    if isinstance(objective, LinearObjective) and is_hinge(objective.trained_loss):
        return False
    kept = kept_without(len(objective.train), torch.from_numpy(where[:1]))
    return objective.statistics.weights(kept) is not None


def _removals(objective: Objective, nearby: Objective, where: NDArray[np.intp]) -> Iterator[Tensor]:
    """Yield the parameter changes [p, m] of the removals, block by block."""
    if isinstance(objective, LinearObjective) and is_hinge(objective.trained_loss):
        yield fit_hinge(objective).without(where)
        return
    c = objective.outputs(objective.train.subset(where[:1])).shape[1]
    inverse = prepare(nearby, len(where) * c).inverse
    for tile in tiles(objective, len(where), c):
        yield _refit_together(objective, removal(objective, inverse, where[tile]), where[tile])


def _refit_together(
    objective: Objective, change: SingleChanges | Reweightings, where: NDArray[np.intp]
) -> Tensor:
    """Return the parameter changes of several removals, each to a gradient norm of 1e-10."""
    deltas = change.newton()
    active = torch.arange(len(where))
    previous = torch.full((len(where),), torch.inf, dtype=deltas.dtype)
    alone: list[int] = []
    while len(active):
        part = change.select(active)
        gradient = part.gradient(deltas[:, active])
        norms = gradient.norm(dim=0)
        contracts = norms < _CONTRACTION * previous
        alone += active[(norms > CONVERGED) & ~contracts].tolist()
        deltas[:, active] -= part.solve(gradient)
        going = (norms > CONVERGED) & contracts
        active, previous = active[going], norms[going]
    for column in alone:
        alone_at = refit_without(objective, where[column : column + 1])
        deltas[:, column] = alone_at.params - objective.params
    return deltas
