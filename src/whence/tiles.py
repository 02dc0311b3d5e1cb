"""How long work is cut into parts that fit in memory, or in a cache, and what stands for all."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def tiles(n: int, numbers: int = 1, budget: int = 1, *, most: int | None = None) -> Iterator[slice]:
    """Yield consecutive slices that cover 0, …, n − 1, each of as many items as fit a budget.

    Args:
        n: The number of items.
        numbers: What one item takes, in units of the budget.
        budget: What a slice may take; one item is always allowed.
        most: The most items of a slice; no bound if `None`.

    Yields:
        The slices, the last perhaps shorter.

    Examples:
        >>> [(part.start, part.stop) for part in tiles(5, numbers=3, budget=7)]
        [(0, 2), (2, 4), (4, 5)]
    """
    step = max(1, budget // max(1, numbers))
    step = step if most is None else min(most, step)
    for start in range(0, n, step):
        yield slice(start, min(n, start + step))


def spread(n: int, most: int) -> NDArray[np.intp]:
    """Return positions evenly over 0, …, n − 1, the ends among them; all where there are few.

    Args:
        n: The number of items.
        most: How many positions, at most.

    Examples:
        >>> spread(100, 4), spread(3, 4)
        (array([ 0, 33, 66, 99]), array([0, 1, 2]))
    """
    return np.unique(np.linspace(0, n - 1, most).astype(np.intp))


def drawn(n: int, most: int) -> NDArray[np.intp]:
    """Return some of the positions 0, …, n − 1 in random order, the same in every process.

    Args:
        n: The number of items.
        most: How many positions; all where there are fewer.

    Examples:
        >>> len(drawn(1000, 3)), sorted(drawn(3, 5).tolist())
        (3, [0, 1, 2])
    """
    return np.random.default_rng(0).permutation(n)[:most]
