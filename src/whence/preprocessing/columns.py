"""Columns of numbers that may be differentiated, dense or sparse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils import _safe_indexing
from torch import Tensor

from whence.rows import column_names, is_sparse


@dataclass(frozen=True, eq=False)
class SparseColumns:
    """A sparse matrix [n, d] whose values may be differentiated; where they are may not.

    Args:
        rows: The row of each value, ascending, [m].
        columns: The column of each value, [m].
        values: [m].
        shape: n and d.
    """

    rows: Tensor
    columns: Tensor
    values: Tensor
    shape: tuple[int, int]

    def with_values(self, values: Tensor) -> SparseColumns:
        """Return other values in the same places."""
        return SparseColumns(self.rows, self.columns, values, self.shape)


@dataclass(frozen=True, eq=False)
class Table:
    """A user's table whose columns of numbers may be differentiated.

    Args:
        rows: A frame or an array.
        numbers: Its columns as numbers, those of text as NaN, [n, d].
        numeric: Which columns are numbers, [d].
    """

    rows: Any
    numbers: Tensor
    numeric: NDArray[np.bool_]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape [n, d]."""
        return tuple(self.numbers.shape)

    def columns(self, which: Any) -> Any:
        """Return the columns that a column transformer selects, as numbers if all of them are."""
        part = _safe_indexing(self.rows, which, axis=1)
        names = column_names(self.rows)
        chosen = pd.DataFrame([np.arange(len(self.numeric))], columns=names)
        places = np.array(_safe_indexing(chosen, which, axis=1), dtype=np.int64).ravel()
        if np.ndim(part) < 2 or not self.numeric[places].all():
            return part
        return self.numbers[:, torch.from_numpy(places.copy())]


def table(rows: Any) -> Table | None:
    """Return a user's rows as a table of numbers that can be differentiated.

    Args:
        rows: The rows.

    Returns:
        The table; `None` for sparse rows and for texts.
    """
    if is_sparse(rows) or np.ndim(rows) != 2:
        return None
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(rows).infer_objects()
    numeric = np.array([pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes])
    numbers = np.full(frame.shape, np.nan)
    numbers[:, numeric] = frame.loc[:, numeric].to_numpy(dtype=np.float64, na_value=np.nan)
    return Table(rows, torch.from_numpy(numbers), numeric)


Columns: TypeAlias = Tensor | SparseColumns


def as_columns(rows: Any) -> Columns:
    """Return a user's rows, or those a transformer returned, as columns of float64.

    Args:
        rows: A frame or array of numbers, perhaps with missing ones, or a sparse matrix; columns
            are returned as they are.

    Returns:
        The columns.

    Raises:
        ValueError: If a cell is no number.
    """
    if isinstance(rows, Tensor | SparseColumns):
        return rows
    if isinstance(rows, Table):
        return rows.numbers if rows.numeric.all() else as_columns(rows.rows)
    if is_sparse(rows):
        matrix: Any = sparse.coo_array(sparse.csr_array(rows))
        row, column = matrix.coords
        return SparseColumns(
            torch.from_numpy(np.asarray(row, dtype=np.int64)),
            torch.from_numpy(np.asarray(column, dtype=np.int64)),
            torch.from_numpy(np.asarray(matrix.data, dtype=np.float64)),
            (int(matrix.shape[0]), int(matrix.shape[1])),
        )
    return torch.from_numpy(np.array(rows, dtype=np.float64))


def as_rows(columns: Any) -> Any:
    """Return columns as transformers take them: an array, or a CSR array.

    Args:
        columns: Columns; other rows are returned as they are.
    """
    if isinstance(columns, Tensor):
        return columns.detach().numpy()
    if isinstance(columns, SparseColumns):
        places = columns.rows.numpy(), columns.columns.numpy()
        return sparse.csr_array((columns.values.detach().numpy(), places), shape=columns.shape)
    return columns.rows if isinstance(columns, Table) else columns


def as_sparse(columns: Columns) -> SparseColumns:
    """Return columns as sparse ones; of dense ones every cell is kept, zero or not.

    Args:
        columns: Dense or sparse.
    """
    if isinstance(columns, SparseColumns):
        return columns
    n, d = columns.shape
    rows = torch.arange(n).repeat_interleave(d)
    return SparseColumns(rows, torch.arange(d).repeat(n), columns.flatten(), (n, d))


def side_by_side(parts: list[Columns], *, dense: bool) -> Columns:
    """Return columns next to each other.

    Args:
        parts: The columns, each [n, d_k].
        dense: Whether the result is dense.
    """
    if dense:
        return torch.cat([_dense(part) for part in parts], 1)
    shifted, width = [as_sparse(part) for part in parts], 0
    columns = []
    for part in shifted:
        columns.append(part.columns + width)
        width += part.shape[1]
    return SparseColumns(
        torch.cat([part.rows for part in shifted]),
        torch.cat(columns),
        torch.cat([part.values for part in shifted]),
        (shifted[0].shape[0], width),
    )


def _dense(columns: Columns) -> Tensor:
    """Return columns as dense ones."""
    if isinstance(columns, Tensor):
        return columns
    whole = columns.values.new_zeros(columns.shape)
    return whole.index_put((columns.rows, columns.columns), columns.values, accumulate=True)


def selected(columns: Columns, which: NDArray[np.intp]) -> Columns:
    """Return some of the columns, in the order given.

    Args:
        columns: [n, d].
        which: Their positions.
    """
    if isinstance(columns, Tensor):
        return columns[:, torch.from_numpy(which)]
    place = torch.full((columns.shape[1],), -1)
    place[torch.from_numpy(which)] = torch.arange(len(which))
    there = place[columns.columns] >= 0
    return SparseColumns(
        columns.rows[there],
        place[columns.columns[there]],
        columns.values[there],
        (columns.shape[0], len(which)),
    )
