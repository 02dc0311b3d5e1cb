"""Arrays on disk, each file whole or not there: written beside, flushed, renamed."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whence.errors import CorruptFile

# All that numpy and zipfile raise on an archive with a byte cut off or changed.
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Args:
        path: Where it will lie; its folder exists.
        content: All of it.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_arrays(path: Path, owner: str, **arrays: NDArray[Any]) -> None:
    """Write named arrays with the name of their owner, whole or not at all.

    Args:
        path: Where the archive will lie; its folder exists.
        owner: What the arrays belong to; `read_arrays` refuses those of another.
        arrays: Arrays by name.
    """
    content = io.BytesIO()
    np.savez(content, owner=np.array(owner), **arrays)  # type: ignore[arg-type]
    write_whole(path, content.getvalue())


def read_arrays(path: Path, owner: str) -> dict[str, NDArray[Any]]:
    """Read what `write_arrays` wrote.

    Args:
        path: Where the archive lies.
        owner: What the arrays must belong to.

    Returns:
        Arrays by name.

    Raises:
        CorruptFile: If the file is cut short, changed, or of another owner.
    """
    try:
        # The archive keeps a checksum of each array, compared when the array is read. The file is
        # opened here, because numpy leaves a file that it cannot read open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
            found = str(arrays.pop("owner"))
    except FileNotFoundError:
        raise
    except _UNREADABLE as error:
        raise CorruptFile(
            f"Expected a whole archive in {path}. Got one that is cut short or changed ({error}). "
            "Delete it and run the same call again; what is missing is computed anew."
        ) from error
    if found != owner:
        raise CorruptFile(
            f"Expected {path} to belong to this run. Got a file of another. "
            "Delete it, or choose another directory."
        )
    return arrays
