"""Targets of a user: as positions among classes, or as finite numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from whence.checked.arrays import Float, writable
from whence.errors import InvalidInput


def class_positions(classes: Any, labels: NDArray[Any]) -> NDArray[np.intp]:
    """Return the position of each label among the classes, [n].

    Args:
        classes: The classes, in any order, [C].
        labels: The labels, [n].

    Raises:
        InvalidInput: If there is another label, or several in a row.

    Examples:
        >>> class_positions(["no", "yes"], np.array(["yes", "no", "yes"]))
        array([1, 0, 1])
    """
    named = np.asarray(classes)
    known = np.isin(labels, named)
    if not known.all():
        among = ", ".join(map(repr, named.tolist()[:20]))
        raise InvalidInput(
            f"Expected labels among {among}, as in the model's fit. Got "
            f"{labels.ravel()[~known.ravel()].tolist()[0]!r}. Correct it."
        )
    if labels.ndim != 1:
        raise InvalidInput(
            f"Expected one label per row. Got shape {labels.shape}. Fit a model to each label, as "
            "sklearn.multioutput.MultiOutputClassifier does."
        )
    order = np.argsort(named, kind="stable")
    found: NDArray[np.intp] = order[np.searchsorted(named, labels, sorter=order)]
    return found


def finite_numbers(targets: NDArray[Any], width: int = 1) -> Float:
    """Return targets as finite numbers, [n] or [n, width].

    Args:
        targets: What came, [n] or [n, width].
        width: How many numbers are a target.

    Raises:
        InvalidInput: If they are no numbers, not finite, or not as many.

    Examples:
        >>> finite_numbers(np.array([1, 2]))
        array([1., 2.])
    """
    try:
        values = np.asarray(targets, dtype=np.float64)
    except (TypeError, ValueError) as error:
        first = targets.ravel().tolist()[0]
        raise InvalidInput(
            f"Expected numbers as targets. Got {first!r}. Pass the targets of the fit, or a "
            "classifier for labels."
        ) from error
    if not np.isfinite(values).all():
        at = int(np.argwhere(~np.isfinite(values))[0][0])
        raise InvalidInput(f"Expected finite targets. Got {values[at]} in row {at}.")
    if values.size != len(values) * width:
        raise InvalidInput(f"Expected {width} numbers per target. Got shape {values.shape}.")
    return writable(values.reshape(-1) if width == 1 else values)
