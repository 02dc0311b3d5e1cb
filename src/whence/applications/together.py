"""Near-duplicates behind one prediction, removed together: single removals hide each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from whence.errors import InvalidInput, NotPositiveDefinite
from whence.methods.changes import group_effect
from whence.methods.duplicates import near_duplicates
from whence.methods.prediction import MeasureLike
from whence.objective.trained import Examples, Trained
from whence.scores import Scores

_GROUPS = 3  # offered at most
_MORE = 1.5  # of what the strongest of a group does alone, that the group does


@dataclass(frozen=True, eq=False)
class Together:
    """What near-duplicates do to the query.

    Args:
        ids: The user's names of the examples.
        positions: Their positions in the training data, [m].
        effect: Predicted change of the query's measure if all are removed; nats for the loss.
        alone: The largest change of those if one is removed while the others stay.
    """

    ids: tuple[Any, ...]
    positions: NDArray[np.intp]
    effect: float
    alone: float


def together(
    trained: Trained, query: Examples, measure: MeasureLike, scores: Scores, *, least: float
) -> tuple[Together, ...]:
    """Return groups of near-duplicates that do more together than any example that is shown alone.

    Args:
        trained: The model.
        query: The one query.
        measure: What is predicted.
        scores: Scores of all training examples, [1, n].
        least: The effect from which a group is worth showing, its size.

    Returns:
        At most three, the strongest first.

    Cost:
        Distances of 60 examples to all, and one solve or refit per group.
    """
    each = scores.values[0]
    where = scores.largest(min(60, len(each))).positions[0]
    found = []
    for group in near_duplicates(trained, where):
        if 2 * len(group) > len(each):
            continue
        effect = float(each[group].sum())
        if trained.convex or trained.instant:
            order: Literal["newton", "refit"] = "newton" if trained.convex else "refit"
            try:
                changed = group_effect(trained, group, query, measure=measure, order=order)
                effect = float(changed[0])
            except (InvalidInput, NotPositiveDefinite):  # too few stay to fit again
                continue
        alone = float(each[group][np.abs(each[group]).argmax()])
        if abs(effect) >= max(least, _MORE * abs(alone)):
            ids = tuple(trained.train.ids[group].tolist())
            found.append(Together(ids=ids, positions=group, effect=effect, alone=alone))
    return tuple(sorted(found, key=lambda one: -abs(one.effect))[:_GROUPS])
