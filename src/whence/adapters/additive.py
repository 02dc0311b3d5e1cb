"""Whether removals from an estimator that nobody has judged add up, measured by its own fits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from whence.arrays import Floats
from whence.errors import InvalidInput
from whence.tiles import drawn

Refit = Callable[[Sequence[int]], Floats]  # outputs for all rows, [n, c], of a fit without some

_PAIRS = 8  # of rows that are removed one by one, and both
_SECONDS = 60.0  # of the processor that the removals of all rows may take
_APART = 0.3  # share of the change without both that the sum of the two changes may miss
_MOVED = 0.5  # share of the rows whose outputs must change, or too little was measured


def removals_add_up(refit: Refit, n: int) -> bool:
    r"""Return whether removing two rows changes what removing each of them does, summed.

    With Δ_S the change of the outputs for the other rows in a fit without S, the median over 8
    pairs of ‖Δ_{i,j} − Δ_i − Δ_j‖ / ‖Δ_{i,j}‖ is at most 0.3, and Δ_{i,j} changes at least half of
    the rows. Where a fit draws random numbers or splits rows at thresholds, two changes
    are independent of each other and the ratio is about 1: a single refit is mostly chance then.
    Where few rows change, too little was measured.

    Args:
        refit: Returns the outputs for all rows of a fit without the rows at these positions.
        n: The number of rows.

    Returns:
        Whether they do. False where n < 16, or where n fits would take more than a minute of the
        processor, as told by the first, or where a fit fails.

    Cost:
        25 fits; 1 where n of them would take more than a minute.

    Examples:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=40)
        >>> means = lambda rows: np.full((40, 1), np.delete(x, rows).mean())
        >>> removals_add_up(means, 40)
        True
    """
    if n < 2 * _PAIRS:
        return False
    start = time.process_time()
    try:
        whole = refit([])
        if (time.process_time() - start) * n > _SECONDS:
            return False
        pairs = drawn(n, 2 * _PAIRS).reshape(-1, 2).tolist()
        found = np.array([_apart(refit, whole, pair) for pair in pairs])
    except InvalidInput:
        return False
    missed, moved = np.median(found, axis=0)
    return bool(missed <= _APART and moved >= _MOVED)


def _apart(refit: Refit, whole: Floats, pair: list[int]) -> tuple[float, float]:
    """Return what the sum of two changes misses, and the share of rows whose outputs change."""
    kept = np.delete(np.arange(len(whole)), pair)
    first, second, both = ((refit(rows) - whole)[kept] for rows in (pair[:1], pair[1:], pair))
    size = np.linalg.norm(both)
    missed = np.linalg.norm(both - first - second) / size if size > 0 else np.inf
    return float(missed), float(np.mean((both != 0).any(1)))
