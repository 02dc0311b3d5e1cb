"""Whether the files of an index are as they were written, and what is said of one that is not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from whence.errors import CorruptFile

ANEW = "Delete manifest.json beside it, and give the build and every append and remove again."
_AGAIN = "Give the build or append that wrote it again: what is whole is kept."


class Written(Protocol):
    """What a manifest says of a file."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def sha256(self) -> str:
        """The digest of all its bytes."""

    @property
    def size(self) -> int | None:
        """How many bytes, if the manifest says so."""


def fault(folder: Path, file: Written) -> str:
    """Return what is wrong with a file, every byte of which is read; empty for nothing.

    Args:
        folder: The index.
        file: What its manifest says.
    """
    try:
        whole = sha256(folder / file.name) == file.sha256
    except FileNotFoundError:
        return f"{file.name} is missing"
    except OSError as error:
        return f"{file.name} cannot be read: {error.strerror}"
    return "" if whole else f"{file.name} was changed or cut short"


def check_sizes(folder: Path, files: Iterable[Written]) -> None:
    """Raise an error if a file is missing or has another size; no byte is read.

    Args:
        folder: The index.
        files: What its manifest says.

    Raises:
        CorruptFile: If so.
    """
    for file in files:
        path = folder / file.name
        try:
            size = path.stat().st_size
        except FileNotFoundError as error:
            raise damaged(path, "it is missing") from error
        if file.size is not None and size != file.size:
            raise damaged(path, f"{size:,} bytes in place of {file.size:,}")


def sha256(path: Path) -> str:
    """Return the SHA-256 digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def damaged(path: Path, why: object, remedy: str = _AGAIN) -> CorruptFile:
    """Return what is said of a damaged file."""
    return CorruptFile(
        f"Expected a whole file of an index in {path}. Got one that is missing, cut short or "
        f"changed: {why}. index.verify(), or `whence index verify`, names every damaged file. "
        f"{remedy}"
    )
