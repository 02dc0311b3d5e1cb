"""Intercepts of true hinges that no row on the margin holds, and that no derivative follows.

A penalty holds every coefficient, and the rows on the margin hold an intercept without one. Where
there are none, as of a small C and classes of one size, or of a fit that stopped early, the
intercept is anywhere in an interval or far from its minimum. Its curvature is 0 or, of the smoothed
hinge, rounding.
"""

from __future__ import annotations

from dataclasses import replace
from functools import singledispatch

import torch
from torch import Tensor

from whence.linear.objective import LinearObjective
from whence.objective.cache import cached
from whence.objective.objective import Objective

_LEAST = 1e-4  # of the curvature of one row on the margin: there is none within ten temperatures


@singledispatch
def with_held_intercepts(objective: Objective) -> Objective:
    """Return R with curvature along intercepts that no row on the margin holds.

    Args:
        objective: R at θ̂.

    Returns:
        R with a penalty on these intercepts, as if every row lay on the margin: a removal moves
        them to first order by a few temperatures at most. Itself where there are none.
    """
    return objective


@with_held_intercepts.register
def held(objective: LinearObjective) -> LinearObjective:
    """Return a linear R with curvature along intercepts that no row on the margin holds."""
    return cached(objective, held, _held)


def _held(objective: LinearObjective) -> LinearObjective:
    """Return the objective with its loose intercepts held."""
    train, c, constant = objective.train, objective.c, objective.constant
    found = objective.trained_loss.hinges(train.targets, c)
    if found is None or constant is None:
        return objective
    weights = (objective.weights / len(train)).unsqueeze(1)
    corners = found.corners[:, : len(train)].T.to(objective.params)
    there = weights * _curvatures(objective, objective.outputs(train))
    most = weights * _curvatures(objective, corners)
    loose = (there.sum(0) < _LEAST * most.amax(0)) & (objective.l2[-c:] == 0)
    if not loose.any():
        return objective
    l2 = objective.l2.clone()
    l2[-c:] += loose * constant**2 * most.sum(0)
    return replace(objective, l2=l2)


def _curvatures(objective: LinearObjective, outputs: Tensor) -> Tensor:
    """Return ∂²ℓ/∂f² of each output alone at some outputs, [n, c]."""
    ones = torch.ones_like(outputs).unsqueeze(2)
    return objective.loss.hvp(outputs, objective.train.targets, ones).squeeze(2)
