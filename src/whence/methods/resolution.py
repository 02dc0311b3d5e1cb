"""How many fits name the same examples first again."""

from __future__ import annotations

import numpy as np

from whence.arrays import Floats

_DRAWS = 40
_SHARE = 0.9  # of the first examples that are named again
_MOST = 2**24  # times as many fits: beyond, no number is said


def fits_to_resolve(values: Floats, errors: Floats, fits: int, *, k: int = 10) -> int | None:
    """Return how many fits would name nine tenths of the same k examples first again.

    Scores s with standard errors e from b fits have errors e √(b/B) from B fits. The first k by |s|
    and by |s + e √(b/B) z|, z standard normal, have some in common; B is doubled until the mean
    share of them reaches nine tenths.

    Args:
        values: Scores of one query, [n].
        errors: Their standard errors, [n].
        fits: b, from which they come.
        k: How many examples are first.

    Returns:
        B, a power of two times b; `None` if even 16 million times b would not do.

    Examples:
        >>> fits_to_resolve(np.array([4.0, 3.0, 0.1, 0.2]), np.full(4, 0.01), 60, k=2)
        60
        >>> fits_to_resolve(np.array([4.0, 3.0, 2.9, 0.2]), np.full(4, 1.0), 60, k=2)
        3840
    """
    k = min(k, len(values))
    first = np.argsort(-np.abs(values), kind="stable")[:k]
    noise = np.random.default_rng(0).standard_normal((_DRAWS, len(values)))
    factor = 1
    while factor <= _MOST:
        drawn = np.abs(values + errors / factor**0.5 * noise)
        again = np.argpartition(-drawn, k - 1, axis=1)[:, :k]
        if np.isin(again, first).mean() >= _SHARE:
            return fits * factor
        factor *= 2
    return None
