"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from whence.errors import CorruptFile, InvalidInput, NotWritten
from whence.storage.locks import UNSUPPORTED, lock, supported

_TEMPORARY = ".whence-{}.tmp"
_CHUNK = 2**30  # bytes in one call; macOS takes less than 2 ** 31
_BINARY = getattr(os, "O_BINARY", 0)  # Windows changes line ends otherwise


def file_to_write(path: Path) -> Path:
    """Return the path of a file that may be written, before the work whose result it will hold.

    Args:
        path: Where the file will lie.

    Raises:
        InvalidInput: If the path is a folder or a device, or its folder does not exist.
    """
    if path.is_dir():
        raise InvalidInput(f"Expected a file to write. Got the folder {path}. Add a file name.")
    if path.exists() and not path.is_file():
        raise InvalidInput(f"Expected a file to write. Got the device {path}. Name a file.")
    if not path.parent.is_dir():
        raise InvalidInput(f"Expected a folder that exists. Got {path.parent}. Create it first.")
    return path


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file whole or not at all, and put it on the disk.

    The content goes to a temporary file in the same folder, which is flushed and renamed. After a
    failure or an interruption it is removed; one of a killed process waits for `clear_leftovers`.

    Args:
        path: Where the file will lie; its folder exists. An existing file is replaced, a link
            stays a link.
        content: All of it.

    Raises:
        NotWritten: If the operating system refuses: no room, no permission, a failing disk.
    """
    target = Path(os.path.realpath(path))
    with explained(path):
        while not _written(target, content):
            pass  # Another process took the temporary file for a leftover.
        _flush_folder(target.parent)


def content_of(path: Path) -> bytes:
    """Return the bytes of a file.

    Args:
        path: Where it lies.

    Raises:
        FileNotFoundError: If there is none.
        CorruptFile: If it is there and cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CorruptFile(
            f"Expected a file that can be read in {path}. Got: {error.strerror or error}. "
            "Make it readable, or delete it and run the same call again."
        ) from error


def clear_leftovers(folder: Path, *, inside: bool = False) -> None:
    """Remove the temporary files that killed processes left in a folder, and no others.

    Args:
        folder: Where to look. Without locks all are left alone.
        inside: Whether to look also in the folders that lie in it.
    """
    name = _TEMPORARY.format("*")
    for path in (*folder.glob(name), *(folder.glob(f"*/{name}") if inside else ())):
        with suppress(OSError):  # It is gone, or the folder is read-only.
            descriptor = os.open(path, os.O_RDONLY)
            try:
                if lock(descriptor):  # A living writer would hold the lock.
                    path.unlink()
            finally:
                os.close(descriptor)


@contextmanager
def explained(path: Path | str) -> Iterator[None]:
    """Turn what the operating system answers into an error that says what to do.

    Args:
        path: What is written.

    Raises:
        NotWritten: If the operating system refuses.
    """
    try:
        yield
    except OSError as error:
        told = NotWritten(
            f"Expected to write {path}. Got: {error.strerror or error}. No file is half-written. "
            "Make room, or make the folder writable, and run the same call again: what was written "
            "before is kept."
        )
        told.errno = error.errno
        raise told from error


def _written(target: Path, content: bytes | memoryview) -> bool:
    """Write a temporary file and rename it; return whether no other process removed it."""
    temporary = target.parent / _TEMPORARY.format(secrets.token_hex(8))
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
        try:
            if lock(descriptor) is False or not temporary.exists():
                return False
            left = memoryview(content)
            while len(left):
                left = left[os.write(descriptor, left[:_CHUNK]) :]
            os.fsync(descriptor)
            if supported():
                os.replace(temporary, target)  # while it is locked
        finally:
            os.close(descriptor)
        if not supported():
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _flush_folder(folder: Path) -> None:
    """Put the names in a folder on the disk, where the system can."""
    if not supported():
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
