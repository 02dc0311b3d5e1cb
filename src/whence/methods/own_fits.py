"""Refits to the minimum beside those of the estimator's own solver, which may stop before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from whence.diagnostics import two_digits
from whence.errors import warn_user
from whence.methods.subsets import Positions
from whence.objective.measures import Measure
from whence.objective.objective import Objective
from whence.objective.removed import weights_without
from whence.objective.trained import Examples, Trained

Value: TypeAlias = Callable[[Trained], Tensor]  # m of a model, [q]

_CHECKED = 3  # removals that the estimator's own library repeats
_CHECKED_BY_CHANCE = 20  # the same where each fit may stop by chance, of few rows
_FEW_ROWS = 10_000
_FINISHED = 1e-3  # of the largest change: a fit nearer to its minimum is not asked about
_SAME = 1e-6  # of the largest output: a loss that is flat at the queries hides a fit further off
_STATED = 0.01  # of the largest change: the difference that is stated beside a result
_FAR = 0.05  # of the largest change: the difference that is warned of


@dataclass(frozen=True, kw_only=True)
class OwnFits:
    """How far refits to the minimum are from those of the estimator's own solver.

    Args:
        fits: How many of these were made.
        differ: By how much the changes that they make differ at most, of the largest change.
        others: Of how many removals nothing is known, because a fit may stop by chance.
    """

    fits: int
    differ: float
    others: int = 0

    @property
    def far(self) -> bool:
        """Whether the difference is worth a warning."""
        return self.differ > _FAR

    @property
    def words(self) -> str:
        """The difference in a sentence; empty where it is nothing to speak of."""
        if self.differ <= _STATED:
            return self._of_others.strip()
        share = two_digits(self.differ)
        if not self.far:
            return (
                f"Without {self.fits} of these examples the estimator's own fits change the answer "
                f"by up to {share} times the largest change more or less than this: its solver "
                f"stops, or rounds, before the minimum, to which whence refits.{self._of_others}"
            )
        return (
            "Expected an estimator whose own fits reach their minimum, to which whence refits. Got "
            f"one whose fits without {self.fits} of these examples change the answer by other "
            f"amounts, by up to {share} times the largest change: its solver stops, or rounds, "
            "before. Bring the columns to similar scales, or fit with a smaller tol and more "
            f"iterations.{self._of_others}"
        )

    @property
    def _of_others(self) -> str:
        """What is not known of other removals, in a sentence."""
        if not self.others:
            return ""
        return (
            f" Stochastic gradient descent stops by chance, now and then long before its minimum: "
            f"{self.fits} of the estimator's own fits were compared, and any of the other "
            f"{self.others:,} may be elsewhere. A larger n_iter_no_change makes this rarer."
        )


@singledispatch
def beside_own_fits(
    trained: Trained,
    base: Trained,
    queries: Examples,
    measure: Measure,
    where: Positions,
    changes: Tensor,
) -> OwnFits | None:
    """Return how far refits to the minimum are from the estimator's own refits.

    A fit that stopped before its minimum says that the solver's tolerance is not small beside the
    changes asked about. How far each refit stops from its own minimum differs from fit to fit, so
    that a few of them are made; of a hinge always, whose fit may end at its minimum by luck, and
    more of stochastic gradient descent, of which one fit in many stops far from it.

    Args:
        trained: The model, as its library has fitted it.
        base: The model at its minimum.
        queries: The q queries.
        measure: m.
        where: Positions of the k removed examples.
        changes: m at the minimum without each, less m at the minimum with it, [q, k].

    Returns:
        The difference; `None` where the two agree, or a refit is the library's own.

    Cost:
        Three fits by the library where the fit given is not at its minimum, or of a hinge; twenty
        by stochastic gradient descent to at most 10,000 rows.
    """
    return None


@beside_own_fits.register
def _(
    trained: Objective,
    base: Trained,
    queries: Examples,
    measure: Measure,
    where: Positions,
    changes: Tensor,
) -> OwnFits | None:
    statistics, largest = trained.statistics, float(changes.abs().max()) if len(where) else 0.0
    if statistics is None:
        return None

    def value(model: Trained) -> Tensor:
        return measure(model.outputs(queries), queries.targets)

    if _ends_at_minimum(trained, base, queries, value, largest):
        return None
    before, by_chance = value(trained), statistics.stops_by_chance
    few = by_chance and len(trained.weights) <= _FEW_ROWS
    checked = min(_CHECKED_BY_CHANCE if few else _CHECKED, len(where))
    own, predicted = [], []
    order = changes.abs().amax(0).argsort(descending=True)  # of large and of small effects
    for column in order[np.linspace(0, len(order) - 1, checked)].tolist():
        rest = weights_without(trained.weights, where[column : column + 1])
        fitted = statistics.own_fit(trained, rest)
        if fitted is not None:
            own.append(value(fitted) - before)
            predicted.append(changes[:, column])
    if not own:
        return None
    actual, found = torch.stack(own), torch.stack(predicted)
    differ, size = float((actual - found).abs().max()), max(largest, float(actual.abs().max()))
    return OwnFits(
        fits=len(own),
        differ=differ / size if differ else 0.0,  # 0 where nothing moves
        others=len(where) - len(own) if by_chance else 0,
    )


def _ends_at_minimum(
    trained: Objective, base: Trained, queries: Examples, value: Value, largest: float
) -> bool:
    """Return whether the estimator's own fits are taken to end at their minimum, as this one."""
    statistics = trained.statistics
    if trained.hinged or (statistics is not None and statistics.stops_by_chance):
        return False
    finished = float((value(base) - value(trained)).abs().max()) <= _FINISHED * largest
    given, least = trained.outputs(queries), base.outputs(queries)
    return finished and float((least - given).abs().max()) <= _SAME * float(least.abs().max())


@singledispatch
def warn_beside_own_fit(
    trained: Trained,
    base: Trained,
    queries: Examples,
    value: Value,
    change: Tensor,
    changed: Trained,
    weights: Tensor,
) -> None:
    """Warn if one refit to the minimum is far from what the estimator's own solver gives.

    Args:
        trained: The model, as its library has fitted it.
        base: The model at its minimum.
        queries: The q queries.
        value: m of a model.
        change: m at the minimum on the changed data, less m at the minimum, [q].
        changed: The model with the changed data, as the estimator is fitted to them.
        weights: Of these data, [n].

    Warns:
        NotConvergedWarning: If the two differ by more than a twentieth of the change.

    Cost:
        One fit by the library where the fit given is not at its minimum, stops by chance, or is of
        a hinge.
    """


@warn_beside_own_fit.register
def _(
    trained: Objective,
    base: Trained,
    queries: Examples,
    value: Value,
    change: Tensor,
    changed: Objective,
    weights: Tensor,
) -> None:
    largest, statistics = float(change.abs().max()), changed.statistics
    if statistics is None or _ends_at_minimum(trained, base, queries, value, largest):
        return
    fitted = statistics.own_fit(changed, weights)
    if fitted is None:
        return
    actual = value(fitted) - value(trained)
    off, size = float((actual - change).abs().max()), float(actual.abs().max())
    if off > _FAR * max(largest, size):
        warn_user(
            "Expected an estimator whose own fit to the changed data reaches its minimum, to which "
            "whence refits. Got one that changes the answer by another amount, by "
            f"{two_digits(off / max(largest, size))} times the larger of the two: its solver "
            "stops, or rounds, before. Bring the columns to similar scales, or fit with a smaller "
            "tol and more iterations."
        )
