"""Conversion of a caller's arrays to finite float64 arrays."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from whence.errors import InvalidInput

Float: TypeAlias = NDArray[np.float64]
Bool: TypeAlias = NDArray[np.bool_]


def floats(name: str, value: Tensor | NDArray[Any], shape: str) -> Float:
    """Return `value` as a finite float64 array with as many axes as `shape` has letters.

    Args:
        name: What the caller calls it, for the message.
        value: A tensor on any device, or anything `numpy.asarray` takes.
        shape: The axes by letter, as in the documentation: `"q, n"`.

    Returns:
        The array [shape], float64.

    Raises:
        InvalidInput: If the number of axes differs, one of them is empty, or an entry is not
            finite.
    """
    if isinstance(value, Tensor):
        # bfloat16 has no numpy twin, so widen before leaving torch.
        value = value.detach().double().cpu().numpy()
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        message = f"{name} must be numbers of shape [{shape}]. Got {type(value).__name__}: {error}."
        raise InvalidInput(message) from error
    if array.ndim != shape.count(",") + 1 or array.size == 0:
        raise InvalidInput(
            f"{name} must have shape [{shape}], none of it empty. Got {list(array.shape)}."
        )
    bad = int(array.size - np.isfinite(array).sum())
    if bad:
        raise InvalidInput(
            f"{name} must be finite. Got {bad} of {array.size} entries NaN or infinite; "
            "leave those examples, queries or trainings out."
        )
    return array


def booleans(name: str, value: Tensor | NDArray[Any], shape: str) -> Bool:
    """Return `value` as a boolean array; zeros and ones are accepted, indices are not.

    Args:
        name: What the caller calls it, for the message.
        value: A tensor or array of booleans, or of zeros and ones.
        shape: The axes by letter, as in the documentation: `"m, n"`.

    Returns:
        The array [shape], boolean.

    Raises:
        InvalidInput: If the number of axes differs, or an entry is neither 0 nor 1.
    """
    array = floats(name, value, shape)
    if not np.isin(array, (0.0, 1.0)).all():
        raise InvalidInput(
            f"{name} must be booleans (or zeros and ones) of shape [{shape}]. "
            f"Got values from {array.min():g} to {array.max():g}; turn indices into a mask first."
        )
    return array.astype(np.bool_)
