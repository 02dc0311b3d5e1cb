"""Trees with a training row replaced or relabeled, their splits held fixed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from whence.errors import InvalidInput
from whence.methods.subsets import Positions, blocks
from whence.objective.measures import Measure
from whence.objective.trained import Examples
from whence.trees.adjoint import adjoint
from whence.trees.form import BoostedTrees
from whence.trees.model import BoostedModel, ForestModel


def boosted_edit(
    model: BoostedModel,
    ensemble: Sequence[BoostedTrees],
    queries: Examples,
    measure: Measure,
    index: int,
    new: Examples,
) -> Tensor:
    """Return the mean change of each query's measure if a row is replaced, [q].

    All leaf values are recomputed with the new row in the place of the old one: exact for the
    fixed splits.

    Args:
        model: The model.
        ensemble: The trees to average over, with the n training rows.
        queries: The q queries.
        measure: m.
        index: Position of the row.
        new: The row that comes, one.
    """
    target = float(new.targets[0])
    weight = _weight_as(model, np.array([index]), new.targets.numpy())[0]
    changes = []
    for trees in ensemble:
        leaves = trees.leaves_of(queries.inputs)
        changed = trees.replaced(index, trees.leaves_of(new.inputs)[:, :, 0], target, weight)
        after, before = (
            measure(torch.from_numpy(each.replay.predict(leaves)), queries.targets)
            for each in (changed, trees)
        )
        changes.append(after - before)
    return torch.stack(changes).mean(0)


def boosted_relabeling(
    model: BoostedModel,
    ensemble: Sequence[BoostedTrees],
    queries: Examples,
    measure: Measure,
    where: Positions,
    targets: Tensor,
) -> Tensor:
    """Return the mean change of the queries' mean measure if rows get other labels, alone, [k].

    w′ dm̄/dw′ − wᵢ dm̄/dwᵢ, with a row of weight 0 and the other label beside each.

    Args:
        model: The model.
        ensemble: The trees to average over, with the n training rows.
        queries: The queries.
        measure: m.
        where: Positions of the k rows.
        targets: The other labels, encoded, [k].
    """
    n, k = len(model.train), len(where)
    others = targets.double().numpy()
    total = torch.zeros(k, dtype=torch.float64)
    rows = np.concatenate([where, n + np.arange(k)])
    for trees in ensemble:
        beside = trees.beside(where, others)
        weights = np.concatenate([-trees.weights[where], _weight_as(model, where, others)])
        for part in blocks(np.arange(len(queries))):
            some = queries.subset(part)
            leaves = trees.leaves_of(some.inputs)
            outputs = torch.from_numpy(trees.replay.predict(leaves))
            gradients = measure.gradient(outputs, some.targets).numpy()
            found = (weights * adjoint(beside, leaves, gradients, rows=rows)).sum(axis=0)
            total += torch.from_numpy(found[:k] + found[k:])
    return total / (len(ensemble) * len(queries))


def forest_edit(
    model: ForestModel, queries: Examples, measure: Measure, index: int, new: Examples
) -> Tensor:
    """Return the change of each query's measure if a row of a forest is replaced, [q].

    The new row takes the place of the old one in every bag, and falls into leaves of its own.

    Args:
        model: The forest.
        queries: The q queries.
        measure: m.
        index: Position of the row.
        new: The row that comes, one.
    """
    forest = model.forest
    leaves = forest.leaves_of(queries.inputs)
    changed = forest.replaced(index, forest.leaves_of(new.inputs)[:, 0], float(new.targets[0]))
    after, before = (
        measure(model.scores(torch.from_numpy(each.outputs(leaves))), queries.targets)
        for each in (changed, forest)
    )
    return after - before


def forest_relabeling(
    model: ForestModel, queries: Examples, measure: Measure, where: Positions, targets: Tensor
) -> Tensor:
    """Return the change of the queries' mean measure if rows get other labels, each alone, [k].

    f + wᵢ(x) (y′ − yᵢ) in the place of f.

    Args:
        model: The forest.
        queries: The queries.
        measure: m.
        where: Positions of the k rows.
        targets: The other labels, encoded, [k].
    """
    forest = model.forest
    moved = torch.from_numpy(forest.encoded(targets.double().numpy()) - forest.targets[where])
    total = torch.zeros(len(where), dtype=torch.float64)
    for part in blocks(np.arange(len(queries)), 32):
        some = queries.subset(part)
        leaves = forest.leaves_of(some.inputs)
        shares = torch.from_numpy(forest.outputs(leaves))
        weights = torch.from_numpy(forest.weights(leaves)[:, where]).unsqueeze(2)
        after = (shares.unsqueeze(1) + weights * moved).flatten(0, 1)
        asked = some.targets.repeat_interleave(len(where), 0)
        changed = measure(model.scores(after), asked).reshape(len(part), -1)
        before = measure(model.scores(shares), some.targets)
        total += (changed - before.unsqueeze(1)).sum(0)
    return total / len(queries)


def _weight_as(model: BoostedModel, where: Positions, targets: np.ndarray) -> np.ndarray:
    """Return the weights that rows have under other labels: class weights follow the class."""
    given, used = model.weights.numpy(), model.trees.weights
    if np.array_equal(given, used):
        return used[where]
    known, weights = model.trees.targets, np.empty(len(where))
    for at, (row, target) in enumerate(zip(where, targets, strict=True)):
        like = np.flatnonzero((known == float(target)) & (given > 0))[:1]
        if not len(like):
            label = model.classes[int(target)] if model.classes else target
            raise InvalidInput(
                f"Expected a label that has a training row with weight. Got {label!r}, whose "
                "class weight is not known."
            )
        weights[at] = given[row] * (used[like] / given[like]).item()
    return weights
