"""What a page about one prediction shows, as plain data: arrays, numbers and text, no model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from whence.errors import InvalidInput

Floats = NDArray[np.float64]
Level = Literal["good", "caution", "bad"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Item:
    """One example as a reader sees it: an image, a text or the columns of a row.

    Args:
        title: What it is, such as "Training example 17".
        label: Its label in the data, or its target.
        predicted: What the model says of it, where that is shown.
        image: Gray [h, w] or color [h, w, 3], uint8.
        text: A text, shown as it stands.
        tokens: The same text cut into the pieces that act, spaces included; shown instead of it.
        columns: (name, value) pairs of a row, the most important first.
        acting: The derivative of the query's measure in the example's inputs: [h, w] or
            [h, w, 3] for an image, else one number per column; of tokens, the part of the effect
            that comes from each.
        effect: The predicted change of the query's measure if it is removed.
        actual: The change that retraining made, where known.

    Raises:
        InvalidInput: If the image is not one, or `acting` has another shape than what acts.
    """

    title: str
    label: str
    predicted: str | None = None
    image: NDArray[np.uint8] | None = None
    text: str | None = None
    tokens: tuple[str, ...] = ()
    columns: tuple[tuple[str, str], ...] = ()
    acting: Floats | None = None
    effect: float | None = None
    actual: float | None = None

    def __post_init__(self) -> None:
        if self.image is not None:
            shape, kind = self.image.shape, self.image.dtype
            shaped = len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)
            if not shaped or kind != np.uint8 or not self.image.size:
                raise InvalidInput(
                    "Expected an image of shape [h, w] or [h, w, 3] and dtype uint8. "
                    f"Got shape {shape} and dtype {kind}. Scale it to 0..255 and cast it."
                )
        if self.acting is not None and self.acting.shape not in self._acting_shapes():
            raise InvalidInput(
                f"Expected acting in one of the shapes {self._acting_shapes()}, that of the image, "
                f"or one number per token or column. Got shape {self.acting.shape}."
            )

    def _acting_shapes(self) -> list[tuple[int, ...]]:
        """Return the shapes that `acting` may have: those of what is shown."""
        if self.image is not None:
            return [self.image.shape[:2], (*self.image.shape[:2], 3)]
        return [(len(self.tokens or self.columns),)]


@dataclass(frozen=True, kw_only=True)
class Light:
    """One diagnostic, as a traffic light with its reason in words.

    Args:
        level: "good", "caution" or "bad".
        title: What was looked at.
        words: What was found, and what to do about it.

    Raises:
        InvalidInput: If the level is another word.
    """

    level: Level
    title: str
    words: str

    def __post_init__(self) -> None:
        if self.level not in get_args(Level):
            raise InvalidInput(f'Expected a level "good", "caution" or "bad". Got {self.level!r}.')


@dataclass(frozen=True, eq=False, kw_only=True)
class Scatter:
    """Predicted against actual changes.

    Args:
        predicted: [k].
        actual: [k].
        names: The examples' names, [k].
        r: Pearson's correlation; NaN if either is constant.
        slope: Least-squares slope of actual on predicted.

    Raises:
        InvalidInput: If the three do not have the same length.
    """

    predicted: Floats
    actual: Floats
    names: tuple[Any, ...]
    r: float
    slope: float

    def __post_init__(self) -> None:
        shapes = self.predicted.shape, self.actual.shape, (len(self.names),)
        if len(set(shapes)) != 1:
            raise InvalidInput(
                "Expected as many predicted changes as actual ones and names. "
                f"Got shapes {', '.join(map(str, shapes))}."
            )


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
        helpful: The examples whose removal raises the measure, the largest effect first.
        harmful: The examples whose removal lowers the measure, the most negative first.
        scatter: Predicted against retrained, where verified.
        lights: The diagnostics.
        method: How the numbers were computed, in words.
        command: What reproduces the page.
        n: The number of training examples.
        created: When it was made, as the reader should see it; not shown if empty.
        version: Of whence; the one that is installed if empty.
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
    created: str = ""
    version: str = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class AttackPage:
    """A few training inputs before and after a change, and what training on them did.

    Args:
        title: The question the page answers.
        words: What is shown, in a sentence or two.
        said: The outcome, in a sentence.
        pairs: Changed training inputs, (before, after) each; `acting` of the second is the change.
        queries: The queries; `predicted` says what the model said before and after.
        losses: The mean loss of the queries after each step, the clean one first, in nats.
        lights: The diagnostics.
        method: How it was made, in words.
        command: What reproduces the page.
        created: When it was made, as the reader should see it; not shown if empty.
        version: Of whence; the one that is installed if empty.
    """

    title: str
    words: str
    said: str
    pairs: tuple[tuple[Item, Item], ...]
    queries: tuple[Item, ...]
    losses: tuple[float, ...]
    lights: tuple[Light, ...]
    method: str
    command: str
    created: str = ""
    version: str = ""
