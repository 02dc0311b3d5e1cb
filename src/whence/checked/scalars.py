"""Numbers, truth values, texts and paths of a user, each checked by one function."""

from __future__ import annotations

import inspect
import math
import numbers as kinds
import operator
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np

from whence.errors import InvalidInput, WhenceError, with_article

_LARGEST_SEED = 2**64 - 1  # as generators take it
_LARGEST = 2**63 - 1  # what an index can be
_SHOWN = 40  # of several values, which are more than a message has letters for


def whole(name: str, value: Any) -> int:
    """Return a whole number.

    Args:
        name: What the argument is called.
        value: An integer of Python, NumPy or torch; no truth value, and no array of several.

    Raises:
        InvalidInput: If it is none, or larger than an index or a seed can be.

    Examples:
        >>> whole("k", np.int32(4))
        4
    """
    try:
        found = None if _is_truth(value) else operator.index(_scalar(value))
    except TypeError:
        found = None
    if found is None:
        raise InvalidInput(f"Expected {name} as a whole number. Got {shown(value)}.")
    if name == "seed":
        if not 0 <= found <= _LARGEST_SEED:
            raise InvalidInput(f"Expected seed from 0 to {_LARGEST_SEED}. Got {shown(value)}.")
    elif abs(found) > _LARGEST:
        raise InvalidInput(f"Expected {name} below 2**63 in size. Got {shown(value)}.")
    return found


def real(name: str, value: Any) -> float:
    """Return a finite number.

    Args:
        name: What the argument is called.
        value: A real number of Python, NumPy or torch; no truth value, and no array of several.

    Raises:
        InvalidInput: If it is none, NaN or infinite.

    Examples:
        >>> real("damping", np.float32(0.5))
        0.5
    """
    number = _scalar(value)
    try:
        known = isinstance(number, kinds.Real) and not _is_truth(value)
        found = float(number) if known else math.nan
    except (OverflowError, TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise InvalidInput(f"Expected {name} as a finite number. Got {shown(value)}.")
    return found


def shown(value: Any) -> str:
    """Return a value as a message shows it: short, and without numbers by the page.

    Args:
        value: Anything.

    Examples:
        >>> shown(np.zeros((3, 2)))
        'an array of float64 of shape [3, 2]'
        >>> shown((np.zeros((3, 2)), [0, 1]))
        '(an array of float64 of shape [3, 2], [0, 1])'
        >>> shown(dict)
        'the class dict, not an object that it makes, dict(...)'
    """
    if inspect.isclass(value):
        return f"the class {value.__name__}, not an object that it makes, {value.__name__}(...)"
    try:
        if hasattr(value, "shape") and hasattr(value, "dtype") and value.ndim:
            kind = "an array" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
            dtype = str(value.dtype).removeprefix("torch.")
            return f"{kind} of {dtype} of shape {list(value.shape)}"
        if hasattr(value, "iloc"):
            return f"a {type(value).__name__} of shape {list(value.shape)}"
        text = _listed(value) if type(value) in (list, tuple, dict) else ascii(value)
    except Exception:  # of a user's own class, or of a number with too many digits for Python
        text = with_article(type(value).__name__)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _listed(value: Any) -> str:
    """Return the first of several values as a message shows them, arrays without their numbers."""
    first = list(islice(value.items() if type(value) is dict else value, _SHOWN))
    if type(value) is dict:
        return "{" + ", ".join(f"{key!a}: {shown(item)}" for key, item in first) + "}"
    text = ", ".join(map(shown, first))
    if type(value) is list:
        return f"[{text}]"
    return f"({text},)" if len(value) == 1 else f"({text})"


def truth(name: str, value: Any) -> bool:
    """Return a truth value.

    Args:
        name: What the argument is called.
        value: What came.
    """
    require(name, _is_truth(value), "True or False", value)
    return bool(value)


def text(name: str, value: Any) -> str:
    """Return a text.

    Args:
        name: What the argument is called.
        value: What came.
    """
    require(name, isinstance(value, str), "a text", value)
    return str(value)


def path(name: str, value: Any) -> Any:
    """Return a path that a file of this machine can have.

    Args:
        name: What the argument is called.
        value: What came.
    """
    require(name, isinstance(value, str | os.PathLike), "the name of a file", value)
    try:
        os.lstat(value)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass  # said by what reads or writes it
    except OSError as error:
        require(name, False, "the name of a file", value, f": {error.strerror}")
    except ValueError as error:
        require(name, False, "the name of a file", value, f": {error}")
    return value


def _scalar(value: Any) -> Any:
    """Return the number in an array or tensor of one, without an axis; all else as it is."""
    if getattr(value, "ndim", None) != 0 or not hasattr(value, "item"):
        return value
    try:
        return value.item()
    except (RuntimeError, ValueError, NotImplementedError):  # of a tensor without numbers
        return None


def _is_truth(value: Any) -> bool:
    """Return whether a value is one of the two truth values."""
    return isinstance(_scalar(value), bool)


@contextmanager
def said(expected: str) -> Iterator[None]:
    """Turn what another library says of a user's data into an error that says what to do.

    Args:
        expected: What was expected, in words.

    Raises:
        InvalidInput: If the library raises a TypeError, a ValueError or an error of its own class.

    Examples:
        >>> with said("numbers"):
        ...     float("a")
        Traceback (most recent call last):
        ...
        whence.errors.InvalidInput: Expected numbers. Got: could not convert string to float: 'a'
    """
    try:
        yield
    except WhenceError:
        raise
    except Exception as error:
        own = type(error).__module__ != "builtins"
        if not own and not issubclass(type(error), (TypeError, ValueError)):
            raise
        raise InvalidInput(f"Expected {expected}. Got: {error!s:.500}") from error


def require(name: str, holds: bool, what: str, value: Any, reason: str = "") -> None:
    """Raise unless an argument is what it must be.

    Args:
        name: What the argument is called.
        holds: Whether it is.
        what: What it must be, in words.
        value: What came.
        reason: What else is known of it.
    """
    if not holds:
        raise InvalidInput(f"Expected {name} as {what}. Got {shown(value)}{reason}.")
