"""Training data in every form: read as needed, ids kept, padded no further than a batch."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import whence
from whence.errors import CorruptFile, InvalidInput
from whence.index.corpus import RowReader, corpus_of
from whence.index.files import rows_of
from whence.index.texts import Tokenized

WORDS = ["<pad>", "<eos>", "the", "cat", "sat", "on", "a", "mat", "dog", "ran", "Q", "A"]
TEXTS = ["the cat sat", "a dog ran on the mat", "the mat", "a cat ran", "dog sat on a dog on a mat"]


class Words:
    """A tokenizer in the form of the transformers library: a word is a token."""

    eos_token = "<eos>"

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {
            "input_ids": [WORDS.index(word) for word in text.replace("<eos>", " <eos>").split()]
        }

    def apply_chat_template(
        self, messages: list[dict[str, str]], tokenize: bool, add_generation_prompt: bool
    ) -> list[int]:
        assert tokenize
        tokens: list[int] = []
        for message in messages:
            role = 10 if message["role"] == "user" else 11
            tokens += [role, *self(message["content"])["input_ids"], 1]
        return [*tokens, 11] if add_generation_prompt else tokens


@pytest.fixture(scope="module")
def language_model() -> Any:
    """A tiny GPT-2 as an objective on two texts, which are not those that are indexed."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=12, n_positions=16, n_embd=8, n_layer=1, n_head=2)
    config.pad_token_id = 0
    model = GPT2LMHeadModel(config).eval()
    return whence.from_transformers(model, [{"input_ids": [2, 3, 4]}, {"input_ids": [5, 6]}])


def rows() -> list[dict[str, Any]]:
    return [{"id": f"text {i}", "text": text} for i, text in enumerate(TEXTS)]


class Stream:
    """A stream that counts how often it is asked to begin."""

    def __init__(self) -> None:
        self.skipped: list[int] = []

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(rows())

    def skip(self, n: int) -> Iterator[dict[str, Any]]:
        self.skipped.append(n)
        return iter(rows()[n:])


def as_parquet(folder: Path) -> Path:
    import pandas as pd

    for part, some in enumerate((rows()[:2], rows()[2:])):
        pd.DataFrame(some).to_parquet(folder / f"part-{part}.parquet")
    return folder


