"""Which tokenizer the texts of an index were read with, and others that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import whence
from whence.errors import InvalidInput

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

_WORDS = ["<pad>", "<eos>", "<end>", "the", "cat", "sat", "on", "a", "mat"]
_ROWS = [{"text": "the cat sat"}, {"text": "a mat"}, {"text": "on the mat"}]
_TEMPLATE = "{% for m in messages %}{{ m['content'] + ' ' }}{% endfor %}"


def tokenizer(words: list[str] = _WORDS, *, apart: bool = True, **options: Any) -> Any:
    """A word is a token, and what is none is the end of text."""
    model = tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<eos>")
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    if not apart:  # another of the same words, which does not split signs off
        made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    options = {"pad_token": "<pad>", "eos_token": "<eos>"} | options
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **options)


@pytest.fixture(scope="module")
def language_model() -> Any:
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=9, n_positions=16, n_embd=8, n_layer=1, n_head=2)
    config.pad_token_id = 0
    model = transformers.GPT2LMHeadModel(config).eval()
    return whence.from_transformers(model, [{"input_ids": [2, 3, 4]}, {"input_ids": [5, 6]}])


OTHERS = {
    "vocabulary": lambda: tokenizer([*_WORDS[:-2], *_WORDS[:-3:-1]]),
    "end of text": lambda: tokenizer(eos_token="<end>"),
    "way to split a text": lambda: tokenizer(apart=False),
    "chat template": lambda: tokenizer(chat_template=_TEMPLATE),
}


@pytest.fixture(scope="module")
def index(language_model: Any, tmp_path_factory: pytest.TempPathFactory) -> whence.Index:
    folder = tmp_path_factory.mktemp("index")
    return whence.Index.build(
        language_model,
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


def test_of_an_index_of_tokens_the_first_texts_tell(language_model: Any, tmp_path: Path) -> None:
    index = whence.Index.build(language_model, tmp_path, method=whence.TracIn(size=2))
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
