"""Which estimators are made of others: by type, a function that reads their members."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import (
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.svm import SVC, NuSVC

from whence.adapters.anything import Estimator
from whence.adapters.calibration import calibration
from whence.adapters.composed import Composed, Made, Member, Taken
from whence.adapters.equivalents import HELD
from whence.adapters.held_kernels import ProcessPerClass
from whence.adapters.several import (
    each_class,
    each_pair,
    each_process,
    each_target,
    pairs_of_machines,
)
from whence.adapters.stacking import stacking
from whence.adapters.usable import check_fitted_here
from whence.adapters.votes import transformed_target, voting
from whence.errors import UnsupportedModel
from whence.objective.trained import Trained

_ALONE = "Known by its predictions alone"
_CHOSEN = (
    "Settings that members chose, such as a penalty by cross-validation, are held in scores. "
    "Refits choose them again."
)
_MOST = 3_000  # rows; members' predictions of rows held out are n² numbers


def composed(whole: Estimator, take: Taken) -> Trained:
    """Return an estimator by its members, where their removals are exact; else as it is.

    Args:
        whole: The estimator, known by its predictions.
        take: Reads a member.
    """
    read = _READERS.get(type(whole.fitted))
    if read is None:
        return replace(whole, notes=(*whole.notes, *_unread(whole)))
    others = tuple(note for note in whole.notes if not note.startswith(_ALONE))
    try:
        if whole.refitting.weighted or len(whole.train) > _MOST:
            raise UnsupportedModel(
                f"Expected at most {_MOST:,} rows without weights. Got {len(whole.train):,}"
                f"{' with weights' * whole.refitting.weighted}."
            )
        check_fitted_here(whole.fitted)
        members, composition = read(whole.fitted, whole.train.inputs, whole.refitting.labels, take)
        found = Composed(
            fitted=whole.fitted,
            answer=whole.answer,
            train=whole.train,
            weights=whole.weights,
            names=whole.names,
            notes=tuple(dict.fromkeys((*others, *composition.notes, *_chosen(members)))),
            whole=whole,
            members=members,
            composition=composition,
        )
        found.check()
    except UnsupportedModel as reason:
        return replace(whole, notes=(*others, f"{_ALONE}: {reason}"))
    return found


def _chosen(members: Iterable[Member]) -> tuple[str, ...]:
    """Return that scores hold what members chose, if one chose."""
    chose = any(HELD in note for each in members for note in each.trained.notes)
    return (_CHOSEN,) if chose else ()


def _unread(whole: Estimator) -> tuple[str, ...]:
    """Return that nothing is derived of an estimator with these options, unless a note says why."""
    if any(note.startswith(_ALONE) for note in whole.notes):
        return ()
    said = repr(whole.fitted)
    if said.startswith("<"):  # an object that does not print its options
        said = type(whole.fitted).__name__
    return (f"{_ALONE}: there is no exact treatment of {' '.join(said.split()):.200}.",)


_READERS: dict[type, Callable[[Any, Any, Any, Taken], Made]] = {
    CalibratedClassifierCV: calibration,
    MultiOutputClassifier: each_target,
    MultiOutputRegressor: each_target,
    OneVsOneClassifier: each_pair,
    OneVsRestClassifier: each_class,
    NuSVC: pairs_of_machines,
    ProcessPerClass: each_process,
    SVC: pairs_of_machines,
    StackingClassifier: stacking,
    StackingRegressor: stacking,
    TransformedTargetRegressor: transformed_target,
    VotingClassifier: voting,
    VotingRegressor: voting,
}
