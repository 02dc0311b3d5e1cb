"""What a page shows, as plain data: arrays, numbers and text, and no model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class Item:
    """One example as a reader sees it: an image, a text or the columns of a row.

    Args:
        title: What it is, such as "training example 17".
        label: Its label in the data, or its target.
        predicted: What the model says of it, where that is shown.
        image: Gray [h, w] or color [h, w, 3], uint8.
        text: A text, shown as it stands.
        columns: (name, value) pairs of a row, the most important first.
        acting: What in it acts on the query, in the shape of the image, or one per column.
        effect: The predicted change of the query's measure if it is removed.
        actual: The change that retraining made, where known.
    """

    title: str
    label: str
    predicted: str | None = None
    image: NDArray[np.uint8] | None = None
    text: str | None = None
    columns: tuple[tuple[str, str], ...] = ()
    acting: Floats | None = None
    effect: float | None = None
    actual: float | None = None


@dataclass(frozen=True, kw_only=True)
class Light:
    """One diagnostic, as a traffic light with its reason in words.

    Args:
        level: "good", "caution" or "bad".
        title: What was looked at.
        words: What was found, and what to do about it.
    """

    level: Literal["good", "caution", "bad"]
    title: str
    words: str


@dataclass(frozen=True, eq=False, kw_only=True)
class Scatter:
    """Predicted against actual changes.

    Args:
        predicted: [k].
        actual: [k].
        names: The examples' names, [k].
        r: Pearson's correlation.
        slope: Least-squares slope of actual on predicted.
    """

    predicted: Floats
    actual: Floats
    names: tuple[Any, ...]
    r: float
    slope: float


@dataclass(frozen=True, eq=False, kw_only=True)
class ExplanationPage:
    """Why the model said what it said about one query.

    Args:
        title: The question the page answers.
        query: The query; its label is the truth.
        said: What the model says, in words.
        measure: What the effects are changes of: "loss", "margin", ....
        unit: Its unit, such as "nats".
        value: The query's measure as it is.
        helpful: Training examples that helped, the most helpful first.
        harmful: Training examples that harmed, the most harmful first.
        scatter: Predicted against retrained, where verified.
        lights: The diagnostics.
        method: How the numbers were computed, in words.
        command: What reproduces the page.
        n: The number of training examples.
    """

    title: str
    query: Item
    said: str
    measure: str
    unit: str
    value: float
    helpful: tuple[Item, ...]
    harmful: tuple[Item, ...]
    scatter: Scatter | None
    lights: tuple[Light, ...]
    method: str
    command: str
    n: int
