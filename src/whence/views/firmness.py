"""The figures on top of a page, and the answer as examples are removed together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from whence.pages import Curve, Fact, Scatter
from whence.pages.words import number
from whence.views.quantity import Quantity


@dataclass(frozen=True, eq=False, kw_only=True)
class Firmness:
    """What becomes of the answer as examples are removed together, by retraining.

    Args:
        points: (number removed, measure after retraining) pairs, 0 first.
        phrase: Which way the removed examples push.
        flips_at: How many removals change the predicted class, or `None`.
        flips_to: The class that is then predicted.
    """

    points: tuple[tuple[int, float], ...]
    phrase: str
    flips_at: int | None
    flips_to: str


def facts_of(
    quantity: Quantity,
    value: float,
    largest: float,
    n: int,
    firmness: Firmness | None,
    scatter: Scatter | None,
    noun: str,
) -> tuple[Fact, ...]:
    """Return the three figures on top, those that are known.

    Args:
        quantity: How the measure is read.
        value: The measure as it is.
        largest: The largest change of the quantity by one removal; 0 where not known.
        n: The number of training examples.
        firmness: The answer as examples are removed together, or `None`.
        scatter: Predicted against retrained, or `None`.
        noun: What training examples are called, in the plural.

    Returns:
        The largest single effect, what flips the answer, and the agreement with retraining.
    """
    facts = []
    if largest:
        figure = quantity.change(largest, quantity.decimals([largest])).lstrip("+")
        words = f"is the most that any one of the {noun} moves this."
        if firmness is not None and firmness.flips_at is not None:
            alone = firmness.flips_at == 1
            words += " One alone decides it." if alone else " No single one decides it."
        facts.append(Fact(figure=figure, words=words))
    if firmness is not None and firmness.flips_at is not None:
        words = (
            f"{noun} would have to be gone before the model said “{firmness.flips_to}”, as "
            "retraining without them shows."
        )
        facts.append(Fact(figure=f"{firmness.flips_at:,} of {n:,}", words=words))
    elif firmness is not None:
        removed, left = firmness.points[-1]
        after = quantity.read(left)
        decimals = quantity.decimals([after - quantity.read(value)])
        words = (
            f"is what it would be without the {removed:,} {noun} that push {firmness.phrase} most. "
            "Retrained."
        )
        facts.append(Fact(figure=quantity.text(after, decimals), words=words))
    if scatter is not None and np.isfinite(scatter.r):
        words = f"between these effects and {len(scatter.names)} retrainings."
        facts.append(Fact(figure=f"R {number(scatter.r, 4)}", words=words, proof=True))
    return tuple(facts)


def curve_of(quantity: Quantity, firmness: Firmness, noun: str, *, binary: bool) -> Curve:
    """Return the quantity as examples are removed together.

    Args:
        quantity: How the measure is read.
        firmness: The numbers.
        noun: What training examples are called, in the plural.
        binary: Whether there are two classes, so that the answer changes at 50 %.

    Returns:
        The curve.
    """
    marked = quantity.percent and binary and firmness.flips_at is not None
    return Curve(
        points=tuple((float(m), quantity.read(value)) for m, value in firmness.points),
        across=f"{noun} removed",
        up=quantity.name,
        unit=" %" if quantity.percent else "",
        threshold=50.0 if marked else None,
        threshold_words=f"{firmness.flips_at:,} removed: it says “{firmness.flips_to}”"
        if marked
        else "",
    )
