"""Rows of a user's data in any form that estimators take: frames, arrays, sparse, texts."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from whence.checked.arrays import plain
from whence.errors import InvalidInput


def is_sparse(rows: Any) -> bool:
    """Return whether rows are a SciPy sparse matrix or array.

    Args:
        rows: A user's rows.
    """
    return bool(sparse.issparse(rows))


def dense(rows: Any) -> NDArray[np.float64]:
    """Return a few rows as a dense array of numbers.

    Args:
        rows: A frame, an array or a sparse matrix.
    """
    return np.asarray(rows.toarray() if is_sparse(rows) else rows, dtype=np.float64)


def without_names(rows: Any) -> Any:
    """Return rows without the names of their columns.

    Args:
        rows: A frame, an array or a sparse matrix.
    """
    return rows.to_numpy() if hasattr(rows, "to_numpy") else rows


@singledispatch
def column_names(rows: Any) -> tuple[Any, ...] | None:
    """Return the names of the columns of a frame; `None` where columns have none.

    Args:
        rows: A user's rows.
    """
    return None


@column_names.register
def _names_of_frame(rows: pd.DataFrame) -> tuple[Any, ...]:
    return tuple(rows.columns)


@singledispatch
def row_names(rows: Any, n: int) -> NDArray[Any]:
    """Return the index of a frame or a Series; positions where rows have no names.

    Args:
        rows: A user's rows.
        n: How many there are.
    """
    return np.arange(n)


@row_names.register(pd.DataFrame)
@row_names.register(pd.Series)
def _index(rows: Any, n: int) -> NDArray[Any]:
    names: NDArray[Any] = rows.index.to_numpy()
    return names


@singledispatch
def own_names(rows: Any) -> NDArray[Any] | None:
    """Return the index of a frame or a Series; `None` where rows are numbered or have no names.

    Args:
        rows: A user's rows, or one value for each.
    """
    return None


@own_names.register(pd.DataFrame)
@own_names.register(pd.Series)
def _own_index(rows: Any) -> NDArray[Any] | None:
    names: NDArray[Any] = rows.index.to_numpy()
    return None if np.array_equal(names, np.arange(len(names))) else names


def check_same_order(what: str, values: Any, names: NDArray[Any] | None) -> None:
    """Raise where values name the rows of others, in another order: they are taken by position.

    Args:
        what: What the values are called.
        values: One for each row; those that are no frame or Series have no names.
        names: The names of the rows, or `None`.

    Raises:
        InvalidInput: If both have the same distinct names, in different orders.

    Examples:
        >>> check_same_order("y", pd.Series([1, 0], index=["a", "b"]), np.array(["a", "b"]))
    """
    own = own_names(values)
    if own is None or names is None or len(own) != len(names) or np.array_equal(own, names):
        return
    if np.array_equal(names, np.arange(len(names))):
        return  # numbered, not named
    if len(set(own)) == len(own) and set(own) == set(names):
        at = int(np.flatnonzero([mine != other for mine, other in zip(own, names, strict=True)])[0])
        raise InvalidInput(
            f"Expected {what} in the order of the rows. Got the same index in another order: "
            f"{own[at]!s} in position {at}, where the rows have {names[at]!s}. Reorder by "
            ".loc[X.index], or pass .to_numpy() if positions are meant."
        )


@singledispatch
def as_frame(rows: Any) -> pd.DataFrame:
    """Return a table as a frame, each column of the narrowest type.

    Args:
        rows: A frame, or an array [n, d].
    """
    return pd.DataFrame(rows).infer_objects()


@as_frame.register
def _frame_itself(rows: pd.DataFrame) -> pd.DataFrame:
    return rows


@singledispatch
def columns_at(rows: Any, at: Any) -> Any:
    """Return some columns of a table, in the same form.

    Args:
        rows: A frame, an array or a sparse matrix, [n, d].
        at: A position, or several.
    """
    return rows[:, at]


@columns_at.register
def _columns_of_frame(rows: pd.DataFrame, at: Any) -> Any:
    return rows.iloc[:, at]


@singledispatch
def column(rows: Any, at: int) -> pd.Series[Any]:
    """Return one column of a table, numbered from 0 by row.

    Args:
        rows: A frame, an array or a sparse matrix, [n, d].
        at: Its position.
    """
    cells = rows[:, [at]].toarray()[:, 0] if is_sparse(rows) else np.asarray(plain(rows))[:, at]
    return pd.Series(cells)


@column.register(pd.DataFrame)
def _column_of_frame(rows: pd.DataFrame, at: int) -> pd.Series[Any]:
    return rows.iloc[:, at].reset_index(drop=True)


def quarters(values: pd.Series[Any]) -> pd.Series[Any]:
    """Return the quarter in which each number or date lies, as text such as "(1.36, 2.21]".

    Cut at the quartiles of the finite values; where these are one and the same but for an end, at
    those of the distinct values.

    Args:
        values: Numbers or dates; a missing one lies in none.

    Examples:
        >>> quarters(pd.Series([0, 0, 0, 0, 0, 0, 0, 1, 2, np.inf])).unique().tolist()
        ['(-0.001, 0.5]', '(0.5, 1]', '(1.5, inf]']
    """
    dates = values.dtype.kind in "mM"
    if not dates:
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
        values = pd.Series(numbers, index=values.index)
    known = values.dropna()
    finite = known if dates else known[np.isfinite(known)]
    edges = _quartiles(finite)
    if len(edges) < 3:
        edges = _quartiles(finite.drop_duplicates())
    edges[0], edges[-1] = min(edges[0], known.min()), max(edges[-1], known.max())
    cut = pd.cut(values, edges, include_lowest=True).cat
    names = [
        str(each) if dates else f"({each.left:.12g}, {each.right:.12g}]" for each in cut.categories
    ]
    found: pd.Series[Any] = cut.rename_categories(names)
    return found


def _quartiles(values: pd.Series[Any]) -> list[Any]:
    """Return the quartiles of values, from the least to the largest, each once."""
    return values.quantile([0, 0.25, 0.5, 0.75, 1]).unique().tolist()


@singledispatch
def row_cells(rows: Any, index: int) -> NDArray[Any]:
    """Return one row as an array, [d].

    Args:
        rows: A frame, an array, a tensor or a sparse matrix, [n, d].
        index: Its position.
    """
    return rows[[index]].toarray()[0] if is_sparse(rows) else np.asarray(plain(rows[index]))


@row_cells.register(pd.DataFrame)
def _cells_of_frame(rows: pd.DataFrame, index: int) -> NDArray[Any]:
    return rows.iloc[index].to_numpy(dtype=object)


@singledispatch
def take(rows: Any, where: NDArray[Any]) -> Any:
    """Return some of the rows.

    Args:
        rows: A frame, an array, a tensor, a sparse matrix or a list of texts, [n].
        where: Positions, or a mask over all rows.

    Returns:
        The rows, in the same form.
    """
    return (rows if hasattr(rows, "shape") else np.asarray(rows))[where]


@take.register(pd.DataFrame)
@take.register(pd.Series)
def _take_indexed(rows: Any, where: NDArray[Any]) -> Any:
    return rows.iloc[where]


def put(rows: Any, index: int, row: Any) -> Any:
    """Return the rows with one of them replaced, under the names they have.

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
    return _renamed(rows, take(stack(rows, row), order))


