"""Boosted trees of any library in one form: leaves, and the rules that gave them their values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whence.objective.losses import Loss
from whence.trees.leaves import Integers, NewtonLeaves, Round
from whence.trees.starts import Start

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LeafTable:
    """Compact numbers for the leaves that training rows reach, per tree.

    Args:
        numbers: The compact number of each of a library's leaf ids, [t, c, ids]; `size − 1`, the
            number of no leaf, where no training row has the id.
        size: One more than the largest number of leaves of a tree.
    """

    numbers: Integers
    size: int

    @staticmethod
    def of(ids: Integers) -> LeafTable:
        """Return the table of the leaf ids of the training rows, [t, c, n]."""
        present = np.zeros((*ids.shape[:2], int(ids.max(initial=0)) + 2), dtype=bool)
        np.put_along_axis(present, ids.astype(np.intp), True, axis=2)
        size = int(present.sum(axis=2).max(initial=0)) + 1
        numbers = np.where(present, np.cumsum(present, axis=2) - 1, size - 1)
        return LeafTable(numbers.astype(np.min_scalar_type(size)), size)

    def compact(self, ids: Integers) -> Integers:
        """Return the compact numbers of leaf ids [t, c, b], in the same shape."""
        last = self.numbers.shape[2] - 1
        return np.take_along_axis(self.numbers, np.minimum(ids, last).astype(np.intp), axis=2)


@dataclass(frozen=True, eq=False)
class Replay:
    """What the fixed trees give under some weights of the rows.

    Args:
        start: F₀, [c].
        values: The leaf values, [t, c, size].
        outputs: The outputs of the training rows after the last round, [n, c].
    """

    start: Floats
    values: Floats
    outputs: Floats

    def predict(self, leaves: Integers) -> Floats:
        """Return the outputs of rows that lie in the leaves [t, c, b], shape [b, c]."""
        total = np.tile(self.start, (leaves.shape[2], 1))
        for values, leaf in zip(self.values, leaves, strict=True):
            for k in range(len(leaf)):
                total[:, k] += values[k][leaf[k]]
        return total


@dataclass(frozen=True, eq=False)
class BoostedTrees:
    """Boosted trees with a fixed structure, as a function of the weights of their rows.

    F₀ = start(y, w) and F_t(x) = F_{t−1}(x) + v_t[leaf_t(x)] for t = 1 … T, where the values v_t
    of round t are computed from F_{t−1} of the training rows, all outputs at once.

    Args:
        leaves: The leaf of each training row per round and output, [t, c, n], of `table`.
        targets: y, [n]: 0/1, class indices or numbers.
        weights: wᵢ >= 0, [n]: sample weights times class weights; 0 for rows that were held out.
        rule: How leaf values are computed.
        start: How F₀ is computed.
        objective: The loss as whence measures it.
        table: Numbers the leaves.
        route: Returns the library's leaf ids of new rows, [t, c, b].
        predict: Returns the library's raw predictions of rows, [b, c].
        emphasis: Factors of the weights that the rounds see and the start does not, [n], or `None`.
        bags: Whether each round saw each row, [t, n], or `None` where each saw all.
    """

    leaves: Integers
    targets: Floats
    weights: Floats
    rule: NewtonLeaves
    start: Start
    objective: Loss
    table: LeafTable
    route: Callable[[Any], Integers]
    predict: Callable[[Any], Floats]
    emphasis: Floats | None = None
    bags: NDArray[np.bool_] | None = None

    @property
    def outputs(self) -> int:
        """The number of outputs c."""
        return self.leaves.shape[1]

    @cached_property
    def replay(self) -> Replay:
        """The start, the leaf values and the outputs, recomputed from the first round to the last.

        Cost:
            O(n T c).
        """
        start = self.start.value(self.targets, self.weights)
        outputs = np.tile(start, (len(self.targets), 1))
        values = np.zeros((*self.leaves.shape[:2], self.rule.size))
        for t, leaf in enumerate(self.leaves):
            values[t] = self.rule.values(t, leaf, outputs, self.targets, self._seen(t))
            for k in range(len(leaf)):
                outputs[:, k] += values[t, k][leaf[k]]
        return Replay(start, values, outputs)

    def backward(self) -> Iterator[Round]:
        """Yield the rounds with their derivatives, from the last to the first, then the start.

        The start is a round whose rows all lie in leaf 0 and whose value no output moves.
        """
        n, c = len(self.targets), self.outputs
        outputs = self.replay.outputs.copy()
        for t in range(len(self.leaves) - 1, -1, -1):
            leaf = self.leaves[t]
            for k in range(c):
                outputs[:, k] -= self.replay.values[t, k][leaf[k]]
            moved = self.rule.round(t, leaf, outputs, self.targets, self._seen(t))
            factors = self._factors(t)
            yield moved if factors is None else replace(
                moved, by_weight=moved.by_weight * factors[:, None]
            )
        change = self.start.gradient(self.targets, self.weights)
        yield Round(np.zeros((c, n), dtype=np.uint8), change, np.zeros((n, c, c)))

    def leaves_of(self, rows: Any) -> Integers:
        """Return the leaves of new rows, [t, c, b]."""
        return self.table.compact(self.route(rows))

    def reweighted(self, weights: Floats) -> BoostedTrees:
        """Return the same trees under other weights of the rows, [n]: a refit of the leaves only."""
        return replace(self, weights=weights)

    def on(self, leaves: Integers, targets: Floats, weights: Floats) -> BoostedTrees:
        """Return the same trees with other rows, which every round sees.

        Args:
            leaves: Their leaves, [t, c, m].
            targets: Their targets, [m].
            weights: Their weights, [m]; a row of weight 0 still gets a derivative.
        """
        return replace(
            self, leaves=leaves, targets=targets, weights=weights, emphasis=None, bags=None
        )

    def _factors(self, t: int) -> Floats | None:
        """Return what the weights are multiplied with in round t, [n]; `None` for nothing."""
        if self.bags is None:
            return self.emphasis
        bag = self.bags[t].astype(np.float64)
        return bag if self.emphasis is None else bag * self.emphasis

    def _seen(self, t: int) -> Floats:
        """Return the weights of the rows in round t, [n]."""
        factors = self._factors(t)
        return self.weights if factors is None else self.weights * factors
