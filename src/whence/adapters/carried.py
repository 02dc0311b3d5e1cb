"""Coefficients of columns that are fitted again: those of the same columns, or the same outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from whence.arrays import Floats
from whence.rows import is_sparse

_FITTED_COLUMNS = 500  # columns up to which old outputs are fitted by new ones
_SAME_OUTPUTS = 0.05  # share of the variance of outputs that columns of the same name may change


def carried(
    coef: Floats, columns: NDArray[np.intp] | None, before: Any, after: Any, *, sparse: bool
) -> Floats:
    """Return coefficients of new columns whose outputs are near those of old ones.

    Args:
        coef: Of the old columns, [c, d].
        columns: Which old column each new one is, −1 for none; `None` if that is not known.
        before: Rows in the old columns, [m, d].
        after: The same rows in the new columns, [m, d′].
        sparse: Whether zeros must stay zeros.

    Returns:
        Those of the same columns; or, where a column has turned into another, as components of a
        PCA do, those that fit the old outputs best, [c, d′].
    """
    width = after.shape[1]
    if columns is not None:
        same = np.hstack([coef, np.zeros((len(coef), 1))])[:, columns]
    elif coef.shape[1] == width:
        same = coef
    else:
        same = np.zeros((len(coef), width))
    if sparse or is_sparse(after) or width > min(len(after), _FITTED_COLUMNS):
        return same
    outputs = np.asarray(before @ coef.T)
    apart = outputs - outputs.mean(0)
    off = after @ same.T - outputs
    if np.square(off - off.mean(0)).sum() <= _SAME_OUTPUTS * np.square(apart).sum():
        return same
    centered = after - after.mean(0)
    return np.asarray(np.linalg.lstsq(centered, apart, rcond=None)[0].T)
