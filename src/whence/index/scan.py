"""The exact largest and smallest scores of all stored rows, in one pass over the shards.

Each thread takes the next shard: its rows are multiplied with all queries block by block, in
bfloat16 or as the int8 that they are stored in, and what may be among the k best is a candidate,
whose score is computed in float64 from the row in the end. Memory holds a block per thread, and
some k rows per query. A GPU is given the rows of a shard as they are stored. Neither the number of
threads nor the processor changes what is found.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial, reduce
from pathlib import Path
from threading import local
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.index.best import Best
from whence.index.format import Manifest, Shard
from whence.index.reading import StoredRows
from whence.index.screen import gathered, screen_of
from whence.workers import over_threads

_BLOCK = 2**20  # numbers of rows at once: 1 or 2 MB, which a cache may hold
_BLOCK_OF_GPU = 2**26  # as many as hide what calls cost
_COMPARED = 2**18  # scores that are compared with the bars at once
_FIRST = 2**20  # as long as there is no bar: the k-th of many is a high one
_AHEAD = 4  # shards that are read before they are needed
_READ = 2**20  # bytes at once: 1 MB, which a cache may hold
_EXACT = 2**18  # numbers of rows at once in float64: 2 MB
_PAIR = 16  # a product of a query and a row by itself takes as long as so many of a matrix product


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

    score[q, i] = wᵢ Σ_t slopeᵢ_t ⟨queries[q], rowᵢ⟩ over the columns of part t, computed in
    float64 and rounded to float32.

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
    stored, device = StoredRows(folder, manifest), queries.device
    scaled, exponents = _scaled(queries.cpu().double().numpy(), together)
    screen = screen_of(scaled, stored, device, together=together)
    exact = partial(_exact, stored, scaled, together)
    best = Best(exponents, k, 1, exact), Best(exponents, k, -1, exact)
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    rows = _rows_at_once(queries)
    own = local()  # of each thread: where it decodes

    def compared() -> int:
        return _COMPARED if all(end.begun for end in best) else _FIRST

    def one(item: tuple[int, Shard]) -> None:
        number, shard = item
        ahead.ask(number)
        if not hasattr(own, "room"):
            own.room = screen.room(rows)
        tiles = stored.tiles(shard, rows, device)
        each = ((tile.first, screen.screened(tile, own.room)) for tile in tiles)
        for first, found in gathered(each, compared):
            for end in best:
                end.add(found, first, removed)

    with _Ahead(folder, manifest) as ahead:
        over_threads(one, enumerate(manifest.shards), threads)
    over_threads(Best.settle, best, threads)
    return best


def _scaled(
    queries: NDArray[np.float64], together: bool
) -> tuple[Tensor, NDArray[np.signedinteger[Any]]]:
    """Return queries over powers of two, and the exponents: float32 holds their scores then."""
    norms = np.linalg.norm(queries, axis=1, keepdims=True)
    exponents = np.frexp(norms.max(0, keepdims=True) if together else norms)[1]
    return torch.from_numpy(np.ldexp(queries, -exponents)), exponents[:, 0]


def products(
    folder: Path, manifest: Manifest, queries: Tensor
) -> Generator[tuple[int, Tensor], None, None]:
    """Yield the scores of consecutive rows, [q, t], with the position of the first of them.

    Args:
        folder: The index.
        manifest: What it holds.
        queries: [q, d], float32.
    """
    stored, rows = StoredRows(folder, manifest), _rows_at_once(queries)
    room = queries.new_empty(rows, queries.shape[1])
    with _Ahead(folder, manifest) as ahead:
        for number, shard in enumerate(manifest.shards):
            ahead.ask(number)
            for tile in stored.tiles(shard, rows, queries.device):
                decoded = stored.decoded(tile, room)
                yield tile.first, _products(stored, queries, decoded, tile.factors)


def _rows_at_once(queries: Tensor) -> int:
    """Return how many rows are multiplied at once."""
    numbers = _BLOCK if queries.device.type == "cpu" else _BLOCK_OF_GPU
    return max(1, numbers // max(1, queries.shape[1]))


def _exact(
    stored: StoredRows,
    queries: Tensor,
    together: bool,
    which: NDArray[np.intp],
    positions: NDArray[np.intp],
) -> NDArray[np.float64]:
    """Return the scores of pairs of a query and a row, in float64.

    Args:
        stored: The rows.
        queries: [q, d], float64.
        together: Whether a row has one score, the largest over the queries.
        which: The query of each pair, [m].
        positions: The row of each pair, [m], sorted.
    """
    found = np.zeros(len(positions))
    unique, place = np.unique(positions, return_inverse=True)
    for part, rows, factors in stored.at(unique, max(1, _EXACT // queries.shape[1])):
        pairs = slice(*np.searchsorted(place, [part.start, part.stop]))
        of, query = place[pairs] - part.start, which[pairs]
        if together:
            found[pairs] = _products(stored, queries, rows, factors).amax(0).numpy()[of]
        elif len(queries) * len(rows) <= _PAIR * len(of):
            found[pairs] = _products(stored, queries, rows, factors).numpy()[query, of]
        else:
            for columns, factor in zip(stored.parts, factors.numpy().T, strict=True):
                left, right = queries[:, columns].numpy(), rows[:, columns].numpy()
                found[pairs] += factor[of] * np.einsum("md,md->m", left[query], right[of])
    return found


def _products(stored: StoredRows, queries: Tensor, rows: Tensor, factors: Tensor) -> Tensor:
    """Return the scores of all pairs of queries and rows, [q, t], as precise as the queries."""
    each = zip(stored.parts, factors.unbind(1), strict=True)
    found = (queries[:, at] @ rows[:, at].to(queries).T * f.to(queries) for at, f in each)
    return reduce(torch.add, found)


@final
class _Ahead:
    """Reads the next shards in a thread, so that they are in the memory of the system in time.

    The system is not only asked for them: what it reads by itself, in large parts, it copies twice
    as fast afterwards.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._paths = [folder / shard.name for shard in manifest.shards]
        self._pool = ThreadPoolExecutor(1)
        self._room = bytearray(_READ)

    def __enter__(self) -> _Ahead:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def ask(self, number: int) -> None:
        """Ask for the shards after this one: the first time all of them, and then one more."""
        ahead = number + _AHEAD
        for path in self._paths[ahead if number else 1 : ahead + 1]:
            self._pool.submit(self._read, path)

    def _read(self, path: Path) -> None:
        """Read a file unless it is in memory, where the system can say so."""
        if not hasattr(os, "RWF_NOWAIT"):
            return
        with suppress(OSError), path.open("rb", buffering=0) as file:
            last = max(0, path.stat().st_size - 1)
            try:
                os.preadv(file.fileno(), [memoryview(self._room)[:1]], last, os.RWF_NOWAIT)
            except BlockingIOError:
                while file.readinto(self._room):
                    pass
