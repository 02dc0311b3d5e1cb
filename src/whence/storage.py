"""Files that whence writes and reads back: each whole or not there, and checked before it is used.

A file is written under another name beside its own, flushed to the disk and renamed. Every byte
that is read back is covered by a SHA-256 digest. An archive of arrays is a standard .npz file whose
comment is the digest of all before it; a manifest is a JSON object whose last entry is the digest
of the others. Nothing is pickled. `claim` refuses the second of two processes that would write in a
folder; where the file system has no locks, both write, and each file is still one writer's, whole.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import secrets
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.errors import CorruptFile, InvalidInput, NotWritten, with_article

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_FORMAT = 2  # 1 had no digest over all bytes
_TEMPORARY = ".whence-{}.tmp"
_DIGITS = 64  # of a SHA-256 digest in hexadecimal
_CHUNK = 2**30  # bytes in one call; macOS takes less than 2 ** 31
_BINARY = getattr(os, "O_BINARY", 0)  # Windows changes line ends otherwise

# What flock and fsync of a folder answer where a file system has none, or it cannot be listed.
_UNSUPPORTED = frozenset(
    getattr(errno, name)
    for name in ("EINVAL", "ENOLCK", "ENOSYS", "EOPNOTSUPP", "ENOTSUP", "EBADF", "EACCES")
)


def digest(*parts: Tensor | NDArray[Any] | str) -> str:
    """Return the SHA-256 digest of tensors, arrays and strings.

    Args:
        parts: Tensors on any device and arrays (dtype, shape and contents count, and an array
            counts as the tensor of its dtype), and strings, in order.

    Returns:
        64 hexadecimal digits, the same in every process and on every machine.

    Raises:
        InvalidInput: If an array holds Python objects, whose bytes say nothing.

    Examples:
        >>> import torch
        >>> digest(torch.zeros(2), "lr=0.1") == digest(torch.zeros(2), "lr=0.2")
        False
        >>> digest(torch.zeros(2)) == digest(np.zeros(2, dtype=np.float32))
        True
    """
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            header, content = "text", np.frombuffer(part.encode("utf-8", "surrogatepass"), np.uint8)
        elif isinstance(part, np.ndarray):
            _refuse_objects(part)
            little = np.ascontiguousarray(part.astype(part.dtype.newbyteorder("<"), copy=False))
            header = f"torch.{part.dtype.name} {list(part.shape)}"
            content = little.reshape(-1).view(np.uint8)
        else:
            header = f"{part.dtype} {list(part.shape)}"
            flat = part.detach().cpu().contiguous().reshape(-1)
            content = flat.view(torch.uint8).numpy()
        # With its length in front, one part cannot run into the next.
        sha.update(f"{header} {content.size}\n".encode())
        sha.update(content.data)
    return sha.hexdigest()


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
    with _explained(path):
        while not _written(target, content):
            pass  # Another process took the temporary file for a leftover.
        _flush_folder(target.parent)


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
        _refuse_objects(array)
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
    content = _content(path)
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


def write_manifest(path: Path, kind: str, content: Mapping[str, Any]) -> None:
    """Write what a folder holds as a JSON file, whole or not at all.

    Args:
        path: Where the file will lie; its folder exists.
        kind: What the folder is, such as "training".
        content: Plain values by name, none of them "format", "kind" or "digest", which are added.

    Raises:
        NotWritten: If the operating system refuses.
    """
    write_bytes(path, _sealed({"format": _FORMAT, "kind": kind, **content}))


def read_manifest(path: Path, kind: str) -> dict[str, Any]:
    """Read what `write_manifest` wrote.

    Args:
        path: Where the file lies.
        kind: What the folder must be.

    Returns:
        The content.

    Raises:
        FileNotFoundError: If there is no file.
        InvalidInput: If the folder is of another kind, or of another version of whence.
        CorruptFile: If the file is cut short or changed in any bit.
    """
    raw = _content(path)
    version, found, whole = None, dict[str, Any](), False
    # ValueError: no JSON, or no object. RecursionError: nested too deeply to be a manifest.
    with suppress(ValueError, TypeError, RecursionError):
        found = dict(json.loads(raw))
        found.pop("digest", None)
        version = found.pop("format", None)
        whole = raw == _sealed({"format": version, **found})
    if not whole and version not in (1, "1"):
        raise CorruptFile(
            f"Expected the manifest of a {kind} in {path}. Got a file that is cut short, changed "
            "or something else. Restore it, or choose another directory."
        )
    there = found.pop("kind", "folder")
    if (version, there) != (_FORMAT, kind):
        raise InvalidInput(
            f"Expected {with_article(kind)} of format {_FORMAT} in {path.parent}. Got "
            f"{with_article(there)} of format {version}. Choose another directory, or use the "
            "version of whence that wrote it."
        )
    return found


@contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Refuse other processes that claim the same folder, for as long as a `with` block runs.

    A claim ends with its process, however that ends, and leaves no file. It needs locks.

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
    with _explained(folder):
        descriptor = None if fcntl is None else os.open(folder, os.O_RDONLY)
    try:
        if descriptor is not None and _locked(descriptor) is False:
            raise InvalidInput(
                f"Expected no other process to write in {folder}. Got one that does. "
                "Wait until it ends, or choose another directory."
            )
        yield
    finally:
        if descriptor is not None:
            # Closing is not enough: a process that was forked meanwhile shares the lock.
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder if it is absent, and clear what killed processes left in it.

    Args:
        folder: The folder; those above it are made too.

    Raises:
        NotWritten: If the operating system refuses.
    """
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    clear_leftovers(folder)


