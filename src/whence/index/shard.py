"""A shard that is read part by part, into memory that is used again.

Pages of a memory map take longer to be made than a copy of what they hold, some rows here and there
four times as long.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.index.damage import damaged
from whence.index.format import ENTRY, Shard
from whence.index.ids import ID_TENSORS

_TYPES = {"F16": torch.float16, "F32": torch.float32, "I8": torch.int8}
_BESIDE = ("weights", "slopes", "norms")
_PAGE = 2**12  # bytes that are read as soon as one


@final
class ShardFile(Mapping[str, Tensor]):
    """The tensors of a shard but for the ids, by name. To ask for one reads it.

    Attributes:
        encoded: The names of those that are encoded rows.
    """

    encoded: Sequence[str]

    def __init__(self, path: Path, file: FileIO, header: Mapping[str, Any], start: int) -> None:
        """Begin with an open file.

        Args:
            path: Of the file.
            file: The file, unbuffered.
            header: Type, shape and offsets of each tensor, by name.
            start: Where the tensors begin.
        """
        self._path, self._file, self._header, self._start = path, file, header, start
        self.encoded = [name for name in header if name not in _BESIDE]
        self._room: dict[str, Tensor] = {}

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._header)

    def __len__(self) -> int:
        """Return how many tensors there are."""
        return len(self._header)

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor."""
        found = self._empty(name, self._header[name]["shape"][0])
        self._read(name, [0], found.unsqueeze(0))
        return found

    def rows(self, part: slice) -> dict[str, Tensor]:
        """Return consecutive rows as they are encoded; the next call writes over them.

        Args:
            part: Which rows. The first call has the most.
        """
        count = part.stop - part.start
        if not self._room:
            self._room = {name: self._empty(name, count) for name in self.encoded}
        found = {name: room[:count] for name, room in self._room.items()}
        for name, tensor in found.items():
            self._read(name, [part.start], tensor.unsqueeze(0))
        return found

    def at(self, which: NDArray[np.intp]) -> dict[str, Tensor]:
        """Return some rows as they are encoded, their weights and slopes.

        Args:
            which: Their numbers in the shard, [m].
        """
        return {name: self._some(name, which) for name in (*self.encoded, "weights", "slopes")}

    def _some(self, name: str, which: NDArray[np.intp]) -> Tensor:
        """Return rows of a tensor: row by row, or of all where they are small."""
        begin, end = self._header[name]["data_offsets"]
        if end - begin <= len(which) * _PAGE:
            return self[name][torch.from_numpy(which)]
        found = self._empty(name, len(which))
        self._read(name, which.tolist(), found.unsqueeze(1))
        return found

    def _empty(self, name: str, count: int) -> Tensor:
        """Return room for some rows of a tensor."""
        entry = self._header[name]
        return torch.empty(count, *entry["shape"][1:], dtype=_TYPES[entry["dtype"]])

    def _read(self, name: str, firsts: Sequence[int], out: Tensor) -> None:
        """Read rows [m, rows of each, …] of a tensor, each from a first one on."""
        begin, _ = self._header[name]["data_offsets"]
        into = out.reshape(len(out), -1).view(torch.uint8).numpy()
        size = into.shape[1]
        start, row = self._start + begin, size // out.shape[1]
        read, seek = self._file.readinto, self._file.seek
        for first, each in zip(firsts, into, strict=True):
            seek(start + first * row)
            if read(each) < size:
                raise damaged(self._path, "it is cut short")


@contextmanager
def opened(folder: Path, shard: Shard) -> Iterator[ShardFile]:
    """Open a shard for a `with` block.

    Args:
        folder: The index.
        shard: The shard that the manifest names.

    Raises:
        CorruptFile: If it is cut short, missing, or another shard.
    """
    path = folder / shard.name
    with ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb", buffering=0))
            length = int.from_bytes(file.read(8), "little")
            if length > path.stat().st_size:
                raise damaged(path, "it has no header")
            header = json.loads(file.read(length))
            about = json.loads(header.pop("__metadata__")[ENTRY])
            tensors = {name: header[name] for name in header if name not in ID_TENSORS}
            counts = {about["rows"], *(each["shape"][0] for each in tensors.values())}
            if about["first"] != shard.first or counts != {shard.rows}:
                raise damaged(path, "it holds other rows")
            if not {each["dtype"] for each in tensors.values()} <= set(_TYPES):
                raise damaged(path, "it holds numbers of another type")
        except FileNotFoundError as error:
            raise damaged(path, "it is missing") from error
        except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
            raise damaged(path, error) from error
        yield ShardFile(path, file, tensors, 8 + length)
