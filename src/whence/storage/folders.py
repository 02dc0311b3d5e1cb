"""Folders in which one process writes at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from whence.errors import InvalidInput
from whence.storage.files import clear_leftovers, explained
from whence.storage.locks import lock, supported, unlock


@contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Refuse other processes that claim the same folder, for as long as a `with` block runs.

    A claim ends with its process, however that ends, and leaves no file. What killed processes
    left in the folder, and in the folders in it, is cleared when the block ends: its own workers
    may be killed too. It needs locks.

    Args:
        folder: The folder; made if absent, as by `make_folder`.

    Raises:
        InvalidInput: If another process, or another thread of this one, has claimed it.
        NotWritten: If the folder cannot be made.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory, claim(Path(directory)):
        ...     try:
        ...         with claim(Path(directory)):
        ...             pass
        ...     except InvalidInput:
        ...         print("refused")
        refused
    """
    make_folder(folder)
    with explained(folder):
        descriptor = os.open(folder, os.O_RDONLY) if supported() else None
    try:
        if descriptor is not None and lock(descriptor) is False:
            raise InvalidInput(
                f"Expected no other process to write in {folder}. Got one that does. "
                "Wait until it ends, or choose another directory."
            )
        try:
            yield
        finally:
            clear_leftovers(folder, inside=True)
    finally:
        if descriptor is not None:
            with suppress(OSError):
                unlock(descriptor)
            os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder if it is absent, and clear what killed processes left in it.

    Args:
        folder: The folder; those above it are made too.

    Raises:
        NotWritten: If the operating system refuses.
    """
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    clear_leftovers(folder)
