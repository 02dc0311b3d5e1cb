"""Estimators made of other estimators: votes, stacks, calibrations, transformed targets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from torch import Tensor

from whence.adapters.answered import Answered
from whence.adapters.anything import Estimator
from whence.arrays import Floats
from whence.checked import shown
from whence.errors import UnsupportedModel
from whence.objective.losses import Loss
from whence.objective.trained import Examples, Trained
from whence.preprocessing.folds import FOLDS_HELD, Positions, Splits, kept_splits
from whence.rows import take as take_rows
from whence.tiles import spread

_NEAR = 1e-5  # how near composed predictions are to the estimator's own
_NONE = np.empty((0, 1))


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Member:
    """One of the estimators that another is made of.

    Args:
        trained: It, with the rows it was fitted on.
        rows: Positions of those rows among all, [m].
        passed: Positions of the rows whose predictions are passed on to what is fitted next.
        asked: Whether its predictions of new rows count.
        read: From its outputs [b, c] to what it predicts, [b, k].
        label: A target that it can have.
    """

    trained: Trained
    rows: Positions
    passed: Positions
    asked: bool
    read: Callable[[Tensor], Floats]
    label: Any

    def examples(self, rows: Any) -> Examples:
        """Return rows as it reads them."""
        return self.trained.examples((rows, np.repeat(self.label, np.shape(rows)[0])))


def member(
    trained: Trained,
    rows: Positions,
    says: str,
    label: Any,
    *,
    passed: Positions | None = None,
    asked: bool = True,
) -> Member:
    """Return an estimator as a part of another.

    Args:
        trained: It, with the rows it was fitted on.
        rows: Positions of those rows among all, [m].
        says: The method that is asked: "predict", "predict_proba" or "decision_function".
        label: A target that it can have.
        passed: Positions of the rows whose predictions are passed on; none if `None`.
        asked: Whether its predictions of new rows count.

    Raises:
        UnsupportedModel: If its removals are not known exactly.
    """
    floored = trained.floored and says == "predict_proba"
    if floored or not (trained.convex or trained.instant):
        raise UnsupportedModel(
            f"Expected members whose removals are exact: convex, or sums. Got {trained!r}."
        )
    return Member(
        trained=trained,
        rows=rows,
        passed=np.empty(0, dtype=np.intp) if passed is None else passed,
        asked=asked,
        read=partial(_READINGS[says], trained.loss),
        label=label,
    )


def on_all_rows(
    parts: Sequence[Any], rows: Any, targets: Sequence[NDArray[Any]], says: str, take: Taken
) -> tuple[Member, ...]:
    """Return a member for each estimator, all fitted to the same n rows.

    Args:
        parts: The estimators.
        rows: The rows.
        targets: Those of each estimator, [n] each.
        says: The method that is asked: "predict", "predict_proba" or "decision_function".
        take: Reads a member.

    Raises:
        UnsupportedModel: If a member's removals are not known exactly.
    """
    return tuple(
        member(take(part, rows, own), np.arange(len(own)), says, own[0])
        for part, own in zip(parts, targets, strict=True)
    )


def normalized(shares: Floats) -> Floats:
    """Return shares of k classes scaled to a sum of 1, alike where all are 0, [q, k]."""
    total = shares.sum(1, keepdims=True)
    return np.where(total > 0, shares / np.where(total > 0, total, 1), 1 / shares.shape[1])


def _numbers(loss: Loss, outputs: Tensor) -> Floats:
    """Return what a regression predicts, [b, 1]."""
    return loss.prediction(outputs, outputs[:, 0]).numpy().reshape(-1, 1)


def _shares(loss: Loss, outputs: Tensor) -> Floats:
    """Return probabilities, [b, C]."""
    shares = loss.probabilities(outputs)
    if shares is None:
        raise UnsupportedModel(f"Expected a member with probabilities. Got {loss.unit}.")
    return shares.numpy()


def _decisions(loss: Loss, outputs: Tensor) -> Floats:
    """Return decision values, [b, 1] or [b, C]."""
    return outputs.numpy()


_READINGS: dict[str, Callable[[Loss, Tensor], Floats]] = {
    "predict": _numbers,
    "predict_proba": _shares,
    "decision_function": _decisions,
}


class Composition(ABC):
    """How predictions of members become predictions of the whole."""

    @abstractmethod
    def __call__(
        self, asked: list[Floats], passed: list[Floats], rows: Any, gone: int | None
    ) -> Floats:
        """Return what the whole predicts, [q, k].

        What comes after the members is fitted again by its own library.

        Args:
            asked: What each member predicts of the queries, [q, k] each; those that are asked.
            passed: What each member predicts of the rows that it passes on, [h, k] each.
            rows: The queries.
            gone: Position of the row that is not there, or `None`.
        """

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know, a sentence each."""
        return ()

    def held(self, estimator: Any, kept: Positions) -> Any:
        """Return the estimator, not fitted, as it is fitted again on some rows.

        Args:
            estimator: Not fitted.
            kept: Positions of the rows that are there, sorted.
        """
        return estimator


