"""Changes of the training data that need an objective of their own, and those that do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.curvature.changes import GroupChange, SingleChanges, single_changes
from whence.curvature.leverages import determines_itself
from whence.curvature.reweighting import Reweightings, kept_without
from whence.errors import warn_user
from whence.fitting.hinge import fit_hinge
from whence.fitting.newton import newton_steps
from whence.fitting.refit import follows_pieces
from whence.linalg.solver import Inverse
from whence.linalg.structured import Identity
from whence.linear.wide import columns_of
from whence.methods.prediction import Order, measure_changes, predicted_changes
from whence.objective.measures import Measure
from whence.objective.objective import Objective
from whence.objective.removed import weights_without
from whence.objective.trained import Examples
from whence.progress import progress

Change = Callable[[Objective], Objective]  # from R at θ̂ to R of changed data at θ̂

_SETTLED = 0.02  # share of the largest effect that the last step of the refined order may move
_FAR = 0.5  # share of a change that a step beyond Newton's may make, unsaid
_CHECKED, _EXACT = 8, 1e-8  # removals whose gradient is computed, and the share left at a minimum
_STEPS: dict[Order, int] = {"first": 1, "newton": 1, "refined": 20}


def removal(
    objective: Objective, inverse: Inverse, where: NDArray[np.intp]
) -> SingleChanges | Reweightings:
    """Return the removals of the examples at some positions, one per column.

    Args:
        objective: R at θ̂.
        inverse: H⁻¹.
        where: Positions, [m].

    Returns:
        The changes, each with weight −wᵢ, and with what it does to the weights of the others.
    """
    removed: Tensor = objective.weights[where]
    change = single_changes(objective, inverse, objective.train.subset(where), -removed)
    if objective.statistics is None or not objective.statistics.reweights:
        return change
    kept = kept_without(len(objective.train), torch.from_numpy(where))
    return Reweightings(removals=change, after=objective.statistics.weights(kept))


def moves_more(objective: Objective, order: Order, where: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return for which examples a removal needs an objective of its own.

    Args:
        objective: R at θ̂.
        order: How to predict.
        where: Positions, [k].

    Returns:
        True where the removal changes more than weights, [k]; also where an example alone
        determines its prediction, and where the order follows the minimum from piece to piece, as
        a true hinge's moves.
    """
    if follows_pieces(objective, order):
        return np.ones(len(where), dtype=bool)
    alone = determines_itself(objective, where)
    if objective.statistics is None:
        return alone
    return alone | ~objective.statistics.only_weights(where)


def follows(objective: Objective, order: Order, where: NDArray[np.intp]) -> bool:
    """Return whether a change of some examples changes more than their own weight.

    Args:
        objective: R at θ̂.
        order: How to predict.
        where: Positions, [k].
    """
    statistics = objective.statistics
    if statistics is not None and (statistics.reweights or _loses_a_class(objective, where)):
        return True
    return bool(moves_more(objective, order, where).any())


def _loses_a_class(objective: Objective, where: NDArray[np.intp]) -> bool:
    """Return whether a class of a classifier has no example without some."""
    targets = objective.train.targets
    if not objective.classes or targets.ndim > 1:
        return False
    labels, there = targets.numpy(), objective.weights.numpy() > 0
    before = len(np.unique(labels[there]))
    there[where] = False
    return len(np.unique(labels[there])) < before


def refined_steps(
    objective: Objective, damping: float, change: SingleChanges | Reweightings
) -> tuple[Tensor, Tensor]:
    """Return the changes of θ after one step beyond Newton's, and after two, [p, m] each.

    Newton's step is the minimum of a quadratic R. Whether it was found is then seen on eight of the
    removals, and no further step is taken.

    Args:
        objective: R at θ̂.
        damping: λ.
        change: The removals.

    Cost:
        Two gradients of R per removal; of a quadratic R eight altogether.
    """
    newton = change.newton()
    if objective.linear and objective.loss.quadratic and damping == 0 and _arrived(change, newton):
        return newton, newton
    nearly = change.refine(newton)
    return nearly, change.refine(nearly)


