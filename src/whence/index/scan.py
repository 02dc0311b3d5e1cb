"""The exact largest and smallest scores of all stored rows, in one pass over memory-mapped shards.

Blocks of rows are decoded, multiplied with all queries, and compared with the k best so far: memory
holds a block, and k rows per query. Ties go to the row that comes first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.index.encodings import Encoding, encoding_of
from whence.index.format import Manifest, mapped_rows
from whence.methods.features import places
from whence.tiles import tiles

_BLOCK = 2**21  # decoded numbers at once: 8 MB, which a cache may hold
_AHEAD = 4  # shards that the disk is asked for before they are needed


@final
@dataclass(eq=False)
class Best:
    """The k largest scores of each query so far.

    Args:
        k: How many.
        values: Their values, [q, ≤ k].
        positions: Their rows, [q, ≤ k].
    """

    k: int
    values: Tensor
    positions: Tensor

    @classmethod
    def none(cls, q: int, k: int) -> Best:
        """Return the best of no rows."""
        return cls(k, torch.empty(q, 0), torch.empty(q, 0, dtype=torch.int64))

    def add(self, scores: Tensor, first: int) -> None:
        """Take in scores of later rows.

        Args:
            scores: [t, q]; −∞ for rows that do not count.
            first: The position of the first of them.
        """
        k = self.k
        if self.values.shape[1] == k:
            hopeful = (scores.amax(0) > self.values[:, -1]).nonzero().flatten()
        else:
            hopeful = torch.arange(scores.shape[1])
        if not len(hopeful):
            return
        some = scores[:, hopeful].T
        if some.shape[1] > k:
            bars = some.topk(k, dim=1).values[:, -1:]
            # Of equal scores topk takes any; those that come first are wanted.
            above = some > bars
            wanted = k - above.sum(1, keepdim=True)
            equal = some == bars
            chosen = above | (equal & (equal.cumsum(1) <= wanted))
            where = chosen.nonzero()[:, 1].reshape(len(some), k)
        else:
            where = torch.arange(some.shape[1]).expand(len(some), -1)
        values = torch.cat([self.values[hopeful], some.gather(1, where)], 1)
        positions = torch.cat([self.positions[hopeful], where + first], 1)
        order = values.argsort(dim=1, descending=True, stable=True)[:, :k]
        if self.values.shape[1] != order.shape[1]:  # then all queries are hopeful
            self.values, self.positions = values.gather(1, order), positions.gather(1, order)
            return
        self.values[hopeful] = values.gather(1, order)
        self.positions[hopeful] = positions.gather(1, order)

    def finite(self) -> tuple[NDArray[np.floating], NDArray[np.intp]]:
        """Return values and positions of the rows that count, as many for each query."""
        count = int(torch.isfinite(self.values).sum(1).min()) if self.values.numel() else 0
        return self.values[:, :count].numpy(), self.positions[:, :count].numpy().astype(np.intp)


def scan(
    folder: Path,
    manifest: Manifest,
    queries: Tensor,
    k: int,
    removed: NDArray[np.intp],
    *,
    together: bool = False,
) -> tuple[Best, Best]:
    """Return the rows with the k largest and the k smallest scores of each query.

    score[q, i] = wᵢ Σ_t slopeᵢ_t ⟨queries[q], rowᵢ⟩ over the columns of part t.

    Args:
        folder: The index.
        manifest: What it holds.
        queries: [q, d], float32.
        k: How many, >= 1.
        removed: Positions that do not count, sorted.
        together: Whether a row has one score, the largest over the queries.

    Returns:
        The largest, and the smallest with their signs turned.
    """
    columns = 1 if together else len(queries)
    best = Best.none(columns, k), Best.none(columns, k)
    for first, scores in products(folder, manifest, queries):
        scores = scores.amax(1, keepdim=True) if together else scores
        low, high = np.searchsorted(removed, [first, first + len(scores)])
        gone = torch.from_numpy(removed[low:high] - first)
        for each, sign in zip(best, (1, -1), strict=True):
            signed = scores if sign == 1 else -scores
            if len(gone):
                signed = signed.clone()
                signed[gone] = -torch.inf
            each.add(signed, first)
    return best


def products(folder: Path, manifest: Manifest, queries: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield the scores of consecutive rows, [t, q], with the position of the first of them.

    Args:
        folder: The index.
        manifest: What it holds.
        queries: [q, d], float32.
    """
    encoding = encoding_of(manifest.encoding)
    parts = places([sum(block.size for block in part) for part in manifest.columns])
    columns = [queries[:, part].T.contiguous() for part in parts]
    d = queries.shape[1]
    buffer = torch.empty(max(1, _BLOCK // max(1, d)), d)
    for number, shard in enumerate(manifest.shards):
        ahead = number + _AHEAD
        for later in manifest.shards[ahead if number else 0 : ahead + 1]:
            _ask_for(folder / later.name)
        with mapped_rows(folder, shard) as tensors:
            for part in tiles(shard.rows, budget=len(buffer)):
                rows = buffer[: part.stop - part.start]
                encoding.decode(tensors, part, manifest.blocks, rows)
                factors = _factors(encoding, tensors, part)
                scores = sum(
                    (rows[:, where] @ column).mul_(factor.unsqueeze(1))
                    for where, column, factor in zip(parts, columns, factors.unbind(1), strict=True)
                )
                assert isinstance(scores, Tensor)
                yield shard.first + part.start, scores


def _factors(encoding: Encoding, tensors: dict[str, Tensor], part: slice) -> Tensor:
    """Return what the products of each part with each row are multiplied by, [t, parts]."""
    factors = tensors["slopes"][part] * tensors["weights"][part].unsqueeze(1)
    scales = encoding.scales(tensors, part)
    return factors if scales is None else factors * scales.unsqueeze(1)


def _ask_for(path: Path) -> None:
    """Ask the system to read a file ahead, where it can be asked."""
    if not hasattr(os, "posix_fadvise"):
        return
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(descriptor)
