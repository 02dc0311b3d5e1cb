"""Which training examples an explanation shows, and by which method."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import singledispatch

import numpy as np
from numpy.typing import NDArray

from whence.errors import InvalidInput, warn_user
from whence.methods.attribution import Attribution
from whence.methods.contrast import Contrast
from whence.methods.leave_one_out import LeaveOneOut
from whence.methods.method import Method
from whence.methods.prediction import MeasureLike
from whence.methods.screening import REFITTED
from whence.objective.losses import measure_of
from whence.objective.trained import Examples, Trained
from whence.scores import Scores

CANDIDATES = 3  # candidates per example shown: the first order orders them only roughly


@dataclass(frozen=True, eq=False)
class Shown:
    """The training examples that may be shown of one query.

    Args:
        scores: Their scores, by `shown_by`, [1, m].
        sized: Whether the sizes of these are to be trusted, and not only their order.
    """

    scores: Scores
    sized: bool


def shown_of(
    method: Method, trained: Trained, query: Examples, measure: MeasureLike, scores: Scores, k: int
) -> Shown:
    """Return the candidates for the k strongest examples of each side, refined where that helps.

    Args:
        method: What made the scores.
        trained: The model.
        query: One query.
        measure: What is predicted.
        scores: Scores of all training examples, [1, n].
        k: Examples to show on each side.

    Returns:
        At most 6k examples with their scores; 2k where each would take long to refine.
    """
    showing = shown_by(method, trained)
    fitted: Attribution = showing.fit(trained)
    each = 1 if refits_preprocessing(trained) else CANDIDATES
    where = np.unique(candidates(method.fit(trained), scores, query, measure, k * each))
    where = where if showing is method else removable(trained, where)
    found = (
        scores.at(where)
        if showing is method
        else fitted.scores(query, measure=measure, indices=where)
    )
    unconfirmed = found.diagnostics is not None and bool(found.diagnostics.unconfirmed)
    return Shown(found, fitted.calibrated and not unconfirmed)


def shown_by(method: Method, trained: Trained) -> Method:
    """Return the method whose scores are shown.

    Args:
        method: What scores all training examples.
        trained: The model; a convex one has refined scores, and of one whose refits are instant
            each removal is made.
    """
    refined = method.refined() if trained.convex else None
    return refined or (_removing(method) if trained.instant else method)


def removable(trained: Trained, where: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return those training examples without which the model can be fitted, and warn of others.

    Args:
        trained: The model.
        where: Positions of the examples.

    Raises:
        InvalidInput: If it cannot be fitted without any of them.
    """
    needed = np.intersect1d(where, indispensable(trained))
    if len(needed) == len(where):
        raise InvalidInput(
            "Expected training examples without which the model can be fitted. Got "
            f"{len(trained.train)}, each the only one of its class."
        )
    for name in trained.train.ids[needed].tolist():
        warn_user(
            f"The effect of {name} is not shown: it is the only training example of its class, and "
            "the model cannot be fitted without it."
        )
    return np.setdiff1d(where, needed)


def indispensable(trained: Trained) -> NDArray[np.intp]:
    """Return the positions of the training examples without which a model cannot be fitted.

    Args:
        trained: The model.
    """
    statistics = getattr(trained, "statistics", None)
    return np.empty(0, dtype=np.intp) if statistics is None else statistics.indispensable


@singledispatch
def _removing(method: Method) -> Method:
    """Return the removals that a method's scores stand for."""
    return LeaveOneOut()


@_removing.register
def _(method: Contrast) -> Method:
    return Contrast(LeaveOneOut(), method.other)


def refits_preprocessing(trained: Trained) -> bool:
    """Return whether a removal fits the preprocessing of a large table again.

    Args:
        trained: The model.
    """
    return getattr(trained, "statistics", None) is not None and len(trained.train) > REFITTED


def candidates(
    fitted: Attribution, scores: Scores, queries: Examples, measure: MeasureLike, k: int
) -> NDArray[np.intp]:
    """Return the strongest training examples of each query by what is known of all.

    Args:
        fitted: The method fitted to the model.
        scores: Its scores, [q, n].
        queries: The q queries.
        measure: What is predicted.
        k: How many per query and side.

    Returns:
        Positions of the strongest k of each side by the method's ranking, [q, 2k].
    """
    most, quantity = min(k, len(scores.train_ids)), measure_of(fitted.loss, measure)
    ranking = replace(scores, values=fitted.ranking_values(queries, quantity, scores.values))
    return np.hstack([ranking.top(most).positions, ranking.bottom(most).positions])
