"""The prediction as the strongest examples are removed together, each time retrained."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from whence.applications.flip_set import FlipSet, flip_set
from whence.applications.retrainings import is_cheap, keeping_classes
from whence.errors import InvalidInput
from whence.methods.converged import converged
from whence.methods.leave_one_out import refits_without
from whence.methods.prediction import MeasureLike
from whence.objective.losses import measure_of
from whence.objective.trained import Examples, Trained
from whence.progress import progress
from whence.scores import Scores
from whence.views.answer import class_names
from whence.views.explained import Explained
from whence.views.firmness import Firmness

_POINTS = 8  # of the curve
_REMOVED = 100  # examples of a curve that ends nowhere in particular


def course(
    trained: Trained,
    query: Examples,
    measure: MeasureLike,
    ranking: NDArray[np.intp],
    sizes: Sequence[int],
) -> tuple[tuple[int, float], ...]:
    """Return the measure of a query after retraining without the first examples of a ranking.

    Args:
        trained: The model.
        query: One query.
        measure: What is measured.
        ranking: Positions in the training data, the first to be removed first.
        sizes: How many to remove, each > 0.

    Returns:
        (number removed, measure) pairs, that of the model fitted to all examples first: as its own
        refit gives it, so that a fit that stopped early does not differ from the others by that.

    Cost:
        A retraining for each size.
    """
    quantity = measure_of(trained.trained_loss, measure)

    def value(model: Trained) -> float:
        return float(quantity(model.outputs(query), query.targets)[0])

    removed = refits_without(trained, [ranking[:size] for size in sizes])
    with progress(removed, total=len(sizes), desc="retraining", unit="fit") as fits:
        values = [value(model) for model in fits]
    return ((0, value(converged(trained))), *zip(sizes, values, strict=True))


def firmness(parts: Explained, scores: Scores) -> Firmness | None:
    """Return what becomes of an answer as the examples behind it are removed together.

    Of a classifier the examples are those of `flip_set`; of a regression those that push the
    prediction away from the mean of the training targets.

    Args:
        parts: The explanation.
        scores: Scores of all training examples on its query, [1, n].

    Returns:
        The record; `None` where no example pushes, or retraining takes too long.

    Cost:
        About twenty retrainings.
    """
    trained, quantity = parts.trained, parts.quantity
    if not is_cheap(trained):
        return None
    names, high = class_names(trained), _is_high(parts)
    found: FlipSet | None = None
    # Without an example that pushes a high answer up it is lower: the most negative change first.
    changes = scores.values[0] * (1 if quantity.rising == high else -1)
    ranking = scores.positions[np.argsort(changes, kind="stable")][: int((changes < 0).sum())]
    phrase = quantity.phrases[0 if high else 1]
    most = min(_REMOVED, len(ranking), len(trained.train) // 2, keeping_classes(trained, ranking))
    if trained.classes:
        with suppress(InvalidInput):  # a set without which a class is gone cannot be fitted
            found = flip_set(trained, parts.query)
        if found is not None and found.found:
            ranking, most = found.positions, len(found.positions)
            phrase = f"to “{names[found.before]}”"
    if not most:
        return None
    sizes = np.unique(np.linspace(0, most, _POINTS).round().astype(int))[1:].tolist()
    flips = found is not None and found.found
    return Firmness(
        points=course(trained, parts.query, parts.measure, ranking, sizes),
        phrase=phrase,
        flips_at=len(ranking) if flips else None,
        flips_to=names[found.after] if found is not None and flips else "",
    )


def _is_high(parts: Explained) -> bool:
    """Return whether the quantity is high, so that what pushes it up explains it."""
    quantity, value = parts.quantity, parts.quantity.read(parts.value)
    if quantity.percent:
        return value >= 50
    if parts.measure == "prediction":
        return value >= float(parts.trained.train.targets.double().mean())
    return value >= 0
