"""Calibrated classifiers: maps from decision values to probabilities, fitted to rows held out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import check_cv

from whence.adapters.composed import (
    Made,
    Member,
    OfFolds,
    Taken,
    fitted_to_folds,
    held_out,
    member,
    normalized,
)
from whence.arrays import Floats
from whence.preprocessing.folds import Positions, Splits
from whence.rows import take as take_rows


class _Maps(ABC):
    """The maps of one classifier, not fitted."""

    @abstractmethod
    def shares(self, values: Floats, codes: Positions, asked: Floats) -> Floats:
        """Return probabilities, [q, C].

        Args:
            values: Decision values or probabilities of rows held out, [h, k].
            codes: The classes of those rows, [h].
            asked: Those of the queries, [q, k].
        """


@final
@dataclass(frozen=True, eq=False)
class _PerClass(_Maps):
    """Sigmoid or isotonic maps, one for each class, or for the second of two.

    Args:
        each: The maps.
    """

    each: list[Any]

    def shares(self, values: Floats, codes: Positions, asked: Floats) -> Floats:
        """Return probabilities, each class against the rest, scaled to a sum of 1."""
        if len(self.each) == 1:
            second = clone(self.each[0]).fit(values[:, -1], codes == 1).predict(asked[:, -1])
            return np.stack([1 - second, second], 1)
        classes = enumerate(self.each)
        each = [clone(one).fit(values[:, k], codes == k).predict(asked[:, k]) for k, one in classes]
        return normalized(np.stack(each, 1))


@final
@dataclass(frozen=True, eq=False)
class _Temperature(_Maps):
    """One map of all classes.

    Args:
        one: The map.
    """

    one: Any

    def shares(self, values: Floats, codes: Positions, asked: Floats) -> Floats:
        """Return probabilities of values that one number multiplies."""
        return np.asarray(clone(self.one).fit(values, codes).predict(asked))


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Calibrated(OfFolds):
    """The mean of calibrated probabilities, the maps fitted again.

    Args:
        maps: Those of each classifier that is asked.
        fitted_to: The members whose predictions of rows held out each maps are fitted to.
        passed: Positions of those rows, of each member.
        codes: The class of each row, [n].
        splits: The folds.
    """

    maps: list[_Maps]
    fitted_to: list[list[int]]
    passed: list[Positions]
    codes: Positions
    splits: Splits

    def __call__(
        self, asked: list[Floats], passed: list[Floats], rows: Any, gone: int | None
    ) -> Floats:
        """Return the mean probabilities, [q, C]."""
        shares = []
        for maps, members, values in zip(self.maps, self.fitted_to, asked, strict=True):
            at = np.concatenate([self.passed[each] for each in members])
            order = np.argsort(at)
            there = order if gone is None else order[at[order] != gone]
            own = np.concatenate([passed[each] for each in members])
            shares.append(maps.shares(own[there], self.codes[at[there]], values))
        return np.asarray(np.mean(shares, axis=0))


def calibration(estimator: Any, rows: Any, y: NDArray[Any], take: Taken) -> Made:
    """Read CalibratedClassifierCV: a classifier and its maps for each fold, or one for all.

    With `ensemble=False` the classifiers of the folds are not kept by scikit-learn: they are fitted
    again.

    Args:
        estimator: Fitted.
        rows: The rows it was fitted on.
        y: Their labels.
        take: Reads a member.

    Raises:
        UnsupportedModel: If a member's removals are not known exactly.
    """
    parts = estimator.calibrated_classifiers_
    codes = np.searchsorted(estimator.classes_, y)
    named = np.isin(parts[0].estimator.classes_, estimator.classes_).all()
    labels = y if named else codes  # versions of scikit-learn differ in what members are fitted to
    splits = held_out(check_cv(estimator.cv, y, classifier=True), rows, y)
    says = "predict_proba"
    if hasattr(parts[0].estimator, "decision_function"):
        says = "decision_function"
    members: list[Member] = []
    if len(parts) == len(splits):
        for part, (inside, outside) in zip(parts, splits, strict=True):
            own = take(part.estimator, take_rows(rows, inside), labels[inside])
            members.append(member(own, inside, says, labels[inside][0], passed=outside))
        fitted_to = [[at] for at in range(len(splits))]
    else:
        whole = take(parts[0].estimator, rows, labels)
        members.append(member(whole, np.arange(len(y)), says, labels[0]))
        members += fitted_to_folds(parts[0].estimator, rows, labels, splits, says, take)
        fitted_to = [list(range(1, len(members)))]
    composition = Calibrated(
        maps=[_maps(estimator.method, part.calibrators) for part in parts],
        fitted_to=fitted_to,
        passed=[each.passed for each in members],
        codes=codes,
        splits=splits,
    )
    return tuple(members), composition


def _maps(method: str, fitted: list[Any]) -> _Maps:
    """Return the maps of one classifier as they were before their fit."""
    each = [clone(one) for one in fitted]
    return _Temperature(each[0]) if method == "temperature" else _PerClass(each)
