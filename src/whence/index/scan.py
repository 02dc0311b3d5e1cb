"""The exact largest and smallest scores of all stored rows, in one pass over memory-mapped shards.

Blocks of rows are decoded, multiplied with all queries, and compared with the k best so far, where
the queries are: memory holds a block, and k rows per query. A GPU is given the rows of a shard as
they are stored. Ties go to the row that comes first.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import reduce
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.index.encodings import Encoding, encoding_of
from whence.index.format import Manifest, mapped_rows
from whence.methods.features import places
from whence.tiles import tiles

_BLOCK = 2**20  # decoded numbers at once: 4 MB, which a cache may hold
_BLOCK_OF_GPU = 2**26  # as many as hide what calls cost
_GROUP = 32  # scores of which the largest tells whether any is beyond the bar
_COMPARED = 2**20  # scores that are compared with the bars at once: 1 MB
_AHEAD = 4  # shards that the disk is asked for before they are needed


@final
class Best:
    """The k largest scores of each query so far, or the k smallest.

    Scores beyond a bar are collected, and thinned out to k per query, which raises the bar, once
    they are as many again: few rows are ever sorted.
    """

    def __init__(self, q: int, k: int, sign: int) -> None:
        """Begin with no rows.

        Args:
            q: The number of queries.
            k: How many are kept of each.
            sign: 1 for the largest, −1 for the smallest.
        """
        self.q, self.k, self.sign = q, k, sign
        self._bars = torch.full((q,), -torch.inf)  # on the device of the scores, once there are any
        self._parts: list[tuple[NDArray[Any], ...]] = []  # queries, values times sign, positions
        self._count, self._kept = 0, 0

    def add(self, scores: Tensor, first: int, removed: NDArray[np.intp]) -> None:
        """Take in scores of later rows.

        Args:
            scores: [q, t].
            first: The position of the first of them.
            removed: Positions that do not count, sorted.
        """
        inside = removed[slice(*np.searchsorted(removed, [first, first + scores.shape[1]]))] - first
        rows = np.arange(scores.shape[1])
        if len(inside):
            rows = np.delete(rows, inside)
            scores = scores[:, torch.from_numpy(rows)]
        if not len(rows):
            return
        signed = scores.contiguous() if self.sign == 1 else -scores
        bars = self._bars = self._bars.to(signed)
        if not self._parts and self.k < len(rows):  # the k-th of the first rows is a bar already
            last = signed.topk(self.k, 1).values[:, -1]
            bars = torch.nextafter(last, torch.full_like(last, -torch.inf))
        # Of equal scores the row that comes first counts: later ones must be beyond the bar. Few
        # are, and the largest of a group tells of all of it.
        width = math.gcd(len(rows), _GROUP)
        groups = signed.view(self.q, -1, width)
        hopeful = (groups.amax(2) > bars.unsqueeze(1)).cpu().numpy().nonzero()
        some = groups[tuple(map(torch.from_numpy, hopeful))].cpu().numpy()
        group, place = np.nonzero(some > bars.cpu().numpy()[hopeful[0], None])
        columns, values = hopeful[0][group], some[group, place]
        positions = rows[hopeful[1][group] * width + place] + first
        self._parts.append((columns, values, positions))
        self._count += len(columns)
        if self._count >= 2 * self._kept + self.q:
            self._thin()

    def ranked(self) -> tuple[NDArray[Any], NDArray[np.intp]]:
        """Return values and positions, the first first: as many for each query, at most k."""
        self._thin()
        if not self._parts:
            return np.empty((self.q, 0), np.float32), np.empty((self.q, 0), np.intp)
        columns, values, positions = self._parts[0]
        counts = np.bincount(columns, minlength=self.q)
        starts = np.cumsum(counts) - counts
        where = starts[:, None] + np.arange(counts.min())
        return self.sign * values[where], positions[where]

    def _thin(self) -> None:
        """Keep k of each query, sorted."""
        if not self._parts:
            return
        columns, values, positions = (
            np.concatenate(part) for part in zip(*self._parts, strict=True)
        )
        order = np.lexsort((positions, -values, columns))
        columns, values, positions = columns[order], values[order], positions[order]
        starts = np.searchsorted(columns, np.arange(self.q))
        rank = np.arange(len(columns)) - starts[columns]
        kept = rank < self.k
        last = rank == self.k - 1
        bars = self._bars.cpu()
        bars[torch.from_numpy(columns[last])] = torch.from_numpy(values[last])
        self._bars = bars.to(self._bars.device)
        self._parts = [(columns[kept], values[kept], positions[kept])]
        self._count = self._kept = int(kept.sum())


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
        queries: [q, d], float32, on the device that is to multiply.
        k: How many, >= 1.
        removed: Positions that do not count, sorted.
        together: Whether a row has one score, the largest over the queries.

    Returns:
        The largest, and the smallest.
    """
    q = 1 if together else len(queries)
    best = Best(q, k, 1), Best(q, k, -1)
    found = products(folder, manifest, queries)
    each = ((at, part.amax(0, keepdim=True) if together else part) for at, part in found)
    for first, scores in _gathered(each):
        for end in best:
            end.add(scores, first, removed)
    return best


def _gathered(parts: Iterator[tuple[int, Tensor]]) -> Iterator[tuple[int, Tensor]]:
    """Yield scores of consecutive rows many at a time: to compare few costs as much as many."""
    first, held, count = 0, list[Tensor](), 0
    for at, part in parts:
        first = first if held else at
        held.append(part)
        count += part.numel()
        if count >= _COMPARED:
            yield first, torch.cat(held, 1)
            held, count = [], 0
    if held:
        yield first, torch.cat(held, 1)


def products(folder: Path, manifest: Manifest, queries: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield the scores of consecutive rows, [q, t], with the position of the first of them.

    Args:
        folder: The index.
        manifest: What it holds.
        queries: [q, d], float32.
    """
    encoding = encoding_of(manifest.encoding)
    parts = places([sum(block.size for block in part) for part in manifest.columns])
    asked = [queries[:, part].contiguous() for part in parts]
    d, device = queries.shape[1], queries.device
    numbers = _BLOCK if device.type == "cpu" else _BLOCK_OF_GPU
    buffer = queries.new_empty(max(1, numbers // max(1, d)), d)
    # Asking may wait for the disk, which the products need not.
    with ThreadPoolExecutor(1) as asking:
        for number, shard in enumerate(manifest.shards):
            ahead = number + _AHEAD
            for later in manifest.shards[ahead if number else 0 : ahead + 1]:
                asking.submit(_ask_for, folder / later.name)
            with mapped_rows(folder, shard) as mapped:
                tensors = {name: tensor.to(device) for name, tensor in mapped.items()}
                for part in tiles(shard.rows, budget=len(buffer)):
                    rows = buffer[: part.stop - part.start]
                    encoding.decode(tensors, part, manifest.blocks, rows)
                    factors = _factors(encoding, tensors, part).unbind(1)
                    products = (
                        (each @ rows[:, where].T).mul_(factor)
                        for where, each, factor in zip(parts, asked, factors, strict=True)
                    )
                    yield shard.first + part.start, reduce(torch.add, products)


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
