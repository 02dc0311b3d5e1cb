r"""The derivative of predictions of boosted trees in the weights of their training rows.

With the structure fixed, boosting is a differentiable recursion. For a measure M of a query's final
outputs, with A_i = dM/dF_t(xᵢ) after round t and V_l the sensitivity of M to the value of leaf l,

V_l = Σ_{queries in l} ∂M/∂F + Σ_{i in l} A_i,    dM/dwᵢ += V_l ∂v_l/∂wᵢ,    A_i += V_l ∂v_l/∂F(xᵢ),

from the last round to the first, and at the end the start value. The rounds are walked in blocks:
the sensitivities within a block are coupled through leaf-by-leaf matrices that no query enters, so
that the arrays of n rows by q queries are passed over once per block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from whence.arrays import Floats
from whence.tiles import tiles
from whence.trees.form import BoostedTrees
from whence.trees.leaves import Integers, Round, Wide

Precision: TypeAlias = np.dtype[np.float32] | np.dtype[np.float64]
_NUMBERS = 2**25  # of rows by queries by outputs at a time
_DOUBLE = np.dtype(np.float64)
_SINGLE = 20_000  # rows from which products of rows with leaves are in float32


def precision(rows: int) -> Precision:
    """Return in what derivatives of many rows are computed: float32 from 20,000 rows on.

    Args:
        rows: n.
    """
    return np.dtype(np.float32) if rows >= _SINGLE else _DOUBLE


def adjoint(
    trees: BoostedTrees,
    leaves: Integers,
    gradients: Floats,
    *,
    rows: NDArray[np.intp] | None = None,
) -> Floats:
    """Return dM/dw: how each query's measure moves with the weight of each training row.

    Args:
        trees: The trees and their rows.
        leaves: The leaves of the queries, [t, c, q]; of b models side by side, [t, c, b q].
        gradients: ∂M/∂F at the final outputs of each query, [q, c] or [b q, c].
        rows: The training rows that are asked for; all if `None`.

    Returns:
        The derivatives, [q, k], exact for the fixed structure. Times −wᵢ they predict a removal.

    Cost:
        O(q n T c²), and memory for 2 (1 + c) q n numbers at most. From 20,000 rows on,
        products of rows with leaves are in float32.

    References:
        Sharchilev et al. (2018), sections 3.2 and 4: the derivative forward, row by row, which
        costs O(n² T).

    Examples:
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.ensemble import HistGradientBoostingRegressor
        >>> from whence.trees.reading import read_boosting
        >>> X, y = load_diabetes(return_X_y=True)
        >>> trees = read_boosting(HistGradientBoostingRegressor(max_iter=10).fit(X, y), X, y)
        >>> adjoint(trees, trees.leaves[:, :, :3], np.ones((3, 1))).shape
        (3, 442)
    """
    chosen = np.arange(len(trees.targets)) if rows is None else rows
    (rounds, c, _), b = leaves.shape, trees.start.models
    asked, slopes = leaves.reshape(rounds, c, b, -1), gradients.reshape(b, -1, c)
    q = slopes.shape[1]
    out = np.empty((q, len(chosen)))
    for part in tiles(q, len(trees.targets) * c, _NUMBERS):
        some = asked[:, :, :, part].reshape(rounds, c, -1)
        out[part] = _adjoint(trees, some, slopes[:, part].reshape(-1, c), chosen).T
    return out


def _adjoint(
    trees: BoostedTrees, leaves: Integers, gradients: Floats, rows: NDArray[np.intp]
) -> Wide:
    """Return the derivatives of few queries, [k, q]."""
    n, c, size = len(trees.targets), trees.outputs, trees.rule.size
    q, rounds = len(gradients) // trees.start.models, len(leaves) + 1
    dtype = precision(n)
    queries = [*leaves[::-1].astype(np.intp), trees.start_leaves(len(gradients))]
    total: Wide = np.zeros((len(rows), q), dtype=dtype)
    by_output: list[Wide] = []  # A, per output [n, q]; none before the last block
    walk, done = trees.backward(), 0
    for block in blocks(walk, _rounds_at_once(rounds, n, c, q, size), size, dtype):
        r = len(block.rounds)
        sensitivities = block.sensitivities(queries[done : done + r], gradients, q, by_output)
        total += block.matrix([each.by_weight for each in block.rounds], rows) @ sensitivities
        done += r
        if done < rounds:
            moved = [
                block.matrix([each.by_output[:, :, j] for each in block.rounds]) @ sensitivities
                for j in range(c)
            ]
            for j in range(len(by_output)):
                moved[j] += by_output[j]
            by_output = moved
    return total


def _rounds_at_once(rounds: int, n: int, c: int, q: int, size: int) -> int:
    """Return how many rounds a block holds: coupling them costs less than passing over [n, q].

    Coupling r rounds takes r c² (n + size²) per round, a pass over the rows c n q / r.
    """
    best = (q / (c * (1 + size * size / n))) ** 0.5
    return int(min(rounds, max(1, round(best))))


def blocks(
    walk: Iterator[Round], at_once: int, size: int, dtype: Precision = _DOUBLE
) -> Iterator[Block]:
    """Yield the rounds in blocks, from the last to the first."""
    while rounds := list(islice(walk, at_once)):
        sums = max(each.by_weight.shape[1] for each in rounds)
        rounds = [_with_sums(each, sums) for each in rounds]
        leaf = [each.leaf.astype(np.intp) for each in rounds]
        leaf = [np.tile(each, (sums // len(each), 1)) for each in leaf]
        yield Block(rounds, leaf, size, dtype)


def _with_sums(moved: Round, sums: int) -> Round:
    """Return a round with as many sums that rows move, those beyond its own moving nothing."""
    more = ((0, 0), (0, sums - moved.by_weight.shape[1]))
    if more[1][1] == 0:
        return moved
    return replace(
        moved,
        by_weight=np.pad(moved.by_weight, more),
        by_output=np.pad(moved.by_output, (*more, (0, 0))),
    )


@dataclass(frozen=True, eq=False)
class Block:
    """Consecutive rounds, the latest first; column (s c + k) size + l is leaf l of tree (s, k).

    Where rows move sums, there are 2 c of them for c: of output k, k and c + k.

    Args:
        rounds: The rounds.
        leaf: The leaves of their rows, [c, n] or [2 c, n] each.
        size: The leaves per tree.
        dtype: Of the matrices and products.
    """

    rounds: list[Round]
    leaf: list[NDArray[np.intp]]
    size: int
    dtype: Precision = _DOUBLE

    def matrix(
        self, coefficients: list[Floats], rows: NDArray[np.intp] | None = None
    ) -> sparse.csr_array:
        """Return the coefficients [n, c] of each round at their leaves' columns, [k, columns]."""
        data = np.stack(coefficients, axis=1, dtype=self.dtype, casting="same_kind")
        index = self._columns
        data = data.reshape(index.shape)
        if rows is not None and len(rows) < len(data):
            data, index = data[rows], index[rows]
        ends = np.arange(0, index.size + 1, index.shape[1])
        return sparse.csr_array(
            (data.ravel(), index.ravel(), ends.astype(np.int32)),
            shape=(len(data), index.shape[1] * self.size),
        )

    @cached_property
    def _columns(self) -> NDArray[np.int32]:
        """The column of each row in each tree of the block, [n, r c]."""
        leaf = np.concatenate(self.leaf, axis=0, dtype=np.int32, casting="same_kind")
        leaf += np.arange(len(leaf), dtype=np.int32)[:, None] * self.size
        return np.ascontiguousarray(leaf.T)

    def sensitivities(
        self, queries: list[NDArray[Any]], gradients: Floats, q: int, by_output: list[Wide]
    ) -> Wide:
        """Return V of every leaf of the block, or of the sums in it, [columns, q].

        Args:
            queries: The leaves of the queries in each round, [c, b q].
            gradients: ∂M/∂F of the queries, [b q, c].
            q: How many measures there are.
            by_output: A after the block's last round, [n, q] per output; none if it is zero.
        """
        c, size = gradients.shape[1], self.size
        shape = (len(self.rounds), len(self.leaf[0]), size, q)
        sensitivities = np.zeros(shape, dtype=self.dtype)
        for k, after in enumerate(by_output):
            sensitivities[:, k] = (self._members(k).T @ after).reshape(-1, size, q)
        everyone = np.arange(len(gradients)) % q
        for s, leaf in enumerate(queries):
            for k in range(c):
                sensitivities[s, k][leaf[k], everyone] += gradients[:, k]
                if s:
                    later = sensitivities[:s].reshape(-1, q)
                    sensitivities[s, k] += self._coupling(s, k) @ later
            if self.rounds[s].mixing is not None:
                sensitivities[s] = self.rounds[s].of_sums(sensitivities[s])
        return sensitivities.reshape(-1, q)

    def _members(self, k: int) -> sparse.csr_array:
        """Return 1 where a row lies in a leaf of output k's tree of a round, [n, r size]."""
        index = np.stack([leaf[k] for leaf in self.leaf], axis=1)
        n, r = index.shape
        index = index + np.arange(r) * self.size
        ends = np.arange(0, n * r + 1, r, dtype=np.int32)
        return sparse.csr_array(
            (np.ones(n * r, dtype=self.dtype), index.ravel().astype(np.int32), ends),
            shape=(n, r * self.size),
        )

    def _coupling(self, s: int, k: int) -> Wide:
        """Return how the values of later rounds' leaves move with those of tree (s, k).

        Entry (l, column of l′ in tree (s′, j)) is Σ ∂v_j/∂F_k over the rows in both leaves.
        """
        c, size = len(self.leaf[0]), self.size
        coupling = np.empty((size, s, c, size), dtype=self.dtype)
        first = self.leaf[s][k] * size
        for later in range(s):
            for j in range(c):
                counts = np.bincount(
                    first + self.leaf[later][j],
                    self.rounds[later].by_output[:, j, k],
                    minlength=size * size,
                )
                coupling[:, later, j] = counts.reshape(size, size)
        return coupling.reshape(size, -1)
