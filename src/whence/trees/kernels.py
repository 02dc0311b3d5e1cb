"""Kernels between queries and training rows of boosted trees that do not follow later rounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from whence.arrays import Floats
from whence.trees.adjoint import blocks
from whence.trees.form import BoostedTrees
from whence.trees.leaves import Integers, Round

_ROUNDS = 16  # whose coefficients are multiplied at once


def boostin(
    trees: BoostedTrees,
    leaves: Integers,
    gradient: Callable[[Floats], Floats],
    *,
    rows: NDArray[np.intp] | None = None,
) -> Floats:
    r"""Return BoostIn: Σ_t Σ_k ∂M/∂F_k(F_{t−1}) ∂v_tk/∂wᵢ over the leaves shared with a query.

    A row moves the values of its own leaves; that these move the gradients of later rounds is left
    out, as TracIn leaves out that a step moves later gradients.

    Args:
        trees: The trees and their rows.
        leaves: The leaves of the queries, [t, c, q].
        gradient: Returns ∂M/∂F of the queries at outputs [q, c], [q, c].
        rows: The training rows that are asked for; all if `None`.

    Returns:
        The derivatives, [q, k]. Times −wᵢ they predict a removal.

    Cost:
        O(q n T c).

    References:
        Brophy, Hammoudeh & Lowd (2023), section 4.2, equation 10.

    Examples:
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.ensemble import HistGradientBoostingRegressor
        >>> from whence.trees.reading import read_boosting
        >>> X, y = load_diabetes(return_X_y=True)
        >>> trees = read_boosting(HistGradientBoostingRegressor(max_iter=10).fit(X, y), X, y)
        >>> boostin(trees, trees.leaves[:, :, :3], np.ones_like).shape
        (3, 442)
    """
    before = trees.replay.predict(leaves)
    gradients = []
    for t in range(len(leaves) - 1, -1, -1):
        before = before - trees.replay.added(t, leaves)
        gradients.append(gradient(before))
    return _shared(trees, islice(trees.backward(), len(leaves)), leaves, gradients, rows)


def leaf_kernel(
    trees: BoostedTrees,
    leaves: Integers,
    gradient: Callable[[Floats], Floats],
    *,
    rows: NDArray[np.intp] | None = None,
) -> Floats:
    """Return what one more Newton step in every tree would do, from the final outputs.

    Σ_t Σ_k ∂M/∂F_k ∂v_tk/∂wᵢ over the leaves shared with a query, with the gradients that the
    finished model leaves: a kernel of shared leaves times the residual of the row.

    Args:
        trees: The trees and their rows.
        leaves: The leaves of the queries, [t, c, q].
        gradient: Returns ∂M/∂F of the queries at outputs [q, c], [q, c].
        rows: The training rows that are asked for; all if `None`.

    Returns:
        The derivatives, [q, k]. Times −wᵢ they predict a removal.

    Cost:
        O(q n T c).

    References:
        Brophy, Hammoudeh & Lowd (2023), section 4.5, on kernels of shared leaves.

    Examples:
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.ensemble import HistGradientBoostingRegressor
        >>> from whence.trees.reading import read_boosting
        >>> X, y = load_diabetes(return_X_y=True)
        >>> trees = read_boosting(HistGradientBoostingRegressor(max_iter=10).fit(X, y), X, y)
        >>> leaf_kernel(trees, trees.leaves[:, :, :3], np.ones_like).shape
        (3, 442)
    """
    final = trees.replay.outputs
    walk = (trees.round(t, final) for t in range(len(leaves) - 1, -1, -1))
    gradients = [gradient(trees.replay.predict(leaves))] * len(leaves)
    return _shared(trees, walk, leaves, gradients, rows)


def _shared(
    trees: BoostedTrees,
    walk: Iterator[Round],
    leaves: Integers,
    gradients: list[Floats],
    rows: NDArray[np.intp] | None,
) -> Floats:
    """Return the sum over the leaves that a row and a query share, [q, k], from the last round."""
    chosen = np.arange(len(trees.targets)) if rows is None else rows
    c, q = trees.outputs, leaves.shape[2]
    total = np.zeros((len(chosen), q))
    queries, everyone = leaves[::-1].astype(np.intp), np.arange(q)
    done = 0
    for block in blocks(walk, _ROUNDS, trees.rule.size):
        sensitivities = np.zeros((len(block.rounds), len(block.leaf[0]), block.size, q))
        for s, moved in enumerate(block.rounds):
            for k in range(c):
                sensitivities[s, k, queries[done + s, k], everyone] = gradients[done + s][:, k]
            sensitivities[s] = moved.of_sums(sensitivities[s])
        done += len(block.rounds)
        coefficients = block.matrix([each.by_weight for each in block.rounds], chosen)
        total += coefficients @ sensitivities.reshape(-1, q)
    return total.T
