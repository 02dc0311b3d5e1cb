"""Forests in closed form: a prediction is a weighted mean of the training targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from whence.arrays import Floats
from whence.checked import said
from whence.trees.form import LeafTable, after
from whence.trees.leaves import Integers


@dataclass(frozen=True, eq=False)
class Forest:
    r"""Trees whose leaf values are means of targets, and whose prediction is the mean over trees.

    f(x) = Σᵢ wᵢ(x) yᵢ with wᵢ(x) = (1/T) Σ_t [i in the leaf of x] c_ti / Σ_{j in that leaf} c_tj.

    Args:
        leaves: The leaf of each training row per tree, [t, n], of `table`.
        counts: c_ti, [t, n]: how often row i is in the bag of tree t, times its weight there.
        targets: y, [n, c]: one column per class with a 1 in that of the row, or numbers [n, 1].
        table: Numbers the leaves.
        route: Returns the leaves' ids of new rows, [t, 1, b].
        predict: Returns the library's class shares or means, [b, c].

    References:
        Meinshausen (2006), section 2, equation 4.
    """

    leaves: Integers
    counts: Floats
    targets: Floats
    table: LeafTable
    route: Callable[[Any], Integers]
    predict: Callable[[Any], Floats]

    def __len__(self) -> int:
        """Return the number of trees."""
        return len(self.leaves)

    def leaves_of(self, rows: Any) -> Integers:
        """Return the leaves of new rows, [t, b]."""
        with said("rows that the trees can read"):
            return self.table.compact(self.route(rows))[:, 0]

    def behind(self, features: Callable[[Any], Any]) -> Forest:
        """Return the same trees as a function of rows from which their columns are computed.

        Args:
            features: Returns the columns of rows.
        """
        return replace(
            self, route=after(features, self.route), predict=after(features, self.predict)
        )

    def among(self, rows: NDArray[np.bool_], leaves: Integers, targets: Floats) -> Forest:
        """Return the same trees with more rows among theirs, in no bag.

        Args:
            rows: Which of the m rows are those of these trees, in order, [m].
            leaves: The leaves of all, [t, m].
            targets: The encoded targets of all, [m].
        """
        counts = np.zeros((len(self), len(rows)))
        counts[:, rows] = self.counts
        return replace(self, leaves=leaves, counts=counts, targets=self.encoded(targets))

    def encoded(self, targets: Floats) -> Floats:
        """Return numbers [m] as columns [m, 1], or class indices as shares [m, c]."""
        c = self.targets.shape[1]
        return targets[:, None] if c == 1 else np.eye(c)[targets.astype(np.intp)]

    def replaced(self, row: int, leaves: Integers, target: float) -> Forest:
        """Return the same trees with another row in the place of one, in the same bags.

        Args:
            row: Which row goes.
            leaves: The leaves of the row that comes, [t].
            target: Its target.
        """
        changed, targets = self.leaves.copy(), self.targets.copy()
        changed[:, row], targets[row] = leaves, self.encoded(np.array([target]))[0]
        return replace(self, leaves=changed, targets=targets)

    def weights(self, leaves: Integers) -> Floats:
        """Return wᵢ(x) of rows that lie in the leaves [t, q], shape [q, n]; each row sums to 1.

        Cost:
            One addition per tree, query and training row that share a leaf.
        """
        together: Floats = (self._members(leaves) @ self._shares.T).toarray() / len(self)
        return together

    def outputs(self, leaves: Integers) -> Floats:
        """Return the prediction of rows that lie in the leaves [t, q], shape [q, c]."""
        values: Floats = self._members(leaves) @ (self._shares.T @ self.targets) / len(self)
        return values

    def by_tree(self, leaves: Integers) -> Floats:
        """Return what each tree predicts for rows that lie in the leaves [t, q], [t, q, c]."""
        values = self._shares.T @ self.targets
        columns = leaves.astype(np.intp) + np.arange(len(self))[:, None] * self.table.size
        return np.asarray(values[columns])

    def out_of_bag(self) -> NDArray[np.bool_]:
        """Return which rows each tree has not seen, [t, n]."""
        return np.asarray(self.counts == 0)

    def out_of_bag_means(self) -> Floats:
        """Return the mean over the trees that have not seen each row, [n, c]; else over all."""
        unseen, predictions = self.out_of_bag(), self.by_tree(self.leaves)
        unseen[:, ~unseen.any(axis=0)] = True
        weights = unseen / unseen.sum(axis=0)
        return np.asarray(np.einsum("tn,tnc->nc", weights, predictions))

    def standard_error(self, leaves: Integers) -> Floats:
        r"""Return the standard error of predictions over training sets, [q, c], if bags differ.

        The infinitesimal jackknife Σᵢ Cov_t(c_ti, f_t)² less its bias (n/T²) Σ_t (f_t − f)² from
        the finite number of trees; 0 where the bias is larger.

        Args:
            leaves: The leaves of the queries, [t, q].

        References:
            Wager, Hastie & Efron (2014), equations 5 and 7.
        """
        trees, q = leaves.shape
        predictions = self.by_tree(leaves)
        apart = (predictions - predictions.mean(axis=0)).reshape(trees, -1)
        centered = self.counts - self.counts.mean(axis=0)
        spread = np.square(centered.T @ apart / trees).sum(axis=0)
        bias = self.counts.shape[1] / trees**2 * np.square(apart).sum(axis=0)
        return np.asarray(np.sqrt(np.maximum(spread - bias, 0)).reshape(q, -1))

    @cached_property
    def _shares(self) -> sparse.csr_array:
        """The share of each row in the leaves it lies in, [n, trees × size]."""
        members = self._members(self.leaves, self.counts)
        totals = np.asarray(members.sum(axis=0)).ravel()
        inverse = np.divide(1.0, totals, out=np.zeros_like(totals), where=totals > 0)
        shares = sparse.csr_array(members * inverse[None])
        shares.eliminate_zeros()
        return shares

    def _members(self, leaves: Integers, weights: Floats | None = None) -> sparse.csr_array:
        """Return 1, or a weight [t, b], where a row lies in a leaf, [b, trees × size]."""
        trees, b = leaves.shape
        shape = b, trees * self.table.size
        small = max(shape[1], b * trees) <= np.iinfo(np.int32).max
        integers: type[np.signedinteger[Any]] = np.int32 if small else np.int64
        columns = leaves.astype(integers)
        columns += np.arange(trees, dtype=integers)[:, None] * self.table.size
        data = np.ones(b * trees) if weights is None else weights.T.ravel()
        ends = np.arange(0, b * trees + 1, trees, dtype=integers)
        return sparse.csr_array((data, columns.T.ravel(), ends), shape=shape)


def data_oob(forest: Forest, *, classes: bool) -> tuple[Floats, NDArray[np.intp]]:
    """Return how well trees that have not seen a row predict it, on average.

    (1/B_i) Σ_t [c_ti = 0] s(f_t(xᵢ), yᵢ), with s the share of the right class if it is the largest
    (1 or 0) for a classification and −(f_t(xᵢ) − yᵢ)² for a regression. Low is a bad sign.

    Args:
        forest: The forest.
        classes: Whether the targets are classes.

    Returns:
        The values, [n], NaN where every tree has seen the row; and the number of trees, [n].

    References:
        Kwon & Zou (2023), equation 2.

    Examples:
        >>> from sklearn.datasets import load_wine
        >>> from sklearn.ensemble import RandomForestClassifier
        >>> from whence.trees.bagging import read_forest
        >>> X, y = load_wine(return_X_y=True)
        >>> model = RandomForestClassifier(n_estimators=20, random_state=0).fit(X, y)
        >>> values, trees = data_oob(read_forest(model, X, y), classes=True)
        >>> values.shape, int(trees.max()) <= 20
        ((178,), True)
    """
    unseen = forest.out_of_bag()
    predictions = forest.by_tree(forest.leaves)
    if classes:
        best = predictions.argmax(axis=2)
        scores = (best == forest.targets.argmax(axis=1)).astype(np.float64)
    else:
        scores = -np.square(predictions - forest.targets).sum(axis=2)
    trees = unseen.sum(axis=0)
    values = np.full(len(trees), np.nan)
    np.divide((scores * unseen).sum(axis=0), trees, out=values, where=trees > 0)
    return values, trees
