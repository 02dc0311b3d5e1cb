"""Folds that a user named by positions of rows, where some rows are gone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import PredefinedSplit

Positions = NDArray[np.intp]
Splits = list[tuple[Positions, Positions]]
FOLDS_HELD = "The folds are held as they were drawn, here and in refits: rows keep their fold."


def kept_splits(splits: Splits, kept: Positions) -> Splits:
    """Return the parts of folds that are there, counted among the rows that are there.

    Args:
        splits: Positions of the rows that each fold is fitted on, and of those that it holds out.
        kept: Positions of the rows that are there, in the order of the fit.
    """
    order = np.argsort(kept)

    def counted(part: Positions) -> Positions:
        there = part[np.isin(part, kept)]  # a row may be in a part several times
        return np.sort(order[np.searchsorted(kept, there, sorter=order)])

    return [(counted(fitted), counted(held)) for fitted, held in splits]


@final
@dataclass(frozen=True)
class Among:
    """The folds of some rows: each row keeps the fold that it was given. Used as scikit-learn's cv.

    Args:
        splits: The folds of all rows.
        kept: Positions of the rows that are there, in the order of the fit.
    """

    splits: Splits
    kept: Positions

    def split(self, X: Any = None, y: Any = None, groups: Any = None) -> Iterator[Any]:
        """Yield the rows that each fold is fitted on, and those that it holds out, if any is."""
        for fitted, held in kept_splits(self.splits, self.kept):
            if len(held):
                yield fitted, held

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return how many folds hold out a row."""
        return sum(1 for _ in self.split())


@singledispatch
def _named(cv: Any, n: int) -> Splits | None:
    """Return the folds of n rows that a setting names by position; `None` where it names none."""
    return None


@_named.register(list)
@_named.register(tuple)
def _listed(cv: Any, n: int) -> Splits:
    rows = np.arange(n)  # masks and positions from the end name rows too
    return [(rows[np.asarray(fitted)], rows[np.asarray(held)]) for fitted, held in cv]


@_named.register
def _predefined(cv: PredefinedSplit, n: int) -> Splits:
    return list(cv.split())


@_named.register
def _among(cv: Among, n: int) -> Splits:
    return cv.splits


def folds_note(estimator: Any, n: int) -> tuple[str, ...]:
    """Return what a reader must know of folds that an estimator was given by positions.

    Args:
        estimator: As of `named_folds`.
        n: The same.
    """
    return (FOLDS_HELD,) if named_folds(estimator, n) else ()


def named_folds(estimator: Any, n: int) -> dict[str, Splits]:
    """Return the folds that an estimator or what it holds was given by positions, by setting.

    Args:
        estimator: An estimator, a transformer or a pipeline of them.
        n: The number of rows that the positions are of.
    """
    settings = estimator.get_params() if hasattr(estimator, "get_params") else {}
    found = {
        name: _named(value, n)
        for name, value in settings.items()
        if name == "cv" or name.endswith("__cv")
    }
    return {name: splits for name, splits in found.items() if splits is not None}


def keep_folds(estimator: Any, n: int, kept: Positions) -> Any:
    """Return an estimator whose folds, where they were given by positions, are of some rows.

    Args:
        estimator: Not fitted; it is changed in place.
        n: The number of all rows.
        kept: Positions of the rows that are there, in the order of the fit.
    """
    named = named_folds(estimator, n)
    if named:
        estimator.set_params(**{name: Among(splits, kept) for name, splits in named.items()})
    return estimator
