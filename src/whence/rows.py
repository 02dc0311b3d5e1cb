"""Rows of a user's data in any form that estimators take: frames, arrays, sparse, texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse


def is_sparse(rows: Any) -> bool:
    """Return whether rows are a SciPy sparse matrix or array.

    Args:
        rows: A user's rows.
    """
    return bool(sparse.issparse(rows))


def column_names(rows: Any) -> tuple[Any, ...] | None:
    """Return the names of the columns of a frame; `None` where columns have none.

    Args:
        rows: A user's rows.
    """
    return tuple(rows.columns) if isinstance(rows, pd.DataFrame) else None


def column(rows: Any, at: int) -> pd.Series[Any]:
    """Return one column of a table, numbered from 0 by row.

    Args:
        rows: A frame, an array or a sparse matrix, [n, d].
        at: Its position.
    """
    if isinstance(rows, pd.DataFrame):
        return rows.iloc[:, at].reset_index(drop=True)
    cells = rows[:, [at]].toarray()[:, 0] if is_sparse(rows) else np.asarray(rows)[:, at]
    return pd.Series(cells)


def take(rows: Any, where: NDArray[Any]) -> Any:
    """Return some of the rows.

    Args:
        rows: A frame, an array, a tensor, a sparse matrix or a list of texts, [n].
        where: Positions, or a mask over all rows.

    Returns:
        The rows, in the same form.
    """
    if isinstance(rows, pd.DataFrame | pd.Series):
        return rows.iloc[where]
    return (rows if hasattr(rows, "shape") else np.asarray(rows))[where]


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
    if is_sparse(rows):
        return sparse.vstack([rows, more], format="csr")
    return np.concatenate([np.asarray(rows), np.asarray(more)])
