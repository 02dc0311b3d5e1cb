"""A tokenizer whose tokens are words, and a small language model of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import whence

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

WORDS = ["<pad>", "<eos>", "<end>", "the", "cat", "sat", "on", "a", "mat"]


def tokenizer(words: list[str] = WORDS, *, apart: bool = True, **options: Any) -> Any:
    """A word is a token, and what is none is the end of text."""
    model = tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<eos>")
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    if not apart:  # another of the same words, which does not split signs off
        made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    options = {"pad_token": "<pad>", "eos_token": "<eos>"} | options
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **options)


def language_model() -> Any:
    """The objective of an untrained GPT on two texts."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=9, n_positions=16, n_embd=8, n_layer=1, n_head=2)
    config.pad_token_id = 0
    model = transformers.GPT2LMHeadModel(config).eval()
    return whence.from_transformers(model, [{"input_ids": [2, 3, 4]}, {"input_ids": [5, 6]}])
