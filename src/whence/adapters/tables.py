"""A user's X and y: tables and texts in any form that estimators take, checked once."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from whence.checked import array
from whence.errors import InvalidInput
from whence.objective.arrays import first_not_finite, shared
from whence.rows import check_same_order, column_names, is_sparse, own_names, row_names


def pair(data: Any) -> tuple[Any, Any]:
    """Return X and y of what must be a pair of them.

    Args:
        data: As a user passes it.

    Raises:
        InvalidInput: If it is no pair, or y has the index of X in another order.
    """
    if not isinstance(data, tuple) or len(data) != 2:
        raise InvalidInput(
            f"Expected a pair (X, y). Got {type(data).__name__}. Pass queries as (X, y)."
        )
    check_same_order("y", data[1], own_names(data[0]))
    return data


def as_rows(x: Any, width: int | None, names: tuple[str, ...] | None) -> tuple[Any, NDArray[Any]]:
    """Return a user's X as rows of the width that was fitted on, with their ids.

    Args:
        x: An array, frame, sparse matrix, or one row of them; texts where the width is `None`.
        width: The number of columns fitted on, or `None` for texts.
        names: The names of the columns fitted on, or `None`.

    Returns:
        A frame, array or CSR matrix of b rows, or b texts, and their ids, [b].

    Raises:
        InvalidInput: If there are no rows, or other columns than were fitted on.
    """
    if width is None:
        return _as_texts(x)
    table = _table(x, names)
    if table.shape[0] == 0:
        raise InvalidInput("Expected at least one row. Got none.")
    if table.shape[1] != width:
        raise InvalidInput(
            f"Expected {width} columns, as the estimator was fitted on. Got {table.shape[1]}."
        )
    ids = row_names(table, table.shape[0])
    if names is not None and column_names(table) is None and not is_sparse(table):
        table = pd.DataFrame(table, columns=list(names))
    return table, ids


@singledispatch
def _table(x: Any, names: tuple[str, ...] | None) -> Any:
    """Return a frame with the columns fitted on, in their order; a CSR matrix, or an array."""
    if is_sparse(x):
        return x.tocsr()
    rows = array("rows", x)
    rows = rows.reshape(1, -1) if rows.ndim == 1 else rows
    if rows.ndim != 2:
        raise InvalidInput(f"Expected rows and columns. Got an array of shape {rows.shape}.")
    return rows


@_table.register(pd.Series)
def _table_of_row(x: Any, names: tuple[str, ...] | None) -> pd.DataFrame:
    return _table_of_frame(x.to_frame().T.infer_objects(), names)


@_table.register
def _table_of_frame(x: pd.DataFrame, names: tuple[str, ...] | None) -> pd.DataFrame:
    if x.columns.has_duplicates:
        twice = x.columns[x.columns.duplicated()][0]
        raise InvalidInput(f"Expected distinct column names. Got {twice!r} twice. Rename one.")
    if names is None or list(x.columns) == list(names):
        return x
    missing = [name for name in names if name not in x.columns]
    if missing:
        raise InvalidInput(
            f"Expected the columns the estimator was fitted on. Got a frame without "
            f"{missing[0]!r}. Pass the same columns."
        )
    return x[list(names)]


def _as_texts(x: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return one text or several as an array of objects, with their ids."""
    texts = _texts(x)
    if texts.ndim != 1 or not len(texts):
        raise InvalidInput(
            "Expected texts, as the pipeline was fitted on: a list, an array or a Series of "
            f"strings, at least one. Got {type(x).__name__} of shape {np.shape(x)}. Pass the one "
            "column that holds the texts."
        )
    wrong = next((j for j, text in enumerate(texts) if not isinstance(text, str | bytes)), None)
    if wrong is not None:
        raise InvalidInput(f"Expected strings. Got {texts[wrong]!r:.40} in position {wrong}.")
    return texts, row_names(x, len(texts))


@singledispatch
def _texts(x: Any) -> NDArray[Any]:
    """Return texts as an array of objects; none of a frame, whose columns may be several."""
    return np.asarray(x, dtype=object)


@_texts.register(str)
@_texts.register(bytes)
def _one_text(x: str | bytes) -> NDArray[Any]:
    return np.array([x], dtype=object)


@_texts.register
def _no_texts(x: pd.DataFrame) -> NDArray[Any]:
    return np.empty(0, dtype=object)


def as_floats(rows: Any) -> Any:
    """Return rows as float64, dense or CSR, all finite.

    Args:
        rows: A frame, array or sparse matrix of numbers.

    Returns:
        A float64 array or CSR array.

    Raises:
        InvalidInput: If an entry is no finite number; the first is named.
    """
    if is_sparse(rows):
        matrix: Any = sparse.csr_array(rows, dtype=np.float64)
        if not np.isfinite(matrix.data).all():
            at = int(np.flatnonzero(~np.isfinite(matrix.data))[0])
            row = int(np.searchsorted(matrix.indptr, at, side="right")) - 1
            raise InvalidInput(_NOT_FINITE.format(matrix.data[at], row, matrix.indices[at]))
        return matrix
    names = column_names(rows)
    try:
        matrix = np.asarray(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            f"Expected columns of numbers. Got one that is not: {error}. Encode text columns "
            "inside a Pipeline, for example with OneHotEncoder, and pass the pipeline."
        ) from error
    bad = first_not_finite(shared(matrix))
    if bad is not None:
        row, column = bad
        name = repr(names[column]) if names else column
        raise InvalidInput(_NOT_FINITE.format(matrix[row, column], row, name))
    return matrix


_NOT_FINITE = (
    "Expected finite numbers. Got {} in row {}, column {}. "
    "Impute or drop missing values, inside the pipeline if there is one."
)