def _arrived(change: SingleChanges | Reweightings, deltas: Tensor) -> bool:
    """Return whether of the gradient of eight changed objectives nothing but rounding is left."""
    some = torch.arange(0, deltas.shape[1], -(-deltas.shape[1] // _CHECKED))
    part = change.select(some)
    left, before = part.gradient(deltas[:, some]), part.initial_gradient()
    return bool((left.norm(dim=0) <= _EXACT * before.norm(dim=0).max()).all())


def unsettled(
    objective: Objective, damping: float, before: Tensor, after: Tensor
) -> NDArray[np.bool_]:
    """Return which columns the last step still moved by more than 2 % of their largest number.

    An extreme example changes the curvature by more than its own term: such a removal takes Newton
    steps of its own, with fresh curvature. Damped curvatures and others than the Hessian take none.

    Args:
        objective: R at θ̂.
        damping: λ.
        before: Numbers before the last step, [m, k].
        after: The same after it.
    """
    exact = objective.linear and damping == 0
    if not exact or objective.trained_loss != objective.loss:
        return np.zeros(after.shape[1], dtype=bool)
    moved = (after - before).abs().amax(0) > _SETTLED * after.abs().amax(0)
    return np.asarray(moved.numpy())


def changes_together(
    objective: Objective,
    queries: Examples,
    measure: Measure,
    group: GroupChange,
    order: Order,
    damping: float,
    afresh: Callable[[], Tensor] | None = None,
) -> Tensor:
    """Return m_q after a change of several examples less m_q, [q].

    Refined: two steps beyond Newton's with the curvature of the changed data at θ̂; where the second
    still moves what the queries are told, as many with fresh curvature as it takes.

    Args:
        objective: R at θ̂.
        queries: The q queries.
        measure: m.
        group: The change, in one column.
        order: How to predict.
        damping: λ.
        afresh: Returns the changes by steps with fresh curvature, [q]; `None` where there are none.

    Warns:
        NotConvergedWarning: If a step beyond Newton's moves outputs by more than half of what both
            do together.
    """
    exact = objective.linear and damping == 0 and objective.trained_loss == objective.loss
    if order == "first" or (order == "newton" and (not exact or objective.loss.quadratic)):
        return predicted_changes(objective, queries, measure, group, order)[:, 0]
    newton = group.newton()
    nearly = group.refine(newton)
    if order == "newton":
        one, two = (objective.jvp(queries, by).flatten() for by in (newton, nearly))
        beyond, whole = float((two - one).abs().max()), float(two.abs().max())
        if beyond > _FAR * whole:
            warn_user(
                "Expected a change of the training data that one Newton step follows. Got one of "
                f"which a second step moves outputs by {beyond:.2g}, of {whole:.2g} in all. Ask "
                "with order='refined'."
            )
        return measure_changes(objective, queries, measure, newton)[:, 0]
    deltas = group.refine(nearly)
    moved = (objective.jvp(queries, by).flatten(0, 1) for by in (nearly, deltas))
    if afresh is not None and unsettled(objective, damping, *moved).any():
        return afresh()
    return measure_changes(objective, queries, measure, deltas)[:, 0]


def effects_alone(
    objective: Objective,
    queries: Examples,
    measure: Measure,
    where: NDArray[np.intp],
    order: Order,
    inverse: Inverse,
) -> Tensor:
    """Return m_q without each example less m_q, each from an objective of its own.

    Args:
        objective: R at θ̂.
        queries: The q queries.
        measure: m.
        where: Positions, [k].
        order: "newton" or "refined".
        inverse: H⁻¹, from which the steps start.

    Returns:
        Changes, [q, k].
    """
    if objective.hinged and _walks(objective, where):
        fit = fit_hinge(objective)
        return measure_changes(fit.objective, queries, measure, fit.without(where))
    answered = _answered(objective, queries, measure, where, order)
    if answered is not None:
        return answered
    changes = [partial(without, where=np.array([at])) for at in where]
    return effects_of(objective, changes, queries, measure, order, inverse)


def _answered(
    objective: Objective,
    queries: Examples,
    measure: Measure,
    where: NDArray[np.intp],
    order: Order,
) -> Tensor | None:
    """Return the same of a minimum whose answers are had without its objective, or `None`."""
    statistics = objective.statistics
    if statistics is None or not follows_pieces(objective, order):
        return None
    own = statistics.answers(objective, objective.weights, queries)
    if own is None:
        return None
    before = measure(own, queries.targets)
    found = answers(objective, queries, np.split(where, len(where)))
    rest = progress(found, desc="removals", total=len(where))
    return torch.stack([measure(outputs, queries.targets) - before for outputs in rest], 1)


def answers(
    objective: Objective, queries: Examples, sets: Sequence[NDArray[np.intp]]
) -> Iterator[Tensor]:
    """Yield the outputs of queries at the minimum without each of several sets of examples.

    Args:
        objective: R at θ̂.
        queries: The q queries.
        sets: Positions of the removed examples, of each set.

    Yields:
        Outputs, [q, c]; a refit's where they are not had without its objective.
    """
    statistics = objective.statistics
    for gone in sets:
        weights = weights_without(objective.weights, gone)
        found = None if statistics is None else statistics.answers(objective, weights, queries)
        yield objective.refit(weights).outputs(queries) if found is None else found


def effects_of(
    objective: Objective,
    changes: Sequence[Change],
    queries: Examples,
    measure: Measure,
    order: Order,
    inverse: Inverse,
) -> Tensor:
    """Return m_q after each change of the training data less m_q.

    The preprocessing is fitted again on the changed data, and θ follows by Newton steps: one, or as
    many as it takes, with fresh gradients and curvature. Where the minimum moves from piece to
    piece, the refined order is the minimum itself.

    Args:
        objective: R at θ̂.
        changes: The k changes.
        queries: The q queries.
        measure: m.
        order: "newton" or "refined".
        inverse: H⁻¹, from which the steps start.

    Returns:
        Changes, [q, k].
    """
    base, changed = models_after(objective, changes, order, inverse)
    before = measure(base.outputs(queries), queries.targets)
    effects = before.new_empty(len(before), len(changes))
    for column, after in enumerate(progress(changed, desc="removals", total=len(changes))):
        effects[:, column] = measure(after.outputs(queries), queries.targets) - before
    return effects


def models_after(
    objective: Objective, changes: Sequence[Change], order: Order, inverse: Inverse
) -> tuple[Objective, Iterator[Objective]]:
    """Return the model that changes are measured from, and the model after each of them.

    Args:
        objective: R at θ̂.
        changes: The k changes.
        order: "newton" or "refined".
        inverse: H⁻¹, from which the steps start.

    Returns:
        The model after as many steps on the data as they are, and the k models, one by one.
    """
    exact, near = follows_pieces(objective, order), inverse.approximation

    def stepped(changed: Objective) -> Objective:
        own = columns_of(changed) or changed
        if changed.statistics is not None and changed.statistics.lacks_a_class:
            return own  # the fit itself: no step is left
        if exact:
            return changed.refit()
        fits = near.shape[0] == len(own.params)
        return newton_steps(own, _STEPS[order], near if fits else Identity(len(own.params)))

    base = stepped(objective)
    start = base if exact else objective
    return base, (stepped(change(start)) for change in changes)


def without(objective: Objective, where: NDArray[np.intp]) -> Objective:
    """Return R without some examples at θ̂, its statistics those of the rest.

    Args:
        objective: R at θ̂.
        where: Positions of the removed examples.

    Returns:
        The objective, θ not yet fitted.
    """
    weights = weights_without(objective.weights, where)
    if objective.statistics is None:
        return objective.reweighted(weights)
    changed: Objective = objective.statistics.changed(objective, weights)
    return changed


def _walks(objective: Objective, where: NDArray[np.intp]) -> bool:
    """Return whether removals from a true hinge move nothing but their own weight."""
    statistics = objective.statistics
    if statistics is None:
        return True
    return not statistics.reweights and bool(statistics.only_weights(where).all())
