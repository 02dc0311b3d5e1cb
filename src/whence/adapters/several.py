"""Estimators with a member for each class, each pair of classes, or each target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.multiclass import _ovr_decision_function

from whence.adapters.composed import Composition, Made, Taken, member, normalized, on_all_rows
from whence.arrays import Floats
from whence.errors import UnsupportedModel
from whence.rows import take as take_rows


@final
@dataclass(frozen=True, eq=False)
class Columns(Composition):
    """The last number of each member, side by side.

    Args:
        shares: Whether they are probabilities of classes, to be scaled to a sum of 1.
    """

    shares: bool = False

    def __call__(
        self, asked: list[Floats], passed: list[Floats], rows: Any, gone: int | None
    ) -> Floats:
        """Return a number for each member, [q, k]; of one member's shares, those of two classes."""
        if len(asked) == 1:
            return asked[0]
        each = np.stack([one[:, -1] for one in asked], 1)
        return normalized(each) if self.shares else each


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Pairs(Composition):
    """Votes of a member for each pair of classes, ties by the sum of their decision values.

    Args:
        classes: How many classes there are.
        middle: Of a member's last number: above, it votes for the second class.
    """

    classes: int
    middle: float

    def __call__(
        self, asked: list[Floats], passed: list[Floats], rows: Any, gone: int | None
    ) -> Floats:
        """Return decision values, [q, C]."""
        values = np.stack([one[:, -1] for one in asked], 1)
        votes = (values > self.middle).astype(int)
        return np.asarray(_ovr_decision_function(votes, values, self.classes))


def each_class(estimator: Any, rows: Any, y: NDArray[Any], take: Taken) -> Made:
    """Read OneVsRestClassifier: a member for each class against the rest, or each label.

    Args:
        estimator: Fitted.
        rows: The rows it was fitted on.
        y: Their labels, [n], or [n, k] of 0 and 1.
        take: Reads a member.

    Raises:
        UnsupportedModel: If a member's removals are not known exactly.
    """
    several = bool(estimator.multilabel_)
    names = [*estimator.classes_][-len(estimator.estimators_) :]
    targets = y if several else np.stack([y == name for name in names], 1)
    shares = hasattr(estimator, "predict_proba")
    each = [*targets.astype(int).T]
    members = on_all_rows(estimator.estimators_, rows, each, _asks(shares), take)
    return members, Columns(shares=shares and not several)


def each_process(estimator: Any, rows: Any, y: NDArray[Any], take: Taken) -> Made:
    """Read a Gaussian process for each class against the rest.

    Args:
        estimator: Fitted.
        rows: The rows it was fitted on.
        y: Their labels, [n].
        take: Reads a member.

    Raises:
        UnsupportedModel: If a member's removals are not known exactly.
    """
    each = [np.asarray(y == name) for name in estimator.classes_]
    members = on_all_rows(estimator.estimators_, rows, each, "predict_proba", take)
    return members, Columns(shares=True)


def each_target(estimator: Any, rows: Any, y: NDArray[Any], take: Taken) -> Made:
    """Read MultiOutputRegressor and MultiOutputClassifier: a member for each target.

    Args:
        estimator: Fitted.
        rows: The rows it was fitted on.
        y: Their targets, [n, k].
        take: Reads a member.

    Raises:
        UnsupportedModel: If a member's removals are not known exactly.
    """
    says = "predict_proba" if hasattr(estimator, "classes_") else "predict"
    return on_all_rows(estimator.estimators_, rows, [*y.T], says, take), Columns()


def each_pair(estimator: Any, rows: Any, y: NDArray[Any], take: Taken) -> Made:
    """Read OneVsOneClassifier: a member for each pair of classes, fitted to their rows.

    Args:
        estimator: Fitted.
        rows: The rows it was fitted on.
        y: Their labels.
        take: Reads a member.

    Raises:
        UnsupportedModel: If a member's removals are not known exactly.
    """
    return _pairs(estimator.estimators_, rows, np.searchsorted(estimator.classes_, y), take)


def pairs_of_machines(estimator: Any, rows: Any, y: NDArray[Any], take: Taken) -> Made:
    """Read SVC of several classes: libsvm fits a machine for each pair, which are fitted again.

    Args:
        estimator: Fitted.
        rows: The rows it was fitted on.
        y: Their labels.
        take: Reads a member.

    Raises:
        UnsupportedModel: If something of a pair follows the rows of other classes, or its removals
            are not known exactly.
    """
    if len(estimator.classes_) == 2:
        raise UnsupportedModel(
            "Expected one of two classes with kernel='linear', 'rbf' or 'poly', and of NuSVC no "
            f"class_weight and no probabilities. Got {estimator!r}."
        )
    scaled = estimator.gamma == "scale" and estimator.kernel != "linear"
    if scaled or estimator.class_weight is not None or estimator.decision_function_shape != "ovr":
        raise UnsupportedModel(
            "Expected pairs of classes that no other row moves: gamma as a number, class_weight="
            f"None, decision_function_shape='ovr'. Got {estimator!r} on {len(estimator.classes_)} "
            "classes."
        )
    codes = np.searchsorted(estimator.classes_, y)
    template = clone(estimator).set_params(break_ties=False)
    machines = [
        clone(template).fit(take_rows(rows, at), codes[at] == second)
        for _, second, at in _rows_of_pairs(codes)
    ]
    return _pairs(machines, rows, codes, take)


def _pairs(parts: list[Any], rows: Any, codes: NDArray[np.intp], take: Taken) -> Made:
    """Return a member for each pair of classes."""
    shares = not hasattr(parts[0], "decision_function")
    members = []
    for part, (_, second, at) in zip(parts, _rows_of_pairs(codes), strict=True):
        own = np.asarray(codes[at] == second).astype(part.classes_.dtype)
        members.append(member(take(part, take_rows(rows, at), own), at, _asks(shares), own[0]))
    middle = 0.5 if shares else 0.0
    return tuple(members), Pairs(classes=int(codes.max()) + 1, middle=middle)


def _rows_of_pairs(codes: NDArray[np.intp]) -> list[tuple[int, int, NDArray[np.intp]]]:
    """Return each pair of classes, the first below the second, with the positions of their rows."""
    classes = int(codes.max()) + 1
    return [
        (first, second, np.flatnonzero((codes == first) | (codes == second)))
        for first in range(classes)
        for second in range(first + 1, classes)
    ]


def _asks(shares: bool) -> str:
    """Return the method that members are asked."""
    return "predict_proba" if shares else "decision_function"
