"""Small pictures for a page: an image as PNG, and its input attribution as a transparent layer."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray

from whence.arrays import Floats

# Mid-tones of ColorBrewer's purple-orange scale, told apart by color-blind readers and readable
# on white and on black.
_RAISES, _LOWERS = (224, 112, 16), (124, 92, 224)


def picture(image: NDArray[np.uint8], *, longest: int = 512) -> str:
    """Return an image as a data URI, large ones made smaller.

    Args:
        image: Gray [h, w], color [h, w, 3] or with transparency [h, w, 4].
        longest: The longer side is at most this many pixels.

    Returns:
        A PNG as a data URI.
    """
    from PIL import Image  # paid by pages alone

    shown = Image.fromarray(np.ascontiguousarray(image))
    if max(shown.size) > longest:
        shown.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    shown.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def heat(attribution: Floats) -> str:
    """Return signed numbers as a transparent layer: orange raises the answer, violet lowers it.

    The opacity is the size relative to the largest; what is not finite stays clear.

    Args:
        attribution: Numbers [h, w], or [h, w, channels] which are summed.

    Returns:
        A PNG as a data URI.
    """
    relative = strength(attribution.sum(-1) if attribution.ndim == 3 else attribution)
    color = np.where(relative[..., None] > 0, _RAISES, _LOWERS)
    opacity = np.abs(relative)[..., None] * 255
    return picture(np.concatenate([color, opacity], axis=-1).round().astype(np.uint8))


def strength(values: Floats) -> Floats:
    """Return numbers relative to the largest of them, in [−1, 1]; 0 for what is not finite.

    Args:
        values: Any shape.

    Returns:
        The same shape.
    """
    finite = np.where(np.isfinite(values), values, 0.0)
    largest = float(np.abs(finite).max(initial=0.0))
    return finite / largest if largest else finite
