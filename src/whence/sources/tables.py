"""A table from a file, read as a careful person would, with what was done to it in sentences."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from whence.errors import InvalidInput, closest, listed
from whence.sources.cells import read_column
from whence.sources.columns import free_text, saying, telling
from whence.sources.files import read_frame, with_labels

TargetKind: TypeAlias = Literal["label", "quantity"]

CLASSES = 20  # distinct whole numbers up to which a numeric target is taken as classes
_PER_CLASS = 3  # rows per distinct whole number from which they are
_MOST_LABELS = 0.5  # share of rows that may have a label of their own
_HUGE = 1e100  # numbers above it have sums of squares that overflow


@dataclass(frozen=True, eq=False, kw_only=True)
class Table:
    """A table read from a file.

    Args:
        path: The file.
        X: The columns other than the target; the index names the rows as the file does: by a
            column of names, or by the row number from 0.
        y: The target.
        raw: The same rows with all columns, as pandas reads the file: what a model takes that the
            user fitted.
        classification: Whether the target is a label, not a quantity.
        left_out: Why rows were left out, and their names.
        found: What was found in the file, a sentence each.
        notes: The same, and what was done to the data.
    """

    path: Path
    X: pd.DataFrame
    y: pd.Series[Any]
    raw: pd.DataFrame
    classification: bool
    left_out: dict[str, pd.Index[Any]]
    found: tuple[str, ...]
    notes: tuple[str, ...]

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
        for why, names in self.left_out.items():
            if name in set(names.astype(str)):
                raise InvalidInput(
                    f"Expected a row that can be asked about. Got {name:.80} of {self.path.name}, "
                    f"which has {why}. Name another row."
                )
        by_number = known.startswith("by name") and name.isdigit()
        remedy = " Leave out --ids, if it was given, to go by numbers from 0." if by_number else ""
        raise InvalidInput(
            f"Expected a row of {self.path.name}, {known}. Got {name!r:.80}.{remedy}"
        )


def is_label(target: pd.Series[Any]) -> bool:
    """Return whether a target is a label: text, or at most 20 whole numbers, each in some rows.

    Args:
        target: The target of all rows.
    """
    if not pd.api.types.is_numeric_dtype(target) or pd.api.types.is_bool_dtype(target):
        return True
    known = target.dropna()
    whole, different = bool((known == known.round()).all()), known.nunique()
    few = different <= 2 or different * _PER_CLASS <= len(known)
    return whole and different <= CLASSES and few


def read_table(
    path: str | os.PathLike[str],
    target: str,
    *,
    ids: str | None = None,
    kind: TargetKind | None = None,
) -> Table:
    """Read a file of rows with a target column.

    The separator, the encoding, compression, lines above the header and a missing header are told
    from the file. Numbers are read with their currency, percent signs, units, thousands separators
    and decimal commas; pairs such as 120/80 become two numbers, times hours and dates days from the
    first; columns that say nothing, that name or count the rows, or that say the same as the
    target, are left out. The notes say so.

    Rows are named by the column `ids`; without one, by a first column of distinct values that has
    no header, as frames are written with their index, or by the index of a Parquet file; else by
    their number from 0. A column that names rows is not given to the model.

    Args:
        path: The file: Parquet, Excel, or text with separators, compressed or not.
        target: The column to predict.
        ids: The column that names the rows, of distinct values.
        kind: Whether the target is a "label" or a "quantity"; told from its values if `None`.

    Returns:
        The table. Rows without a target are left out, and said so.

    Raises:
        InvalidInput: If the file cannot be read as a table, or the target is not in it.
    """
    where = Path(path)
    _refuse_no_file(where)
    frame, notes = read_frame(where)
    if target not in frame.columns:
        target = _meant(frame, target)
    frame[target], words = with_labels(where, frame[target])
    notes += words
    raw, named = _named(frame, target, ids)
    numbered = _counts(frame.index) and ids is None and not named
    notes += named
    known = raw[target].notna()
    left_out = {"no target": raw.index[~known]}
    if not known.all():
        notes.append(_left_out(~known, "without a target"))
        raw = raw[known]
    found = tuple(notes)
    frame, done = _read(raw, target)
    notes += [*done, *(_numbered(raw, frame) if numbered else [])]
    known = frame[target].notna()
    if not known.all():
        notes.append(_left_out(~known, "whose target cannot be read"))
    left_out["a target that cannot be read"] = frame.index[~known]
    frame = frame[known]
    if len(frame) < 2:
        raise InvalidInput(f"Expected at least 2 rows with a target. Got {len(frame)} in {where}.")
    frame[target], label = _as_target(frame[target], kind)
    before = frame.index
    frame, lone = _shared(frame, target) if label else (frame, [])
    left_out["a label that no other row has"] = before.difference(frame.index)
    notes += lone
    X, y = frame.drop(columns=target), frame[target]
    _refuse_nothing_to_learn(X, y)
    X, done = telling(X, y, label)
    notes += [*done, _kind_of(y, label)]
    _refuse_huge(X, "Leave such cells empty: they are imputed.")
    _refuse_huge(pd.DataFrame({target: y}), "Correct such targets, or leave them empty.")
    missing = int(X.isna().to_numpy().sum())
    if missing:
        notes.append(
            f"{missing:,} of {X.size:,} cells are missing. The default model imputes medians for "
            "numbers and takes a missing text as a value of its own."
        )
    return Table(
        path=where,
        X=X,
        y=y,
        raw=raw.loc[frame.index],
        classification=label,
        left_out=left_out,
        found=found,
        notes=tuple(re.sub(r"(?<!\.)\.\.$", ".", note) for note in notes),
    )


def _left_out(rows: pd.Series[Any], which: str) -> str:
    """Return how many rows of some kind were left out, a sentence."""
    count = int(rows.sum())
    return f"{count:,} {f'row {which} was' if count == 1 else f'rows {which} were'} left out."


def _refuse_no_file(where: Path) -> None:
    """Raise if there is no file at a path."""
    if where.is_dir():
        raise InvalidInput(f"Expected a CSV or Parquet file. Got the folder {where}.")
    if not where.exists():
        raise InvalidInput(f"Expected a file. Got {where}, which does not exist.")


def _refuse_nothing_to_learn(X: pd.DataFrame, y: pd.Series[Any]) -> None:
    """Raise if there is no column beside the target, or the target has one value."""
    if X.shape[1] == 0:
        raise InvalidInput(f"Expected columns beside the target. Got only {str(y.name)!r}.")
    if y.nunique() < 2:
        raise InvalidInput(
            f"Expected a target with at least 2 values. Got only {str(y.iloc[0])!r}."
        )


def _meant(frame: pd.DataFrame, target: str) -> str:
    """Return the one column that is called as asked but for capitals and spaces, or say what is."""
    same = [name for name in frame.columns if name.strip().lower() == target.strip().lower()]
    if len(same) == 1:
        return str(same[0])
    shown = ", ".join(map(str, frame.columns[:12]))
    raise InvalidInput(
        f"Expected a target column {target!r}. Got a table with the columns {shown}"
        f"{', ...' if len(frame.columns) > 12 else ''}. {_or_like(frame, target)}"
    )


def _or_like(frame: pd.DataFrame, target: str) -> str:
    """Return what to do where there is no such column: name one, or one that is spelled alike."""
    near = closest(target, map(str, frame.columns))
    if near is not None:
        return f"Did you mean --target {shlex.quote(near)}?"
    return "Name one of them with --target."


def _read(frame: pd.DataFrame, target: str) -> tuple[pd.DataFrame, list[str]]:
    """Return a frame of numbers and text, and what was done to its columns."""
    parts: dict[str, pd.Series[Any]] = {}
    done: dict[str, list[str]] = {}
    for name in frame.columns:
        read = read_column(frame[name], several=name != target)
        parts |= read.parts
        if read.note:
            done.setdefault(read.note, []).append(name)
    notes = [
        f"True and False are read as yes and no in {listed(names)}."
        if note == "yes and no"
        else f"Read as {note}: {listed(names)}."
        for note, names in done.items()
    ]
    read_frame = pd.DataFrame(parts, index=frame.index)
    read_frame, left_out = saying(read_frame, target)
    notes += left_out
    if prose := free_text(read_frame.drop(columns=target)):
        read_frame = read_frame.assign(**{name: read_frame[name].fillna("") for name in prose})
        notes.append(f"Free text is read by its words, none where missing: {listed(prose)}.")
    return read_frame, notes


def _as_target(target: pd.Series[Any], kind: TargetKind | None) -> tuple[pd.Series[Any], bool]:
    """Return a target in one type, text as objects, and whether it is a label."""
    numeric = target.dtype.kind in "iuf"
    if kind == "quantity" and not numeric:
        raise InvalidInput(
            f"Expected numbers in {target.name!r}, which is to be a quantity. Got "
            f"{str(target.iloc[0])!r:.60}. Leave out --target-kind."
        )
    label = is_label(target) if kind is None else kind == "label"
    whole = numeric and bool((target == target.round()).all()) and target.abs().max() < 2**53
    if whole and target.dtype.kind == "f":
        return target.astype(np.int64), label
    if numeric and not (label and not whole):
        return target, label
    return target.map(str).astype(object) if numeric else target.astype(object), label


def _shared(frame: pd.DataFrame, target: str) -> tuple[pd.DataFrame, list[str]]:
    """Return a frame without the rows that have a label no other row has, which none can learn."""
    y = frame[target]
    counts = y.map(y.value_counts())
    lone = counts == 1
    if not lone.any() or lone.mean() > _MOST_LABELS or y.nunique() <= 2:
        return frame, []
    names = [str(label) for label in y[lone]]
    note = f"Rows with a label of their own were left out: {listed(names)}."
    return frame[~lone], [note]


def _kind_of(y: pd.Series[Any], label: bool) -> str:
    """Return how the target is taken, in a sentence, or refuse one whose labels name the rows."""
    different, other = y.nunique(), ""
    if y.dtype.kind in "iuf" and different > 2:
        other = f"; --target-kind {'quantity' if label else 'label'} takes it as one"
    if not label:
        return f"{y.name} is taken as a quantity{other if different <= CLASSES else ''}."
    if different > 2 and different > _MOST_LABELS * len(y):
        raise InvalidInput(
            f"Expected a target of labels that rows share, or of numbers. Got {different:,} "
            f"different texts in {len(y):,} rows of {y.name!r}, such as {str(y.iloc[0])!r:.60}."
        )
    return f"{y.name} is taken as a label with {different} values{other}."


def _counts(index: pd.Index[Any]) -> bool:
    """Return whether an index names nothing, but counts the rows."""
    return isinstance(index, pd.RangeIndex)


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
    if not _counts(frame.index):  # a Parquet file keeps its index
        names = frame.index
        kept = names.nlevels == 1 and names.is_unique and not names.hasnans
        return (frame if kept else frame.reset_index(drop=True)), []
    first = str(frame.columns[0])
    if first == "Unnamed: 0" and first != target and frame[first].is_unique:
        named = frame.set_index(first).rename_axis(None)
        if not named.index.hasnans:
            return named, ["Rows are named by the first column, which has no header."]
    return frame, []


def _numbered(raw: pd.DataFrame, read: pd.DataFrame) -> list[str]:
    """Return that the rows are named by their numbers, and which column could name them, if any.

    Args:
        raw: The rows with all columns.
        read: The rows with those that a model reads.
    """
    kept = set(map(str, read.columns))
    names = [
        name
        for name in raw.columns
        if str(name) not in kept
        and raw[name].is_unique
        and not raw[name].hasnans
        and not any(part.startswith(str(name)) for part in kept)  # as "day, month" of "day"
    ]
    better = f"; --ids {shlex.quote(str(names[0]))} names them by that column" if names else ""
    return [f"Rows are numbered from 0, in the order of the file{better}."]


def _refuse_huge(columns: pd.DataFrame, remedy: str) -> None:
    """Raise if a number is infinite, or so large that its square is."""
    numbers = columns.select_dtypes("number")
    largest = np.abs(numbers.to_numpy(dtype=float, na_value=0.0)).max(axis=0, initial=0.0)
    huge = np.flatnonzero(largest > _HUGE)
    if huge.size:
        column, most = numbers.columns[huge[0]], largest[huge[0]]
        raise InvalidInput(
            f"Expected finite numbers up to {_HUGE:g}. Got {most:g} in {column!r}. {remedy}"
        )
