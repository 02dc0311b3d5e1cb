"""How the text of a table is laid out: its separator, the lines above it, its header."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from dataclasses import dataclass

START = 2**18  # bytes of a file from which its layout is told
SPACES = r"\s+"
_RECORDS = 200  # records of these that are looked at
_SEPARATORS = (",", ";", "\t", "|")
_HEADING = 3  # words of a heading at most
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_MISSING = ("?", "NA")  # in a column of numbers


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the text of a table is laid out.

    Args:
        separator: Between cells; a pattern of spaces where there is no other.
        skipped: Lines before the header.
        header: The cells of the header, or `None` where there is none.
        width: Cells of a row.
    """

    separator: str
    skipped: int
    header: tuple[str, ...] | None
    width: int


def layout_of(text: str) -> Layout:
    r"""Return the layout under which the most records of a text have the cells of the first.

    Args:
        text: The beginning of a file.

    Returns:
        The layout.

    Examples:
        >>> layout_of("a;b\n1,5;x\n2,5;y\n").separator
        ';'
    """
    given = re.match(r"sep=(.)\r?\n", text)  # a line that Excel writes and reads
    if given:
        return _under(text[given.end() :], given[1], before=1)
    found = [_under(text, separator) for separator in _SEPARATORS]
    wide = [layout for layout in found if layout.width > 1]
    if wide:
        return max(
            wide, key=lambda layout: (_agreeing(text, layout), -layout.skipped, layout.width)
        )
    spaced = _under(text, SPACES)
    rows = text.splitlines()[spaced.skipped :]
    same = sum(len(row.split()) == spaced.width for row in rows)
    return spaced if spaced.width > 1 and same >= len(rows) - 1 else found[0]


def _records(text: str, separator: str) -> list[tuple[int, list[str]]]:
    """Return the first records of a text, each with the number of lines before it."""
    if separator == SPACES:
        lines = text.splitlines()[:_RECORDS]
        return [(at, line.split()) for at, line in enumerate(lines) if line.strip()]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    records: list[tuple[int, list[str]]] = []
    before = 0
    try:
        for record in reader:
            if any(cell.strip() for cell in record):
                records.append((before, [cell.strip() for cell in record]))
            before = reader.line_num
            if len(records) >= _RECORDS:
                break
    except csv.Error:
        pass  # a cell without end: what was found until there tells enough
    complete = len(text) < START // 4 or len(records) >= _RECORDS
    return records if complete or len(records) < 2 else records[:-1]


def _under(text: str, separator: str, before: int = 0) -> Layout:
    """Return the layout of a text under one separator."""
    records = _records(text, separator)
    if not records:
        return Layout(separator=separator, skipped=before, header=(), width=1)
    width, _ = Counter(len(cells) for _, cells in records).most_common(1)[0]
    # Lines above a table are narrower, and so is the header that R writes: by one cell.
    at = next(
        (i for i, (_, cells) in enumerate(records) if width - 1 <= len(cells) <= width + 1), 0
    )
    if width == 2:
        at = next((i for i, (_, cells) in enumerate(records) if len(cells) == width), 0)
    line, header = records[at]
    rows = [cells for _, cells in records[at + 1 :] if len(cells) == len(header)]
    named = not _is_data(header, rows)
    return Layout(
        separator=separator,
        skipped=line + before,
        header=tuple(header) if named else None,
        width=len(header),
    )


def _agreeing(text: str, layout: Layout) -> float:
    """Return the share of records that are as wide as the header, or wider by the name of a row."""
    records = [cells for line, cells in _records(text, layout.separator) if line >= layout.skipped]
    fits = sum(layout.width <= len(cells) <= layout.width + 1 for cells in records)
    return round(fits / max(len(records), 1), 2)


def _is_data(first: list[str], rows: list[list[str]]) -> bool:
    """Return whether the first record is a row like the others, and no header."""
    if len(rows) < 3:
        return False
    columns = list(zip(*rows, strict=True))
    numeric = [
        all(_NUMBER.fullmatch(cell) for cell in cells if cell and cell not in _MISSING)
        and any(cells)
        for cells in columns
    ]
    numbers = [cell for cell, number in zip(first, numeric, strict=True) if number]
    if not numbers or not all(_NUMBER.fullmatch(cell) or cell in _MISSING for cell in numbers):
        return False
    texts = [
        cell in cells or len(cell.split()) > _HEADING
        for cell, cells, number in zip(first, columns, numeric, strict=True)
        if not number
    ]
    occur = all(
        cell in cells for cell, cells, number in zip(first, columns, numeric, strict=True) if number
    )
    # Years and counts may head columns, each its own; a fraction or a repeated number does not.
    values = occur or len(set(numbers)) < len(numbers) or any("." in cell for cell in numbers)
    return all(texts) and (values or bool(texts))
