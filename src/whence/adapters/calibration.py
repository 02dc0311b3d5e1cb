"""Calibrated classifiers: maps from decision values to probabilities, fitted to rows held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import check_cv

from whence.adapters.composed import (
    Floats,
    Made,
    OfFolds,
    Splits,
    Taken,
    held_out,
    member,
)
from whence.errors import UnsupportedModel
from whence.rows import take as take_rows


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Calibrated(OfFolds):
    """The mean over folds of calibrated probabilities, the maps fitted again.

    Args:
        maps: The map of each class, or of the second of two, of each fold, not fitted.
        classes: The classes, [C].
        labels: The labels of all rows, [n].
        splits: The folds.
    """

    maps: list[list[Any]]
    classes: NDArray[Any]
    labels: NDArray[Any]
    splits: Splits

    def __call__(
        self, asked: list[Floats], passed: list[Floats], rows: Any, gone: int | None
    ) -> Floats:
        """Return the mean probabilities, [q, C]."""
        shares = []
        for at, (_, held) in enumerate(self.splits):
            there = np.flatnonzero(held != gone) if gone is not None else np.arange(len(held))
            values, own = passed[at][there], self.labels[held[there]]
            shares.append(self._shares(self.maps[at], values, own, asked[at]))
        return np.asarray(np.mean(shares, axis=0))

    def _shares(self, maps: list[Any], values: Floats, labels: Any, asked: Floats) -> Floats:
        """Return calibrated probabilities, [q, C]."""
        if len(self.classes) == 2:
            fitted = clone(maps[0]).fit(values[:, -1], labels == self.classes[1])
            second = fitted.predict(asked[:, -1])
            return np.stack([1 - second, second], 1)
        each = [
            clone(maps[k]).fit(values[:, k], labels == name).predict(asked[:, k])
            for k, name in enumerate(self.classes)
        ]
        shares = np.stack(each, 1)
        total = shares.sum(1, keepdims=True)
        return np.where(total > 0, shares / np.where(total > 0, total, 1), 1 / len(self.classes))


def calibration(estimator: Any, rows: Any, y: NDArray[Any], take: Taken) -> Made:
    """Read CalibratedClassifierCV: a classifier and its maps for each fold.

    Args:
        estimator: Fitted.
        rows: The rows it was fitted on.
        y: Their labels.
        take: Reads a member.

    Raises:
        UnsupportedModel: If one classifier serves all folds, or a member's removals are not known
            exactly.
    """
    parts = estimator.calibrated_classifiers_
    if estimator.method not in ("sigmoid", "isotonic") or estimator.ensemble is False:
        raise UnsupportedModel(
            "Expected sigmoid or isotonic maps, a classifier for each. Got "
            f"method={estimator.method!r}, ensemble={estimator.ensemble!r}."
        )
    splits = held_out(check_cv(estimator.cv, y, classifier=True), rows, y)
    if len(splits) != len(parts):
        raise UnsupportedModel(f"Expected {len(splits)} folds. Got {len(parts)} classifiers.")
    members = []
    for part, (inside, outside) in zip(parts, splits, strict=True):
        says = "predict_proba"
        if hasattr(part.estimator, "decision_function"):
            says = "decision_function"
        own = take(part.estimator, take_rows(rows, inside), y[inside])
        members.append(member(own, inside, says, y[inside][0], passed=outside))
    composition = Calibrated(
        maps=[[clone(each) for each in part.calibrators] for part in parts],
        classes=np.asarray(estimator.classes_),
        labels=y,
        splits=splits,
    )
    return tuple(members), composition
