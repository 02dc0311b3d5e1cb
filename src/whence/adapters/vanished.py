"""Fits on rows without one of the classes: the estimator then has one class less."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from whence.adapters.estimators import Problem
from whence.adapters.fitted import Fitted
from whence.adapters.readers import read
from whence.adapters.weights import weights_of
from whence.errors import InvalidInput
from whence.rows import take

_NO_ROWS = -1_000.0  # the intercept of a class that has lost its last row: probability 0


def classes_left(fitted: Fitted, kept: NDArray[np.bool_]) -> bool:
    """Return whether each class that has rows keeps at least one.

    Args:
        fitted: The estimator with its data.
        kept: Which rows stay, [n].
    """
    labels = fitted.weights.labels
    if labels is None or fitted.classes is None:
        return True
    before, after = labels.numpy()[fitted.kept], labels.numpy()[fitted.kept & kept]
    return len(np.unique(after)) == len(np.unique(before))


def reduced(fitted: Fitted, kept: NDArray[np.bool_]) -> Fitted:
    """Return the estimator fitted on the kept rows alone, with the classes that are left.

    Args:
        fitted: The estimator with its data, its transformers fitted on the kept rows.
        kept: Which rows stay, [n].

    Returns:
        The estimator, fitted by its own `fit`, with the kept rows.

    Raises:
        InvalidInput: If fewer than two classes are left, or the estimator regresses on classes.
    """
    where = np.flatnonzero(kept)
    labels = fitted.labels[where]
    classes = np.unique(labels)
    if len(classes) < 2 or fitted.problem.signs:
        raise InvalidInput(
            f"Expected every class to keep a row. Got only {', '.join(map(repr, classes.tolist()))}"
            f" without the removed ones, which {type(fitted.final).__name__} cannot be fitted on."
        )
    sample = fitted.weights.sample.numpy()[where]
    matrix = fitted.matrix[where]
    weighted: dict[str, Any] = {} if (sample == 1).all() else {"sample_weight": sample}
    final = clone(fitted.final).fit(matrix, labels, **weighted)
    problem = read(final, sample)
    return replace(
        fitted,
        final=final,
        problem=problem,
        rows=take(fitted.rows, where),
        ids=fitted.ids[where],
        labels=labels,
        classes=classes,
        matrix=matrix,
        weights=weights_of(final, problem, classes, labels, sample),
        kept=np.ones(len(where), dtype=bool),
    )


def with_all_classes(fitted: Fitted, kept: NDArray[np.bool_], few: Fitted) -> Fitted:
    """Return the estimator with the parameters of a fit that knows fewer classes.

    Args:
        fitted: The estimator with all its classes.
        kept: Which rows stay, [n].
        few: The fit with fewer.

    Returns:
        The estimator with its own classes; one without rows has probability 0.
    """
    assert fitted.classes is not None
    assert few.classes is not None
    problem, c = fitted.problem, len(fitted.classes)
    where = np.searchsorted(fitted.classes, few.classes)
    coef, intercept = few.problem.coef, few.problem.intercept
    intercept = np.zeros(len(coef)) if intercept is None else intercept
    if len(coef) == 1:
        lower = -1.0 if problem.one_vs_rest else 0.0
        coef = np.concatenate([lower * coef, coef])
        intercept = np.concatenate([lower * intercept, intercept])
    all_coef = np.zeros((c, coef.shape[1]))
    all_coef[where] = coef
    levels = np.full(c, _NO_ROWS * max(1.0, problem.constant))
    levels[where] = intercept
    gone = fitted.classes[np.setdiff1d(np.arange(c), where)].tolist()
    note = (
        f"Without the removed rows class {gone[0]!r} has none: the model gives it probability 0, "
        f"and its loss, which is infinite, is shown as {-_NO_ROWS:,.0f}."
    )
    after: Problem = replace(problem, coef=all_coef, intercept=levels)
    notes = (*fitted.notes, note)
    return replace(fitted, problem=after, kept=kept, notes=notes, lacks_a_class=True)