class OfFolds(Composition):
    """A composition of members that are fitted to folds.

    Attributes:
        splits: The folds: the rows that a member is fitted to, and those held out.
    """

    splits: Splits

    @property
    def notes(self) -> tuple[str, ...]:
        """That folds are held."""
        return (FOLDS_HELD,)

    def held(self, estimator: Any, kept: Positions) -> Any:
        """Return the estimator with the folds of the rows that are there."""
        return estimator.set_params(cv=kept_splits(self.splits, kept))


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Composed(Answered):
    """A fitted estimator that is made of others, whose removals are known exactly.

    Args:
        whole: The same, known by its predictions.
        members: The estimators that it is made of.
        composition: How their predictions become its own.
    """

    whole: Estimator
    members: tuple[Member, ...]
    composition: Composition

    @property
    def together(self) -> int:
        """As many as keep all workers busy."""
        return self.whole.together

    def outputs(self, examples: Any) -> Tensor:
        """Return log-probabilities or predictions, [b, c]."""
        return self.whole.outputs(examples)

    def refit(self, weights: Tensor | None = None) -> Estimator:
        """Return the estimator's own fit on the rows with weight, its folds held."""
        return self._with_folds().refit(weights)

    def reordered(self, seed: int) -> Estimator | None:
        """Return the estimator's own fit to its rows in another order, if that draws."""
        return self._with_folds().reordered(seed)

    def refit_edited(self, where: NDArray[np.intp], new: Examples) -> Estimator:
        """Return the estimator's own fit with some rows replaced, in folds of its own choice.

        Args:
            where: Positions of the rows that go.
            new: Those that come.
        """
        return self.whole.refit_edited(where, new)

    def _with_folds(self) -> Estimator:
        """Return the estimator known by its predictions, its folds held in refits."""
        refitting = replace(self.whole.refitting, held=self.composition.held)
        return replace(self.whole, refitting=refitting)

    def check(self) -> None:
        """Raise unless the members' predictions give the estimator's own, to 1e-5.

        Raises:
            UnsupportedModel: If they do not.
        """
        few = spread(len(self.train), 50)
        asked, passed = [], []
        for each in self.members:
            if each.asked:
                rows = each.examples(self.inputs_at(few))
                asked.append(each.read(each.trained.outputs(rows)))
            if len(each.passed):
                rows = each.examples(self.inputs_at(each.passed))
                passed.append(each.read(each.trained.outputs(rows)))
            else:
                passed.append(_NONE)
        made = self.predicted(self.composition(asked, passed, self.inputs_at(few), None))
        own = self.outputs(self.train.subset(few)).numpy()
        off = float(np.abs(made - own).max() / max(1.0, float(np.abs(own).max())))
        if not off < _NEAR:
            raise UnsupportedModel(
                f"Expected the members' predictions to give those of {self!r}. Got a difference "
                f"of {off:.1e}."
            )

    def predicted(self, values: Floats) -> Floats:
        """Return what the whole predicts [b, k] as outputs, [b, c]."""
        return self.answer.outputs(_Given(self.answer.classes), values)

    def inputs_at(self, where: Positions) -> Any:
        """Return training rows."""
        return take_rows(self.train.inputs, where)


@final
class _Given:
    """An estimator that predicts what it is given."""

    def __init__(self, classes: tuple[Any, ...]) -> None:
        """Hold the classes."""
        self.classes_ = np.asarray(classes)

    def predict_proba(self, values: Floats) -> Floats:
        """Return the values."""
        return values

    decision_function = predict_proba

    def predict(self, values: Floats) -> Floats:
        """Return the values."""
        return values


Taken = Callable[[Any, Any, Any], Trained]  # a fitted estimator with rows and targets, as a model
Made = tuple[tuple[Member, ...], Composition]


def held_out(cv: Any, rows: Any, labels: NDArray[Any]) -> Splits:
    """Return the folds of a splitter, each row held out once.

    Args:
        cv: The splitter.
        rows: X, [n].
        labels: y, [n].

    Raises:
        UnsupportedModel: If folds are drawn anew each time, do not hold each row out once, or are
            fitted on a row several times.
    """
    first, second = list(cv.split(rows, labels)), list(cv.split(rows, labels))
    same = all(np.array_equal(a[1], b[1]) for a, b in zip(first, second, strict=True))
    same = same and all(len(np.unique(fitted)) == len(fitted) for fitted, _ in first)
    order = np.sort(np.concatenate([held for _, held in first]))
    if not same or not np.array_equal(order, np.arange(len(labels))):
        raise UnsupportedModel(
            "Expected folds that hold each row out once and fit on it once at most, the same each "
            f"time. Got {shown(cv)}. Give it random_state=0 if it draws."
        )
    return first


def fitted_to_folds(
    estimator: Any, rows: Any, labels: NDArray[Any], splits: Splits, says: str, take: Taken
) -> list[Member]:
    """Return an estimator fitted again to each fold, which passes on the rows held out.

    Args:
        estimator: Fitted or not.
        rows: X, [n].
        labels: y, [n].
        splits: The folds.
        says: The method that is asked.
        take: Reads a member.
    """
    members = []
    for inside, outside in splits:
        part, own = take_rows(rows, inside), labels[inside]
        again = take(clone(estimator).fit(part, own), part, own)
        members.append(member(again, inside, says, own[0], passed=outside, asked=False))
    return members
