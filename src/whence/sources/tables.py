"""A table in a file as an objective: read, checked, and fitted with a documented default model."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from whence.adapters.sklearn import linear_objective
from whence.errors import InvalidInput
from whence.objective.objective import Objective

_LARGEST_TABLE = 2**34  # bytes that a Parquet file may say it unpacks to
_CLASSES = 20  # distinct whole numbers up to which a numeric target is taken as classes
_LEVELS = 50  # levels of a text column that get an indicator of their own
_LEAST_WORDS = 5  # mean number of words from which a column of mostly distinct texts is free text
_WORD = re.compile(r"\b\w\w+\b")  # as TfidfVectorizer counts words
_TERMS = 2_000  # commonest words of free text that get a weight


@dataclass(frozen=True, eq=False, kw_only=True)
class Table:
    """A table read from a file.

    Args:
        path: The file.
        X: The columns other than the target; the index names the rows as the file does: by a
            column of names, or by the row number from 0.
        y: The target.
        notes: What was done to the data, a sentence each.
    """

    path: Path
    X: pd.DataFrame
    y: pd.Series[Any]
    notes: tuple[str, ...]

    @property
    def classification(self) -> bool:
        """Whether the target is a label, not a quantity."""
        if not pd.api.types.is_numeric_dtype(self.y) or pd.api.types.is_bool_dtype(self.y):
            return True
        whole = bool((self.y == self.y.round()).all())
        return whole and self.y.nunique() <= _CLASSES

    def row(self, name: str) -> Any:
        """Return the name of a row, as the index has it, from the name as text."""
        index = self.X.index
        found = np.flatnonzero(index.astype(str) == name)
        if len(found):
            return index[found[0]]
        if pd.api.types.is_integer_dtype(index):
            known = f"numbered from {index.min()} to {index.max()}"
        else:
            known = f"by name, such as {str(index[0])!r}"
        raise InvalidInput(
            f"Expected a row of {self.path.name}, {known}. Got {name:.80}, which is not there or "
            "has no target."
        )


def read_table(path: str | os.PathLike[str], target: str, *, ids: str | None = None) -> Table:
    """Read a CSV or Parquet file with a target column.

    Rows are named by the column `ids`; without one, by a first column of distinct values that has
    no header, as frames are written with their index, or by the index of a Parquet file; else by
    their number from 0. A column that names rows is not given to the model.

    Args:
        path: The file: .parquet or .pq is Parquet, anything else is read as CSV in UTF-8.
        target: The column to predict.
        ids: The column that names the rows, of distinct values.

    Returns:
        The table. Rows without a target are left out, and said so.

    Raises:
        InvalidInput: If the file cannot be read as a table, or the target is not in it.
    """
    where = Path(path)
    if where.is_dir():
        raise InvalidInput(f"Expected a CSV or Parquet file. Got the folder {where}.")
    if not where.exists():
        raise InvalidInput(f"Expected a file. Got {where}, which does not exist.")
    frame = _frame(where)
    if target not in frame.columns:
        shown = ", ".join(map(str, frame.columns[:12]))
        other = next((mark for mark in ";\t|" if mark in shown), None)
        if other is not None and len(frame.columns) == 1:
            raise InvalidInput(
                f"Expected values separated by commas in {where}. Got a header separated by "
                f"{other!r}. Save it with commas."
            )
        raise InvalidInput(
            f"Expected a target column {target!r}. Got a table with the columns {shown}"
            f"{', ...' if len(frame.columns) > 12 else ''}. Name one of them with --target."
        )
    if frame.columns.has_duplicates:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise InvalidInput(f"Expected distinct column names. Got {twice!r} twice. Rename one.")
    frame, notes = _named(frame, target, ids)
    frame, done = _readable(frame, target)
    notes += done
    known = frame[target].notna()
    if not known.all():
        notes.append(f"{int((~known).sum())} rows without a target were left out.")
    frame = frame[known]
    if len(frame) < 2:
        raise InvalidInput(f"Expected at least 2 rows with a target. Got {len(frame)} in {where}.")
    X, y = frame.drop(columns=target), frame[target]
    if X.shape[1] == 0:
        raise InvalidInput(f"Expected columns beside the target. Got only {target!r}.")
    if y.nunique() < 2:
        raise InvalidInput(
            f"Expected a target with at least 2 values. Got only {str(y.iloc[0])!r}."
        )
    numbers = X.select_dtypes("number")
    infinite = np.isinf(numbers.to_numpy(dtype=float, na_value=np.nan)).any(axis=0)
    if infinite.any():
        raise InvalidInput(
            f"Expected finite numbers. Got infinity in {numbers.columns[infinite][0]!r}. Leave "
            "such cells empty: they are imputed."
        )
    missing = int(X.isna().to_numpy().sum())
    if missing:
        share = missing / X.size
        notes.append(
            f"{missing} missing values ({share:.1%}) are imputed by the default model: medians for "
            "numbers, a level of their own for text."
        )
    return Table(path=where, X=X, y=y, notes=tuple(notes))


def default_model(table: Table) -> Pipeline:
    """Return the model that is fitted where none is given, not yet fitted.

    Numbers: median imputation, standardized. Text: one indicator per level (the 50 commonest), a
    missing value is a level. Free text: TF-IDF of the 2,000 commonest words. Then logistic
    regression for labels, ridge regression for quantities, both with scikit-learn's default
    penalty.

    Args:
        table: What it is to be fitted on.

    Returns:
        A scikit-learn pipeline.

    Raises:
        InvalidInput: If a column is empty.
    """
    X = table.X
    empty = [str(name) for name in X.columns if X[name].isna().all()]
    if empty:
        raise InvalidInput(f"Expected values in every column. Got none in {empty[0]!r}. Drop it.")
    numeric = [c for c in X.columns if pd.api.types.is_numeric_dtype(X[c])]
    prose = free_text(X)
    text = [c for c in X.columns if c not in numeric and c not in prose]
    of_text = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="missing"),
        OneHotEncoder(handle_unknown="ignore", max_categories=_LEVELS, sparse_output=False),
    )
    columns = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numeric),
            ("text", of_text, text),
            *(
                (f"words of {name}", TfidfVectorizer(max_features=_TERMS, sublinear_tf=True), name)
                for name in prose
            ),
        ]
    )
    final = LogisticRegression(tol=1e-6, max_iter=2000) if table.classification else Ridge()
    return make_pipeline(columns, final)


def free_text(X: pd.DataFrame) -> list[Any]:
    """Return the columns of free text: most values distinct, of five words or more on average.

    Args:
        X: The columns of a table.

    Returns:
        Their names.
    """
    found = []
    for name in X.columns:
        known = X[name].dropna()
        if not len(known) or not known.map(lambda cell: isinstance(cell, str)).all():
            continue
        words = known.map(lambda text: len(_WORD.findall(text)))
        if words.mean() >= _LEAST_WORDS and known.nunique() > len(known) / 2:
            found.append(name)
    return found


@dataclass(frozen=True, eq=False, kw_only=True)
class Fitted:
    """A table with the model fitted on it.

    Args:
        table: The table.
        objective: What the model minimized, on all rows but those held out.
        held_out: Names of the rows that the model was not fitted on.
    """

    table: Table
    objective: Objective
    held_out: tuple[Any, ...]

    def query(self, rows: list[Any]) -> tuple[pd.DataFrame, Any]:
        """Return rows of the file, by name, as queries."""
        return _strings(self.table.X.loc[rows]), self.table.y.loc[rows].to_numpy()


def fit_table(table: Table, *, model: Any = None, hold_out: list[Any] | None = None) -> Fitted:
    """Fit the default model on a table, or take one that was fitted on it.

    Args:
        table: The table.
        model: A fitted scikit-learn estimator or pipeline; `None` fits `default_model`.
        hold_out: Names of rows that the default model is not fitted on: those to be explained.

    Returns:
        The objective at its optimum, with the table.

    Raises:
        InvalidInput: If the table does not suit the model.
        UnsupportedModel: If the given model is of another kind.
    """
    X, y = _strings(table.X), table.y
    if model is not None:
        return Fitted(table=table, objective=linear_objective(model, X, y.to_numpy()), held_out=())
    held = tuple(row for row in hold_out or () if row in X.index)
    rest, labels = X.drop(index=list(held)), y.drop(index=list(held))
    if labels.nunique() < 2:
        raise InvalidInput(
            f"Expected a target with at least 2 values beside the held-out rows. Got only "
            f"{str(labels.iloc[0]) if len(labels) else 'none'!r}."
        )
    fitted = default_model(table).fit(rest, labels.to_numpy())
    objective = linear_objective(fitted, rest, labels.to_numpy()).refit()
    return Fitted(table=table, objective=objective, held_out=held)


def _parquet_size(path: Path) -> int:
    """Return how many bytes a Parquet file says that it unpacks to."""
    import pyarrow.parquet as parquet

    found = parquet.ParquetFile(path).metadata
    groups = range(found.num_row_groups)
    stated = sum(found.row_group(group).total_byte_size for group in groups)
    return int(max(stated, found.num_rows * found.num_columns))


def _frame(path: Path) -> pd.DataFrame:
    """Return a file's table, or say why it is none."""
    if path.suffix in (".parquet", ".pq"):
        try:
            size = _parquet_size(path)
            if size > _LARGEST_TABLE:
                raise InvalidInput(
                    f"Expected a table of at most {_LARGEST_TABLE:,} bytes. Got {path}, which says "
                    f"that it unpacks to {size:,}. Take a part of it."
                )
            return pd.read_parquet(path)
        except InvalidInput:
            raise
        except Exception as error:
            raise InvalidInput(f"Expected a Parquet file. Got {path}: {_line(error)}.") from error
    try:
        with path.open("rb") as file:
            start = file.read(4096)
        if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise InvalidInput(
                f"Expected a file in UTF-8. Got UTF-16 in {path}. Convert it: iconv -f utf-16 -t "
                "utf-8."
            )
        if b"\0" in start:
            raise InvalidInput(
                f"Expected a text file with comma-separated values. Got binary data in {path}. "
                "Export the table as CSV, or name a Parquet file .parquet."
            )
        frame = pd.read_csv(path)
    except pd.errors.EmptyDataError as error:
        raise InvalidInput(f"Expected a table. Got an empty file, {path}.") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"Expected a file in UTF-8. Got another encoding in {path}, at byte {error.start}. "
            "Convert it: iconv -f latin1 -t utf-8."
        ) from error
    except pd.errors.ParserError as error:
        raise InvalidInput(
            f"Expected comma-separated values. Got {path}: {_line(error)}. "
            "Check the quotes and the number of cells per row."
        ) from error
    return frame


