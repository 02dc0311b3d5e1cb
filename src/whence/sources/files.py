"""Files of rows and columns as they are found: any separator, encoding, compression and format."""

from __future__ import annotations

import codecs
import io
import lzma
import re
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from whence.errors import InvalidInput
from whence.sources.cells import read_column
from whence.sources.layout import SPACES, START, Layout, layout_of
from whence.sources.numbers import with_points
from whence.sources.unpacking import encoding_of, ends_with_a_line, first_line, opened, refuse_large
from whence.sources.widths import refuse_short_rows, rows_end_empty

_RECORDS = 200  # cells that tell how a column is written
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", SPACES: "spaces"}
ALSO_LABELS = ("None", "NA", "N/A", "n/a")  # what pandas takes for a missing cell, people do not
# The rest of what pandas takes for one.
_MISSING = ["", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND"]
_MISSING += ["1.#QNAN", "<NA>", "NULL", "NaN", "nan", "null"]
_ENCODINGS = {"utf-16": "UTF-16", "utf-16-le": "UTF-16", "utf-16-be": "UTF-16"}
_ENCODINGS |= {"utf-32": "UTF-32", "cp1252": "Windows-1252", "latin-1": "Latin-1"}
_OLE = bytes.fromhex("d0cf11e0a1b11ae1")  # what .xls begins with
_FORMATS = dict.fromkeys((".parquet", ".pq"), "parquet")
_FORMATS |= dict.fromkeys((".xlsx", ".xlsm", ".xls", ".ods"), "excel")


def read_frame(path: Path, *, labels: bool = False) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows of a file as they are, and what was found in it, a sentence each.

    Parquet and Excel are told by what is in the file, whatever its name. Anything else is text: its
    compression, encoding, separator, the lines before its header, and whether it has one, are told
    from its beginning.

    Args:
        path: The file.
        labels: Whether None, NA and N/A are words, and not missing cells.

    Returns:
        The rows, their columns named apart, and the sentences.

    Raises:
        InvalidInput: If the file is no table.
    """
    kind = _format(path)
    missing = {"keep_default_na": False, "na_values": _MISSING} if labels else {}
    if kind == "parquet":
        frame, notes = _parquet(path), list[str]()
    elif kind == "excel":
        frame, notes = _excel(path, missing)
    else:
        frame, notes = _text(path, missing)
    plain = [str(name).strip() for name in frame.columns]
    if all(len(name) > 1 and name[0] == name[-1] == "'" for name in plain):
        plain = [name[1:-1] for name in plain]
    names, twice = _distinct(plain)
    frame.columns = pd.Index(names)
    return frame, notes + twice


def with_labels(path: Path, target: pd.Series[Any]) -> tuple[pd.Series[Any], list[str]]:
    """Return a target of words with None and NA as labels too, and how often, in a sentence.

    Args:
        path: The file.
        target: The column of it that is predicted.

    Returns:
        The target, itself where NA is a missing number or flag, and the sentence if there is one.
    """
    known = target.dropna()
    if len(known) == len(target):
        return target, []
    if len(known) and (
        pd.api.types.infer_dtype(known) != "string"
        or pd.api.types.is_numeric_dtype(read_column(known, several=False).parts[str(target.name)])
    ):
        return target, []
    again, _ = read_frame(path, labels=True)
    written = again[target.name][target.isna()].dropna() if len(again) == len(target) else known[:0]
    if not len(written):
        return target, []
    counts = ", ".join(f"{word} in {n:,}" for word, n in written.value_counts().items())
    note = f"Taken as labels of {target.name}, not as missing: {counts} rows."
    return target.astype(object).fillna(written), [note]


def _format(path: Path) -> str:
    """Return whether a file is Parquet, Excel, or text; by its name where it is none of them."""
    with path.open("rb") as file:
        start = file.read(4096)
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.startswith(_OLE):
        return "excel"
    if start.startswith(b"PK\x03\x04") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        workbook = any(name.startswith("xl/") or name == "content.xml" for name in names)
        return "excel" if workbook else "text"
    if start and b"\0" not in start and not start.startswith(b"PK\x03\x04"):
        return "text"
    return _FORMATS.get(path.suffix.lower(), "text")


def _parquet(path: Path) -> pd.DataFrame:
    """Return the table of a Parquet file."""
    try:
        refuse_large(path, _unpacked(path))
        return pd.read_parquet(path)
    except InvalidInput:
        raise
    except ImportError as error:
        raise InvalidInput(
            f"Expected pyarrow, which reads Parquet. Got {path} without it. Install it: pip "
            "install whence-attribution[tables]."
        ) from error
    except Exception as error:
        raise InvalidInput(
            f"Expected a Parquet file. Got {path}: {first_line(error)}. If it was cut short, "
            "copy or download it again."
        ) from error


def _unpacked(path: Path) -> int:
    """Return how many bytes a Parquet file says that it unpacks to."""
    import pyarrow.parquet as parquet

    found = parquet.ParquetFile(path).metadata
    groups = range(found.num_row_groups)
    stated = sum(found.row_group(group).total_byte_size for group in groups)
    return int(max(stated, found.num_rows * found.num_columns))


def _excel(path: Path, missing: dict[str, Any]) -> tuple[pd.DataFrame, list[str]]:
    """Return the first sheet of a workbook that is not empty."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            refuse_large(path, sum(part.file_size for part in archive.infolist()))
    try:
        sheets: dict[Any, pd.DataFrame] = pd.read_excel(
            path, sheet_name=None, header=None, **missing
        )
    except ImportError as error:
        raise InvalidInput(
            f"Expected the library that reads {path.suffix}. Got {path} without it: "
            f"{first_line(error)}. Install it, or save the table as CSV."
        ) from error
    except Exception as error:
        raise InvalidInput(
            f"Expected an Excel file. Got {path}: {first_line(error)}. If it was cut short, "
            "copy or download it again, else save the table as CSV."
        ) from error
    name, cells = next(
        ((name, sheet) for name, sheet in sheets.items() if sheet.size), ("", pd.DataFrame())
    )
    cells = cells.dropna(how="all").dropna(how="all", axis=1)
    if not cells.size:
        raise InvalidInput(f"Expected a table. Got an empty file, {path}.")
    notes = []
    if len(sheets) > 1:
        notes.append(f"The sheet {name!r} was read; the file has {len(sheets)} sheets.")
    filled = cells.notna().sum(axis=1).to_numpy()
    above = int((filled >= 0.5 * filled.max()).argmax())
    if above:
        notes.append(f"{_counted(above, 'row')} above the header {_were(above)} left out.")
    header = [
        f"Unnamed: {at}" if pd.isna(cell) else str(cell)
        for at, cell in enumerate(cells.iloc[above])
    ]
    frame = cells.iloc[above + 1 :].reset_index(drop=True).infer_objects()
    frame.columns = pd.Index(header)
    return frame, notes


def _text(path: Path, missing: dict[str, Any]) -> tuple[pd.DataFrame, list[str]]:
    """Return the table of a text file."""
    encoding = encoding_of(path)
    text = _beginning(path, encoding)
    layout = layout_of(text)
    options: dict[str, Any] = {
        "sep": layout.separator,
        "encoding": encoding,
        "skiprows": layout.skipped,
        "low_memory": False,
        "skipinitialspace": bool(re.search(rf"{re.escape(layout.separator)} +\"", text)),
        **missing,
    }
    if layout.separator == SPACES:
        del options["low_memory"]
    if layout.header is None:
        options |= {"header": None, "names": [f"column {c + 1}" for c in range(layout.width)]}
    frame = _parsed(path, options)
    if layout.width > 1 and frame.iloc[:, -1].isna().any():  # as it is where a row is short
        with _lines(path, encoding) as lines:
            refuse_short_rows(path, lines, layout)
        if _first_column_is_lost(path, encoding, layout, frame):
            options |= {"index_col": False, "usecols": range(layout.width)}
            frame = _parsed(path, options)
    if _has_decimal_commas(frame, layout.separator):
        frame = _with_points(path, options, frame)
    if layout.header is not None and len(layout.header) == len(frame.columns):
        # As the file has them: pandas renames those that occur twice without a word.
        frame.columns = pd.Index(
            [name or f"Unnamed: {at}" for at, name in enumerate(layout.header)]
        )
    notes = _said(layout, encoding)
    if len(frame) and not ends_with_a_line(path):
        cell: Any = frame.iat[-1, -1]
        value = "missing" if pd.isna(cell) else str(cell)
        notes.append(f"The last line of the file has no end: is its last value ({value}) whole?")
    return frame, notes


def _beginning(path: Path, encoding: str) -> str:
    """Return the beginning of a text file that may be a table."""
    with opened(path) as file:
        start = file.read(START)
    text = codecs.getincrementaldecoder(encoding)(errors="replace").decode(start)
    if not text.strip():
        raise InvalidInput(f"Expected a table. Got an empty file, {path}.")
    if text.lstrip().startswith(('{"', "[{")):
        raise InvalidInput(
            f"Expected separated values. Got JSON in {path}. Write a table of it: pandas."
            "read_json(path).to_csv('table.csv', index=False), with lines=True of JSON lines."
        )
    return text


def _first_column_is_lost(path: Path, encoding: str, layout: Layout, frame: pd.DataFrame) -> bool:
    """Return whether pandas took the first column as names, as rows end with a separator."""
    if len(frame.columns) != layout.width or not frame.iloc[:, -1].isna().all():
        return False
    with _lines(path, encoding) as lines:
        return rows_end_empty(lines, layout)


def _with_points(path: Path, options: dict[str, Any], frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table of decimal commas with points, as a user's own model had them."""
    plain = [name for name in frame.columns if frame[name].dtype.kind == "f"]
    if plain:  # 1.234 beside 0,5 is a thousand, and pandas has read 1.234
        as_text = _parsed(path, {**options, "dtype": str})
        for name in (name for name in plain if _is_grouped(as_text[name])):
            frame[name] = as_text[name].str.replace(".", "").astype(float)
    return frame.apply(with_points)


def _lines(path: Path, encoding: str) -> io.TextIOWrapper:
    """Return the lines of a text file with their ends, as they are."""
    return io.TextIOWrapper(opened(path), encoding, newline="")


def _parsed(path: Path, options: dict[str, Any]) -> pd.DataFrame:
    """Return the rows of a text file."""
    try:
        with opened(path) as file:
            frame: pd.DataFrame = pd.read_csv(file, **options)
            return frame
    except pd.errors.EmptyDataError as error:
        raise InvalidInput(f"Expected a table. Got an empty file, {path}.") from error
    except (pd.errors.ParserError, UnicodeError, ValueError, EOFError, lzma.LZMAError) as error:
        raise InvalidInput(
            f"Expected rows of values separated by {_NAMES[options['sep']]}. Got {path}: "
            f"{first_line(error)}. Check that the file is whole, its quotes and the number of "
            "cells per row."
        ) from error


def _said(layout: Layout, encoding: str) -> list[str]:
    """Return what was found in a text file, where it is not what everybody expects."""
    notes = []
    if encoding in _ENCODINGS:
        notes.append(f"The file is read as {_ENCODINGS[encoding]}.")
    if layout.separator != ",":
        notes.append(f"Values are separated by {_NAMES[layout.separator]}.")
    if layout.skipped:
        n = layout.skipped
        notes.append(f"{_counted(n, 'line')} before the table {_were(n)} left out.")
    if layout.header is None:
        notes.append(
            f"The file has no header: its columns are called column 1 to column {layout.width}."
        )
    return notes


def _has_decimal_commas(frame: pd.DataFrame, separator: str) -> bool:
    """Return whether numbers of a table have a comma before their decimals."""
    if separator == ",":
        return False
    for name in frame.columns:
        if frame[name].dtype.kind not in "OUST" and frame[name].dtype != "string":
            continue
        some = frame[name].dropna().astype(str).head(_RECORDS)
        commas = some.str.fullmatch(r"\s*[-+]?(\d+|\d{1,3}(\.\d{3})+),\d+\s*")
        if len(some) and commas.mean() > 0.5:
            return True
    return False


def _is_grouped(column: pd.Series[Any]) -> bool:
    """Return whether the points of a column group the digits of whole numbers."""
    known = column.dropna().str.strip()
    grouped = known.str.fullmatch(r"[-+]?\d{1,3}(\.\d{3})+")
    return bool(grouped.any()) and bool((grouped | known.str.fullmatch(r"[-+]?\d{1,3}")).all())


def _distinct(names: list[str]) -> tuple[list[str], list[str]]:
    """Return names of which none occurs twice, and what was renamed."""
    counts, renamed, taken = Counter[str](), list[str](), set(names)
    found = []
    for name in names:
        counts[name] += 1
        new = name
        while counts[name] > 1 and new in taken:
            new = f"{name} ({counts[name]})"
            counts[name] += new in taken
        if new != name:
            renamed.append(f"{new}")
        taken.add(new)
        found.append(new)
    if not renamed:
        return found, []
    return found, [f"Columns of one name are told apart: {', '.join(renamed[:5])}."]


def _counted(n: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _were(n: int) -> str:
    """Return the verb for so many."""
    return "was" if n == 1 else "were"
