"""A measure of a whole set of queries, through what a method says of each query's outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from whence.methods.subsets import Positions, blocks
from whence.objective.loss import Loss, measure_of
from whence.objective.measures import Measure, OutputFunction
from whence.objective.sets.measure import Along, SetMeasure
from whence.objective.sets.measures import set_measure_of
from whence.objective.trained import Examples, Trained

_OUTPUTS = 2**26  # predicted outputs that are held at once, where a measure is evaluated at them

_T = TypeVar("_T")

MeasureLike = str | Measure | OutputFunction | SetMeasure  # what users pass as `measure=`

# What a method or a change of the data does to each query's measure, [q, k], with what it measured.
Effects = Callable[[Examples, Measure], tuple[Tensor, _T]]


def asked_of_set(trained: Trained, queries: Examples, measure: object) -> SetMeasure | None:
    """Return the measure of a set that a user asks for, or `None` where it is of each query.

    Args:
        trained: The model.
        queries: The queries.
        measure: As users pass it.
    """
    found = set_measure_of(measure, lambda: (trained.outputs(queries), queries.targets))
    if found is not None:
        found.check_queries(queries.ids)
    return found


def through_derivative(
    outputs: Tensor, queries: Examples, measure: SetMeasure, loss: Loss, effects: Effects[_T]
) -> tuple[Tensor, _T]:
    """Return the change of a smooth measure, to first order: Σ_q ⟨∂M/∂f_q, δf_q⟩.

    Args:
        outputs: f of the queries, [q, c].
        queries: The q queries.
        measure: M.
        loss: The loss of the model.
        effects: The changes of linear measures of each query, [q, k] or summed, [1, k].

    Returns:
        Changes, [1, k], and what came with the effects.
    """
    slopes = measure.gradient(outputs, queries.targets, loss)
    values, found = effects(queries.relabeled(slopes), Along())
    return values.sum(0, keepdim=True), found


def through_outputs(
    outputs: Tensor, queries: Examples, measure: SetMeasure, loss: Loss, effects: Effects[_T]
) -> tuple[Tensor, _T]:
    """Return the change of a measure, evaluated at the predicted outputs.

    Args:
        outputs: f of the queries, [q, c].
        queries: The q queries.
        measure: M.
        loss: The loss of the model.
        effects: The changes of linear measures of each query, [q c, k].

    Returns:
        Changes, [1, k], and what came with the effects.
    """
    each, directions = one_by_one(outputs, queries)
    changes, found = effects(each.relabeled(directions), Along())
    by = changes.reshape(*outputs.shape, -1).to(outputs)
    return measure.changes(outputs, by, queries.targets, loss).unsqueeze(0), found


def summed(
    mean_effects: Callable[[Examples, Measure, Positions], tuple[Tensor, _T]],
    queries: Examples,
    measure: Measure,
    where: Positions,
) -> tuple[Tensor, _T]:
    """Return the changes of the sum of the queries' measures, [1, k], from those of their mean.

    Args:
        mean_effects: The changes of the mean of linear measures, [k].
        queries: The queries.
        measure: m.
        where: Positions of the k candidates.
    """
    values, found = mean_effects(queries, measure, where)
    return (len(queries) * values).unsqueeze(0), found


def in_blocks(
    outputs: Tensor,
    queries: Examples,
    measure: SetMeasure,
    loss: Loss,
    effects: Callable[[Examples, Measure, Positions], tuple[Tensor, _T]],
    where: Positions,
) -> tuple[Tensor, _T]:
    """Return `through_outputs` of candidates, as many at a time as their outputs allow.

    Args:
        outputs: f of the queries, [q, c].
        queries: The q queries.
        measure: M.
        loss: The loss of the model.
        effects: The changes of linear measures of each query, [q c, k].
        where: Positions of the k candidates.

    Returns:
        Changes, [1, k], and what came with the last effects.
    """
    parts = []
    for part in blocks(where, max(1, _OUTPUTS // outputs.numel())):

        def some(asked: Examples, m: Measure, part: Positions = part) -> tuple[Tensor, _T]:
            return effects(asked, m, part)

        values, found = through_outputs(outputs, queries, measure, loss, some)
        parts.append(values)
    return torch.cat(parts, 1), found


def one_by_one(outputs: Tensor, queries: Examples) -> tuple[Examples, Tensor]:
    """Return each query once per output, and the unit vectors that name the outputs.

    Args:
        outputs: f, [q, c], or [q, t, c] for sequences.
        queries: The q queries.

    Returns:
        The queries, [q c], and directions [q c, c].
    """
    q, count = len(outputs), outputs[0].numel()
    eye = torch.eye(count, dtype=outputs.dtype, device=outputs.device)
    directions = eye.reshape(count, *outputs.shape[1:]).repeat(q, *[1] * (outputs.ndim - 1))
    if count == 1:
        return queries, directions
    return queries.subset(np.repeat(np.arange(q), count)), directions


def change_of(
    trained: Trained,
    queries: Examples,
    measure: MeasureLike,
    loss: Loss,
    effects: Callable[[Examples, Measure], Tensor],
    *,
    linear: bool,
) -> Tensor:
    """Return what one change of the training data does to the measure of each query, or of all.

    Args:
        trained: The model.
        queries: The q queries.
        measure: As users pass it.
        loss: The loss that named measures are made of.
        effects: What the change does to each query's measure, [q].
        linear: Whether the effects are linear in the derivative of the measure.

    Returns:
        Changes, [q]; [1] for a measure of all queries.
    """
    of_set = asked_of_set(trained, queries, measure)
    check_asked(trained, queries, measure, of_set)
    if of_set is None:
        return effects(queries, measure_of(loss, measure))
    way = through_derivative if linear and of_set.smooth else through_outputs
    values, _ = way(
        trained.outputs(queries),
        queries,
        of_set,
        loss,
        lambda some, m: (effects(some, m).unsqueeze(1), None),
    )
    return values[0]


def values_of(trained: Trained, queries: Examples, measure: MeasureLike, loss: Loss) -> Tensor:
    """Return the measure of each query, [q], or of all of them, [1], under a model.

    Args:
        trained: The model.
        queries: The q queries.
        measure: As users pass it.
        loss: The loss that named measures are made of.
    """
    outputs = trained.outputs(queries)
    of_set = asked_of_set(trained, queries, measure)
    if of_set is None:
        return measure_of(loss, measure)(outputs, queries.targets)
    return of_set.finite(outputs, queries.targets, loss).reshape(1)


def check_asked(
    trained: Trained, queries: Examples, measure: object, of_set: SetMeasure | None = None
) -> None:
    """Raise `InvalidInput` unless targets fit the loss, where a measure is made of it.

    One row of outputs tells. A function of the user's may take targets of any kind.

    Args:
        trained: The model.
        queries: The queries.
        measure: As users pass it.
        of_set: The measure of a set that it is, or `None`.
    """
    if of_set is None and not isinstance(measure, str):
        return
    one = trained.outputs(queries.subset(np.arange(1)))
    trained.loss.check_targets(one.expand(len(queries), *one.shape[1:]), queries.targets)