def clear_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder, and no others.

    Args:
        folder: Where to look; not below it. Without locks all are left alone.
    """
    for path in folder.glob(_TEMPORARY.format("*")):
        with suppress(OSError):  # It is gone, or the folder is read-only.
            descriptor = os.open(path, os.O_RDONLY)
            try:
                if _locked(descriptor):  # A living writer would hold the lock.
                    path.unlink()
            finally:
                os.close(descriptor)


def _refuse_objects(array: NDArray[Any]) -> None:
    """Raise if an array holds references to Python objects in place of numbers or text."""
    if array.dtype.hasobject:
        raise InvalidInput(
            f"Expected an array of numbers or text. Got dtype {array.dtype}. Convert it, for "
            "example with array.astype(float) or array.astype(str)."
        )


@contextmanager
def _explained(path: Path | str) -> Iterator[None]:
    """Turn what the operating system answers into an error that says what to do."""
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
            if _locked(descriptor) is False or not temporary.exists():
                return False
            left = memoryview(content)
            while len(left):
                left = left[os.write(descriptor, left[:_CHUNK]) :]
            os.fsync(descriptor)
            if fcntl is not None:
                os.replace(temporary, target)  # while it is locked
        finally:
            os.close(descriptor)
        if fcntl is None:
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _locked(descriptor: int) -> bool | None:
    """Lock an open file or folder; False if another holds it, None if locks are not supported."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        return None
    return True


def _flush_folder(folder: Path) -> None:
    """Put the names in a folder on the disk, where the system can."""
    if fcntl is None:
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise


def _content(path: Path) -> bytes:
    """Return the bytes of a file; one that is there and cannot be read raises `CorruptFile`."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CorruptFile(
            f"Expected a file that can be read in {path}. Got: {error.strerror or error}. "
            "Make it readable, or delete it and run the same call again."
        ) from error


def _sealed(content: Mapping[str, Any]) -> bytes:
    """Return a JSON object that ends with the digest of its other entries."""
    seal = hashlib.sha256(json.dumps(content, indent=2).encode()).hexdigest()
    return json.dumps({**content, "digest": seal}, indent=2).encode() + b"\n"
