"""Stored rows as numbers: block by block, or some of them by their positions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.linalg import vector_norm

from whence.index.encodings import Encoding, encoding_of
from whence.index.format import Manifest, Shard
from whence.index.shard import opened
from whence.methods.features import Block, places
from whence.tiles import tiles

_MORE = 1 + 2.0**-22  # what rounding a norm to float32 may take from it


@final
@dataclass(frozen=True, eq=False)
class Tile:
    """Consecutive rows of a shard, until the next ones are asked for.

    Args:
        first: The position of the first.
        tensors: Of these rows as they are stored, on the device that multiplies.
        factors: f, what the product of each part with each row is multiplied by, float64
            [t, parts].
        sizes: ‖f row‖ of each part, or a little more, [parts, t].
    """

    first: int
    tensors: Mapping[str, Tensor]
    factors: Tensor
    sizes: NDArray[np.float64]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.factors)


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
        return parts_of(self.manifest.columns)

    @property
    def shift(self) -> int:
        """By which power of two rounded rows are smaller."""
        return encoding_of(self.manifest.encoding).shift

    def tiles(self, shard: Shard, most: int, device: torch.device) -> Iterator[Tile]:
        """Yield consecutive rows of a shard.

        Args:
            shard: The shard.
            most: How many rows at once.
            device: Where they are to be.
        """
        encoding = encoding_of(self.manifest.encoding)
        with opened(self.folder, shard) as file:
            factors = _factors(encoding, file, slice(0, shard.rows))
            sizes = self._sizes(file, factors).T.numpy()
            for some in tiles(shard.rows, budget=most):
                tensors = {name: rows.to(device) for name, rows in file.rows(some).items()}
                here = factors[some].to(device)
                yield Tile(shard.first + some.start, tensors, here, sizes[:, some])

    def decoded(self, tile: Tile, out: Tensor) -> Tensor:
        """Return rows in float32, [t, d], but for what belongs to f.

        Args:
            tile: The rows.
            out: [most, d]: where they are decoded, on the device that has them.
        """
        rows = out[: len(tile)]
        encoding_of(self.manifest.encoding).decode(
            tile.tensors, slice(0, len(tile)), self.manifest.blocks, rows
        )
        return rows

    def rounded(self, tile: Tile, out: Tensor) -> Tensor:
        """Return rows over 2^shift of their encoding, [t, d], but for what belongs to f.

        Args:
            tile: The rows; they may be lost.
            out: [most, d], bfloat16: where they are rounded, unless in their own place.
        """
        encoding = encoding_of(self.manifest.encoding)
        return encoding.round(tile.tensors, self.manifest.blocks, out[: len(tile)])

    def codes(self, tile: Tile) -> tuple[Tensor, Tensor] | None:
        """Return rows as int8 and the scales of their blocks, if they are stored so."""
        return encoding_of(self.manifest.encoding).codes(tile.tensors, slice(0, len(tile)))

    def _sizes(self, tensors: Mapping[str, Tensor], factors: Tensor) -> Tensor:
        """Return bounds of ‖f row‖ of each part, with what numbers that are flushed to zero add."""
        weighed = _weighed(tensors, slice(None))
        widths = factors.new_tensor([part.stop - part.start for part in self.parts])
        flushed = widths.sqrt() * encoding_of(self.manifest.encoding).flushed * factors.abs()
        return tensors["norms"].double() * weighed.abs() + flushed

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
            with opened(self.folder, shard) as file:
                for part in tiles(high - low, budget=most):
                    which = slice(low + part.start, low + part.stop)
                    taken = file.at(positions[which] - shard.first)
                    every = slice(0, which.stop - which.start)
                    rows = torch.empty(every.stop, d)
                    encoding.decode(taken, every, self.manifest.blocks, rows)
                    yield which, rows, _factors(encoding, taken, every)


def _factors(encoding: Encoding, tensors: Mapping[str, Tensor], which: slice) -> Tensor:
    """Return what the products of each part with each row are multiplied by, in float64."""
    factors = _weighed(tensors, which)
    scales = encoding.scales(tensors, which)
    return factors if scales is None else factors * scales.double().unsqueeze(1)


def _weighed(tensors: Mapping[str, Tensor], which: slice) -> Tensor:
    """Return the slopes of rows times their weights, in float64."""
    weights = tensors["weights"][which].double().unsqueeze(1)
    return tensors["slopes"][which].double() * weights


def parts_of(columns: Sequence[Sequence[Block]]) -> tuple[slice, ...]:
    """Return the columns of each part, by its blocks."""
    return places([sum(block.size for block in part) for part in columns])


def norms_of(rows: Tensor, parts: Sequence[slice]) -> Tensor:
    """Return the norm of each part of rows, float32 [t, parts], rounded up.

    Args:
        rows: Rows as they are stored, [t, d].
        parts: The columns of each part.
    """
    exact = [vector_norm(rows[:, where], dim=1, dtype=torch.float64) for where in parts]
    return (torch.stack(exact, 1) * _MORE).float()
