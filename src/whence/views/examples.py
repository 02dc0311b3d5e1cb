"""Examples as pages show them: images, texts, tokens or rows of a table."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from whence.arrays import Floats
from whence.errors import InvalidInput
from whence.objective.trained import Examples, Trained
from whence.pages import Item
from whence.rows import dense
from whence.views.answer import label_of
from whence.views.columns import NONE, Columns, is_table
from whence.views.sequences import Decode, pieces_of
from whence.views.words import text_of


def item_of(
    trained: Trained,
    examples: Examples,
    index: int,
    *,
    title: str,
    image_shape: tuple[int, ...] | None,
    columns: Columns = NONE,
    labeled: bool = True,
    predicted: str | None = None,
    attribution: Floats | None = None,
    decode: Decode | None = None,
) -> Item:
    """Return one example as a page shows it.

    Args:
        trained: The model, which knows the classes.
        examples: The examples it is one of.
        index: Its position among them.
        title: What to call it.
        image_shape: (h, w) or (h, w, 3) if a row is an image laid out flat; else `None`.
        columns: Which columns of a row are shown.
        labeled: Whether its label is known.
        predicted: What the model says of it, where that is shown.
        attribution: The input attribution in the user's own inputs; of tokens, the part of the
            effect that each has, [t].
        decode: From token numbers to text, such as a tokenizer's decode.

    Returns:
        The record.
    """
    image: NDArray[np.uint8] | None = None
    tokens: tuple[str, ...] = ()
    cells: tuple[str, ...] = ()
    shown: Floats | None = None
    images = images_of(examples)
    if images is not None:
        image = _picture(images, images[index])
        shown = None if attribution is None else _channels_last(attribution)
    elif image_shape is not None and is_table(examples.inputs):
        rows = dense(examples.inputs)
        image = _image(rows, rows[index], image_shape)
        if attribution is not None and attribution.size == int(np.prod(image_shape)):
            shown = attribution.reshape(image_shape)
    elif is_table(examples.inputs):
        cells = columns.cells(examples.inputs, index) if columns.names else ()
        if attribution is not None and cells:
            shown = attribution[columns.order]
    else:
        tokens = pieces_of(examples, index, decode)
        shown = attribution if tokens else None
    return Item(
        title=title,
        label=label_of(trained, examples.targets[index]) if labeled else "",
        predicted=predicted,
        image=image,
        text=text_of(examples, index),
        tokens=tokens,
        cells=cells,
        attribution=shown,
    )


def images_of(examples: Examples) -> Tensor | None:
    """Return the inputs if they are images: [b, h, w], [b, 1, h, w] or [b, 3, h, w].

    Args:
        examples: Some examples.
    """
    return _images(examples.inputs)


@singledispatch
def _images(inputs: Any) -> Tensor | None:
    """Return inputs that are images."""
    return None


@_images.register(Tensor)
def _shaped_as_images(inputs: Tensor) -> Tensor | None:
    shaped = inputs.ndim == 3 or (inputs.ndim == 4 and inputs.shape[1] in (1, 3))
    return inputs if shaped and inputs.is_floating_point() else None


def _image(rows: Floats, row: Floats, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return a row as an image, black to white over the range of all rows."""
    if len(shape) not in (2, 3) or int(np.prod(shape)) != row.size:
        raise InvalidInput(
            f"Expected image_shape to multiply to the {row.size} columns of a row. Got {shape}."
        )
    low, high = float(rows.min()), float(rows.max())
    scaled = (row - low) / (high - low or 1.0)
    return np.asarray(scaled.reshape(shape) * 255).round().astype(np.uint8)


def _picture(inputs: Tensor, image: Tensor) -> NDArray[np.uint8]:
    """Return an image of a module's inputs, black to white over the range of all of them."""
    low, high = float(inputs.min()), float(inputs.max())
    scaled = _channels_last(image.detach().cpu().numpy().astype(np.float64))
    return np.asarray((scaled - low) / (high - low or 1.0) * 255).round().astype(np.uint8)


def _channels_last(values: Floats) -> Floats:
    """Return [c, h, w] as [h, w, c], or [h, w] where there is one channel."""
    if values.ndim == 2:
        return values
    return values[0] if len(values) == 1 else np.moveaxis(values, 0, -1)
