"""A user's rows, as steps take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils import _safe_indexing
from torch import Tensor

from whence.preprocessing.columns import Columns, Rows
from whence.preprocessing.dense import DenseColumns
from whence.preprocessing.sparse import SparseColumns, beside
from whence.rows import as_frame, column_names, is_sparse, without_names


@dataclass(frozen=True, eq=False)
class Plain(Rows):
    """A user's rows, or those that a transformer returned, constant.

    Args:
        rows: A frame, an array, a sparse matrix or texts.
    """

    rows: Any

    @property
    def plain(self) -> Any:
        """The rows."""
        return self.rows

    def numbers(self) -> Columns:
        """Return the rows as columns, dense or sparse as they are."""
        if not is_sparse(self.rows):
            return DenseColumns(torch.from_numpy(np.array(self.rows, dtype=np.float64)))
        matrix: Any = sparse.coo_array(sparse.csr_array(self.rows))
        row, column = matrix.coords
        return SparseColumns(
            torch.from_numpy(np.asarray(row, dtype=np.int64)),
            torch.from_numpy(np.asarray(column, dtype=np.int64)),
            torch.from_numpy(np.asarray(matrix.data, dtype=np.float64)),
            (int(matrix.shape[0]), int(matrix.shape[1])),
        )

    def part(self, which: Any) -> Plain:
        """Return the selected columns."""
        return Plain(_safe_indexing(self.rows, which, axis=1))


@dataclass(frozen=True, eq=False)
class Table(Rows):
    """A user's table whose columns of numbers may be differentiated.

    Args:
        rows: A frame or an array.
        cells: Its columns as numbers, those of text as NaN, [n, d].
        numeric: Which columns are numbers, [d].
    """

    rows: Any
    cells: Tensor
    numeric: NDArray[np.bool_]

    @property
    def plain(self) -> Any:
        """The rows."""
        return self.rows

    def numbers(self) -> Columns:
        """Return the columns, if all of them are numbers."""
        return DenseColumns(self.cells) if self.numeric.all() else Plain(self.rows).numbers()

    def part(self, which: Any) -> Rows:
        """Return the selected columns, as numbers if all of them are."""
        part, places = _safe_indexing(self.rows, which, axis=1), positions(self.rows, which)
        if np.ndim(part) < 2 or not self.numeric[places].all():
            return Plain(part)
        return DenseColumns(self.cells[:, torch.from_numpy(places)])


def table(rows: Any) -> Table | None:
    """Return a user's rows as a table of numbers that can be differentiated.

    Args:
        rows: The rows.

    Returns:
        The table; `None` for sparse rows and for texts.
    """
    if is_sparse(rows) or np.ndim(rows) != 2:
        return None
    frame = as_frame(rows)
    numeric = np.array([pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes])
    numbers = np.full(frame.shape, np.nan)
    numbers[:, numeric] = frame.loc[:, numeric].to_numpy(dtype=np.float64, na_value=np.nan)
    return Table(rows, torch.from_numpy(numbers), numeric)


def positions(rows: Any, which: Any) -> NDArray[np.intp]:
    """Return the positions of the columns that a column transformer selects.

    Args:
        rows: A frame or an array, [n, d].
        which: Names, positions, a slice of either, or a mask.
    """
    numbered = pd.DataFrame([np.arange(rows.shape[1])], columns=column_names(rows))
    return np.array(_safe_indexing(numbered, which, axis=1), dtype=np.intp).ravel().copy()


def side_by_side(parts: list[Columns], *, dense: bool) -> Columns:
    """Return columns next to each other.

    Args:
        parts: The columns, each [n, d_k].
        dense: Whether the result is dense.
    """
    return DenseColumns(torch.cat([part.dense() for part in parts], 1)) if dense else beside(parts)


def transformed(transformer: Any, rows: Rows) -> Plain:
    """Return what a fitted transformer makes of rows, without the names of a frame.

    Args:
        transformer: Fitted.
        rows: What it takes.
    """
    return Plain(without_names(transformer.transform(rows.plain)))
