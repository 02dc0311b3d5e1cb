"""Archives of arrays: .npz files whose comment is the digest of all before it."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whence.errors import CorruptFile
from whence.storage.digests import refuse_objects
from whence.storage.files import content_of, write_bytes

_DIGITS = 64  # of a SHA-256 digest in hexadecimal


def write_arrays(path: Path, owner: str, **arrays: NDArray[Any]) -> None:
    """Write named arrays with the name of their owner as a .npz file, whole or not at all.

    Args:
        path: Where the file will lie; its folder exists.
        owner: What the arrays belong to; `read_arrays` refuses those of another.
        arrays: Arrays by name; of numbers or text, not of Python objects.

    Raises:
        NotWritten: If the operating system refuses.
        InvalidInput: If an array holds Python objects.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.npz")
        ...     write_arrays(path, "run 7", losses=np.array([0.5, 0.25]))
        ...     read_arrays(path, "run 7")
        {'losses': array([0.5 , 0.25])}
    """
    for array in arrays.values():
        refuse_objects(array)
    content = io.BytesIO()
    np.savez(content, owner=np.array(owner.encode()), **arrays)  # type: ignore[arg-type]
    # An archive ends with the length of its comment, none so far, and the comment.
    content.seek(-2, os.SEEK_END)
    content.write(struct.pack("<H", _DIGITS))
    content.write(hashlib.sha256(content.getbuffer()).hexdigest().encode())
    write_bytes(path, content.getbuffer())


def read_arrays(path: Path, owner: str) -> dict[str, NDArray[Any]]:
    """Read what `write_arrays` wrote.

    Args:
        path: Where the file lies.
        owner: What the arrays must belong to.

    Returns:
        Arrays by name.

    Raises:
        FileNotFoundError: If there is no file.
        CorruptFile: If the file is cut short, changed in any bit, or of another owner.
    """
    content = content_of(path)
    body = memoryview(content)[:-_DIGITS]
    if hashlib.sha256(body).hexdigest().encode() != content[-_DIGITS:]:
        raise CorruptFile(
            f"Expected a whole file in {path}. Got one that does not match its digest: it was cut "
            "short or changed, or is not of this version of whence. Delete it and run the same "
            "call again; what is missing is computed anew."
        )
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            # `write_arrays` does not compress, so that a small file cannot fill the memory.
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.zip.infolist()):
                raise ValueError("a compressed archive")
            arrays = {name: archive[name] for name in archive.files}
        found = arrays.pop("owner").item().decode()
    except Exception as error:  # numpy and zipfile raise many kinds
        raise CorruptFile(
            f"Expected a file that whence wrote in {path}. Got something else ({error}). "
            "Delete it, or choose another path."
        ) from error
    if found != owner:
        raise CorruptFile(
            f"Expected {path} to belong to {owner}. Got a file of {found}. Delete it and run the "
            "same call again, or choose another path."
        )
    return arrays
