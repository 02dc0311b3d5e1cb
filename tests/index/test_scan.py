"""The best rows against a stable sort of all scores in float64, and the bound that they rest on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.index import written
from whence.index import best, scan, screen
from whence.index.encodings import encoding_of
from whence.index.format import mapped_rows

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


@pytest.mark.parametrize("encoding", ["float32", "float16", "int8", "rank-2"])
@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("together", [False, True])
def test_the_best_are_those_of_all_scores_in_float64(
    tmp_path: Path, monkeypatch: Any, encoding: str, bf16: bool, together: bool
) -> None:
    """By one thread and by three, with candidates settled early and late."""
    monkeypatch.setattr(screen, "fast_bf16", lambda device: bf16)
    monkeypatch.setattr(screen, "_WIDTH", 200)
    monkeypatch.setattr(scan, "_BLOCK", 23 * D)
    monkeypatch.setattr(scan, "_COMPARED", 100)
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


@pytest.mark.parametrize("bf16", [True, False])
def test_no_score_is_farther_off_than_its_slack(monkeypatch: Any, bf16: bool) -> None:
    """Also where each rounding is half a unit and all add up: the bound is nearly met then."""
    monkeypatch.setattr(screen, "fast_bf16", lambda device: bf16)
    generator = torch.Generator().manual_seed(0)
    worst = torch.full((1, D), 1 + 2.0**-8)
    tiny = torch.randn(2, D, generator=generator) * 1e-25
    asked = torch.cat([worst, -worst, tiny, torch.randn(2, D, generator=generator)])
    given = torch.cat([worst, tiny, torch.randn(9, D, generator=generator) ** 9])
    parts = slice(0, 256), slice(256, D)
    factors = torch.randn(len(given), 2, generator=generator, dtype=torch.float64)
    factors[0].abs_()
    ratios = []
    for some in (slice(0, 1), slice(1, 3), slice(3, None), slice(None)):
        products = [asked[:, part].double() @ given[some, part].double().T for part in parts]
        exact = sum(x * f for x, f in zip(products, factors[some].T, strict=True))
        chosen = screen.screen_of(asked, parts, together=False)
        found = chosen.screened(given[some], factors[some])
        which, row = np.indices(found.scores.shape).reshape(2, -1)
        slack = found.slack(which, row).reshape(found.scores.shape)
        off = (found.scores.double() - exact).abs().numpy()
        assert (off <= slack).all()
        assert (slack <= found.most()[:, None]).all()
        ratios.append((off / slack).max())
    assert not bf16 or ratios[0] > 0.4
