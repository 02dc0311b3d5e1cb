"""Stored rows as numbers: block by block, or some of them by their positions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.index.encodings import Encoding, Rows, encoding_of
from whence.index.format import Manifest, Shard, mapped_rows
from whence.methods.features import places
from whence.tiles import tiles


@final
@dataclass(frozen=True)
class StoredRows:
    """The rows of an index. The score of row i is Σ_t f_it ⟨query_t, row_it⟩ over the parts t.

    Args:
        folder: The index.
        manifest: What it holds.
    """

    folder: Path
    manifest: Manifest

    @property
    def parts(self) -> tuple[slice, ...]:
        """The columns of each part t."""
        return places([sum(block.size for block in part) for part in self.manifest.columns])

    def blocks(self, shard: Shard, out: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield consecutive rows of a shard: the position of the first, rows, f [t, parts].

        Args:
            shard: The shard.
            out: [most, d], float32: where the rows are decoded, on the device that has them then.
        """
        encoding = encoding_of(self.manifest.encoding)
        with mapped_rows(self.folder, shard) as mapped:
            tensors = {name: tensor.to(out.device) for name, tensor in mapped.items()}
            for part in tiles(shard.rows, budget=len(out)):
                rows = out[: part.stop - part.start]
                encoding.decode(tensors, part, self.manifest.blocks, rows)
                yield shard.first + part.start, rows, _factors(encoding, tensors, part)

    def at(self, positions: NDArray[np.intp], most: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield some rows: which of the positions, rows [t, d] in float32, f [t, parts].

        Args:
            positions: [m], sorted.
            most: How many rows at once.
        """
        encoding, d = encoding_of(self.manifest.encoding), self.parts[-1].stop
        for shard in self.manifest.shards:
            low, high = np.searchsorted(positions, [shard.first, shard.first + shard.rows])
            if low == high:
                continue
            with mapped_rows(self.folder, shard) as tensors:
                for part in tiles(high - low, budget=most):
                    which = slice(low + part.start, low + part.stop)
                    some = torch.from_numpy(positions[which] - shard.first)
                    rows = torch.empty(len(some), d)
                    encoding.decode(tensors, some, self.manifest.blocks, rows)
                    yield which, rows, _factors(encoding, tensors, some)


def _factors(encoding: Encoding, tensors: dict[str, Tensor], which: Rows) -> Tensor:
    """Return what the products of each part with each row are multiplied by, in float64."""
    factors = tensors["slopes"][which].double() * tensors["weights"][which].double().unsqueeze(1)
    scales = encoding.scales(tensors, which)
    return factors if scales is None else factors * scales.double().unsqueeze(1)
