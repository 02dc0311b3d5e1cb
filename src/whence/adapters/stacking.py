"""Stacked estimators: the last one is fitted to what the others predict of rows held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import check_cv

from whence.adapters.composed import Made, OfFolds, Taken, fitted_to_folds, held_out, member
from whence.arrays import Floats
from whence.errors import UnsupportedModel
from whence.preprocessing.folds import Splits


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Stacked(OfFolds):
    """The last estimator, fitted again to the predictions of rows held out.

    Args:
        last: It, not fitted.
        labels: The targets of all rows, [n].
        splits: The folds.
        width: How many estimators there are.
        single: Whether the first of two probabilities is left out.
        says: What the last one is asked.
    """

    last: Any
    labels: NDArray[Any]
    splits: Splits
    width: int
    single: bool
    says: str

    def __call__(
        self, asked: list[Floats], passed: list[Floats], rows: Any, gone: int | None
    ) -> Floats:
        """Return what the last estimator predicts, [q, k]."""
        order = np.concatenate([held for _, held in self.splits])
        folds, by_fold = len(self.splits), passed[self.width :]
        columns = [
            self._columns(np.concatenate(by_fold[at : at + folds]))
            for at in range(0, len(by_fold), folds)
        ]
        back = np.argsort(order)
        there = back if gone is None else back[order[back] != gone]
        last = clone(self.last).fit(np.hstack(columns)[there], self.labels[order[there]])
        found = getattr(last, self.says)(np.hstack([self._columns(each) for each in asked]))
        return np.asarray(found, dtype=np.float64).reshape(len(asked[0]), -1)

    def _columns(self, values: Floats) -> Floats:
        """Return what is passed on of a member's predictions."""
        return values[:, 1:] if self.single and values.shape[1] == 2 else values


def stacking(estimator: Any, rows: Any, y: NDArray[Any], take: Taken) -> Made:
    """Read StackingClassifier or StackingRegressor.

    The estimators that were fitted to folds are not kept by scikit-learn: they are fitted again.

    Args:
        estimator: Fitted.
        rows: The rows it was fitted on.
        y: Their targets.
        take: Reads a member.

    Raises:
        UnsupportedModel: If a member's removals are not known exactly, or the folds cannot be.
    """
    classes = getattr(estimator, "classes_", None)
    if estimator.passthrough or str(estimator.cv) == "prefit":
        raise UnsupportedModel(
            "Expected folds, and a last estimator that sees predictions alone. Got "
            f"cv={estimator.cv!r}, passthrough={estimator.passthrough}."
        )
    labels = y if classes is None else np.searchsorted(classes, y)
    splits = held_out(check_cv(estimator.cv, labels, classifier=classes is not None), rows, labels)
    everyone = np.arange(len(labels))
    fitted = list(zip(estimator.estimators_, estimator.stack_method_, strict=True))
    whole = [member(take(each, rows, labels), everyone, says, labels[0]) for each, says in fitted]
    folds = []
    for each, says in fitted:
        folds += fitted_to_folds(each, rows, labels, splits, says, take)
    composition = Stacked(
        last=estimator.final_estimator_,
        labels=labels,
        splits=splits,
        width=len(whole),
        single=classes is not None and len(classes) == 2,
        says="predict" if classes is None else "predict_proba",
    )
    return (*whole, *folds), composition
