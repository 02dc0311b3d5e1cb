"""A file's table as a frame: columns, names of rows, and what is done to make it readable."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from whence.errors import InvalidInput

_LEAST_WORDS = 5  # mean number of words from which a column of mostly distinct texts is free text
_WORD = re.compile(r"\b\w\w+\b")  # as TfidfVectorizer counts words


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


def frame_of(path: Path) -> pd.DataFrame:
    """Return a file's table, or say why it is none."""
    if path.suffix in (".parquet", ".pq"):
        try:
            return pd.read_parquet(path)
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


def readable(frame: pd.DataFrame, target: str) -> tuple[pd.DataFrame, list[str]]:
    """Return a frame whose columns a model can read, and what was done to it.

    True and False become the levels yes and no, and columns that say nothing are left out: those
    without a value, and those with one value throughout.
    """
    notes, columns = [], [name for name in frame.columns if name != target]
    flags = [name for name in columns if _is_flag(frame[name])]
    if flags:
        words = {True: "yes", False: "no"}
        frame = frame.assign(**{name: frame[name].map(words).astype(object) for name in flags})
        notes.append(f"True and False are read as yes and no in {listed(flags)}.")
    empty = [name for name in columns if frame[name].isna().all()]
    fixed = [
        name for name in columns if name not in empty and frame[name].nunique(dropna=False) < 2
    ]
    again = [
        name
        for name in columns
        if name not in (*empty, *fixed) and _repeats(frame[name], frame[target])
    ]
    for names, what in (
        (empty, "with no value"),
        (fixed, "with one value throughout"),
        (again, "that repeat the target"),
    ):
        if names and len(empty) + len(fixed) + len(again) < len(columns):
            frame = frame.drop(columns=names)
            notes.append(f"Columns {what} were left out: {listed(names)}.")
    if prose := free_text(frame.drop(columns=target)):
        frame = frame.assign(**{name: frame[name].fillna("") for name in prose})
        notes.append(f"Free text is read by its words, none where missing: {listed(prose)}.")
    return frame, notes


def _repeats(column: pd.Series[Any], target: pd.Series[Any]) -> bool:
    """Return whether a column has the target's value in every row that has a target."""
    known = target.notna()
    if column[known].isna().any():
        return False
    if pd.api.types.is_numeric_dtype(column) and pd.api.types.is_numeric_dtype(target):
        return bool((column[known] == target[known]).all())
    return bool((column[known].astype(str) == target[known].astype(str)).all())


def target_as_written(
    path: Path, frame: pd.DataFrame, target: str
) -> tuple[pd.DataFrame, list[str]]:
    """Return a frame whose target, if it is words, has those that look missing, such as "NA"."""
    numeric = pd.api.types.is_numeric_dtype(frame[target]) or _is_flag(frame[target])
    if path.suffix in (".parquet", ".pq") or (numeric and frame[target].notna().any()):
        return frame, []
    written = pd.read_csv(path, usecols=[target], keep_default_na=False, dtype=str)[target]
    words = written.where(written.str.strip() != "", None).set_axis(frame.index)
    found = sorted(set(words[frame[target].isna() & words.notna()]))
    if not found:
        return frame, []
    return frame.assign(**{target: words.astype(object)}), [
        f"The target's values {listed(found)} are read as words, not as missing."
    ]


def _is_flag(column: pd.Series[Any]) -> bool:
    """Return whether a column holds True and False, cells missing or not."""
    known = column.dropna()
    return len(known) > 0 and bool(known.map(lambda cell: isinstance(cell, bool | np.bool_)).all())


def listed(names: list[str]) -> str:
    """Return the first names of a list, and how many more there are."""
    shown = ", ".join(str(name) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def named(frame: pd.DataFrame, target: str, ids: str | None) -> tuple[pd.DataFrame, list[str]]:
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


def _line(error: Exception) -> str:
    """Return an error's first line."""
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else "unreadable"
