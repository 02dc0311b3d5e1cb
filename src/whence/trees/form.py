"""Boosted trees of any library in one form: leaves, and the rules that gave them their values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_sample_weight

from whence.arrays import Floats
from whence.checked import said
from whence.errors import UnsupportedModel
from whence.objective.losses import Loss
from whence.trees.leaves import Integers, LeafRule, Round
from whence.trees.starts import Start


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

    def leaves(self) -> NDArray[np.intp]:
        """Return the number of leaves of each tree that training rows reach, [t, c]."""
        return np.asarray((self.numbers < self.size - 1).sum(axis=2))

    def compact(self, ids: Integers) -> Integers:
        """Return the compact numbers of leaf ids [t, c, b], in the same shape, in C order.

        Libraries give the leaves row by row; every use walks them round by round.
        """
        out = np.empty(ids.shape, dtype=self.numbers.dtype)
        for tree in np.ndindex(*ids.shape[:2]):
            out[tree] = self.compact_in(tree, ids[tree])
        return out

    def compact_in(self, tree: tuple[int, ...], ids: Integers) -> Integers:
        """Return the compact numbers of leaf ids [b] of tree (t, k); −1 is no leaf."""
        return np.asarray(self.numbers[tree][np.minimum(ids, self.numbers.shape[2] - 1)])


@dataclass(frozen=True, eq=False)
class Replay:
    """What the fixed trees give under some weights of the rows.

    Args:
        start: F₀, [1, c]; of models side by side each one's, [b, c].
        values: The leaf values, [t, c, size].
        outputs: The outputs of the training rows after the last round, [n, c].
    """

    start: Floats
    values: Floats
    outputs: Floats

    def predict(self, leaves: Integers) -> Floats:
        """Return the outputs of rows that lie in the leaves [t, c, b], shape [b, c]."""
        total = np.repeat(self.start, leaves.shape[2] // len(self.start), axis=0)
        for t in range(len(leaves)):
            total += self.added(t, leaves)
        return total

    def added(self, t: int, leaves: Integers) -> Floats:
        """Return what round t adds to the outputs of rows in the leaves [t, c, b], [b, c]."""
        leaf = leaves[t]
        return np.stack([self.values[t, k][leaf[k]] for k in range(len(leaf))], axis=1)


@dataclass(frozen=True, eq=False)
class BoostedTrees:
    """Boosted trees with a fixed structure, as a function of the weights of their rows.

    F₀ = start(y, w) and F_t(x) = F_{t−1}(x) + v_t[leaf_t(x)] for t = 1 … T, where the values v_t
    of round t are computed from F_{t−1} of the training rows, all outputs at once.

    Args:
        leaves: The leaf of each training row per round and output, [t, c, n], of `table`.
        targets: y, [n]: 0/1, class indices or numbers.
        weights: wᵢ >= 0, [n]: sample weights times class weights.
        rule: How leaf values are computed.
        start: How F₀ is computed.
        objective: The loss as whence measures it.
        table: Numbers the leaves.
        route: Returns the library's leaf ids of new rows, [t, c, b].
        predict: Returns the library's raw predictions of rows, [b, c].
        emphasis: Factors of the weights by class, which the rounds see and the start does not, or
            `None`.
        held_out: Rows that were held out to stop early, [n], or `None`.
        bags: Whether the trees of each round saw each row, [t, 1 or c, n], or `None` where each
            saw all.
        untreated: Options in use whose effect on leaf values is not followed, as the user wrote
            them.
    """

    leaves: Integers
    targets: Floats
    weights: Floats
    rule: LeafRule
    start: Start
    objective: Loss
    table: LeafTable
    route: Callable[[Any], Integers]
    predict: Callable[[Any], Floats]
    emphasis: Floats | None = None
    held_out: NDArray[np.bool_] | None = None
    bags: NDArray[np.bool_] | None = None
    untreated: tuple[str, ...] = ()

    @property
    def outputs(self) -> int:
        """The number of outputs c."""
        return int(self.leaves.shape[1])

    @cached_property
    def replay(self) -> Replay:
        """The start, the leaf values and the outputs, recomputed from the first round to the last.

        Cost:
            O(n T c).
        """
        start = np.atleast_2d(self.start.value(self.targets, self._fitted))
        outputs = np.repeat(start, len(self.targets) // len(start), axis=0)
        values = np.zeros((*self.leaves.shape[:2], self.rule.size))
        for t, leaf in enumerate(self.leaves):
            values[t] = self.rule.values(t, leaf, outputs, self.targets, self._seen(t))
            for k in range(len(leaf)):
                outputs[:, k] += values[t, k][leaf[k]]
        return Replay(start, values, outputs)

    def backward(self) -> Iterator[Round]:
        """Yield the rounds with their derivatives, from the last to the first, then the start.

        The start is a round whose rows all lie in one leaf and whose value no output moves.
        """
        n, c = len(self.targets), self.outputs
        outputs = self.replay.outputs.copy()
        for t in range(len(self.leaves) - 1, -1, -1):
            outputs -= self.replay.added(t, self.leaves)
            yield self.round(t, outputs)
        change = self.start.gradient(self.targets, self._fitted)
        if self.held_out is not None:
            change[self.held_out] = 0
        yield Round(self.start_leaves(n), change, np.zeros((n, c, c)))

    def start_leaves(self, rows: int) -> Integers:
        """Return the leaf of each of some rows in the round of the start, [c, rows]."""
        each = np.repeat(np.arange(self.start.models), rows // self.start.models)
        return np.broadcast_to(each, (self.outputs, rows))

    def round(self, t: int, outputs: Floats) -> Round:
        """Return round t with its derivatives, as it is from outputs [n, c] before it."""
        moved = self.rule.round(t, self.leaves[t], outputs, self.targets, self._seen(t))
        factors = self._factors(t)
        if factors is None:
            return moved
        times = moved.by_weight.shape[1] // factors.shape[1]
        return replace(moved, by_weight=moved.by_weight * np.tile(factors, times))

    def leaves_of(self, rows: Any) -> Integers:
        """Return the leaves of new rows, [t, c, b]."""
        with said("rows that the trees can read"):
            return self.table.compact(self.route(rows))

    def reweighted(self, weights: Floats) -> BoostedTrees:
        """Return the same trees under other weights [n]: a refit of the leaf values alone."""
        return replace(self, weights=weights)

    def on(self, leaves: Integers, targets: Floats, weights: Floats) -> BoostedTrees:
        """Return the same trees with other rows, which every round sees and none is held out.

        Args:
            leaves: Their leaves, [t, c, m].
            targets: Their targets, [m].
            weights: Their weights, [m]; a row of weight 0 still gets a derivative.
        """
        return replace(
            self, leaves=leaves, targets=targets, weights=weights, held_out=None, bags=None
        )

    def among(self, rows: NDArray[np.bool_], others: Integers, targets: Floats) -> BoostedTrees:
        """Return the same trees with more rows among theirs, of weight 0.

        Args:
            rows: Which of the m rows are those of these trees, in order, [m].
            others: The leaves of the rest, [t, c, m − n].
            targets: The targets of all, [m].
        """
        weights = np.zeros(len(rows))
        weights[rows] = self.weights
        leaves = np.empty((*self.leaves.shape[:2], len(rows)), dtype=self.leaves.dtype)
        leaves[:, :, rows], leaves[:, :, ~rows] = self.leaves, others
        held_out, bags = self.held_out, self.bags
        if held_out is not None:
            held_out = np.zeros(len(rows), dtype=bool)
            held_out[rows] = self.held_out
        if bags is not None and self.bags is not None:
            bags = np.ones((*bags.shape[:2], len(rows)), dtype=bool)
            bags[:, :, rows] = self.bags
        more = replace(
            self, leaves=leaves, targets=targets, weights=weights, held_out=held_out, bags=bags
        )
        # Rows without weight move no value.
        known = self.replay
        return more._with(Replay(known.start, known.values, known.predict(leaves)))

    def behind(self, features: Callable[[Any], Any]) -> BoostedTrees:
        """Return the same trees as a function of rows from which their columns are computed.

        Args:
            features: Returns the columns of rows.
        """
        route, predict = after(features, self.route), after(features, self.predict)
        return replace(self, route=route, predict=predict)._with(self.replay)

    def replaced(self, row: int, leaves: Integers, target: float, weight: float) -> BoostedTrees:
        """Return the same trees with another row in the place of one of theirs.

        Args:
            row: Which row goes.
            leaves: The leaves of the row that comes, [t, c].
            target: Its target.
            weight: Its weight.
        """
        inside, targets, weights = self.leaves.copy(), self.targets.copy(), self.weights.copy()
        inside[:, :, row], targets[row], weights[row] = leaves, target, weight
        return replace(self, leaves=inside, targets=targets, weights=weights)

    def beside(self, rows: NDArray[np.intp], targets: Floats) -> BoostedTrees:
        """Return the same trees with twins of some rows after theirs: other targets, weight 0.

        Args:
            rows: Which rows, [k].
            targets: The targets of the twins, [k].
        """
        held_out, bags = self.held_out, self.bags
        return replace(
            self,
            leaves=np.concatenate([self.leaves, self.leaves[:, :, rows]], axis=2),
            targets=np.concatenate([self.targets, targets]),
            weights=np.concatenate([self.weights, np.zeros(len(rows))]),
            held_out=None if held_out is None else np.concatenate([held_out, held_out[rows]]),
            bags=None if bags is None else np.concatenate([bags, bags[:, :, rows]], axis=2),
        )

    def _with(self, replay: Replay) -> BoostedTrees:
        """Return these trees, of which what they give is known already."""
        vars(self)["replay"] = replay
        return self

    @cached_property
    def _fitted(self) -> Floats:
        """The weights of the rows, 0 for those that were held out."""
        return self.weights if self.held_out is None else self.weights * ~self.held_out

    def _factors(self, t: int) -> Floats | None:
        """Return what the weights are multiplied with in round t, [n, 1 or c]; `None`: nothing."""
        factors: Floats | None = None
        if self.emphasis is not None:
            factors = self.emphasis[self.targets.astype(np.intp)][:, None]
        if self.held_out is not None:
            stays = (~self.held_out[:, None]).astype(np.float64)
            factors = stays if factors is None else factors * stays
        if self.bags is not None:
            bag = self.bags[t].T.astype(np.float64)
            factors = bag if factors is None else factors * bag
        return factors

    def _seen(self, t: int) -> Floats:
        """Return the weights of the rows in round t, [n, 1 or c]."""
        factors = self._factors(t)
        return self.weights[:, None] if factors is None else self.weights[:, None] * factors


class NotRecomputed(UnsupportedModel):
    """Predictions are not those of the leaves, and no option is known to be the cause."""


def after(features: Callable[[Any], Any], function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a function of rows from one of their columns, which can be pickled.

    Args:
        features: Returns the columns of rows.
        function: A function of columns.
    """
    return partial(_after, features, function)