def as_lines(folder: Path) -> Path:
    lines = [json.dumps(row) + "\n" for row in rows()]
    (folder / "a.jsonl").write_text("".join(lines[:2]) + "\n", encoding="utf-8")
    with gzip.open(folder / "b.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(lines[2:])
    return folder


def as_dataset(folder: Path) -> Any:
    datasets = pytest.importorskip("datasets")
    return datasets.Dataset.from_list(rows())


def as_iterable(folder: Path) -> Any:
    datasets = pytest.importorskip("datasets")
    return datasets.Dataset.from_list(rows()).to_iterable_dataset()


FORMS: dict[str, Any] = {
    "list": lambda folder: rows(),
    "stream": lambda folder: Stream(),
    "Parquet": as_parquet,
    "JSON lines": as_lines,
    "Dataset": as_dataset,
    "IterableDataset": as_iterable,
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_index(language_model: Any, tmp_path: Path, form: str) -> None:
    """Beside influence on an objective that holds the same texts, tokenized and padded, whole."""
    (tmp_path / "data").mkdir()
    data = FORMS[form](tmp_path / "data")
    method = whence.Projected(moment="layers", size=4)
    index = whence.Index.build(
        language_model,
        tmp_path / "index",
        data=data,
        tokenizer=Words(),
        method=method,
        rows="float32",
        shard_rows=2,
    )
    tokenized = [{"input_ids": Words()(text)["input_ids"]} for text in TEXTS]
    held = whence.from_transformers(_filled(language_model), tokenized)
    query = [{"input_ids": [2, 8, 9]}]
    expected = method.fit(held).scores(query).values[0]
    hits = index.query(query, k=5)
    order = np.argsort(-expected)
    assert hits.helpful.ids[0].tolist() == [f"text {i}" for i in order]
    np.testing.assert_allclose(
        hits.helpful.values[0], expected[order], rtol=0, atol=1e-5 * np.abs(expected).max()
    )
    index.remove(["text 1"])
    assert "text 1" not in index.query(query, k=5).helpful.ids


def _filled(objective: Any) -> Any:
    return objective.module.filled(objective.params).model


def test_queries_are_texts_too(language_model: Any, tmp_path: Path) -> None:
    """The truth is the same queries as tokens and labels; a text alone is one query."""
    index = whence.Index.build(
        language_model, tmp_path, data=rows(), tokenizer=Words(), method=whence.TracIn(size=2)
    )
    asked = {"prompt": "the cat", "completion": " sat on a mat"}
    other = {"prompt": "the cat", "completion": " ran"}
    tokens = {"input_ids": [2, 3, 4, 5, 6, 7, 1], "labels": [-100, -100, 4, 5, 6, 7, 1]}
    short = {"input_ids": [2, 3, 9, 1], "labels": [-100, -100, 9, 1]}

    def same(found: Any, expected: Any) -> None:
        assert found.helpful.ids.tolist() == expected.helpful.ids.tolist()
        np.testing.assert_array_equal(found.helpful.values, expected.helpful.values)

    same(
        index.query(asked, 5, against=other, tokenizer=Words()),
        index.query([tokens], 5, against=[short]),
    )
    texts = ["the cat sat on", "a dog ran"]
    plain = [Words()(text) for text in texts]
    same(index.query(texts, 5, tokenizer=Words()), index.query(plain, 5))
    same(index.query(texts[0], 5, tokenizer=Words()), index.query(plain[:1], 5))
    cut = index.query(texts[0], 5, tokenizer=Words(), max_length=2)
    same(cut, index.query([{"input_ids": [2, 3]}], 5))
    chosen = whence.select(index, texts, 3, tokenizer=Words())
    assert chosen.ids.tolist() == whence.select(index, plain, 3).ids.tolist()
    with pytest.raises(InvalidInput, match="tokenizer="):
        index.query(texts, 5)
    with pytest.raises(InvalidInput, match="none among the first 2 tokens of query 0"):
        index.query(asked, 5, tokenizer=Words(), max_length=2)
    with pytest.raises(InvalidInput, match="Got none in query 1"):
        index.query([texts[0], ""], 5, tokenizer=Words())


def test_hashes_of_64_bits_keep_their_digits(language_model: Any, tmp_path: Path) -> None:
    names = [3, 2**63 + 5, 2**63 + 6, 2**64 - 1, 7]
    data = [{"id": name, "text": text} for name, text in zip(names, TEXTS, strict=True)]
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, data)), encoding="utf-8")
    index = whence.Index.build(
        language_model,
        tmp_path / "index",
        method=whence.TracIn(size=2),
        data=path,
        tokenizer=Words(),
        shard_rows=2,
    )
    found = index.query([{"input_ids": [2, 8, 9]}], k=5).helpful
    assert sorted(map(int, found.ids[0])) == sorted(names)
    index.remove([3, 2**64 - 1])
    left = index.query([{"input_ids": [2, 8, 9]}], k=5).helpful
    assert sorted(map(int, left.ids[0])) == [7, 2**63 + 5, 2**63 + 6]


def test_a_stream_goes_on_where_it_was(language_model: Any, tmp_path: Path) -> None:
    """Rows of shards that are there are skipped, not read; numbers stand in for missing ids."""
    stream = Stream()
    corpus = corpus_of(stream, language_model, tokenizer=Words())
    assert [chunk.first for chunk in corpus.chunks(2, 0)] == [0, 2, 4]
    assert [chunk.ids.tolist() for chunk in corpus.chunks(2, 4)] == [["text 4"]]
    assert stream.skipped == [4]
    numbered = corpus_of([row["text"] for row in rows()], language_model, tokenizer=Words())
    assert numbered.counted
    assert [chunk.ids.tolist() for chunk in numbered.chunks(3, 0)] == [[0, 1, 2], [3, 4]]


def test_batches_are_padded_no_further_than_their_longest(language_model: Any) -> None:
    """10 texts of 3 tokens and one of 15: never more than 18 tokens, padding counted in."""
    data = [{"input_ids": [2, 3, 4]}] * 5 + [{"input_ids": [5] * 15}] + [{"input_ids": [6, 7]}] * 5
    corpus = corpus_of(data, language_model, tokens=18)
    (chunk,) = corpus.chunks(100, 0)
    assert isinstance(corpus.reader, RowReader)
    seen: list[int] = []
    for places, examples, weights in corpus.reader.batches(chunk):
        ids = examples.inputs["input_ids"]
        assert ids.numel() <= 18
        assert ids.shape[1] == max(len(data[place]["input_ids"]) for place in places)
        assert weights.tolist() == [1.0] * len(places)
        seen += places.tolist()
    assert sorted(seen) == list(range(11))


