"""Boosted models of as many rows each as one, so that all are walked in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from whence.arrays import Floats
from whence.trees.form import BoostedTrees, LeafTable
from whence.trees.leaves import Integers
from whence.trees.starts import Starts


def side_by_side(models: Sequence[BoostedTrees]) -> BoostedTrees | None:
    """Return several models as one, whose rows and leaves are those of all, one after another.

    A round of few rows costs what its calls of numpy cost, whatever they are given. The rows of a
    model lie in no leaf of another, so that nothing is mixed: row (i, j) of q new rows in b models
    is row i q + j of b q.

    Args:
        models: The b models, each with n rows and the same outputs.

    Returns:
        The models as one; `None` of a single one, where they differ in more than trees, penalties
        and weights, or where rounds see some rows and not others.

    Examples:
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.ensemble import HistGradientBoostingRegressor
        >>> from whence.trees.reading import read_boosting
        >>> X, y = load_diabetes(return_X_y=True)
        >>> trees = read_boosting(HistGradientBoostingRegressor(max_iter=5).fit(X, y), X, y)
        >>> side_by_side([trees, trees]).replay.outputs.shape
        (884, 1)
    """
    first = models[0]
    shapes = {each.leaves.shape for each in models}
    special = (part for each in models for part in (each.emphasis, each.held_out, each.bags))
    if len(models) == 1 or len(shapes) > 1 or any(part is not None for part in special):
        return None
    rule = first.rule.beside([each.rule for each in models])
    if rule is None:
        return None
    shape = (*first.leaves.shape[:2], rule.size)
    return replace(
        first,
        leaves=_beside([each.leaves for each in models], rule.size),
        targets=np.concatenate([each.targets for each in models]),
        weights=np.concatenate([each.weights for each in models]),
        rule=rule,
        start=Starts(tuple(each.start for each in models)),
        table=LeafTable(np.broadcast_to(np.arange(rule.size), shape), rule.size + 1),
        route=partial(_routed, tuple(models), rule.size),
        predict=partial(_predicted, tuple(models)),
    )


def _beside(leaves: Sequence[Integers], size: int) -> Integers:
    """Return leaves of each model, [t, c, q], as leaves of all, [t, c, b q]."""
    step = size // len(leaves)
    return np.concatenate([part + np.int32(at * step) for at, part in enumerate(leaves)], axis=2)


def _routed(models: Sequence[BoostedTrees], size: int, rows: Any) -> Integers:
    """Return the leaves of new rows in each model, [t, c, b q]."""
    return _beside([each.leaves_of(rows) for each in models], size)


def _predicted(models: Sequence[BoostedTrees], rows: Any) -> Floats:
    """Return the raw predictions of each model, [b q, c]."""
    return np.concatenate([each.predict(rows) for each in models])
