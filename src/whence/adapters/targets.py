"""A user's targets as numbers that a loss reads, and back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.checked import class_positions, finite_numbers
from whence.objective.arrays import shared


def target_encoder(
    classes: NDArray[Any] | None, signs: bool, c: int
) -> Callable[[NDArray[Any]], Tensor]:
    """Return how targets are encoded: 0/1, class indices, ±1 or numbers.

    Args:
        classes: The classes, sorted; `None` for a regression.
        signs: Whether a classifier regresses on ±1.
        c: The number of outputs.
    """
    if classes is None:
        return partial(_numbers, c)
    return partial(_indices, classes, signs, c)


def _numbers(c: int, labels: NDArray[Any]) -> Tensor:
    """Return the targets of a regression."""
    return shared(finite_numbers(labels, c))


def _indices(classes: NDArray[Any], signs: bool, c: int, labels: NDArray[Any]) -> Tensor:
    """Return the targets of a classifier."""
    at = torch.from_numpy(class_positions(classes, labels))
    if signs:
        if c == 1:
            return 2.0 * at.double() - 1
        return 2 * torch.nn.functional.one_hot(at, c).double() - 1
    return at.double() if c == 1 else at


def decoded(classes: NDArray[Any] | None, signs: bool, targets: Tensor) -> NDArray[Any]:
    """Return encoded targets as the user names them.

    Args:
        classes: The classes, sorted; `None` for a regression.
        signs: Whether a classifier regresses on ±1.
        targets: As `target_encoder` makes them, [b] or [b, c].
    """
    if classes is None:
        return targets.numpy()
    if targets.ndim == 2:
        where = targets.argmax(1)
    else:
        where = (targets > 0).long() if signs else targets.long()
    return np.asarray(classes[where.numpy()])
