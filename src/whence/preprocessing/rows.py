"""Rows of a user's table in any form that transformers take: frames, arrays, sparse, texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse


def take(rows: Any, where: NDArray[Any]) -> Any:
    """Return some of the rows.

    Args:
        rows: A frame, an array, a sparse matrix or a list of texts, [n].
        where: Positions, or a mask over all rows.

    Returns:
        The rows, in the same form.
    """
    if isinstance(rows, pd.DataFrame | pd.Series):
        return rows.iloc[where]
    is_sparse: bool = sparse.issparse(rows)
    return rows[where] if is_sparse or isinstance(rows, np.ndarray) else np.asarray(rows)[where]


def put(rows: Any, index: int, row: Any) -> Any:
    """Return the rows with one of them replaced.

    Args:
        rows: A frame, an array, a CSR matrix or an array of texts, [n].
        index: Which row.
        row: The new row, in the same form, [1].

    Returns:
        All rows, in their order.
    """
    n = rows.shape[0]
    order = np.arange(n)
    order[index] = n
    return take(stack(rows, row), order)


def stack(rows: Any, more: Any) -> Any:
    """Return the rows and more of them below.

    Args:
        rows: A frame, an array, a CSR matrix or an array of texts, [n].
        more: Rows in the same form, [m].

    Returns:
        n + m rows.
    """
    if isinstance(rows, pd.DataFrame):
        frame = more if isinstance(more, pd.DataFrame) else pd.DataFrame(more)
        return pd.concat([rows, frame.set_axis(rows.columns, axis=1)], ignore_index=True)
    is_sparse: bool = sparse.issparse(rows)
    if is_sparse:
        return sparse.vstack([rows, more], format="csr")
    return np.concatenate([np.asarray(rows), np.asarray(more)])
