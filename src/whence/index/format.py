"""The files of an index: shards of rows, second moments, removed positions, and their manifest.

```
manifest.json                      what the folder holds; the only file that is ever replaced
rows-<first row>.safetensors       a shard: encoded rows, "weights" [b], "slopes" [b, t], "norms" of
                                   the t parts of each row as stored, float32 [b, t], and the ids,
                                   as "ids" int64 [b] or as UTF-8 "text" and its "ends" [b]
moment-<digest>.safetensors        Σ wᵢ φᵢ φᵢᵀ of each group of columns, "0", "1", …, float64
curvature-<digest>.safetensors     H⁻¹ as blocks, "<number>.<class>.<field>", and their "order" [p]
removed-<digest>.safetensors       "positions" int64, sorted
```

A safetensors file is a header in JSON and tensors. Its metadata holds one entry, "whence": what the
file belongs to, and a digest of its tensors. The manifest holds the SHA-256 digest of every other
file, and of itself. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from whence.errors import CorruptFile, InvalidInput
from whence.index.damage import damaged, fault, sha256
from whence.index.ids import ids_of, plain
from whence.methods.features import Block
from whence.storage import digest, read_manifest, write_bytes, write_manifest

MANIFEST = "manifest.json"
_KIND = "index"
ENTRY = "whence"


@final
@dataclass(frozen=True)
class Shard:
    """A file of consecutive rows.

    Args:
        name: Of the file.
        first: The position of its first row.
        rows: How many rows it holds.
        sha256: Of all its bytes.
        error: Σ ‖row − stored‖² over Σ ‖row‖²: what the encoding costs.
        size: How many bytes; `None`, and not checked, where an earlier version wrote it.
    """

    name: str
    first: int
    rows: int
    sha256: str
    error: float
    size: int | None = None


@final
@dataclass(frozen=True)
class File:
    """A file beside the shards.

    Args:
        name: Of the file.
        sha256: Of all its bytes.
        count: Of the rows summed, or of the positions in it.
        size: As of a shard.
    """

    name: str
    sha256: str
    count: int
    size: int | None = None


@final
@dataclass(frozen=True)
class Part:
    """Training data that were built or appended at once.

    Args:
        identity: What tells them from others.
        rows: How many they are; `None` as long as they are not all there.
    """

    identity: str
    rows: int | None = None


@final
@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What an index holds.

    Args:
        model: Digests of the model's parameters and of what else its features follow, by name.
        method: The class and options of the method.
        words: What makes the scores.
        encoding: The name of the encoding of rows.
        columns: Name and shape of each block of columns, part by part.
        shard_rows: Rows of a shard, at most.
        data: What was built and appended; only the last may not be complete.
        shards: In the order of the rows.
        moment: The second moments, or `None` where there are none (yet).
        curvature: The inverse that queries are multiplied with first, or `None`.
        tokenizer: Digests of what makes the tokens of its texts, by name; empty if not known.
        removed: The removed positions.
    """

    model: Mapping[str, str]
    method: Mapping[str, Any]
    words: str
    encoding: str
    columns: tuple[tuple[Block, ...], ...]
    shard_rows: int
    data: tuple[Part, ...] = ()
    shards: tuple[Shard, ...] = ()
    moment: File | None = None
    removed: File | None = None
    curvature: File | None = None
    tokenizer: Mapping[str, str] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """The number of rows, removed ones included."""
        return self.shards[-1].first + self.shards[-1].rows if self.shards else 0

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks of all parts."""
        return tuple(block for part in self.columns for block in part)

    @property
    def complete(self) -> bool:
        """Whether all data are there."""
        return bool(self.data) and self.data[-1].rows is not None

    @property
    def files(self) -> tuple[Shard | File, ...]:
        """Every file but the manifest."""
        others = (self.moment, self.removed, self.curvature)
        return (*self.shards, *(each for each in others if each is not None))

    def same_kind(self, other: Manifest) -> bool:
        """Return whether rows of another index could stand in this one."""
        empty: dict[str, Any] = {"data": (), "shards": ()}
        empty |= {"moment": None, "removed": None, "curvature": None, "tokenizer": {}}
        return replace(self, **empty) == replace(other, **empty)

    def write(self, folder: Path) -> None:
        """Write the manifest, whole or not at all.

        Raises:
            NotWritten: If the operating system refuses.
        """
        write_manifest(folder / MANIFEST, _KIND, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Return the manifest of a folder.

        Raises:
            FileNotFoundError: If there is none.
            CorruptFile: If it is cut short or changed in any bit.
            InvalidInput: If the folder holds something else.
        """
        found = read_manifest(folder / MANIFEST, _KIND)
        blocks = [
            tuple(Block(each["name"], tuple(each["shape"])) for each in part)
            for part in found.pop("columns")
        ]
        data = tuple(Part(**each) for each in found.pop("data"))
        shards = tuple(Shard(**each) for each in found.pop("shards"))
        files: dict[str, Any] = {
            kind: None if entry is None else File(**entry)
            for kind in ("moment", "removed", "curvature")
            for entry in (found.pop(kind),)
        }
        return cls(
            **found,
            columns=tuple(blocks),
            data=data,
            shards=shards,
            **files,
        )


