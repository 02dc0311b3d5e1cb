"""What the first order leaves out: which examples are worth a refined prediction, and its error.

The first order misses how a removed row had held its own prediction in place (its leverage), and of
a hinge on which side of the margin the other rows come to lie. Both are known without fitting the
preprocessing again: they are the difference between an evaluated and a linear prediction with the
preprocessing as it was fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import singledispatch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.curvature.changes import change_tiles, single_changes
from whence.fitting.hinge import fit_hinge
from whence.linalg.solver import Inverse
from whence.linear.objective import LinearObjective
from whence.methods.prediction import measure_changes
from whence.objective.cache import cached
from whence.objective.measures import Measure
from whence.objective.objective import Objective
from whence.objective.trained import Examples
from whence.progress import progress

_OPERATIONS = 2e10  # that screening may take: about two seconds of one core
_WALKS = 1_000  # rows of a hinge whose removals are walked
_LEAST = 200  # rows that are worth screening at all
_COMPARED, _COMPARED_QUERIES = 4, 8  # effects that are refined to tell the error of all sizes
_EXTREME = 2  # rows far from the others that are refined too: they define scales, knots and bins
_NUMBERS = 2e6  # n · p up to which refining six removals takes a second,
REFITTED = 20_000  # and rows up to which fitting the preprocessing again for each of them does
_HELD = 2**24  # numbers of steps that are held: 128 MB
_TINY = 1e-9  # of the measure's own scale: effects that rounding makes


def affordable(objective: Objective, inverse: Inverse) -> int:
    """Return for how many examples the nonlinear part of a removal is computed in about a second.

    Args:
        objective: R at θ̂.
        inverse: H⁻¹.

    Returns:
        A number of examples; 0 for too few to be worth while.
    """
    outputs = objective.outputs(objective.train.subset(np.arange(1)))
    if not objective.convex or outputs.ndim != 2:
        return 0
    per_example = outputs.shape[1] * max(1, inverse.shape[0]) ** 2
    most = int(_OPERATIONS / per_example)
    if objective.hinged:
        most = min(most, _WALKS)
    return most if most >= min(_LEAST, len(objective.train)) else 0


def beyond_first_order(
    objective: Objective,
    inverse: Inverse,
    queries: Examples,
    measure: Measure,
    where: NDArray[np.intp],
) -> Tensor:
    """Return evaluated less linear changes of the measure, the preprocessing held, [q, k].

    Args:
        objective: R at θ̂, convex.
        inverse: H⁻¹.
        queries: The q queries.
        measure: m.
        where: Positions of the removed examples, [k].

    Cost:
        k c solves; of a true hinge a walk per support vector.
    """
    parts = []
    for first, newton in _steps(objective, inverse, where):
        linear = objective.gradient_dot(queries, measure, first)
        if objective.hinged:
            parts.append(-linear)
        else:
            parts.append(measure_changes(objective, queries, measure, newton) - linear)
    beyond = torch.cat(parts, 1)
    if objective.hinged:
        fit = fit_hinge(objective)
        beyond += measure_changes(fit.objective, queries, measure, fit.without(where))
    return beyond


def _steps(
    objective: Objective, inverse: Inverse, where: NDArray[np.intp]
) -> Iterable[tuple[Tensor, Tensor]]:
    """Return first-order and Newton changes of θ of removals, [p, m] each, some at a time.

    Those of all rows are the same for every query, and held for the next ones where they are small.
    """
    if len(where) < len(objective.train) or 2 * len(where) * len(objective.params) > _HELD:
        return _made(objective, inverse, where)
    return cached(objective, _steps, lambda twin: list(_made(twin, inverse, where)))


def _made(
    objective: Objective, inverse: Inverse, where: NDArray[np.intp]
) -> Iterator[tuple[Tensor, Tensor]]:
    c = objective.outputs(objective.train.subset(np.arange(1))).shape[1]
    for tile in progress(list(change_tiles(objective, len(where), c)), desc="screening"):
        removed = objective.train.subset(where[tile])
        change = single_changes(objective, inverse, removed, -objective.weights[where[tile]])
        first = change.first()
        yield first, first if objective.hinged else change.newton()


def size_error(
    objective: Objective,
    queries: Examples,
    values: Tensor,
    refined: Callable[[Examples, NDArray[np.intp]], Tensor],
    where: NDArray[np.intp],
) -> float | None:
    """Return how far the largest first-order effects are from refined ones, or `None`.

    Args:
        objective: R at θ̂.
        queries: The q queries.
        values: First-order effects, [q, k].
        refined: The refined effects on some queries of the removal of some training examples.
        where: Positions of the k candidates.

    Returns:
        The norm of the difference beside that of the refined effects on up to eight queries, of the
        four candidates with the largest effects and the two furthest from the other rows. `None`
        where refining them takes more than a second, or effects are no larger than rounding.

    Cost:
        Six refined removals.
    """
    if not (objective.convex and objective.linear) or not values.numel():
        return None
    n = len(objective.train)
    if n > REFITTED or n * len(objective.params) > _NUMBERS:
        return None
    rows = np.unique(np.linspace(0, len(queries) - 1, _COMPARED_QUERIES).round().astype(np.intp))
    some = values[torch.from_numpy(rows)]
    strength, far = some.abs().amax(0), _distances(objective, where)
    compared = np.union1d(
        strength.topk(min(_COMPARED, len(where))).indices.numpy(),
        far.topk(min(_EXTREME, len(where))).indices.numpy(),
    )
    exact = refined(queries.subset(rows), where[compared])
    size = float(exact.norm())
    return float((some[:, compared] - exact).norm()) / size if size > _TINY else None


@singledispatch
def _distances(objective: Objective, where: NDArray[np.intp]) -> Tensor:
    """Return how far rows are from the mean of all, in standard deviations squared, [k]."""
    return torch.zeros(len(where))


@_distances.register
def _(objective: LinearObjective, where: NDArray[np.intp]) -> Tensor:
    if objective.train.features.sparse:  # stays so; counts and one-hot columns have no far rows
        return torch.zeros(len(where))
    rows = objective.train.features.dense()
    spread, mean = torch.std_mean(rows, dim=0)
    return ((rows[where] - mean) / spread.clamp_min(_TINY)).square().sum(1)
