"""The columns of a table's rows: their names, the cells as text, and their spread."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from whence.arrays import Floats
from whence.checked.arrays import plain
from whence.rows import column_names, is_sparse, row_cells, take

_SPREAD_ROWS = 10_000  # rows that tell the spread of a column
_READ = 25  # rows of a group that tell which columns are of texts
_WORDS = 5  # words of a cell from which its column is one of texts
_DISTINCT = 10  # different numbers up to which a column is compared exactly
_COUNTED = re.compile(r".*, (days|hours) from (\d{4}-\d\d-\d\d)", re.DOTALL)
_MOST_OF_TENSOR = 1_000  # features up to which a network's input is shown as a row


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Columns:
    """Which columns are shown, and in which order.

    Args:
        names: Their names.
        order: Their positions among all columns.
        hidden: How many are left out because they are 0 in all rows shown.
        prose: Whether a column is of texts of several words.
    """

    names: tuple[str, ...]
    order: NDArray[np.intp]
    hidden: int = 0
    prose: bool = False

    def cells(self, inputs: Any, index: int) -> tuple[str, ...]:
        """Return one row as text, in the order of the names."""
        row = row_cells(inputs, index)
        return tuple(
            _on_calendar(name, row[j]) or cell_text(row[j])
            for name, j in zip(self.names, self.order, strict=True)
        )


def _on_calendar(name: str, number: Any) -> str:
    """Return the date to which a column of days or hours from a day counts.

    Empty for any other column, and where the number is missing.
    """
    counted = _COUNTED.fullmatch(name)
    if counted is None or pd.isna(number):
        return ""
    days = float(number) / (1 if counted[1] == "days" else 24)
    date = (pd.Timestamp(counted[2]) + pd.Timedelta(days=days)).round("s")
    clock = "" if date == date.normalize() else f" {date:%H:%M}"
    return f"{date:%Y-%m-%d}{clock}"


NONE = Columns(names=(), order=np.arange(0))


def is_table(inputs: Any) -> bool:
    """Return whether inputs are rows of named or numbered columns.

    Args:
        inputs: A user's inputs.
    """
    return has_cells(inputs) or _is_narrow(inputs) or is_sparse(inputs)


@singledispatch
def has_cells(inputs: Any) -> bool:
    """Return whether single cells of inputs can be replaced: of a frame, or an array of rows.

    Args:
        inputs: A user's inputs.
    """
    return False


@has_cells.register
def _frame_has_cells(inputs: pd.DataFrame) -> bool:
    return True


@has_cells.register(np.ndarray)
def _array_has_cells(inputs: NDArray[Any]) -> bool:
    return inputs.ndim == 2


@singledispatch
def _is_narrow(inputs: Any) -> bool:
    """Return whether inputs are a tensor of few features."""
    return False


@_is_narrow.register
def _tensor_is_narrow(inputs: Tensor) -> bool:
    narrow = inputs.ndim == 2 and inputs.shape[1] <= _MOST_OF_TENSOR
    return narrow and inputs.is_floating_point()


def columns_of(parts: Sequence[Any], importance: Floats | None = None) -> Columns:
    """Return the columns that some rows share, all of them.

    Args:
        parts: Groups of rows with the same columns, at least one group.
        importance: One number per column: the largest come first. If `None`, columns of texts of
            several words come first, and else their own order is kept.

    Returns:
        The columns; of sparse rows those that are not 0 everywhere. None where the rows are no
        table.
    """
    first = parts[0]
    if not is_table(first):
        return NONE
    d = first.shape[1]
    kept = np.arange(d)
    if is_sparse(first):
        kept = np.unique(np.concatenate([part.tocsr().nonzero()[1] for part in parts]))
    prose = _prose(parts, kept)
    leading = prose if importance is None else importance[kept]
    kept = kept[np.argsort(-leading, kind="stable")]
    return Columns(
        names=tuple(column_name(first, int(j)) for j in kept),
        order=kept.astype(np.intp),
        hidden=d - len(kept),
        prose=bool(prose.any()),
    )


def _prose(parts: Sequence[Any], kept: NDArray[np.intp]) -> Floats:
    """Return 1 for the columns in which a text has several words, else 0."""
    found = np.zeros(len(kept))
    if not has_cells(parts[0]):
        return found
    texts = [at for at, j in enumerate(kept) if column_values(parts[0], int(j)) is None]
    some = [(part, i) for part in parts for i in range(min(len(part), _READ))] if texts else []
    rows = [row_cells(part, i) for part, i in some]
    for at in texts:
        found[at] = any(len(str(row[kept[at]]).split()) >= _WORDS for row in rows)
    return found


def column_name(inputs: Any, position: int) -> str:
    """Return what a column is called.

    Args:
        inputs: Rows of a table.
        position: Of the column.
    """
    names = column_names(inputs)
    return f"column {position}" if names is None else str(names[position])


def spreads(inputs: Any) -> Floats:
    """Return by how much the values of each column differ, which no change of its unit changes.

    Args:
        inputs: Rows of a table; ten thousand of them, evenly spaced, are looked at.

    Returns:
        The standard deviation of each column, [d]; the distance of the two values of a column that
        has two; 1 for a column that is not numeric.
    """
    n = inputs.shape[0]
    where = np.unique(np.linspace(0, n - 1, min(n, _SPREAD_ROWS)).round().astype(np.intp))
    some = take(inputs, where)
    if is_sparse(some):
        return _sparse_spreads(some)
    columns = (column_values(some, j) for j in range(some.shape[1]))
    return np.array([1.0 if values is None else _spread(values) for values in columns])


def _spread(values: Floats) -> float:
    """Return the standard deviation of finite numbers, or the distance of two."""
    known = values[np.isfinite(values)]
    if not len(known):
        return 1.0
    low, high = known.min(), known.max()
    binary = bool(((known == low) | (known == high)).all())
    return float(high - low) if binary else float(known.std())


def _sparse_spreads(rows: Any) -> Floats:
    """Return the standard deviation of each column of sparse rows, or the distance of two."""
    mean = np.asarray(rows.mean(axis=0)).ravel()
    square = np.asarray(rows.multiply(rows).mean(axis=0)).ravel()
    low, high = (np.asarray(end(axis=0).todense()).ravel() for end in (rows.min, rows.max))
    # Values of two kinds have the variance of a coin: (mean − low) (high − mean).
    variance = np.maximum(square - mean**2, 0.0)
    binary = np.isclose(variance, (mean - low) * (high - mean), rtol=1e-9, atol=0)
    return np.asarray(np.where(binary, high - low, np.sqrt(variance)), dtype=np.float64)


def differences(query: Any, rows: Any, columns: Columns) -> tuple[NDArray[np.bool_], bool]:
    """Return which cells differ from those of a query, numbers by half a standard deviation.

    A column of at most ten different numbers among the rows and the query is compared exactly.

    Args:
        query: The inputs of one query.
        rows: k rows of the training data.
        columns: The columns that are shown, d of them.

    Returns:
        [k, d], and whether any column is compared by its standard deviation.
    """
    k = rows.shape[0]
    own_cells = columns.cells(query, 0)
    cells = np.array([columns.cells(rows, i) for i in range(k)], dtype=object).reshape(
        k, len(columns.order)
    )
    found = np.array(cells != np.array(own_cells, dtype=object), dtype=np.bool_)
    continuous = False
    for at, position in enumerate(columns.order):
        own, others = column_values(query, position), column_values(rows, position)
        if own is None or others is None or len(np.unique(np.r_[own, others])) <= _DISTINCT:
            continue
        near = np.abs(others - own[0]) < 0.5 * np.nanstd(others)
        found[near, at], continuous = False, True
    return found, continuous


@singledispatch
def column_values(inputs: Any, position: int) -> Floats | None:
    """Return one column as numbers, [n], or `None` where they are no numbers.

    Args:
        inputs: Rows of a table.
        position: Of the column.
    """
    if is_sparse(inputs):
        return np.asarray(inputs[:, [position]].toarray()[:, 0], dtype=np.float64)
    try:
        return np.asarray(plain(inputs[:, position]), dtype=np.float64)
    except (TypeError, ValueError):
        return None


@column_values.register(pd.DataFrame)
def _values_of_frame(inputs: pd.DataFrame, position: int) -> Floats | None:
    values: Any = inputs.iloc[:, position]
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return None
    return np.asarray(values.to_numpy(dtype=np.float64, na_value=np.nan))


@singledispatch
def cell_text(value: Any) -> str:
    """Return a cell as text, a number in six digits, and whole where it is whole or in millions.

    Args:
        value: Any cell.

    Examples:
        >>> cell_text(13.0), cell_text(0.1 + 0.2), cell_text(18531.0), cell_text(float("nan"))
        ('13', '0.3', '18531', 'missing')
    """
    return str(value)


@cell_text.register(type(None))
@cell_text.register(type(pd.NA))
@cell_text.register(type(pd.NaT))
def _missing_text(value: Any) -> str:
    return "missing"


@cell_text.register(float)
@cell_text.register(np.floating)
def _number_text(value: Any) -> str:
    if np.isnan(value):
        return "missing"
    number = float(value)
    whole = (number.is_integer() or abs(number) >= 1e6) and abs(number) < 1e15
    return (f"{number:.0f}" if whole else f"{number:.6g}").replace("-", "−")


@cell_text.register(int)
@cell_text.register(np.integer)
def _whole_text(value: Any) -> str:
    return str(value).replace("-", "−")