def _readable(frame: pd.DataFrame, target: str) -> tuple[pd.DataFrame, list[str]]:
    """Return a frame whose columns a model can read, and what was done to it.

    True and False become the levels yes and no, and columns that say nothing are left out: those
    without a value, and those with one value throughout.
    """
    notes, columns = [], [name for name in frame.columns if name != target]
    flags = [name for name in columns if _is_flag(frame[name])]
    if flags:
        words = {True: "yes", False: "no"}
        frame = frame.assign(**{name: frame[name].map(words).astype(object) for name in flags})
        notes.append(f"True and False are read as yes and no in {_listed(flags)}.")
    empty = [name for name in columns if frame[name].isna().all()]
    fixed = [
        name for name in columns if name not in empty and frame[name].nunique(dropna=False) < 2
    ]
    for names, what in ((empty, "no value"), (fixed, "one value throughout")):
        if names and len(empty) + len(fixed) < len(columns):
            frame = frame.drop(columns=names)
            notes.append(f"Columns with {what} were left out: {_listed(names)}.")
    if prose := free_text(frame.drop(columns=target)):
        frame = frame.assign(**{name: frame[name].fillna("") for name in prose})
        notes.append(f"Free text is read by its words, none where missing: {_listed(prose)}.")
    return frame, notes


