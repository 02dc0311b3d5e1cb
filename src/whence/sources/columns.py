"""Which columns of a table say something of a row, and which only name it or repeat the target."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd

from whence.errors import listed
from whence.sources.files import ALSO_LABELS

_LEAST_WORDS = 5  # mean number of words from which a column of mostly distinct texts is free text
_WORD = re.compile(r"\b\w\w+\b")  # as TfidfVectorizer counts words
_OWN = 0.9  # share of rows with a text of their own from which a column names the rows
_IDS = re.compile(r"(.*[\W_])?(id|ids|uuid)", re.I)
_MANY_IDS = 50  # different numbers from which such a column names more than kinds
_OWN_OF_IDS = 0.3  # the same of a column that is called an id
_LEAST_NAMES = 15  # different texts of such a column
_SAME = 1e-9  # 1 − |r| up to which a column says what the target says
_YEARS = 1500, 2200  # whole numbers that rise by one and lie between these are years
_ROWS_EACH = 10  # rows for each value of a column that tells the target, on average
_COUNTED = re.compile(  # what is counted so is a quantity of the row, even where each has its own
    r"(.*[\W_])?(age|years?|months?|weeks?|days?|hours?|minutes?|seconds?|time|t|date|period|rank|dose"
    r"|depth|height|weight|length|size|temp(erature)?|distance|level|score|speed|price)([\W_].*)?",
    re.I,
)
_COUNTS = re.compile(r"(.*[\W_])?(id|ids|index|idx|no|nr|number|key|uuid|rownames?|row)", re.I)


def free_text(X: pd.DataFrame) -> list[Any]:
    """Return the columns of free text: most values distinct, of five words or more on average.

    Args:
        X: The columns of a table.

    Returns:
        Their names.
    """
    found = []
    for name in X.columns:
        if X[name].dtype.kind in "iufbM":
            continue
        known = X[name].dropna()
        different = known.nunique() if len(known) else 0
        if different <= len(known) / 2 or pd.api.types.infer_dtype(known) != "string":
            continue
        words = known.map(lambda text: len(_WORD.findall(text)))
        if words.mean() >= _LEAST_WORDS:
            found.append(name)
    return found


def saying(frame: pd.DataFrame, target: str) -> tuple[pd.DataFrame, list[str]]:
    """Return a frame without the columns that say nothing of a row, or only which it is.

    Args:
        frame: The columns as they were read.
        target: The one that is predicted.

    Returns:
        The frame, and what was left out, a sentence for each reason.
    """
    columns = [name for name in frame.columns if name != target]
    prose = free_text(frame.drop(columns=target))
    kinds: dict[str, list[str]] = {}
    for name in columns:
        what = _nothing_said(frame[name], prose=name in prose)
        if what:
            kinds.setdefault(what, []).append(name)
    gone = [name for names in kinds.values() for name in names]
    if len(gone) == len(columns):
        return frame, []
    notes = [
        f"Columns with {what} were left out: {listed(names)}." for what, names in kinds.items()
    ]
    return frame.drop(columns=gone), notes


def _nothing_said(column: pd.Series[Any], *, prose: bool) -> str:
    """Return why a column says nothing of a row; empty if it may."""
    known = column.dropna()
    different, n = known.nunique(), len(column)
    if not len(known):
        return "no value"
    if column.nunique(dropna=False) < 2:
        return "one value throughout"
    if column.dtype.kind in "iu" and different == n and n > _LEAST_NAMES:
        counting = bool((np.diff(column.to_numpy()) == 1).all())
        years = column.min() >= _YEARS[0] and column.max() <= _YEARS[1]
        counting &= _COUNTED.fullmatch(str(column.name)) is None
        if (counting and not years) or _COUNTS.fullmatch(str(column.name)):
            return "the numbers of the rows"
    if column.dtype.kind in "iu" and different > _MANY_IDS and _IDS.fullmatch(str(column.name)):
        return "numbers that only name something"
    text = column.dtype.kind not in "iufbM"
    named = _COUNTS.fullmatch(str(column.name)) is not None
    own = _OWN_OF_IDS if named else _OWN
    if text and not prose and different >= max(_LEAST_NAMES, own * len(known)):
        return "a text of its own in " + ("most rows" if named else "nearly every row")
    return ""


def telling(X: pd.DataFrame, y: pd.Series[Any], label: bool) -> tuple[pd.DataFrame, list[str]]:
    """Return the columns without those that say the same as the target in every row.

    Args:
        X: The columns.
        y: The target.
        label: Whether it is a label.

    Returns:
        The columns, and what was left out, a sentence if anything was; another on those that tell
        the target too, and may be known only after it.
    """
    same = [name for name in X.columns if _says_the_same(X[name], y, label)]
    notes = []
    if same and len(same) < X.shape[1]:
        X = X.drop(columns=same)
        notes.append(
            f"Columns that say the same as {y.name} in every row were left out: {listed(same)}."
        )
    tells = [name for name in X.columns if _tells(X[name], y)]
    if tells:
        notes.append(
            f"In every row {y.name} follows from each of these alone: {listed(tells)}. If they are "
            "known only after it, leave them out of the file."
        )
    return X, notes


def _tells(column: pd.Series[Any], y: pd.Series[Any]) -> bool:
    """Return whether each of a column's few values goes with one target, in rows enough."""
    different = column.nunique(dropna=False)
    if different < 2 or different * _ROWS_EACH > len(y):
        return False
    pairs = pd.DataFrame({"x": column.to_numpy(), "y": y.to_numpy()}).drop_duplicates()
    return len(pairs) == different


def _says_the_same(column: pd.Series[Any], y: pd.Series[Any], label: bool) -> bool:
    """Return whether a column and the target tell each other in every row."""
    if len(y) < 10:
        return False
    if label:
        y = y.mask(y.isin(ALSO_LABELS)) if column.isna().any() else y  # as the column was read
        different = y.nunique(dropna=False)
        if different < 2 or column.nunique(dropna=False) != different:
            return False
        pairs = pd.DataFrame({"x": column.to_numpy(), "y": y.to_numpy()}).drop_duplicates()
        return len(pairs) == different
    if column.isna().any() or column.dtype.kind not in "iuf" or column.nunique() < 3:
        return False
    r = np.corrcoef(column.to_numpy(dtype=float), y.to_numpy(dtype=float))[0, 1]
    return bool(1 - abs(r) < _SAME)
