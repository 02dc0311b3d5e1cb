"""The bytes of a file as text: expanded where they are compressed, and in which encoding."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

from whence.errors import InvalidInput

_LARGEST = 2**34  # bytes that a file may unpack to
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_COMPRESSED: tuple[tuple[bytes, Callable[[Path], Any]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ", lzma.open),
)


def opened(path: Path) -> BinaryIO:
    """Return a file open for reading, what is compressed expanded.

    Args:
        path: The file.

    Returns:
        Its bytes.

    Raises:
        InvalidInput: If it is an archive of several files, or of one that is too large.
    """
    with path.open("rb") as file:
        start = file.read(8)
    for magic, expanded in _COMPRESSED:
        if start.startswith(magic):
            return cast(BinaryIO, expanded(path))
    if not start.startswith(b"PK\x03\x04"):
        return path.open("rb")
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        if len(names) != 1:
            raise InvalidInput(
                f"Expected an archive of one file. Got {len(names)} files in {path}. Unpack it, "
                "and name one of them."
            )
        refuse_large(path, archive.getinfo(names[0]).file_size)
        return io.BytesIO(archive.read(names[0]))


def encoding_of(path: Path) -> str:
    """Return the encoding of a text file: by its mark, else UTF-8 if it can be that.

    The whole file is read, so that what is damaged or cut short is found before a row is used.

    Args:
        path: The file.

    Returns:
        The name that Python has for the encoding.

    Raises:
        InvalidInput: If the file holds binary data, cannot be expanded, is too large, or ends
            within a character.
        OSError: If the file cannot be read.
    """
    try:
        with opened(path) as file:
            start = file.read(4096)
            name = _marked(start) or _unmarked(start, path)
            decoder, piece, size, ascii_only = codecs.getincrementaldecoder(name)(), start, 0, True
            while piece:
                size += len(piece)
                refuse_large(path, size)  # what gzip says of its size need not be so
                ascii_only &= decoder.decode(piece).isascii()
                piece = file.read(2**22)
        try:
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            if name == "utf-8" and ascii_only:
                raise  # its one special character may be the last, of another encoding
            raise InvalidInput(
                f"Expected a whole file. Got {path}, which ends within a character: it was cut "
                "short. Copy or download it again."
            ) from error
        return name
    except UnicodeDecodeError as error:
        if name != "utf-8":
            raise InvalidInput(f"Expected text in {name}. Got {path}: {error}.") from error
        # Of the bytes that are no text in Windows-1252 five are control characters of Latin-1.
        with opened(path) as file:
            undefined = set(b"\x81\x8d\x8f\x90\x9d")
            return "latin-1" if undefined & set(file.read(2**24)) else "cp1252"
    except OSError as error:
        if error.filename is not None:
            raise
        raise _packed_wrongly(path, error) from error
    except (EOFError, zlib.error, zipfile.BadZipFile, lzma.LZMAError) as error:
        raise _packed_wrongly(path, error) from error


def ends_with_a_line(path: Path) -> bool:
    """Return whether the last line of a text file is known to be whole.

    Args:
        path: The file.

    Returns:
        Whether it ends as lines do, or is compressed, and was then compressed whole.
    """
    with path.open("rb") as file:
        start = file.read(8)
        file.seek(max(0, path.stat().st_size - 4))
        end = file.read().rstrip(b"\0")
    compressed = start.startswith((b"PK\x03\x04", *(magic for magic, _ in _COMPRESSED)))
    return compressed or end.endswith((b"\n", b"\r"))


def _marked(start: bytes) -> str:
    """Return the encoding that the first bytes of a file name, or nothing."""
    return next((name for mark, name in _BOMS if start.startswith(mark)), "")


def _unmarked(start: bytes, path: Path) -> str:
    """Return UTF-16 for a file of which each second byte is 0, else UTF-8."""
    zeros = start[1::2].count(0), start[::2].count(0)
    if max(zeros) > 0.3 * len(start) / 2 > 3 * min(zeros):
        return "utf-16-le" if zeros[0] > zeros[1] else "utf-16-be"
    if b"\0" in start:
        raise InvalidInput(
            f"Expected a text file with separated values. Got binary data in {path}. "
            "Export the table as CSV, or name a Parquet file .parquet."
        )
    return "utf-8"


def _packed_wrongly(path: Path, error: Exception) -> InvalidInput:
    """Return what to say of a file that cannot be unpacked."""
    return InvalidInput(
        f"Expected a file that can be unpacked. Got {path}: {first_line(error)}. It may have been "
        "cut short: copy or download it again, or pack it again."
    )


def refuse_large(path: Path, size: int) -> None:
    """Raise if a file unpacks to more bytes than a table may have.

    Args:
        path: The file.
        size: Its bytes when it is unpacked.

    Raises:
        InvalidInput: If they are more than 16 GB.
    """
    if size > _LARGEST:
        raise InvalidInput(
            f"Expected a table of at most {_LARGEST:,} bytes. Got {path}, which says that it "
            f"unpacks to {size:,}. Take a part of it."
        )


def first_line(error: Exception) -> str:
    """Return an error's first line.

    Args:
        error: Any.

    Returns:
        The line without its point, or that it says nothing.
    """
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else "unreadable"
