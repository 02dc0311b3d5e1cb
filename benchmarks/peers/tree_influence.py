"""tree-influence in its own Python: scores of some methods for a model given by its leaves.

`python tree_influence.py MODEL.npz SCORES.npz METHOD ...`. Its readers do not know today's
libraries: the trees are given in its own form, `TreeEnsemble`: leaves hang on a chain of splits
of one column that holds the number of each row's leaf. Everything else is the package's own code,
with its defaults. Scores are the change of a query's loss if a row is removed, [n, q].
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
from tree_influence import explainers
from tree_influence.explainers import base
from tree_influence.explainers.parsers.tree import Tree, TreeEnsemble


class Known:
    """A model as its methods ask for it: by its trees, and by its predictions."""

    def __init__(self, trees: Any) -> None:
        self.trees = trees

    def predict(self, x: Any) -> Any:
        return self.trees.predict(x)[:, 0]


def chain(column: int, values: list[float]) -> Any:
    """Return a tree with a leaf for each number in a column."""
    count = len(values)
    left: list[int] = []
    right: list[int] = []
    feature: list[int] = []
    threshold: list[float] = []
    value: list[float] = []
    for number in range(count - 1):
        node = len(left)
        left += [node + 1, -1]
        right += [node + 2, -1]
        feature += [column, -1]
        threshold += [number + 0.5, -1]
        value += [-1, values[number]]
    return Tree(
        [*left, -1], [*right, -1], [*feature, -1], [*threshold, -1], [*value, values[-1]], 0, False
    )


def ensemble(found: Any) -> Any:
    """Return the trees in the package's form."""
    values, counts = found["values"], found["counts"]
    rounds, outputs = counts.shape
    trees = np.empty((rounds, outputs), dtype=object)
    for t in range(rounds):
        for k in range(outputs):
            trees[t, k] = chain(t * outputs + k, values[t, k][: counts[t, k]].tolist())
    start = found["start"].tolist()
    return TreeEnsemble(
        trees,
        objective=str(found["objective"]),
        tree_type="gbdt",
        bias=start if outputs > 1 else start[0],
        learning_rate=float(found["rate"]),
        l2_leaf_reg=float(found["l2"]),
        factor=float(found["factor"]),
    )


def columns(leaves: Any) -> Any:
    """Return the leaf of each row in each tree, [rows, trees]."""
    return np.ascontiguousarray(leaves.reshape(-1, leaves.shape[2]).T, dtype=float)


def main(model: str, scores: str, *methods: str) -> None:
    """Score by each method, and write; print a line of processor seconds, or what it refuses."""
    found = np.load(model)
    base.parse_model = lambda model, x, y: model.trees
    x, queries = columns(found["leaves"]), columns(found["queries"])
    influences = {}
    for method in methods:
        start = time.process_time()
        try:
            known = Known(ensemble(found))  # methods count rows in the trees that they are given
            explainer = getattr(explainers, method)().fit(known, x, found["targets"])
            influences[method] = explainer.get_local_influence(queries, found["asked"])
            print(json.dumps([method, time.process_time() - start]))
        except Exception as error:
            print(json.dumps([method, f"{type(error).__name__}: {error}"]))
    np.savez(scores, **influences)


if __name__ == "__main__":
    main(*sys.argv[1:])
