"""A table in a file as an objective: read, checked, and fitted with a documented default model."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

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
from whence.sources.reading import frame_of, free_text, listed, named, readable, target_as_written

Task: TypeAlias = Literal["labels", "numbers"]

_CLASSES = 20  # distinct whole numbers up to which a numeric target is taken as classes
_LEVELS = 50  # levels of a text column that get an indicator of their own
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
        task: "labels" or "numbers"; `None` to tell by the target.
        own: Whether the columns are as they are in the file, for a model that was fitted on them.
    """

    path: Path
    X: pd.DataFrame
    y: pd.Series[Any]
    notes: tuple[str, ...]
    task: Task | None = None
    own: bool = False

    @property
    def classification(self) -> bool:
        """Whether the target is a label, not a quantity."""
        if self.task is not None:
            return self.task == "labels"
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


def read_table(
    path: str | os.PathLike[str],
    target: str,
    *,
    ids: str | None = None,
    task: Task | None = None,
    model: Any = None,
) -> Table:
    """Read a CSV or Parquet file with a target column.

    Rows are named by the column `ids`; without one, by a first column of distinct values that has
    no header, as frames are written with their index, or by the index of a Parquet file; else by
    their number from 0. A column that names rows is not given to the model.

    Args:
        path: The file: .parquet or .pq is Parquet, anything else is read as CSV in UTF-8.
        target: The column to predict.
        ids: The column that names the rows, of distinct values.
        task: "labels" or "numbers"; `None` to tell by the target: words, and whole numbers of at
            most 20 values, are labels.
        model: A fitted scikit-learn model; it gets the columns it was fitted on as the file has
            them. Without one, columns are made readable for the default model.

    Returns:
        The table. Rows without a target are left out, and said so; of a column of words only empty
        cells count as such, "NA" and "None" are words.

    Raises:
        InvalidInput: If the file cannot be read as a table, or the target is not in it.
    """
    where = Path(path)
    if where.is_dir():
        raise InvalidInput(f"Expected a CSV or Parquet file. Got the folder {where}.")
    if not where.exists():
        raise InvalidInput(f"Expected a file. Got {where}, which does not exist.")
    frame = frame_of(where)
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
    frame, words = target_as_written(where, frame, target)
    known_columns = getattr(model, "feature_names_in_", None)
    whole = frame
    frame, notes = named(frame, target, ids)
    notes += words
    if model is None:
        frame, done = readable(frame, target)
        notes += done
    elif known_columns is not None:
        gone = [str(name) for name in known_columns if name not in whole.columns]
        if gone:
            raise InvalidInput(
                f"Expected the columns that the model was fitted on. Got {where} without "
                f"{listed(gone)}. Name the file that the model was fitted on."
            )
        columns = whole[list(known_columns)].set_axis(frame.index, axis=0)
        frame = columns.assign(**{target: frame[target]})
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
    if task == "numbers" and not pd.api.types.is_numeric_dtype(y):
        raise InvalidInput(
            f"Expected a target of numbers. Got {str(y.iloc[0])!r} in {target!r}. Leave --task "
            "out, or name another column."
        )
    table = Table(path=where, X=X, y=y, notes=(), task=task, own=model is not None)
    values = int(y.nunique())
    if table.classification and values > max(_CLASSES, len(y) / 2):
        raise InvalidInput(
            f"Expected labels that repeat. Got {values:,} different values of {target!r} in "
            f"{len(y):,} rows, as names of rows have. Name another column with --target; numbers "
            "to be predicted as such are read with --task numbers."
        )
    numbers = X.select_dtypes("number")
    infinite = np.isinf(numbers.to_numpy(dtype=float, na_value=np.nan)).any(axis=0)
    if infinite.any():
        raise InvalidInput(
            f"Expected finite numbers. Got infinity in {numbers.columns[infinite][0]!r}. Leave "
            "such cells empty: they are imputed."
        )
    missing = int(X.isna().to_numpy().sum())
    if missing and model is None:
        share = missing / X.size
        notes.append(
            f"{missing} missing values ({share:.1%}) are imputed by the default model: medians for "
            "numbers, a level of their own for text."
        )
    return replace(table, notes=tuple(notes))


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
        X = self.table.X.loc[rows]
        return X if self.table.own else _strings(X), self.table.y.loc[rows].to_numpy()


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
    X, y = table.X if table.own else _strings(table.X), table.y
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