def _is_flag(column: pd.Series[Any]) -> bool:
    """Return whether a column holds True and False, cells missing or not."""
    known = column.dropna()
    return len(known) > 0 and bool(known.map(lambda cell: isinstance(cell, bool | np.bool_)).all())


def _listed(names: list[str]) -> str:
    """Return the first names of a list, and how many more there are."""
    shown = ", ".join(str(name) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def _named(frame: pd.DataFrame, target: str, ids: str | None) -> tuple[pd.DataFrame, list[str]]:
    """Return a frame whose index names the rows, without the column that names them, and notes."""
    if ids is not None:
        if ids not in frame.columns or ids == target:
            raise InvalidInput(
                f"Expected a column other than the target that names the rows. Got {ids!r}. Name "
                "one with --ids."
            )
        if not frame[ids].is_unique or frame[ids].isna().any():
            raise InvalidInput(
                f"Expected a name of its own for every row. Got {ids!r}, in which names are "
                "missing or repeated. Name another column, or leave --ids out."
            )
        return frame.set_index(ids), []
    if not isinstance(frame.index, pd.RangeIndex):  # a Parquet file keeps its index
        names = frame.index
        kept = names.nlevels == 1 and names.is_unique and not names.hasnans
        return (frame if kept else frame.reset_index(drop=True)), []
    first = str(frame.columns[0])
    if first == "Unnamed: 0" and first != target and frame[first].is_unique:
        named = frame.set_index(first).rename_axis(None)
        if not named.index.hasnans:
            return named, ["Rows are named by the first column, which has no header."]
    return frame, []


def _strings(X: pd.DataFrame) -> pd.DataFrame:
    """Return a frame whose text columns are of one type, with `None` for what is missing."""
    numeric = X.select_dtypes("number").columns
    text = [name for name in X.columns if name not in numeric]
    if not text:
        return X
    plain = X.copy()
    for name in text:
        column = X[name].astype(object)
        plain[name] = column.where(column.isna(), column.astype(str)).where(column.notna(), np.nan)
    return plain


def _line(error: Exception) -> str:
    """Return an error's first line."""
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else "unreadable"
