"""Transformers from configurations, as objectives, against their own losses."""

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
    GPT2Model,
)

import whence
from whence.errors import IncompleteCoverage, InvalidInput, NotDeterministic, UnsupportedModel

_TEXTS = [{"input_ids": list(range(1, length + 1))} for length in (3, 6, 5, 4)]


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    return GPT2LMHeadModel(config).double().eval()


def bert() -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=8,
        num_labels=3,
    )
    return BertForSequenceClassification(config).double().eval()


def test_padding_does_not_count() -> None:
    model = gpt2()
    objective = whence.from_transformers(model, _TEXTS)
    losses = objective.loss(objective.outputs(objective.train), objective.train.targets)
    for text, loss in zip(_TEXTS, losses, strict=True):
        tokens = torch.tensor([text["input_ids"]])
        with torch.no_grad():
            mean = model(input_ids=tokens, labels=tokens).loss
        # The library takes its own loss in float32, whatever the model's dtype.
        assert float(loss) == pytest.approx(float(mean) * (tokens.shape[1] - 1), rel=1e-6)


def test_influence_on_a_language_model() -> None:
    objective = whence.from_transformers(gpt2(), _TEXTS, l2=0.01)
    with pytest.warns(whence.errors.NotConvergedWarning):
        alone = whence.influence(objective, [_TEXTS[1]], solver=whence.EKFAC())
    exact = whence.influence(objective, [_TEXTS[1]])
    assert alone.values.shape == exact.values.shape == (1, 4)
    assert int(exact.values[0].argmax()) == int(alone.values[0].argmax()) == 1


def test_classification() -> None:
    rows = [{**text, "labels": i % 2} for i, text in enumerate(_TEXTS)]
    objective = whence.from_transformers(bert(), rows, l2=0.01, params=["classifier.weight"])
    assert len(objective.params) == 24
    assert objective.factored == {"model.classifier.weight"}
    with pytest.warns(whence.errors.NotConvergedWarning):
        scores = whence.influence(objective, rows[:2])
    assert np.diag(scores.values[:, :2]).min() > 0


@pytest.mark.parametrize(
    ("model", "rows", "options", "error", "message"),
    [
        (bert, _TEXTS, {}, InvalidInput, "with 'labels'"),
        (gpt2, [], {}, InvalidInput, "at least one"),
        (gpt2, [{"text": "words"}], {}, InvalidInput, "Tokenize"),
        (gpt2, _TEXTS, {"params": ["nothing"]}, IncompleteCoverage, "nothing"),
        (lambda: gpt2().train(), _TEXTS, {}, NotDeterministic, r"\.eval\(\)"),
        (lambda: GPT2Model(GPT2Config(n_layer=1)).eval(), _TEXTS, {}, UnsupportedModel, "task="),
    ],
)
def test_bad_input(model: Any, rows: Any, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        whence.from_transformers(model(), rows, **options)