@singledispatch
def _renamed(like: Any, rows: Any) -> Any:
    """Return rows under the names that others have."""
    return rows


@_renamed.register
def _indexed(like: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    return rows.set_axis(like.index)


@singledispatch
def _in_form_of(like: Any, cells: NDArray[Any]) -> Any:
    """Return cells as they are."""
    return cells


@_in_form_of.register
def _in_frame(like: pd.DataFrame, cells: NDArray[Any]) -> pd.DataFrame:
    return pd.DataFrame(cells, columns=like.columns)


def formed(cells: NDArray[Any], like: Any) -> Any:
    """Return cells as rows of the form that others have.

    Args:
        cells: [b, d].
        like: A frame, whose columns they become; or an array.
    """
    return _in_form_of(like, cells)


@singledispatch
def with_cells(rows: Any, at: int, value: Any) -> Any:
    """Return rows with one value in a column, whose type stays if it can hold the value.

    Args:
        rows: A frame or an array, [n, d].
        at: Position of the column.
        value: What all n cells become.

    Returns:
        New rows, in the same form.

    Examples:
        >>> with_cells(np.array([[1, 2], [3, 4]]), 1, 5)
        array([[1, 5],
               [3, 5]])
        >>> with_cells(np.array([[1, 2]]), 0, 0.5)
        array([[0.5, 2. ]])
    """
    cells = _cells(column(rows, at), value).to_numpy()
    changed = np.asarray(plain(rows)).astype(np.result_type(rows, cells))
    changed[:, at] = cells
    return changed


@with_cells.register
def _frame_with_cells(rows: pd.DataFrame, at: int, value: Any) -> pd.DataFrame:
    frame = rows.copy()
    frame.isetitem(at, _cells(rows.iloc[:, at], value).array)
    return frame


def _cells(old: pd.Series[Any], value: Any) -> pd.Series[Any]:
    """Return as many cells of one value, of the old type if that can hold it."""
    asked = pd.Series([value] * len(old), index=old.index, dtype=object)
    try:
        cells: pd.Series[Any] = asked.astype(old.dtype)
    except (TypeError, ValueError):
        return asked.infer_objects()
    same = (cells.astype(object) == asked) | (cells.isna() & asked.isna())
    return cells if bool(same.all()) else asked.infer_objects()


@singledispatch
def typed_row(rows: Any, row: Any) -> Any:
    """Return a row that is a Series as a frame with the types of others' columns; else as it is.

    A Series holds numbers and texts alike as objects: what is missing in it has no type of its own.

    Args:
        rows: A frame, whose columns it has; of other rows it stays as it is.
        row: What a user passed as one row.
    """
    return row


@typed_row.register
def _row_of_frame(rows: pd.DataFrame, row: Any) -> Any:
    if not hasattr(row, "to_frame") or not {*rows.columns} <= {*row.index}:
        return row
    cells = {name: _cells(rows[name].iloc[:1], row[name]).array for name in rows.columns}
    return pd.DataFrame(cells, index=[row.name])


@singledispatch
def stack(rows: Any, more: Any) -> Any:
    """Return the rows and more of them below.

    Args:
        rows: A frame, an array, a CSR matrix or an array of texts, [n].
        more: Rows in the same form, [m].

    Returns:
        n + m rows.
    """
    if is_sparse(rows):
        return sparse.vstack([rows, more], format="csr")
    return np.concatenate([np.asarray(plain(rows)), np.asarray(plain(more))])


@stack.register
def _stack_frames(rows: pd.DataFrame, more: Any) -> pd.DataFrame:
    frame = pd.DataFrame(more).set_axis(rows.columns, axis=1)
    return pd.concat([rows, frame], ignore_index=True)
