"""Leaf values under monotone constraints: Newton steps, clipped to bounds that other nodes give."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from whence.arrays import Floats
from whence.trees.leaves import Integers, LeafRule, NewtonLeaves, Round, sums
from whence.trees.losses import Slopes


@dataclass(frozen=True, eq=False)
class Nodes:
    """The nodes of a tree, where splits on constrained features bound the values below them.

    Args:
        children: The left and the right child of each node, after it, [m, 2]; −1 for leaves.
        signs: 1 where values must not fall from the left child to the right one, −1 where they
            must not rise, else 0, [m].
        leaves: The compact number of each leaf, [m]; of other nodes `size − 1`, that of no leaf.
        l2: λ of each node, [m].
        size: The number of leaves that room is kept for.
    """

    children: Integers
    signs: Integers
    leaves: Integers
    l2: Floats
    size: int

    @staticmethod
    def of(
        children: Integers, signs: Integers, leaves: Integers, l2: Floats | float, size: int
    ) -> Nodes:
        """Return the nodes that are reached from the first, whatever their order."""
        order = [0]
        for node in order:
            order += [child for child in children[node].tolist() if child > 0]
        at = np.full(len(children) + 1, -1)
        at[order] = np.arange(len(order))
        below = at[np.where(children[order] > 0, children[order], -1)]
        whole = np.broadcast_to(np.asarray(l2, dtype=np.float64), len(children))
        return Nodes(below, signs[order], leaves[order], whole[order], size)

    @cached_property
    def members(self) -> Floats:
        """1 where a leaf lies at or below a node, [m, size]."""
        found = np.zeros((len(self.children), self.size))
        found[np.arange(len(found)), self.leaves] = 1
        found[:, -1] = 0
        for node in range(len(found) - 1, -1, -1):
            if self.children[node, 0] >= 0:
                found[node] = found[self.children[node]].sum(0)
        return found

    def clipped(self, steps: Floats) -> Floats:
        """Return C, with which C @ steps are the clipped steps, [m, m].

        A child is clipped to the bounds of its parent. Under a split on a constrained feature the
        mean of the two clipped values is a bound of what lies below them.

        Args:
            steps: The Newton step of each node, [m].
        """
        m = len(steps)
        values, parts = steps.copy(), np.eye(m)
        lower, upper = np.full(m, -np.inf), np.full(m, np.inf)
        of_lower, of_upper = np.zeros((m, m)), np.zeros((m, m))
        for node, (both, sign) in enumerate(zip(self.children, self.signs, strict=True)):
            if both[0] < 0:
                continue
            for bound, of_bound in ((lower, of_lower), (upper, of_upper)):
                bound[both], of_bound[both] = bound[node], of_bound[node]
            for child in both:
                if values[child] < lower[child]:
                    values[child], parts[child] = lower[child], of_lower[child]
                elif values[child] > upper[child]:
                    values[child], parts[child] = upper[child], of_upper[child]
            if sign:
                less, more = both if sign > 0 else both[::-1]
                upper[less] = lower[more] = values[both].mean()
                of_upper[less] = of_lower[more] = parts[both].mean(0)
        return parts


@dataclass(frozen=True, eq=False)
class MonotoneLeaves(LeafRule):
    """Leaf values clip(−η S(G)/(H + λ), lower, upper), the bounds means of values of two nodes.

    A clipped leaf follows the rows of the nodes that bound it: v = C u for the Newton steps u of
    all nodes of a tree, with C piecewise constant.

    Args:
        newton: The rule of the Newton steps, one per round.
        nodes: The nodes of each tree, [t][c].
        size: The number of leaves that room is kept for.
    """

    newton: NewtonLeaves
    nodes: tuple[tuple[Nodes, ...], ...]
    size: int

    def values(
        self, t: int, leaf: Integers, outputs: Floats, targets: Floats, weights: Floats
    ) -> Floats:
        """Return the clipped Newton steps, times η."""
        at = self.newton.loss.slopes(outputs, targets)
        found = np.zeros((len(leaf), self.size))
        for k, (nodes, clipped, step, _) in enumerate(self._trees(t, leaf, at, weights)):
            found[k, nodes.leaves] = clipped @ step
        found[:, -1] = 0
        return np.asarray(self.newton.rates[t] * found)

    def round(
        self, t: int, leaf: Integers, outputs: Floats, targets: Floats, weights: Floats
    ) -> Round:
        """Return round t: a row moves G and H of every node above it, and these move the leaves."""
        at, c, rate = self.newton.loss.slopes(outputs, targets), len(leaf), self.newton.rates[t]
        mixing = np.zeros((2 * c, self.size, self.size))
        for k, (nodes, clipped, step, inverse) in enumerate(self._trees(t, leaf, at, weights)):
            by_leaf = np.zeros((len(step), self.size))
            by_leaf[:, nodes.leaves] = -rate * clipped.T * inverse[:, None]
            by_leaf[:, -1] = 0
            mixing[k] = nodes.members.T @ by_leaf
            mixing[c + k] = nodes.members.T @ (step[:, None] * by_leaf)
        by_output = np.concatenate([at.dg, at.dh], axis=1)
        return Round(
            leaf,
            np.concatenate([at.g, at.h], axis=1),
            np.tile(weights, 2 * c // weights.shape[1])[:, :, None] * by_output,
            mixing,
        )

    def _trees(
        self, t: int, leaf: Integers, at: Slopes, weights: Floats
    ) -> Iterator[tuple[Nodes, Floats, Floats, Floats]]:
        """Yield of each tree its nodes, C, the Newton steps, and 1/(H + λ) where they are free."""
        slopes = sums(weights * at.g, leaf, self.size)
        curvatures = sums(weights * at.h, leaf, self.size)
        least = self.newton.min_curvature
        for k, nodes in enumerate(self.nodes[t]):
            total, curvature = nodes.members @ slopes[k], nodes.members @ curvatures[k]
            smallest = 0.0 if least is None else least[t, k]
            step, inverse = self.newton.step(total, curvature, nodes.l2, smallest)
            yield nodes, nodes.clipped(step), step, inverse
