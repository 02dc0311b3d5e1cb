"""What the drawings of a page show, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from whence.arrays import Floats
from whence.errors import InvalidInput


@dataclass(frozen=True, eq=False, kw_only=True)
class Scatter:
    """Predicted against actual changes.

    Args:
        predicted: [k].
        actual: [k].
        names: The examples' names, [k].
        r: Pearson's correlation; NaN if either is constant.
        slope: Least-squares slope of actual on predicted.
        unit: Of both.

    Raises:
        InvalidInput: If the three do not have the same length.
    """

    predicted: Floats
    actual: Floats
    names: tuple[Any, ...]
    r: float
    slope: float
    unit: str = ""

    def __post_init__(self) -> None:
        shapes = self.predicted.shape, self.actual.shape, (len(self.names),)
        if len(set(shapes)) != 1:
            raise InvalidInput(
                "Expected as many predicted changes as actual ones and names. "
                f"Got shapes {', '.join(map(str, shapes))}."
            )


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A predicted number among the training targets.

    Args:
        low: The least training target.
        high: The largest.
        predicted: What the model says.
        actual: The value in the data, or `None` where it is not known.
        texts: The four as they are shown; empty where there is none.
    """

    low: float
    high: float
    predicted: float
    actual: float | None
    texts: tuple[str, str, str, str]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A number as it goes.

    Args:
        points: (across, up) pairs, at least one, in the order of `across`.
        across: What is counted from left to right.
        up: What the numbers are.
        unit: What follows each of them, such as " %".
        threshold: A level to mark, or `None`.
        threshold_words: What it means.

    Raises:
        InvalidInput: If there is no point.
    """

    points: tuple[tuple[float, float], ...]
    across: str
    up: str
    unit: str = ""
    threshold: float | None = None
    threshold_words: str = ""

    def __post_init__(self) -> None:
        if not self.points:
            raise InvalidInput("Expected at least one point to draw. Got none.")
