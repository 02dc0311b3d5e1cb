"""Which examples are worth a refined prediction: the first order, and what it leaves out of a row.

The first order misses how a removed row had held its own prediction in place (its leverage), and of
a hinge on which side of the margin the other rows come to lie. Both are known without fitting the
preprocessing again: they are the difference between an evaluated and a linear prediction with the
preprocessing as it was fitted.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.curvature.changes import change_tiles, single_changes
from whence.fitting.hinge import fit_hinge
from whence.linalg.solver import Inverse
from whence.methods.prediction import measure_changes
from whence.objective.measures import Measure
from whence.objective.objective import Objective
from whence.objective.trained import Examples

_OPERATIONS = 2e10  # that screening may take: about two seconds of one core
_WALKS = 1_000  # rows of a hinge whose removals are walked
_LEAST = 200  # rows that are worth screening at all


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
    c = objective.outputs(queries.subset(np.arange(1))).shape[1]
    parts = []
    for tile in change_tiles(objective, len(where), c):
        removed = objective.train.subset(where[tile])
        change = single_changes(objective, inverse, removed, -objective.weights[where[tile]])
        linear = objective.gradient_dot(queries, measure, change.first())
        if objective.hinged:
            parts.append(-linear)
        else:
            parts.append(measure_changes(objective, queries, measure, change.newton()) - linear)
    beyond = torch.cat(parts, 1)
    if objective.hinged:
        fit = fit_hinge(objective)
        beyond += measure_changes(fit.objective, queries, measure, fit.without(where))
    return beyond