def read_index(folder: Path) -> Manifest:
    """Return the manifest of an index that must be there.

    Args:
        folder: The index.

    Raises:
        InvalidInput: If there is none.
        CorruptFile: If it is damaged.
    """
    try:
        return Manifest.read(folder)
    except FileNotFoundError as error:
        raise InvalidInput(
            f"Expected an index in {folder}. Got no manifest there. Build one with "
            "whence.Index.build, or `whence index build`."
        ) from error


def shard_name(first: int) -> str:
    """Return the name of the shard that begins with a row."""
    return f"rows-{first:012d}.safetensors"


def write_tensors(path: Path, about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Write tensors with what they belong to, whole or not at all.

    Args:
        path: Where the file will lie.
        about: Plain values by name.
        tensors: Tensors by name.

    Returns:
        The SHA-256 digest of the file.

    Raises:
        NotWritten: If the operating system refuses.
    """
    content = packed(about, tensors)
    write_bytes(path, content)
    return hashlib.sha256(content).hexdigest()


def write_named(folder: Path, kind: str, count: int, tensors: Mapping[str, Tensor]) -> File:
    """Write tensors to a file that is named by its digest, and return it.

    Args:
        folder: The index.
        kind: "moment", "removed" or "curvature".
        count: See `File`.
        tensors: Tensors by name.

    Raises:
        NotWritten: If the operating system refuses.
    """
    content = packed({"kind": kind, "count": count}, tensors)
    sha = hashlib.sha256(content).hexdigest()
    path = folder / f"{kind}-{sha[:16]}.safetensors"
    if not (path.exists() and sha256(path) == sha):
        write_bytes(path, content)
    return File(path.name, sha, count, len(content))


def packed(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    """Return a safetensors file: the same bytes for the same content."""
    held = {name: tensors[name].contiguous() for name in sorted(tensors)}
    entry = json.dumps({**about, "digest": _digest(about, held)})
    return save(held, {ENTRY: entry})


@contextmanager
def mapped(path: Path) -> Iterator[tuple[dict[str, Any], dict[str, Tensor]]]:
    """Map a file into memory for a `with` block: what it belongs to, and its tensors.

    Args:
        path: Of the file. Its digest is not checked.

    Raises:
        FileNotFoundError: If there is no file.
        CorruptFile: If it is no whole safetensors file of whence.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})[ENTRY])
            tensors = {name: read_tensor(file, name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError) as error:
        raise damaged(path, error) from error
    try:
        yield about, tensors
    except (KeyError, IndexError, RuntimeError) as error:  # a tensor is missing, or too small
        raise damaged(path, error) from error


def read_tensor(file: Any, name: str) -> Tensor:
    """Return a tensor of a file that safetensors has opened.

    torch takes a Ctrl-C that comes while it asks for the size of a storage for an error of its
    own, a ValueError: what succeeds at once when repeated is no damaged file.

    Raises:
        KeyboardInterrupt: If that came.
    """
    try:
        return file.get_tensor(name)  # type: ignore[no-any-return]
    except ValueError as error:
        file.get_tensor(name)
        raise KeyboardInterrupt from error


def read_tensors(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what `write_tensors` wrote: what it belongs to, and tensors by name.

    Args:
        path: Of the file.

    Raises:
        FileNotFoundError: If there is no file.
        CorruptFile: If it is cut short or changed in any bit.
    """
    with mapped(path) as (about, tensors):
        told = about.pop("digest", "")
        if packed(about, tensors) != path.read_bytes():
            raise damaged(path, f"it does not match its digest, {told[:16]}")
        return about, {name: tensor.clone() for name, tensor in tensors.items()}


@contextmanager
def mapped_file(folder: Path, file: File) -> Iterator[dict[str, Tensor]]:
    """Map a file beside the shards into memory for a `with` block, its digest checked.

    Args:
        folder: The index.
        file: The file that the manifest names.

    Raises:
        CorruptFile: If it is missing, or not as it was written.
    """
    if found := fault(folder, file):
        raise damaged(folder / file.name, found)
    with mapped(folder / file.name) as (_, tensors):
        yield tensors


@contextmanager
def mapped_rows(folder: Path, shard: Shard) -> Iterator[dict[str, Tensor]]:
    """Map a shard into memory for a `with` block: its tensors.

    Args:
        folder: The index.
        shard: The shard that the manifest names.

    Raises:
        CorruptFile: If it is cut short, missing, or another shard.
    """
    path = folder / shard.name
    try:
        with mapped(path) as (about, tensors):
            if (about.get("first"), about.get("rows")) != (shard.first, shard.rows):
                raise damaged(path, "it holds other rows")
            yield tensors
    except FileNotFoundError as error:
        raise damaged(path, "it is missing") from error


def whole(path: Path, about: Mapping[str, Any], ids: NDArray[Any]) -> tuple[str, float] | None:
    """Return digest and error of a shard that was written before, or `None`.

    Args:
        path: Where it may lie.
        about: What it must belong to.
        ids: The ids that it must hold.
    """
    try:
        with mapped(path) as (found, tensors):
            expected = {**about, "error": found.get("error")}
            right = found == {**expected, "digest": _digest(expected, tensors)}
            if not right or not np.array_equal(ids_of(tensors), plain(ids)):
                return None
    except (CorruptFile, FileNotFoundError):
        return None
    return sha256(path), float(found["error"])


def _digest(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return the digest of tensors with their names and what they belong to."""
    parts = [part for name in sorted(tensors) for part in (name, tensors[name])]
    return digest(json.dumps(about, sort_keys=True), *parts)
