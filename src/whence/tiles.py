"""How long work is cut into parts that fit in memory, or in a cache."""

from __future__ import annotations

from collections.abc import Iterator


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
