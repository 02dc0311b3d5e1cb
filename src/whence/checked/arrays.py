"""Arrays of a user: as arrays of NumPy, as finite numbers, as truth values, as positions."""

from __future__ import annotations

import inspect
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from whence.checked.scalars import said, shown
from whence.errors import InvalidInput

Float: TypeAlias = NDArray[np.float64]
Bool: TypeAlias = NDArray[np.bool_]


def plain(values: Any) -> Any:
    """Return a torch tensor as the NumPy array of its numbers, all else as it is.

    Args:
        values: A tensor of any precision and device, which may ask for a gradient; or anything.

    Raises:
        InvalidInput: If it is a tensor without numbers, or of a layout without an array.

    Examples:
        >>> import torch
        >>> plain(torch.ones(2, dtype=torch.bfloat16, requires_grad=True))
        array([1., 1.], dtype=float32)
    """
    if not hasattr(values, "detach"):
        return values
    try:
        tensor = values.detach().cpu()
        narrow = tensor.is_floating_point() and tensor.element_size() < 4
        return (tensor.float() if narrow else tensor).numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise InvalidInput(
            f"Expected a dense tensor of numbers. Got {shown(values)}. Pass a NumPy array."
        ) from error


def array(name: str, values: Any) -> NDArray[Any]:
    """Return a user's array, list, Series, frame or tensor as an array of NumPy's own kinds.

    Args:
        name: What the argument is called.
        values: What came.

    Returns:
        An array of numbers, truth values, texts or objects.

    Raises:
        InvalidInput: If it is ragged, a generator, or holds dates, fields or complex numbers.

    Examples:
        >>> array("y", [0, 1, 1])
        array([0, 1, 1])
    """
    values = plain(values)
    if inspect.isgenerator(values) or np.ma.is_masked(values):
        raise InvalidInput(f"Expected {name} as an array. Got {shown(values)}. Pass a NumPy array.")
    try:
        # pandas knows its own missing values; NumPy would make objects of them.
        found = np.asarray(values.to_numpy() if hasattr(values, "to_numpy") else values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInput(
            f"Expected {name} as an array. Got {shown(values)}: {str(error).rstrip('.')}. "
            "Pass a NumPy array."
        ) from error
    if found.dtype.kind not in "biufOUS":
        raise InvalidInput(
            f"Expected {name} as numbers or labels. Got an array of {found.dtype}. Convert it."
        )
    if found.dtype.kind == "f" and found.dtype.itemsize > 8:
        return found.astype(np.float64)
    if any(stride < 0 for stride in found.strides):
        found = found.copy()  # torch has no negative strides
    return found if found.dtype.isnative else found.astype(found.dtype.newbyteorder("="))


def labels(name: str, values: Any) -> NDArray[Any]:
    """Return targets as an array whose values can be told apart and sorted.

    Args:
        name: What the argument is called.
        values: What came.

    Raises:
        InvalidInput: If they are no array, of several kinds, or one of them is missing.

    Examples:
        >>> labels("y", ["b", "a"])
        array(['b', 'a'], dtype='<U1')
    """
    found = array(name, values)
    if found.dtype == object:
        with said(f"{name} of one kind, none of them missing"):
            # Twice the first: one alone is not compared.
            np.unique(np.append(found, found.ravel()[:1]))
    return found


def unstacked(name: str, rows: Any) -> Any:
    """Return a user's rows as they are if they are a frame or sparse, else as an array.

    Args:
        name: What the argument is called.
        rows: What came.

    Raises:
        InvalidInput: If they are no rows.

    Examples:
        >>> unstacked("X", [[1, 2], [3, 4]]).shape
        (2, 2)
    """
    table = hasattr(rows, "iloc") or hasattr(rows, "tocsr")
    found = rows if table else array(name, rows)
    if found.ndim == 0:
        raise InvalidInput(f"Expected {name} as rows. Got {shown(rows)}.")
    return found


def floats(name: str, value: Any, shape: str) -> Float:
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
    given = array(name, value)
    if given.dtype.kind in "US":  # which NumPy would read as numbers
        raise InvalidInput(f"{name} must be numbers of shape [{shape}]. Got texts.")
    try:
        found = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        message = f"{name} must be numbers of shape [{shape}]. Got {shown(value)}: {error}."
        raise InvalidInput(message) from error
    if found.ndim != shape.count(",") + 1 or found.size == 0:
        raise InvalidInput(
            f"{name} must have shape [{shape}], none of it empty. Got {list(found.shape)}."
        )
    bad = int(found.size - np.isfinite(found).sum())
    if bad:
        raise InvalidInput(
            f"{name} must be finite. Got {bad} of {found.size} entries NaN or infinite; "
            "leave those examples, queries or trainings out."
        )
    return found


def booleans(name: str, value: Any, shape: str) -> Bool:
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
    found = floats(name, value, shape)
    if not np.isin(found, (0.0, 1.0)).all():
        raise InvalidInput(
            f"{name} must be booleans (or zeros and ones) of shape [{shape}]. "
            f"Got values from {found.min():g} to {found.max():g}; turn indices into a mask first."
        )
    return found.astype(np.bool_)


def positions(name: str, values: Any, n: int) -> NDArray[np.intp]:
    """Return positions among n, [k].

    Args:
        name: What the caller calls them.
        values: One whole number, or several; truth values are none.
        n: How many there are to point at.

    Returns:
        The positions, in the order given.

    Raises:
        InvalidInput: If there is none, or one is no position.

    Examples:
        >>> positions("indices", range(2), 5)
        array([0, 1])
    """
    given = np.atleast_1d(array(name, values))
    # A mask of bytes would be taken for the first two examples.
    of_bytes = given.dtype == np.uint8 and len(given) == n > 2 and given.max() <= 1
    if given.dtype == np.bool_ or of_bytes:
        raise InvalidInput(
            f"Expected {name} as positions of rows. Got a mask, {shown(values)}. Pass "
            "numpy.flatnonzero(mask)."
        )
    if given.ndim != 1 or given.size == 0 or given.dtype.kind not in "iu":
        raise InvalidInput(
            f"Expected {name} as whole numbers from 0 to {n - 1}, at least one. "
            f"Got {shown(values)}. Positions count rows; they are not the frame's index."
        )
    if given.min() < 0 or given.max() >= n:
        wrong = int(given.min()) if given.min() < 0 else int(given.max())
        raise InvalidInput(f"Expected {name} from 0 to {n - 1}. Got {wrong}.")
    return given.astype(np.intp)


def writable(numbers: Float) -> Float:
    """Return numbers that may be written: a copy of a column of pandas, of which torch warns.

    Args:
        numbers: One number per example.

    Examples:
        >>> import pandas as pd
        >>> writable(pd.Series([1.0, 2.5]).to_numpy()).flags.writeable
        True
    """
    return np.require(numbers, requirements=["W"])


def weights(name: str, values: Any, n: int) -> Float:
    """Return example weights, finite and >= 0, [n].

    Args:
        name: What the caller calls them.
        values: What came.
        n: How many there must be.

    Raises:
        InvalidInput: If they are not n finite numbers >= 0, one of them larger.

    Examples:
        >>> weights("sample_weight", [1, 2.5], 2)
        array([1. , 2.5])
    """
    found = floats(name, values, "n")
    if len(found) != n or found.min() < 0 or not found.any():
        raise InvalidInput(
            f"Expected {n} finite weights >= 0 as {name}, one per training example, not all 0. "
            f"Got {len(found)}, smallest {found.min():g}."
        )
    return found + 0.0  # −0.0 becomes 0: a refit takes it for an example that is gone