def _after(features: Callable[[Any], Any], function: Callable[[Any], Any], rows: Any) -> Any:
    """Return a function of the columns of rows."""
    return function(features(rows))


def class_weights(model: Any, y: Floats) -> Floats:
    """Return the weight that a classifier's `class_weight` gives each row, [n].

    Args:
        model: Fitted; its weights are "balanced", or by its names of the classes.
        y: The targets: positions among its classes, [n].
    """
    labels = np.asarray(model.classes_)[y.astype(np.intp)]
    return np.asarray(compute_sample_weight(model.class_weight, labels), dtype=np.float64)


def unsupported_objective(library: str, objective: str) -> UnsupportedModel:
    """Return the error for an objective whose leaf values are not followed.

    Args:
        library: What fitted the model.
        objective: The objective, as the library names it.
    """
    ranking = any(word in objective.lower() for word in ("rank", "yeti", "pair", "ndcg"))
    reason = (
        "Ranking compares rows of a group, so that no row has a loss of its own"
        if ranking
        else "Its leaf values are not ratios of sums over rows that whence can follow"
    )
    return UnsupportedModel(
        "Expected a classification, or a regression with squared, absolute, quantile, Huber, "
        f"Poisson, gamma or Tweedie loss. Got {objective} in {library}. "
        f"{reason}: score it by retraining."
    )
