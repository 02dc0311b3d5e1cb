"""Tokenized texts without labels: the class that the model says is explained."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import whence
from whence.errors import InvalidInput
from whence.views.sequences import pieces_of

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")


def _classifier() -> Any:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, num_labels=3, pad_token_id=0, max_position_embeddings=8,
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config).eval()
    rows = [{"input_ids": [1 + i % 7, 2 + i % 5, 3], "labels": i % 3} for i in range(12)]
    return whence.from_transformers(model, rows, params=["classifier.weight", "classifier.bias"])


def test_texts_without_labels_are_explained_and_reported_as_with_the_class_said(
    tmp_path: Any,
) -> None:
    objective, row = _classifier(), {"input_ids": [4, 5, 6, 7]}
    forms = [
        row,
        [row],
        {"input_ids": [row["input_ids"]]},
        transformers.BatchEncoding({"input_ids": torch.tensor([row["input_ids"]])}),
    ]
    said = [str(whence.explain(objective, form, k=2)) for form in forms]
    assert len({*said}) == 1
    assert "the label in the data" not in said[0]
    best = int(objective.outputs(objective.examples({**row, "labels": 0}))[0].argmax())
    labeled = str(whence.explain(objective, {**row, "labels": best}, k=2))
    assert said[0].splitlines()[1:] == labeled.splitlines()[1:]
    page = whence.report(objective, [row, {"input_ids": [9, 8]}], tmp_path / "many.html")
    assert page is not None


def test_columns_that_are_no_texts_are_still_refused() -> None:
    with pytest.raises(InvalidInput, match="Expected examples with 'input_ids'"):
        whence.explain(_classifier(), {"text": "a film"})


def test_a_tokenizer_decodes_as_its_function_does() -> None:
    class Tokenizer:
        def __call__(self, text: str) -> None:
            raise ValueError(text)

        def decode(self, ids: list[int]) -> str:
            return "".join("abcdefgh"[i] for i in ids)

    config = transformers.GPT2Config(vocab_size=8, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    model = transformers.GPT2LMHeadModel(config).eval()
    objective = whence.from_transformers(model, [{"input_ids": [1, 2, 3]}, {"input_ids": [4, 5]}])
    tokenizer = Tokenizer()
    pieces = [pieces_of(objective.train, 0, decode) for decode in (tokenizer, tokenizer.decode)]
    assert pieces[0] == pieces[1] == ("b", "c", "d")
