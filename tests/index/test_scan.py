"""The best rows against a stable sort of all scores in float64, and the bound that they rest on."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.index import written
from whence.errors import CorruptFile, InvalidInput
from whence.index import best, scan, screen
from whence.index.encodings import encoding_of
from whence.index.format import Manifest, Part, Shard, mapped_rows, write_tensors
from whence.index.reading import StoredRows, norms_of
from whence.index.shard import opened
from whence.methods.features import Block
from whence.network.precision import fast_int8

N, D, Q, K = 300, 512, 6, 12
REMOVED = np.array([5, 6, 8, 150])


def rows(first: int, count: int, d: int) -> Tensor:
    """Return rows of sizes far apart: a third twice each, a third nearly the same, some zero."""
    generator = torch.Generator().manual_seed(0)
    every = torch.randn(N, d, generator=generator) * 4 ** torch.randn(N, 1, generator=generator)
    every[100:200] = every[:100]
    every[200:280] = every[3] * (1 + 1e-4 * torch.randn(80, 1, generator=generator))
    every[280:290] = 0
    return every[first : first + count]


def queries() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    scales = torch.tensor([1.0, 1e-12, 1e12, 0.0, 1.0, 1.0]).unsqueeze(1)
    return scales * torch.randn(Q, D, generator=generator)


@contextmanager
def threads_of_torch(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


def processor(monkeypatch: Any, fast: bool) -> None:
    """Have a processor that is fast in low precision, or one that is not."""
    monkeypatch.setattr(screen, "fast_bf16", lambda device: fast)
    if fast and not fast_int8(torch.device("cpu")):
        monkeypatch.setattr(torch, "_int_mm", lambda a, b, out: out.copy_(a.int() @ b.int()))
    monkeypatch.setattr(screen, "fast_int8", lambda device: fast)


@pytest.mark.parametrize("encoding", ["float32", "float16", "int8", "rank-2"])
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("together", [False, True])
def test_the_best_are_those_of_all_scores_in_float64(
    tmp_path: Path, monkeypatch: Any, encoding: str, fast: bool, together: bool
) -> None:
    """By one thread and by three, with candidates settled early and late."""
    processor(monkeypatch, fast)
    monkeypatch.setattr(screen, "_WIDTH", 200)
    monkeypatch.setattr(scan, "_BLOCK", 23 * D)
    monkeypatch.setattr(scan, "_COMPARED", 100)
    monkeypatch.setattr(scan, "_FIRST", 100)
    manifest = written(tmp_path, encoding, N, D, rows, 64)
    scores = np.empty((Q, N))
    for shard in manifest.shards:
        with mapped_rows(tmp_path, shard) as tensors:
            stored = encoding_of(encoding).rows(tensors, slice(0, shard.rows), manifest.blocks)
            where = slice(shard.first, shard.first + shard.rows)
            scores[:, where] = (queries().double() @ stored.double().T).numpy()
    if together:
        scores = scores.max(0, keepdims=True)
    left = np.setdiff1d(np.arange(N), REMOVED)
    for threads, most in ((1, 32), (3, 32), (3, 1)):
        monkeypatch.setattr(best, "_MOST", most)
        with threads_of_torch(threads):
            found = scan.scan(tmp_path, manifest, queries(), K, REMOVED, together=together)
            assert torch.get_num_threads() == threads
        for sign, end in zip((1, -1), found, strict=True):
            rounded = sign * scores[:, left].astype(np.float32)
            order = np.argsort(-rounded, axis=1, kind="stable")[:, :K]
            values, positions = end.ranked()
            np.testing.assert_array_equal(positions, left[order])
            np.testing.assert_allclose(values, np.take_along_axis(scores, left[order], 1), 1e-6)


PARTS = ((Block("a", (16, 16)),), (Block("b", (16, 8)), Block("c", (128,))))


def stored_of(folder: Path, encoding: str, given: Tensor, slopes: Tensor) -> StoredRows:
    """Return an index of one shard, of rows of two parts."""
    stored, n, blocks = encoding_of(encoding), len(given), [b for part in PARTS for b in part]
    tensors = stored.encode(given, blocks)
    norms = norms_of(stored.rows(tensors, slice(0, n), blocks), [slice(0, 256), slice(256, D)])
    tensors |= {"weights": torch.ones(n), "slopes": slopes, "norms": norms}
    tensors |= {"ids": torch.arange(n)}
    sha = write_tensors(folder / "rows", {"first": 0, "rows": n}, tensors)
    return StoredRows(
        folder,
        Manifest(
            model={},
            method={},
            words="",
            encoding=encoding,
            columns=PARTS,
            shard_rows=n,
            data=(Part("", n),),
            shards=(Shard("rows", 0, n, sha, 0.0),),
        ),
    )


@pytest.mark.parametrize(
    ("encoding", "fast", "passing"),
    [
        ("float32", True, 0.5),
        ("float32", False, 0.5),
        ("float16", True, 0.5),
        ("int8", True, 0.0),
        ("int8", True, 1e9),
    ],
)
def test_no_score_is_farther_off_than_its_slack(
    tmp_path: Path, monkeypatch: Any, encoding: str, fast: bool, passing: float
) -> None:
    """Also where each rounding is half a unit and all add up: the bound is nearly met then."""
    processor(monkeypatch, fast)
    monkeypatch.setattr(screen, "_PASSING", passing)
    generator = torch.Generator().manual_seed(0)
    worst = torch.full((1, D), 1 + 2.0**-8)
    tiny = torch.randn(2, D, generator=generator) * 1e-25
    halves = torch.full((1, D), 60.5 / 127)
    halves[0, [0, 256]] = 1.0
    small = tiny * 1e15 if encoding == "float16" else tiny  # the scan has queries of norm one
    asked = torch.cat([worst, -worst, small, torch.randn(2, D, generator=generator), halves])
    worst[0, [0, 256]] = 2.0  # what rows in float16 are divided by
    given = torch.cat([worst, tiny, torch.randn(9, D, generator=generator) ** 9])
    slopes = torch.randn(len(given), 2, generator=generator)
    slopes[0].abs_()
    ratios = []
    for some in (slice(0, 1), slice(1, 3), slice(3, None), slice(None)):
        stored = stored_of(tmp_path, encoding, given[some], slopes[some])
        (shard,) = stored.manifest.shards
        (tile,) = stored.tiles(shard, shard.rows, asked.device)
        blocks, each = stored.manifest.blocks, slice(0, shard.rows)
        rows = encoding_of(encoding).rows(tile.tensors, each, blocks).double()
        products = [asked[:, part].double() @ rows[:, part].T for part in stored.parts]
        exact = sum(x * f.double() for x, f in zip(products, slopes[some].T, strict=True))
        chosen = screen.screen_of(asked.double(), stored, asked.device, together=False)
        assert isinstance(chosen, screen.Codes) == (encoding == "int8")
        found = chosen.screened(tile, chosen.room(shard.rows))
        which, row = np.indices(found.scores.shape).reshape(2, -1)
        slack = found.slack(which, row).reshape(found.scores.shape)
        off = (found.scores.double() - exact).abs().numpy()
        assert (off <= slack).all()
        assert (slack <= found.most()[:, None] * (1 + 1e-12)).all()
        ratios.append((off / slack).max())
    assert not fast or passing == 0 or ratios[0] > 0.4


def test_no_thread_reads_on_after_a_walk(tmp_path: Path, monkeypatch: Any) -> None:
    """Whether the walk is left early, or a shard is gone; none is in memory."""

    def not_in_memory(*arguments: object) -> None:
        raise BlockingIOError

    monkeypatch.setattr(os, "preadv", not_in_memory, raising=False)
    manifest = written(tmp_path, "float32", N, D, rows, 64)
    before = threading.active_count()
    walk = scan.products(tmp_path, manifest, queries())
    next(walk)
    assert threading.active_count() == before + 1
    walk.close()
    assert threading.active_count() == before
    (tmp_path / manifest.shards[3].name).unlink()
    with pytest.raises(CorruptFile):
        list(scan.products(tmp_path, manifest, queries()))
    with pytest.raises(CorruptFile):
        scan.scan(tmp_path, manifest, queries(), K, REMOVED)
    assert threading.active_count() == before


def test_every_number_of_float16_is_rounded_to_bfloat16() -> None:
    """Within 2⁻⁸ of it, or 2⁻¹⁴ where a processor takes numbers without an exponent for zero."""
    given = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.float16).unsqueeze(1)
    given = given[given.abs() <= 1].unsqueeze(1)
    encoding = encoding_of("float16")
    exact = given.double()
    room = torch.empty(len(given), 1, dtype=torch.bfloat16)
    found = encoding.round({"rows": given}, (), room).double()
    off = (found * 2.0**encoding.shift - exact).abs()
    assert len(given) == 2 * (15 * 1024 + 1)
    assert (off <= torch.clamp(2.0**-8 * exact.abs(), min=2.0**-22)).all()
    flushed = found.abs() < torch.finfo(torch.bfloat16).tiny
    assert flushed.any()
    assert (exact[flushed].abs() < encoding.flushed * 2.0**-8).all()


@pytest.mark.parametrize("encoding", ["float32", "float16", "int8"])
def test_norms_beyond_what_float32_can_square(tmp_path: Path, encoding: str) -> None:
    generator = torch.Generator().manual_seed(0)
    given = torch.randn(40, D, generator=generator) * 1e25
    asked = torch.randn(2, D, generator=generator)
    stored = stored_of(tmp_path, encoding, given, torch.ones(40, 2))
    tensors = encoding_of(encoding).encode(given, stored.manifest.blocks)
    rows = encoding_of(encoding).rows(tensors, slice(0, 40), stored.manifest.blocks)
    scores = (asked.double() @ rows.double().T).numpy()
    largest, _ = scan.scan(tmp_path, stored.manifest, asked, 5, REMOVED[:0])
    np.testing.assert_array_equal(largest.ranked()[1], np.argsort(-scores, axis=1)[:, :5])
    stored = stored_of(tmp_path, encoding, given, torch.full((40, 2), 1e14))
    with pytest.raises(InvalidInput, match="that float32 can hold"):
        scan.scan(tmp_path, stored.manifest, asked, 5, REMOVED[:0])


@pytest.mark.parametrize("size", [2e-45, 3e36])
def test_queries_of_norms_that_float32_barely_holds(tmp_path: Path, size: float) -> None:
    generator = torch.Generator().manual_seed(0)
    given, asked = torch.randn(40, D, generator=generator), torch.randn(2, D, generator=generator)
    asked *= size
    stored = stored_of(tmp_path, "float32", given, torch.ones(40, 2))
    scores = asked.double() @ given.double().T
    for sign, end in zip(
        (1, -1), scan.scan(tmp_path, stored.manifest, asked, 5, REMOVED[:0]), strict=True
    ):
        values, positions = end.ranked()
        order = np.argsort(-sign * scores.numpy(), axis=1)[:, :5]
        np.testing.assert_array_equal(positions, order)
        np.testing.assert_array_equal(
            values, scores.gather(1, torch.from_numpy(order)).float().numpy()
        )


def test_a_failure_beside_the_file_is_not_called_damage(tmp_path: Path) -> None:
    manifest = written(tmp_path, "float16", N, D, rows, shard=100)
    with pytest.raises(RuntimeError, match="out of memory"), opened(tmp_path, manifest.shards[0]):
        raise RuntimeError("out of memory")


@pytest.mark.parametrize("header", [b"5", b"{}", b"[]", b"\xff", b'{"__metadata__": 1}'])
def test_a_header_of_another_kind_is_damage(tmp_path: Path, header: bytes) -> None:
    manifest = written(tmp_path, "float16", N, D, rows, shard=100)
    (shard, *_) = manifest.shards
    (tmp_path / shard.name).write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CorruptFile, match=shard.name), opened(tmp_path, shard):
        pass
