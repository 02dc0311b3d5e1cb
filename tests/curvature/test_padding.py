"""Kronecker factors do not depend on how far texts are padded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

import whence
from tests.curvature.approximations import kronecker
from whence.curvature.factors import Sharing
from whence.network.objective import ModuleObjective

_LENGTHS = (3, 12, 7, 5, 9, 4, 10, 6)


def gpt2() -> Any:
    config = GPT2Config(vocab_size=20, n_positions=48, n_embd=8, n_layer=1, n_head=2)
    return GPT2LMHeadModel(config)


def llama() -> Any:
    config = LlamaConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=48,
    )
    return LlamaForCausalLM(config)


def bert() -> Any:
    config = BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=48,
        num_labels=3,
    )
    return BertForSequenceClassification(config)


def padded(make: Any, width: int) -> ModuleObjective:
    """The same texts, each padded at its end to some tokens."""
    torch.manual_seed(0)
    model = make().double().eval()
    generator = torch.Generator().manual_seed(1)
    rows = []
    for i, length in enumerate(_LENGTHS):
        tokens = torch.randint(1, 20, (length,), generator=generator)
        mask = torch.zeros(width, dtype=torch.long)
        mask[:length] = 1
        ids = torch.zeros(width, dtype=torch.long)
        ids[:length] = tokens
        row = {"input_ids": ids, "attention_mask": mask}
        rows.append({**row, "labels": i % 3} if make is bert else row)
    return whence.from_transformers(model, rows, l2=0.1)


@pytest.mark.parametrize("corrected", [True, False], ids=["EKFAC", "KFAC"])
@pytest.mark.parametrize("sharing", ["expand", "reduce"])
@pytest.mark.parametrize("make", [gpt2, llama, bert])
def test_padding_is_in_no_factor(make: Any, sharing: Sharing, corrected: bool) -> None:
    short, long = (padded(make, width) for width in (12, 48))
    assert short.factored == long.factored == set(short.shapes)
    if make is gpt2:  # only the first twelve positions of the longer table are read
        assert len(short.params) == len(long.params)
    v = torch.randn(len(short.params), 3, generator=torch.Generator().manual_seed(2)).double()
    found, same = (
        kronecker(objective, corrected=corrected, sharing=sharing) for objective in (short, long)
    )
    torch.testing.assert_close(found @ v, same @ v, rtol=1e-8, atol=1e-10)


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
@pytest.mark.parametrize("solver", [whence.EKFAC(), whence.KFAC()])
def test_scores_do_not_depend_on_padding(solver: Any) -> None:
    short, long = (padded(gpt2, width) for width in (12, 48))
    values = []
    for objective in (short, long):
        queries = objective.train.subset(np.arange(2))
        values.append(torch.as_tensor(whence.influence(objective, queries, solver=solver).values))
    torch.testing.assert_close(*values, rtol=1e-8, atol=0)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_sampled_directions_do_not_depend_on_the_batches(batch_size: int) -> None:
    whole = padded(gpt2, 12)
    parts = whence.from_transformers(
        whole.module.filled(whole.params).model,
        [
            {"input_ids": ids, "attention_mask": mask}
            for ids, mask in zip(
                whole.train.inputs["input_ids"], whole.train.inputs["attention_mask"], strict=True
            )
        ],
        l2=0.1,
        batch_size=batch_size,
    )
    v = torch.randn(len(whole.params), 2, generator=torch.Generator().manual_seed(2)).double()
    torch.testing.assert_close(kronecker(whole) @ v, kronecker(parts) @ v, rtol=1e-8, atol=1e-10)
