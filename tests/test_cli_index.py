"""`whence index`: each command is one call of `whence.Index`, in a process of its own state."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.test_cli import Run, run

__all__ = ["run"]  # a fixture

MODULE = """
import torch, whence
def make():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(40, 4, generator=g)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))
    objective = whence.from_torch(model, whence.CrossEntropy(), (x, torch.arange(40) % 3))
    return objective, (x[:3] + 0.1, torch.arange(3))
"""


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: Any) -> str:
    (tmp_path / "indexed_for_test.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    yield "indexed_for_test:make"
    sys.modules.pop("indexed_for_test", None)


def test_an_index_from_build_to_verify(run: Run, entry: str, tmp_path: Path) -> None:
    code, out, _ = run("index", "build", entry, "--index", "ix", "--encoding", "int8")
    assert (code, "40 rows" in out, "int8" in out) == (0, True, True)
    rows = [{"x": [0.1 * i, 1, 0, 1], "y": i % 3} for i in range(5)]
    Path("more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for _ in range(2):
        code, out, _ = run(
            "index", "append", entry, "--index", "ix", "--data", "more.jsonl", "--json"
        )
        assert (code, json.loads(out)["n"]) == (0, 45)
    assert run("index", "remove", entry, "--index", "ix", "--id", 3, "--id", 44)[0] == 0
    code, out, _ = run("index", "info", "ix")
    assert "removed             2" in out
    code, out, _ = run("index", "query", entry, "--index", "ix", "-k", 4, "--json")
    hits = json.loads(out)["hits"]
    assert len(hits) == 3 * 2 * 4
    assert not {hit["id"] for hit in hits} & {3, 44}
    code, out, _ = run("index", "query", entry, "--index", "ix", "--row", 1, "-k", 4)
    assert (code, "helpful" in out) == (0, True)
    words = ("--row", 1, "--against", 2, "--json")
    code, out, _ = run("index", "query", entry, "--index", "ix", "-k", 1, *words)
    assert (code, json.loads(out)["measure"]) == (0, "difference of the loss")
    code, out, _ = run("explain", entry, "--method", "projected", *words[:4])
    assert (code, "pushes to “class 2”" in out) == (0, True)
    assert "pushes to “class 1”" in out
    code, out, _ = run("index", "verify", entry, "--index", "ix", "--rows", 3, "-k", 10)
    assert (code, "of the first 10" in out) == (0, True)
    shard = next(Path("ix").glob("rows-*"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    code, out, _ = run("index", "verify", entry, "--index", "ix")
    assert (code, shard.name in out) == (1, True)


def test_refusals(run: Run, entry: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    for words, message in (
        (("info", "none"), "Got no manifest"),
        (("query", entry, "--index", "none"), "Got no manifest"),
        (("build", "t.csv", "--index", "ix"), "Expected a Python function"),
        (("build", entry, "--index", "ix", "--encoding", "int4"), "rows 'float32'"),
        (("build", entry, "--index", "ix", "--method", "newton"), "whence.Projected()"),
        (("build", entry, "--index", "ix", "--max-length", 4), "with --tokenizer only"),
        (("query", entry, "--index", "none", "--against", 3), "rows from 0 to 2"),
    ):
        code, _, err = run("index", *words)
        assert code != 0
        assert message in " ".join(err.split()), err