def test_the_loss_is_on_the_completion_or_the_answers() -> None:
    tokenized = Tokenized(Words())
    pair = tokenized({"prompt": "the cat", "completion": " sat on"})
    assert pair == {"input_ids": [2, 3, 4, 5, 1], "labels": [-100, -100, 4, 5, 1]}
    chat = [
        {"role": "user", "content": "the cat"},
        {"role": "assistant", "content": "sat"},
        {"role": "user", "content": "dog"},
        {"role": "assistant", "content": "ran"},
    ]
    expected: dict[str, list[int]] = {
        "input_ids": [10, 2, 3, 1, 11, 4, 1, 10, 8, 1, 11, 9, 1],
        "labels": [-100] * 5 + [4, 1] + [-100] * 4 + [9, 1],
    }
    assert tokenized({"messages": chat}) == expected
    expected["labels"][:-2] = [-100] * (len(expected["labels"]) - 2)
    assert tokenized({"prompt": chat[:3], "completion": chat[3:]}) == expected
    assert Tokenized(Words(), 2)("the cat sat")["labels"] == [2, 3]
    assert tokenized({"text": "the", "label": 1}) == {"input_ids": [2], "labels": 1}
    with pytest.raises(InvalidInput, match="role 'assistant'"):
        tokenized({"messages": chat[:1]})
    with pytest.raises(InvalidInput, match="Rename the columns"):
        tokenized({"body": "the"})


def test_data_that_nothing_tells_from_those_of_an_index(
    language_model: Any, tmp_path: Path
) -> None:
    """The index was returned as if it were of the other data."""
    data = [{"input_ids": [2, 3, 4]}, {"input_ids": [5, 6]}]

    def build(data: Any, name: str = "") -> whence.Index:
        method = whence.TracIn(size=2)
        return whence.Index.build(
            language_model, tmp_path, data=data, name=name, method=method, shard_rows=1
        )

    build(data)
    with pytest.warns(UserWarning, match="from the 2 rows .* which stay as they are. Pass name="):
        assert build(data).info().n == 2
    for other in (data[:1], [*data, data[0]]):
        with pytest.raises(InvalidInput, match="Got more or fewer"):
            build(other)
    with pytest.raises(InvalidInput, match="another model, method, encoding or data"):
        build(data, "others")


def test_refusals(language_model: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="files of Parquet or JSON lines"):
        corpus_of(tmp_path, language_model)
    with pytest.raises(InvalidInput, match="read again"):
        corpus_of(iter(rows()), language_model)
    with pytest.raises(InvalidInput, match="column 'name' of ids"):
        corpus_of(rows(), language_model, ids="name")
    with pytest.raises(InvalidInput, match="Got int"):
        corpus_of(3, language_model)
    (tmp_path / "a.jsonl").write_text('{"text": "the"}\n{"text": \n')
    with pytest.raises(CorruptFile, match=r"a\.jsonl: line 2"):
        list(corpus_of(tmp_path, language_model).chunks(5, 0))
    (tmp_path / "a.jsonl").write_text("[1]\n")
    with pytest.raises(InvalidInput, match="line 1"):
        corpus_of(tmp_path, language_model)
    with pytest.raises(InvalidInput, match="Expected at least one example"):
        whence.Index.build(language_model, tmp_path / "index", data=[])
    index = whence.Index(tmp_path / "index", language_model, whence.TracIn())
    with pytest.raises(InvalidInput, match="Pass name="):
        index.append(rows())


def test_a_file_that_is_cut_or_damaged_is_told_in_a_sentence(tmp_path: Path) -> None:
    lines = "".join(f'{{"text": "Köln {n}"}}\n' for n in range(9)).encode()
    packed = gzip.compress(lines)
    path = tmp_path / "a.jsonl"
    for content in (lines[:-5], lines[: lines.rindex("ö".encode()) + 1], packed):
        path.write_bytes(content)
        with pytest.raises(CorruptFile, match=r"a.jsonl: line .* copy or download it again"):
            list(rows_of(path)[1](0))
    damaged = bytearray(packed)
    damaged[30] ^= 4
    path = tmp_path / "a.jsonl.gz"
    for content in (packed[:-9], packed[:-1], bytes(damaged), lines):
        path.write_bytes(content)
        with pytest.raises(CorruptFile, match="a.jsonl.gz: .* copy or download it again"):
            list(rows_of(path)[1](0))
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").table({"text": [f"Köln {n}" for n in range(500)]})
    path = tmp_path / "a.parquet"
    parquet.write_table(table, path)
    whole = path.read_bytes()
    for content in (b"", whole[:-50], whole[:60] + bytes(200) + whole[260:]):
        path.write_bytes(content)
        with pytest.raises(CorruptFile, match="a.parquet: .* copy or download it again"):
            list(rows_of(path)[1](0))


def test_json_lines_of_windows_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n{"text": "b"}\r\n')
    assert [row["text"] for row in rows_of(tmp_path / "a.jsonl")[1](0)] == ["a", "b"]
