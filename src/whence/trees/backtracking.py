"""Which of its Newton steps CatBoost took in each round, read off its leaf values.

CatBoost computes the value of a leaf in several steps. One that does not lower the loss of all rows
is undone, halved and tried again, and each try counts as a step. Close to the optimum, rounding
decides whether a step lowers the loss: a model's own leaf values tell what was decided.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from whence.arrays import Floats
from whence.trees.form import BoostedTrees
from whence.trees.leaves import NewtonLeaves

_EQUAL = 1e-9  # of the largest leaf value of a round


def with_steps_taken(trees: BoostedTrees, rule: NewtonLeaves, values: Floats) -> BoostedTrees:
    """Return trees of several Newton steps per round with the factors that their fit gave them.

    Args:
        trees: The trees.
        rule: Theirs, with each step taken whole.
        values: The library's leaf values, [t, size].

    Returns:
        The trees; rounds whose values no choice of steps gives have the choice that comes closest.

    Cost:
        O(n) per round and step where whole steps give the values; where they do not, as much for
        each run of tries that may have been undone, 55 of ten steps.
    """
    factors = np.ones((len(trees.leaves), rule.steps, 1))
    outputs = np.repeat(trees.replay.start, len(trees.targets), axis=0)
    for t, theirs in enumerate(values):
        tolerance, best = _EQUAL * np.abs(theirs).max(), np.inf
        for some in _candidates(rule.steps):
            tried = factors.copy()
            tried[t, :, 0] = some
            found = _values(trees, replace(rule, factors=tried), t, outputs)
            difference = np.abs(found - theirs).max()
            if difference < best:
                best, factors = difference, tried
            if difference <= tolerance:
                break
        outputs[:, 0] += theirs[trees.leaves[t, 0]]
    return replace(trees, rule=replace(rule, factors=factors))


def _values(trees: BoostedTrees, rule: NewtonLeaves, t: int, outputs: Floats) -> Floats:
    """Return the leaf values of a round, [size]."""
    weights = trees.weights[:, None]
    return np.asarray(rule.values(t, trees.leaves[t], outputs, trees.targets, weights)[0])


def _candidates(steps: int) -> Iterator[Floats]:
    """Yield the factors of the steps of a round, [steps]: all whole, then some tries undone.

    After k tries undone in a row, the next is of size 2⁻ᵏ, and those after it are whole again.
    """
    yield np.ones(steps)
    for first in range(steps - 1, -1, -1):
        for end in range(steps, first, -1):
            factors = np.ones(steps)
            factors[first:end] = 0
            factors[end : end + 1] = 0.5 ** (end - first)
            yield factors
