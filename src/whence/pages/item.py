"""Examples and statuses as pages show them: arrays, numbers and text, no model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from whence.arrays import Floats
from whence.errors import InvalidInput

Level = Literal["good", "caution", "bad", "unknown"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Item:
    """One example: an image, a text or a row of cells.

    Args:
        title: What it is, such as "Training example 17".
        label: Its label in the data, or its target; empty where none is known.
        predicted: What the model says of it, where that is shown.
        image: Gray [h, w] or color [h, w, 3], uint8.
        text: A text, shown as it stands.
        tokens: The same text cut into tokens, spaces included; shown instead of it.
        cells: The values of a row, in the order of the page's columns.
        attribution: The input attribution: the derivative of the answer in each pixel, [h, w] or
            [h, w, 3]; the part of the effect that comes from each token, [t]; or the change of the
            answer per standard deviation of each column, [d].

    Raises:
        InvalidInput: If the image is not one, or `attribution` has another shape than what is
            shown.
    """

    title: str
    label: str = ""
    predicted: str | None = None
    image: NDArray[np.uint8] | None = None
    text: str | None = None
    tokens: tuple[str, ...] = ()
    cells: tuple[str, ...] = ()
    attribution: Floats | None = None

    def __post_init__(self) -> None:
        if self.image is not None:
            shape, kind = self.image.shape, self.image.dtype
            shaped = len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)
            if not shaped or kind != np.uint8 or not self.image.size:
                raise InvalidInput(
                    "Expected an image of shape [h, w] or [h, w, 3] and dtype uint8. "
                    f"Got shape {shape} and dtype {kind}. Scale it to 0..255 and cast it."
                )
        shapes = self._attribution_shapes()
        if self.attribution is not None and self.attribution.shape not in shapes:
            raise InvalidInput(
                f"Expected an input attribution in one of the shapes {shapes}, that of the image, "
                f"or one number per token or column. Got shape {self.attribution.shape}."
            )

    def _attribution_shapes(self) -> list[tuple[int, ...]]:
        """Return the shapes that `attribution` may have: those of what is shown."""
        if self.image is not None:
            return [self.image.shape[:2], (*self.image.shape[:2], 3)]
        return [(len(self.tokens or self.cells),)]


@dataclass(frozen=True, kw_only=True)
class Status:
    """One thing a reader should know before trusting the page, with its reason.

    Args:
        level: "good" and "bad" for what was measured, "caution" for what to keep in mind, "unknown"
            for what was not measured.
        title: What was found, in a short sentence.
        words: What follows from it, or what to do about it.
        numbers: The numbers behind it, for experts.

    Raises:
        InvalidInput: If the level is another word.
    """

    level: Level
    title: str
    words: str = ""
    numbers: str = ""

    def __post_init__(self) -> None:
        if self.level not in get_args(Level):
            raise InvalidInput(
                f'Expected a level "good", "caution", "bad" or "unknown". Got {self.level!r}.'
            )
