"""Which estimators are made of others: by type, a function that reads their members."""

from __future__ import annotations

from collections.abc import Callable
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

from whence.adapters.anything import Estimator
from whence.adapters.calibration import calibration
from whence.adapters.composed import Composed, Made, Taken
from whence.adapters.stacking import stacking
from whence.adapters.votes import transformed_target, voting
from whence.errors import UnsupportedModel
from whence.objective.trained import Trained

_MOST = 3_000  # rows; members' predictions of rows held out are n² numbers


def composed(whole: Estimator, take: Taken) -> Trained:
    """Return an estimator by its members, where their removals are exact; else as it is.

    Args:
        whole: The estimator, known by its predictions.
        take: Reads a member.
    """
    read = _READERS.get(type(whole.fitted))
    if read is None:
        return whole
    try:
        if whole.refitting.weighted or len(whole.train) > _MOST:
            raise UnsupportedModel(
                f"Expected at most {_MOST:,} rows without weights. Got {len(whole.train):,}"
                f"{' with weights' * whole.refitting.weighted}."
            )
        members, composition = read(whole.fitted, whole.train.inputs, whole.refitting.labels, take)
        found = Composed(
            fitted=whole.fitted,
            answer=whole.answer,
            train=whole.train,
            weights=whole.weights,
            names=whole.names,
            notes=(*whole.notes, *composition.notes),
            whole=whole,
            members=members,
            composition=composition,
        )
        found.check()
    except UnsupportedModel as reason:
        return replace(whole, notes=(*whole.notes, f"Known by its predictions alone: {reason}"))
    return found


_READERS: dict[type, Callable[[Any, Any, Any, Taken], Made]] = {
    CalibratedClassifierCV: calibration,
    StackingClassifier: stacking,
    StackingRegressor: stacking,
    TransformedTargetRegressor: transformed_target,
    VotingClassifier: voting,
    VotingRegressor: voting,
}
