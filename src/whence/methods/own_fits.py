"""Refits to the minimum beside those of the estimator's own solver, which may stop before it."""

from __future__ import annotations

from functools import singledispatch

import numpy as np
import torch
from torch import Tensor

from whence.diagnostics import two_digits
from whence.methods.subsets import Positions
from whence.objective.measures import Measure
from whence.objective.objective import Objective
from whence.objective.trained import Examples, Trained

_CHECKED = 3  # removals that the estimator's own library repeats
_FINISHED = 1e-3  # of the largest change: a fit nearer to its minimum is not asked about
_SAME = 1e-6  # of the largest output: a loss that is flat at the queries hides a fit further off
_SAID = 0.05  # of the largest change: the difference that is worth a sentence


@singledispatch
def beside_own_fits(
    trained: Trained,
    base: Trained,
    queries: Examples,
    measure: Measure,
    where: Positions,
    changes: Tensor,
) -> str:
    """Return how far refits to the minimum are from the estimator's own refits, a sentence.

    A fit that stopped before its minimum says that the solver's tolerance is not small beside the
    changes asked about. How far each refit stops from its own minimum differs from fit to fit, so
    that a few of them are made; of a hinge always, whose fit may end at its minimum by luck.

    Args:
        trained: The model, as its library has fitted it.
        base: The model at its minimum.
        queries: The q queries.
        measure: m.
        where: Positions of the k removed examples.
        changes: m at the minimum without each, less m at the minimum with it, [q, k].

    Returns:
        The sentence; empty where the two agree, or a refit is the library's own.

    Cost:
        Three fits by the library where the fit given is not at its minimum, or of a hinge.
    """
    return ""


@beside_own_fits.register
def _(
    trained: Objective,
    base: Trained,
    queries: Examples,
    measure: Measure,
    where: Positions,
    changes: Tensor,
) -> str:
    statistics, largest = trained.statistics, float(changes.abs().max()) if len(where) else 0.0
    if statistics is None:
        return ""
    given, least = trained.outputs(queries), base.outputs(queries)
    before = measure(given, queries.targets)
    unfinished = measure(least, queries.targets) - before
    finished = float(unfinished.abs().max()) <= _FINISHED * largest
    same = float((least - given).abs().max()) <= _SAME * float(least.abs().max())
    if not trained.hinged and finished and same:
        return ""
    own, predicted = [], []
    order = changes.abs().amax(0).argsort(descending=True)  # of large and of small effects
    for column in order[np.linspace(0, len(order) - 1, min(_CHECKED, len(order)))].tolist():
        weights = trained.weights.clone()
        weights[where[column]] = 0
        fitted = statistics.own_fit(trained, weights)
        if fitted is not None:
            own.append(measure(fitted.outputs(queries), queries.targets) - before)
            predicted.append(changes[:, column])
    if not own:
        return ""
    actual, found = torch.stack(own), torch.stack(predicted)
    differ, size = float((actual - found).abs().max()), max(largest, float(actual.abs().max()))
    if differ <= _SAID * size:  # where nothing changes, both are 0
        return ""
    return (
        "Expected an estimator whose own fits reach their minimum, to which whence refits. Got one "
        f"whose fits without {len(own)} of these examples change the answer by other amounts, by "
        f"up to {two_digits(differ / size)} times the largest change: its solver stops, or rounds, "
        "before. Bring the columns to similar scales, or fit with a smaller tol and more "
        "iterations."
    )
