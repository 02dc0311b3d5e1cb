"""Rows of files of Parquet or JSON lines, a file at a time."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from whence.errors import CorruptFile, InvalidInput, MissingDependency

_LINES = (".jsonl", ".json", ".ndjson", ".jsonl.gz", ".json.gz")
_PARQUET = (".parquet", ".pq")


def rows_of(where: str | os.PathLike[str]) -> tuple[str, Callable[[int], Iterator[dict[str, Any]]]]:
    """Return the rows of a file, or of the files of a folder in the order of their names.

    Args:
        where: A file or folder of Parquet or JSON lines.

    Returns:
        The names and sizes of the files, as one text; a function from a position to the rows from
        there on.

    Raises:
        InvalidInput: If there is no such file.
    """
    root = Path(where)
    found = sorted(root.rglob("*")) if root.is_dir() else [root]
    files = [path for path in found if path.is_file() and path.name.endswith(_LINES + _PARQUET)]
    if not files:
        raise InvalidInput(
            f"Expected a file or a folder with files of Parquet or JSON lines "
            f"({', '.join(_LINES + _PARQUET)}). Got {root}."
        )
    base = root if root.is_dir() else root.parent
    names = [f"{path.relative_to(base)} {path.stat().st_size}" for path in files]
    return "; ".join(names), lambda start: _from(files, start)


def _from(files: list[Path], start: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of files from a position on."""
    for path in files:
        parquet = path.name.endswith(_PARQUET)
        if parquet:
            count = _parquet(path).metadata.num_rows
            if start >= count:
                start -= count
                continue
        for row in _parquet_rows(path) if parquet else _lines(path):
            if start:
                start -= 1
            else:
                yield row


def _parquet(path: Path) -> Any:
    """Return an open file of Parquet."""
    try:
        reader = import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingDependency(
            f"Expected the pyarrow package, to read {path}. Got none; run: "
            "pip install 'whence-attribution[index]'."
        ) from error
    try:
        return reader.ParquetFile(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are of these
        raise _damaged("a file of Parquet", path, error) from error


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file of Parquet, a batch in memory at a time."""
    batches = _parquet(path).iter_batches(batch_size=256)
    for batch in _intact(batches, "a file of Parquet", path):
        yield from batch.to_pylist()


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file with one per line."""
    opened = gzip.open if path.name.endswith(".gz") else open
    with opened(path, "rb") as file:
        for number, line in enumerate(_intact(file, "JSON lines", path), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:  # of no JSON, and of bytes that are no UTF-8
                raise _damaged("a JSON object per line", path, f"line {number}, {error}") from error
            if not isinstance(row, dict):
                raise InvalidInput(
                    f"Expected a JSON object per line. Got {line.decode().strip()[:60]!r} in line "
                    f"{number} of {path}."
                )
            yield row


def _intact(parts: Iterable[Any], expected: str, path: Path) -> Iterator[Any]:
    """Yield the parts of a file as they are read, its damage told in a sentence."""
    try:
        yield from parts
    except (EOFError, OSError, ValueError, zlib.error) as error:
        raise _damaged(expected, path, error) from error


def _damaged(expected: str, path: Path, what: object) -> CorruptFile:
    """Return what to say of a file that cannot be read."""
    return CorruptFile(
        f"Expected {expected}. Got {path}: {str(what).rstrip('.')}. If it was cut short, copy or "
        "download it again."
    )
