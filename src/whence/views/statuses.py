"""Statuses: how far to trust a result, green only for what was measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from whence.arrays import Floats
from whence.diagnostics import SHOWN, two_digits
from whence.methods.model_quality import ModelQuality
from whence.pages import Status
from whence.pages.item import Level
from whence.pages.words import number
from whence.scores import Diagnostics

_CONFIRMED = 0.1  # of the largest change: how near a retrained one must be to its prediction

RANKS_ONLY = Status(
    level="caution",
    title="The order of the examples is an estimate, and their sizes are not known.",
    words="Train again without an example to know what it does.",
)
RETRAINED = Status(level="good", title="Each number is of the model fitted again without the row.")
NOT_RETRAINED = Status(level="unknown", title="Nothing was retrained to check these numbers.")


def statuses_of(
    diagnostics: Diagnostics | None, *, retrained: bool = False, sized: bool = True
) -> tuple[Status, ...]:
    """Return diagnostics as statuses.

    Args:
        diagnostics: What a result says about itself, or `None`.
        retrained: Whether retraining says how exact the numbers are, so that an unmeasured residual
            tells a reader nothing more.
        sized: Whether the numbers have a size; if not, one status says so in place of the reasons.

    Returns:
        One status per question a reader should ask.
    """
    if diagnostics is None:
        return () if sized else (RANKS_ONLY,)
    notes = tuple(Status(level="caution", title=note) for note in diagnostics.notes)
    solved = () if retrained and _unmeasured(diagnostics) else _solve(diagnostics)
    if not sized:
        why = " ".join(each.numbers for each in solved if each.level != "bad" and each.numbers)
        unsolved = (each for each in solved if each.level == "bad")
        words = f"{diagnostics.unconfirmed} {RANKS_ONLY.words}".strip()
        solved = (*unsolved, replace(RANKS_ONLY, words=words, numbers=why))
    return (_fit(diagnostics, sized=sized), *solved, *notes)


def quality_of(quality: ModelQuality | None, names: tuple[str, ...], decimals: int) -> Status:
    """Return how good the model is as a status.

    Args:
        quality: What was measured, or `None`.
        names: What the classes are called.
        decimals: Of a regression's target.

    Returns:
        The status; its title is the sentence that stands on top of a page.
    """
    if quality is None:
        return Status(
            level="unknown",
            title="How good the model is on what it has not seen was not measured.",
            words="Pass held_out=(X, y), rows that it was not fitted on.",
        )
    words = {
        True: "",
        None: "It is not clearly better than that: read what follows with care.",
        False: "It is worse than that: what follows says little.",
    }[quality.better]
    levels: dict[bool | None, Level] = {True: "good", None: "caution", False: "bad"}
    return Status(
        level=levels[quality.better],
        title=quality_sentence(quality, names, decimals),
        words=words,
        numbers=f"Measured on {quality.n:,} {quality.how}.",
    )


def quality_sentence(quality: ModelQuality, names: tuple[str, ...], decimals: int) -> str:
    """Return how good the model is, in a sentence.

    Args:
        quality: What was measured.
        names: What the classes are called.
        decimals: Of a regression's target.
    """
    if quality.weighted is not None:
        return (
            "With the classes weighted as in its fit, the model is right on "
            f"{_of_hundred(quality.weighted.accuracy)} of 100 examples it has not seen; always "
            f"saying “{names[quality.weighted.commonest]}” would be right on "
            f"{_of_hundred(quality.weighted.majority)}."
        )
    if quality.accuracy is not None and quality.majority is not None:
        return (
            f"The model is right on {_of_hundred(quality.accuracy)} of 100 examples it has not "
            f"seen; always saying “{names[quality.commonest]}” would be right on "
            f"{_of_hundred(quality.majority)}."
        )
    error, mean = (value or 0.0 for value in (quality.error, quality.error_of_mean))
    few = 0 if error >= 10 else 1 if error >= 1 else 3
    digits = decimals if decimals < 0 else max(decimals, few)
    return (
        f"On examples it has not seen the model is off by {number(error, digits)} (root mean "
        f"square); always saying the mean would be off by {number(mean, digits)}."
    )


def retrained_of(
    predicted: Floats, actual: Floats, r: float, slope: float, *, sized: bool, limits: str = ""
) -> Status:
    """Return how predicted changes compare with those of retraining, as a status.

    Args:
        predicted: Predicted changes, [k].
        actual: Changes after retraining, [k].
        r: Their correlation.
        slope: The slope of actual on predicted.
        sized: Whether the predictions have a size.
        limits: What of the changes is chance or another fit's, in sentences; empty where little is.

    Returns:
        The status: a prediction is confirmed if it is within a tenth of the largest change; without
        a size, the correlation says how far the order is right.
    """
    if not sized:
        known = np.isfinite(r)
        return Status(
            level="unknown" if not known else "good" if r >= 0.9 else "caution" if r > 0 else "bad",
            title=f"With {len(actual)} retrainings these effects correlate with R {number(r, 2)}.",
            words=limits,
            numbers=f"R = {number(r, 4)}, slope {number(slope)}.",
        )
    k, largest = len(actual), float(np.abs(actual).max(initial=0.0))
    confirmed = int((np.abs(predicted - actual) <= _CONFIRMED * largest).sum())
    numbers = f"R = {number(r, 4)}, slope {number(slope)}. Confirmed means: within a tenth of the "
    return Status(
        level="good" if confirmed == k else "caution" if confirmed >= 0.8 * k else "bad",
        title=f"{confirmed} of {k} predictions were confirmed by retraining.",
        words=limits or ("" if confirmed == k else "Trust the retrained numbers, not the others."),
        numbers=numbers + "largest change that retraining made.",
    )


def resolved_of(again: float, enough: float, k: int, trainings: int) -> Status:
    """Return whether trainings in other orders name the same examples, as a status.

    Args:
        again: How much of the k examples with the largest mean scores a training names, in [0, 1].
        enough: From which share on the list is resolved.
        k: How many examples the list has.
        trainings: How many trainings were compared.
    """
    resolved = again >= enough
    return Status(
        level="good" if resolved else "caution",
        title="Other trainings of the model name the same examples."
        if resolved
        else "Other trainings of the model name other examples: this list is one of several.",
        words="" if resolved else "Read the mean scores of several trainings instead.",
        numbers=f"Of the first {k}, each of {trainings} trainings names {again:.0%} on average.",
    )


def _of_hundred(share: float) -> str:
    """Return a share as a number out of 100, with decimals where it is nearly all."""
    if share <= 0.99 or share == 1:
        return f"{100 * share:.0f}"
    return f"{min(100 * share, 99.9):.1f}"  # "100 of 100" is said of no model that errs


def _fit(diagnostics: Diagnostics, *, sized: bool) -> Status:
    """Return whether the model was trained to its optimum; one without sizes has no refit."""
    far, norm = diagnostics.gradient_in_examples, diagnostics.gradient_norm
    if far is None:
        return Status(level="unknown", title="Whether the model is fully trained was not measured.")
    numbers = (
        f"Finishing the training would change as much as removing {two_digits(far)} typical "
        "examples."
        f"{'' if norm is None else f' The gradient norm is {norm:.1e}.'}"
    )
    if diagnostics.unfinished is not None:
        numbers += f" That is {two_digits(diagnostics.unfinished)} times the largest effect shown."
    if diagnostics.fit == "converged":
        return Status(level="good", title="The model is fully trained.", numbers=numbers)
    if diagnostics.fit == "nearly converged":
        return Status(level="caution", title="The model is almost fully trained.", numbers=numbers)
    return Status(
        level="bad",
        title="The model is not fully trained.",
        words=f"{f'{diagnostics.stopped}. ' if diagnostics.stopped else ''}Finishing its training "
        f"would change {_change(diagnostics.unfinished)}. Train further"
        f"{', or continue with objective.refit()' if sized else ''}.",
        numbers=numbers,
    )


def _change(share: float | None) -> str:
    """Return what finishing the fit would change, beside the effects that are shown."""
    if share is None or share > SHOWN:
        return "as much as what is shown here"
    return f"the answer by {share:.0%} of the largest effect shown here"


def _unmeasured(diagnostics: Diagnostics) -> bool:
    """Return whether nothing says how exactly the equations were solved, nor changed them."""
    known = (diagnostics.residual, diagnostics.approximation_error)
    return known == (None, None) and not diagnostics.damping


def _solve(diagnostics: Diagnostics) -> tuple[Status, ...]:
    """Return whether the equations were solved, and whether they were changed."""
    if not diagnostics.solver:
        return ()
    residual, solver = diagnostics.residual, f"{diagnostics.solver}."
    if residual is None and diagnostics.approximation_error is not None:
        solved = _approximated(diagnostics.approximation_error, solver)
    elif residual is None:
        solved = Status(
            level="unknown",
            title="Whether the arithmetic behind the numbers is exact was not measured.",
            numbers=solver,
        )
    else:
        solved = Status(
            level="good" if diagnostics.converged else "bad",
            title="The arithmetic behind the numbers is exact enough."
            if diagnostics.converged
            else "The arithmetic behind the numbers is not exact enough.",
            words="" if diagnostics.converged else "Allow more iterations, or add damping.",
            numbers=f"{solver} Relative residual {residual:.0e}.",
        )
    if not diagnostics.damping:
        return (solved,)  # a fit at its minimum: nothing was changed
    damped = Status(
        level="caution",
        title="The numbers were damped: large effects may come out too small.",
        numbers=f"Damping {diagnostics.damping:.3g} ({diagnostics.damping_reason or 'as given'}).",
    )
    return solved, damped


def _approximated(error: float, solver: str) -> Status:
    """Return how far an approximate inverse is from the curvature it stands for."""
    return Status(
        level="good" if error <= _CONFIRMED else "caution",
        title="The numbers are a close approximation."
        if error <= _CONFIRMED
        else "The numbers are an approximation: read the order of the examples, not the sizes.",
        numbers=f"{solver} Relative residual in the exact Gauss-Newton system {error:.2g}.",
    )
