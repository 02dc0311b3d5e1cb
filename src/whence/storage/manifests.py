"""Manifests of folders: JSON objects whose last entry is the digest of the others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from whence.errors import CorruptFile, InvalidInput, with_article
from whence.storage.files import content_of, write_bytes

_FORMAT = 2  # 1 had no digest over all bytes


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
    raw = content_of(path)
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


def _sealed(content: Mapping[str, Any]) -> bytes:
    """Return a JSON object that ends with the digest of its other entries."""
    seal = hashlib.sha256(json.dumps(content, indent=2).encode()).hexdigest()
    return json.dumps({**content, "digest": seal}, indent=2).encode() + b"\n"
