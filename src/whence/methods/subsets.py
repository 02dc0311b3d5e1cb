"""Parts of the training data, by position."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from whence.objective.trained import Examples, Trained
from whence.tiles import tiles

Positions: TypeAlias = NDArray[np.intp]

_BLOCK = 256  # training examples whose scores on one another are held at once


def blocks(where: Positions, size: int = _BLOCK) -> Iterator[Positions]:
    """Yield positions a few at a time.

    Args:
        where: Positions, [k].
        size: The most in a block, >= 1.

    Yields:
        Consecutive blocks.
    """
    for part in tiles(len(where), budget=size):
        yield where[part]


def train_subset(trained: Trained, where: Positions) -> Examples:
    """Return the training examples at some positions; the same object for all of them, in order.

    Args:
        trained: The model.
        where: Positions, [k].

    Returns:
        The examples.
    """
    n = len(trained.train)
    if len(where) == n and bool((where == np.arange(n)).all()):
        return trained.train
    return trained.train.subset(where)
