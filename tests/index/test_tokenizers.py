"""Which tokenizer the texts of an index were read with, and others that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import whence
from tests.index.words import WORDS, language_model, tokenizer
from whence.errors import InvalidInput

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

_ROWS = [{"text": "the cat sat"}, {"text": "a mat"}, {"text": "on the mat"}]
_TEMPLATE = "{% for m in messages %}{{ m['content'] + ' ' }}{% endfor %}"


@pytest.fixture(scope="module")
def objective() -> Any:
    return language_model()


OTHERS = {
    "vocabulary": lambda: tokenizer([*WORDS[:-2], *WORDS[:-3:-1]]),
    "end of text": lambda: tokenizer(eos_token="<end>"),
    "way to split a text": lambda: tokenizer(apart=False),
    "chat template": lambda: tokenizer(chat_template=_TEMPLATE),
}


@pytest.fixture(scope="module")
def index(objective: Any, tmp_path_factory: pytest.TempPathFactory) -> whence.Index:
    folder = tmp_path_factory.mktemp("index")
    return whence.Index.build(
        objective,
        folder,
        data=_ROWS,
        name="rows",
        tokenizer=tokenizer(),
        method=whence.TracIn(size=2),
    )


@pytest.mark.parametrize("named", OTHERS)
def test_another_tokenizer_is_refused(index: whence.Index, named: str) -> None:
    other = OTHERS[named]()
    calls = [
        lambda: index.query("the cat", tokenizer=other),
        lambda: index.query({"input_ids": [3]}, against="the cat", tokenizer=other),
        lambda: whence.select(index, ["the cat"], 1, tokenizer=other),
        lambda: index.append(_ROWS, name="more", tokenizer=other),
        lambda: whence.Index.build(
            index.trained,
            index.path,
            data=_ROWS,
            name="rows",
            tokenizer=other,
            method=whence.TracIn(size=2),
        ),
    ]
    for call in calls:
        with pytest.raises(InvalidInput, match=f"the tokenizer that .* with another {named}"):
            call()
    assert index.info().n == 3


def test_the_same_tokenizer_padded_otherwise_is_taken(index: whence.Index) -> None:
    same = tokenizer(pad_token="<eos>", padding_side="left")
    same(["the", "a cat"], padding=True, truncation=True, max_length=3)
    opened = whence.Index.open(index.path, index.trained)
    assert opened.query("the cat", tokenizer=same).n == 3


def test_of_an_index_of_tokens_the_first_texts_tell(objective: Any, tmp_path: Path) -> None:
    index = whence.Index.build(objective, tmp_path, method=whence.TracIn(size=2))
    assert index.query("the cat", tokenizer=tokenizer()).n == 2
    index.append(_ROWS, name="rows", tokenizer=tokenizer())
    with pytest.raises(InvalidInput, match="another end of text"):
        index.query("the cat", tokenizer=OTHERS["end of text"]())


def test_texts_read_otherwise_are_other_data(index: whence.Index) -> None:
    for changed in ({"max_length": 2}, {"trl": True}):
        with pytest.raises(InvalidInput, match="another model, method, encoding or data"):
            whence.Index.build(
                index.trained,
                index.path,
                data=_ROWS,
                name="rows",
                tokenizer=tokenizer(),
                method=whence.TracIn(size=2),
                **changed,
            )
