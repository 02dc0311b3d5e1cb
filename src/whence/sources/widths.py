"""How many cells the rows of a text table have: pandas fills those of a short row as missing."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from whence.errors import InvalidInput
from whence.sources.layout import SPACES, Layout

_LONGEST = 2**31 - 1  # characters of a cell, of which Python takes 131,072 if it is not told


def refuse_short_rows(path: Path, lines: Iterable[str], layout: Layout) -> None:
    """Raise if a row has fewer cells than the others: a line is damaged, or the file cut short.

    Args:
        path: The file, which the message names.
        lines: Its text, line by line with their ends.
        layout: How it is laid out.

    Raises:
        InvalidInput: If there is such a row.
    """
    width, like, last, short = layout.width, "its header has", 0, list[tuple[int, int]]()
    while layout.header is not None and width > 1 and not layout.header[width - 1]:
        width -= 1  # a separator at the end of the header names no column
    for line, cells in _rows(lines, layout):
        if not last and len(cells) > layout.width:  # R names rows in a column without a header
            width, like = len(cells), f"line {line} has"
        if len(cells) < width:
            short.append((line, len(cells)))
        last = line
    if not short:
        return
    line, cells_there = short[0]
    if layout.header is None:
        like = "most lines have"
    where = f"{cells_there} in line {line}"
    if len(short) > 1:
        where += f" and fewer than {width} in {len(short) - 1} more"
    elif line == last:
        where += ", the last: the file seems to be cut short"
    raise InvalidInput(
        f"Expected {width} cells in each line of {path}, as {like}. Got {where}. Copy or "
        "download the file again if it is not whole, else complete or delete the line; a missing "
        "value is an empty cell."
    )


def rows_end_empty(lines: Iterable[str], layout: Layout) -> bool:
    """Return whether each row has one cell more than the header, an empty one, as its last.

    Args:
        lines: The text of a table, line by line with their ends.
        layout: How it is laid out.

    Returns:
        Whether they do.
    """
    rows = _rows(lines, layout)
    return all(len(cells) == layout.width + 1 and not cells[-1].strip() for _, cells in rows)


def _rows(lines: Iterable[str], layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows below the header that are not blank, each with the number of its line."""
    allowed = csv.field_size_limit(_LONGEST)
    try:
        spaced = layout.separator == SPACES
        text = (re.sub(SPACES, " ", line.strip()) for line in lines) if spaced else lines
        separator = " " if spaced else layout.separator
        reader = csv.reader(text, delimiter=separator, skipinitialspace=True)
        before, heads = 0, layout.header is not None
        for cells in reader:
            line, before = before + 1, reader.line_num
            if line <= layout.skipped or not (cells[1:] or "".join(cells).strip()):
                continue
            if not heads:
                yield line, cells
            heads = False
    finally:
        csv.field_size_limit(allowed)
