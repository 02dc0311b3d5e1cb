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
    assert (code, "push to “class 2”" in out) == (0, True)
    assert "push to “class 1”" in out
    code, out, _ = run("index", "verify", entry, "--index", "ix", "--rows", 3, "-k", 10)
    assert (code, "of the first 10" in out) == (0, True)
    shard = next(Path("ix").glob("rows-*"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    code, out, _ = run("index", "verify", entry, "--index", "ix")
    assert (code, shard.name in out) == (1, True)


TEXTS = """
import torch, whence
from transformers import GPT2Config, GPT2LMHeadModel
def make():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=12, n_positions=16, n_embd=8, n_layer=1, n_head=2,
                        bos_token_id=1, eos_token_id=1, pad_token_id=0)
    model = GPT2LMHeadModel(config).eval()
    tokens = torch.randint(2, 12, (9, 6), generator=torch.Generator().manual_seed(0))
    texts = [{"input_ids": row} for row in tokens]
    query = {"input_ids": [2, 3, 4, 1], "labels": [-100, -100, 4, 1]}
    other = {"input_ids": [2, 3, 5, 1], "labels": [-100, -100, 5, 1]}
    return whence.from_transformers(model, texts), [query, other]
"""


def test_texts_are_asked_about(run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    """As the same tokens and labels are, which the function returns as queries."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    names = {f"w{i}": i for i in range(2, 12)} | {"<pad>": 0, "<eos>": 1}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(names, unk_token="<eos>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<eos>"
    )
    words.save_pretrained(tmp_path / "words")
    (tmp_path / "texts_for_test.py").write_text(TEXTS)
    monkeypatch.chdir(tmp_path)
    entry = "texts_for_test:make"
    assert run("index", "build", entry, "--index", "ix", "--method", "tracin")[0] == 0
    ask = ("index", "query", entry, "--index", "ix", "-k", 5, "--json")
    text = (*ask, "--tokenizer", "words", "--prompt", "w2 w3", "--text", " w4")
    for written, tokens in ((text, ()), ((*text, "--against", " w5"), ("--against", 1))):
        code, out, _ = run(*written)
        assert code == 0
        assert json.loads(out) == json.loads(run(*ask, "--row", 0, *tokens)[1])
    told = (*text[: text.index("--json")], *text[text.index("--json") + 1 :])
    code, out, _ = run(*told, "--output", "why.html")
    assert (code, "why.html" in out) == (0, True)
    assert (tmp_path / "why.html").read_text().count(">Training on these seems to") == 2
    code, _, err = run(*text, "--data", "texts_for_test.py")
    assert (code, "Expected --data with --output" in " ".join(err.split())) == (2, True)
    for wrong in (("--text", "w4"), ("--tokenizer", "words"), ("--prompt", "w2")):
        code, _, err = run(*ask, *wrong)
        assert (code, "Expected --text with --tokenizer" in " ".join(err.split())) == (2, True)
    code, _, err = run(*text, "--row", 0)
    assert (code, "Expected --text, --row or --rows" in " ".join(err.split())) == (2, True)
    found = []
    for text, flags in (("w2 w3 w4", ["--trl"]), ("w2 w3 w4<eos>", []), ("w2 w3 w4", [])):
        (tmp_path / "data.jsonl").write_text(json.dumps({"text": text}))
        build = ("index", "build", entry, "--index", f"ix{len(found)}", "--method", "tracin")
        code, _, _ = run(*build, "--data", "data.jsonl", "--tokenizer", "words", *flags)
        assert code == 0
        found.append(run("index", "query", entry, "--index", f"ix{len(found)}", "--json")[1])
    assert found[0] == found[1] != found[2]
    sys.modules.pop("texts_for_test", None)


def test_refusals(run: Run, entry: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    for words, message in (
        (("info", "none"), "Got no manifest"),
        (("query", entry, "--index", "none"), "Got no manifest"),
        (("build", "t.csv", "--index", "ix"), "Expected a Python function"),
        (("build", entry, "--index", "ix", "--encoding", "int4"), "rows 'float32'"),
        (("build", entry, "--index", "ix", "--method", "newton"), "whence.Projected()"),
        (
            ("build", entry, "--index", "ix", "--max-length", 4),
            "--max-length with --tokenizer only",
        ),
        (("build", entry, "--index", "ix", "--trl"), "--trl with --tokenizer only"),
        (("query", entry, "--index", "none", "--against", 3), "rows from 0 to 2"),
    ):
        code, _, err = run("index", *words)
        assert code != 0
        assert message in " ".join(err.split()), err
