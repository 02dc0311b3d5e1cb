"""Transformers from configurations, as objectives, against their own losses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    GPT2Model,
    LlamaConfig,
    LlamaForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)

import whence
from whence.errors import IncompleteCoverage, InvalidInput, NotDeterministic, UnsupportedModel
from whence.network.objective import ModuleObjective

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


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.compile, about torch.jit
def test_a_compiled_model_is_the_model_and_a_divided_one_is_refused() -> None:
    plain = whence.from_transformers(gpt2(), _TEXTS)
    compiled = whence.from_transformers(torch.compile(gpt2()), _TEXTS)  # type: ignore[arg-type]
    torch.testing.assert_close(compiled.params, plain.params)
    assert [*compiled.shapes] == [*plain.shapes]
    for task in (None, "causal"):
        with pytest.raises(UnsupportedModel, match=r"model\.module"):
            whence.from_transformers(torch.nn.DataParallel(gpt2()), _TEXTS, task=task)  # type: ignore[arg-type]


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


_SIZES: dict[str, Any] = {
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 16,
}


def gpt2_classifier(**options: Any) -> Any:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=20, n_positions=16, n_embd=8, n_layer=1, n_head=2, num_labels=3, **options
    )
    return GPT2ForSequenceClassification(config).double().eval()


def llama_classifier(**options: Any) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(**_SIZES, num_key_value_heads=2, num_labels=3, **options)
    return LlamaForSequenceClassification(config).double().eval()


def losses(objective: ModuleObjective) -> list[float]:
    train = objective.train
    return objective.loss(objective.outputs(train), train.targets).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("make", [gpt2_classifier, llama_classifier])
@pytest.mark.parametrize("pad", [0, 7, 19])
def test_classifiers_pad_with_their_own_token(make: Any, pad: int) -> None:
    model = make(pad_token_id=pad)
    ids = [[1, 2, 3], [4, 5, 6, 8, 9], [10, 0, 11, 12] if pad else [10, 11, 12, 13]]
    rows = [{"input_ids": tokens, "labels": i} for i, tokens in enumerate(ids)]
    found = losses(whence.from_transformers(model, rows))
    for loss, row in zip(found, rows, strict=True):
        with torch.no_grad():
            alone = model(input_ids=torch.tensor([row["input_ids"]])).logits
        truth = torch.nn.functional.cross_entropy(alone, torch.tensor([row["labels"]]))
        assert loss == pytest.approx(float(truth), rel=1e-6)


def test_a_classifier_without_a_padding_token_is_refused() -> None:
    rows = [{"input_ids": [1, 2, 3], "labels": 0}, {"input_ids": [4, 5], "labels": 1}]
    with pytest.raises(InvalidInput, match="pad_token_id = None"):
        whence.from_transformers(llama_classifier(pad_token_id=None), rows)


def test_position_ids_are_passed_on_and_other_columns_are_not() -> None:
    model = gpt2()
    tokens = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    places = torch.tensor([[0, 1, 0, 1], [3, 2, 1, 0]])  # two texts packed, and one backwards
    rows = [
        {"input_ids": t, "position_ids": p, "text": "words", "idx": 5}
        for t, p in zip(tokens, places, strict=True)
    ]
    objective = whence.from_transformers(model, rows)
    with torch.no_grad():
        truth = model(input_ids=tokens, position_ids=places, use_cache=False).logits[:, :-1]
    torch.testing.assert_close(objective.outputs(objective.train), truth)


def own_loss(model: Any, **row: Any) -> float:
    """The model's own mean loss of one row, as the Trainer takes it."""
    batch = {name: torch.as_tensor(value)[None] for name, value in row.items()}
    with torch.no_grad():
        return float(model(**batch, use_cache=False).loss)


def test_packed_texts_do_not_see_each_other() -> None:
    model = gpt2()
    packed = {"input_ids": [1, 2, 3, 4, 5, 6], "position_ids": [0, 1, 2, 0, 1, 2]}
    other = {"input_ids": [7, 8, 9, 1], "position_ids": [0, 1, 0, 1]}  # padded to the same length
    first, second = losses(whence.from_transformers(model, [packed, other]))
    parts = [own_loss(model, input_ids=ids, labels=ids) * 2 for ids in ([1, 2, 3], [4, 5, 6])]
    assert first == pytest.approx(sum(parts), rel=1e-6)
    parts = [own_loss(model, input_ids=ids, labels=ids) for ids in ([7, 8], [9, 1])]
    assert second == pytest.approx(sum(parts), rel=1e-6)


def test_left_padding_counts_no_more_than_right_padding() -> None:
    model = gpt2()
    ids, mask, places = [0, 0, 1, 2, 3], [0, 0, 1, 1, 1], [0, 0, 0, 1, 2]
    left = {"input_ids": ids, "attention_mask": mask, "position_ids": places}
    right = {"input_ids": [1, 2, 3, 0, 0], "attention_mask": [1, 1, 1, 0, 0]}
    alone = own_loss(model, input_ids=[1, 2, 3], labels=[1, 2, 3]) * 2
    assert losses(whence.from_transformers(model, [left])) == pytest.approx([alone], rel=1e-6)
    assert losses(whence.from_transformers(model, [right])) == pytest.approx([alone], rel=1e-6)


@pytest.mark.parametrize("labels", [[1, 2, 3, 0, 0], [-100, -100, 3, -100, -100]])
def test_labels_that_are_given_count_as_the_model_counts_them(labels: list[int]) -> None:
    model = gpt2()
    row = {"input_ids": [1, 2, 3, 0, 0], "attention_mask": [1, 1, 1, 0, 0], "labels": labels}
    counted = sum(label != -100 for label in labels[1:])
    truth = own_loss(model, **row) * counted
    assert losses(whence.from_transformers(model, [row])) == pytest.approx([truth], rel=1e-6)


def test_several_labels_are_told_by_their_shape() -> None:
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**_SIZES, num_labels=3)).double().eval()
    rows = [{"input_ids": [1, 2, 3], "labels": [1.0, 0.0, 1.0]}]
    objective = whence.from_transformers(model, rows)
    labels = torch.tensor([[1.0, 0.0, 1.0]], dtype=torch.float64)
    with torch.no_grad():
        truth = float(model(input_ids=torch.tensor([[1, 2, 3]]), labels=labels).loss)
    assert losses(objective) == pytest.approx([3 * truth])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
def test_models_in_lower_precision_have_curvature_in_float32(dtype: torch.dtype) -> None:
    objective = whence.from_transformers(gpt2().to(dtype), _TEXTS)
    assert objective.params.dtype == torch.float32
    same = whence.from_transformers(gpt2().to(dtype).float(), _TEXTS)
    for solver in (whence.EKFAC(), whence.KFAC()):
        found, truth = (
            whence.influence(each, _TEXTS[:1], solver=solver) for each in (objective, same)
        )
        np.testing.assert_allclose(found.values, truth.values, rtol=1e-4)
        assert any(str(dtype) in note for note in found.diagnostics.notes)
    values = whence.self_influence(objective, solver=whence.EKFAC())
    assert np.isfinite(np.asarray(values)).all()


def test_labels_that_are_no_class_indices() -> None:
    rows = [{"input_ids": [1, 2, 3], "labels": 0.5}, {"input_ids": [4, 5, 6], "labels": -1.25}]
    with pytest.raises(InvalidInput, match="Got 0.5 in example 0. A regression has num_labels=1"):
        whence.from_transformers(bert(), rows)
    with pytest.raises(InvalidInput, match="numbers as labels. Got .*'good'"):
        whence.from_transformers(bert(), [{"input_ids": [1, 2], "labels": "good"}])
    whole = [{**row, "labels": float(i)} for i, row in enumerate(rows)]
    assert whence.from_transformers(bert(), whole).train.targets.tolist() == [0, 1]


def test_a_regression_keeps_its_labels() -> None:
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**_SIZES, num_labels=1)).double().eval()
    rows = [{"input_ids": [1, 2, 3], "labels": 0.5}, {"input_ids": [4, 5, 6], "labels": -1.25}]
    objective = whence.from_transformers(model, rows)
    for loss, row in zip(losses(objective), rows, strict=True):
        labels = torch.tensor([row["labels"]], dtype=torch.float64)
        with torch.no_grad():
            truth = model(input_ids=torch.tensor([row["input_ids"]]), labels=labels).loss
        assert loss == pytest.approx(float(truth) / 2)  # half the squared error


def test_several_labels_at_once() -> None:
    torch.manual_seed(0)
    config = BertConfig(**_SIZES, num_labels=3, problem_type="multi_label_classification")
    model = BertForSequenceClassification(config).double().eval()
    rows = [
        {"input_ids": [1, 2, 3], "labels": [1.0, 0.0, 1.0]},
        {"input_ids": [4, 5, 6], "labels": [0.0, 0.0, 1.0]},
    ]
    objective = whence.from_transformers(model, rows)
    for loss, row in zip(losses(objective), rows, strict=True):
        labels = torch.tensor([row["labels"]], dtype=torch.float64)
        with torch.no_grad():
            truth = model(input_ids=torch.tensor([row["input_ids"]]), labels=labels).loss
        assert loss == pytest.approx(3 * float(truth))  # a sum over labels


@pytest.mark.parametrize("kind", [BertForTokenClassification, BertForMaskedLM])
def test_a_label_for_each_token(kind: Any) -> None:
    torch.manual_seed(0)
    model = kind(BertConfig(**_SIZES)).double().eval()
    rows = [
        {"input_ids": [1, 2, 3], "labels": [0, -100, 1]},
        {"input_ids": [4, 5, 6, 7], "labels": [-100, 1, 1, 0]},
    ]
    for loss, row in zip(losses(whence.from_transformers(model, rows)), rows, strict=True):
        with torch.no_grad():
            truth = model(
                input_ids=torch.tensor([row["input_ids"]]), labels=torch.tensor([row["labels"]])
            ).loss
        counted = sum(label != -100 for label in row["labels"])
        assert loss == pytest.approx(counted * float(truth), rel=1e-6)


def test_images() -> None:
    torch.manual_seed(0)
    sizes = {key: _SIZES[key] for key in _SIZES if "vocab" not in key and "max" not in key}
    config = ViTConfig(**sizes, image_size=8, patch_size=4, num_labels=3)
    model = ViTForImageClassification(config).double().eval()
    rows = [{"pixel_values": torch.randn(3, 8, 8), "labels": i} for i in range(3)]
    for loss, row in zip(losses(whence.from_transformers(model, rows)), rows, strict=True):
        with torch.no_grad():
            pixels = row["pixel_values"].double().unsqueeze(0)  # type: ignore[attr-defined]
            truth = model(pixel_values=pixels, labels=torch.tensor([row["labels"]])).loss
        assert loss == pytest.approx(float(truth), rel=1e-6)


def test_one_row_is_a_query() -> None:
    objective = whence.from_transformers(gpt2(), _TEXTS, l2=0.01)
    several = objective.examples([_TEXTS[1]])
    for one in (_TEXTS[1], {"input_ids": torch.tensor(_TEXTS[1]["input_ids"])}):
        found = objective.examples(one)
        torch.testing.assert_close(found.inputs, several.inputs)
        torch.testing.assert_close(found.targets, several.targets)


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_a_transformer_is_trained_and_explained_by_the_same_rows(name: str) -> None:
    labeled = [{**text, "labels": i % 2} for i, text in enumerate(_TEXTS)]
    model, rows = (gpt2(), _TEXTS) if name == "gpt2" else (bert(), labeled)
    recipe = whence.Recipe(learning_rate=0.02, batch_size=2, epochs=2)
    run = whence.train(model, whence.CrossEntropy(), rows, recipe)
    assert type(run.model) is type(model)
    assert run.params.dtype == torch.float64
    objective = whence.from_transformers(run.model, rows)
    torch.testing.assert_close(objective.params, run.params)
    # Attention as the library chooses it differentiates once; the metagradient needs twice.
    predicted = whence.metagradient(run, rows[0]).values
    step = 1e-4
    weights = torch.ones(2, 4, dtype=torch.float64)
    weights[0, 1], weights[1, 1] = 1 - step, 1 + step
    ahead, behind = (
        float(fitted.loss(fitted.outputs(one), one.targets))
        for fitted in run.refits(weights)
        for one in [run.examples(rows[0])]
    )
    assert predicted[0, 1] == pytest.approx((ahead - behind) / (2 * step), rel=1e-5)
    assert whence.leave_one_out(run, [0, 1], rows[0]).shape == (1, 2)


def test_a_model_that_reads_padding_is_refused() -> None:
    class MeanForTokenClassification(torch.nn.Module):
        """Each token sees the mean of all, whatever the mask."""

        def __init__(self) -> None:
            super().__init__()
            self.config = SimpleNamespace(pad_token_id=0, num_labels=3)
            self.embed, self.head = torch.nn.Embedding(9, 4), torch.nn.Linear(4, 3)

        def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
            hidden = self.embed(input_ids)
            return SimpleNamespace(logits=self.head(hidden + hidden.mean(1, keepdim=True)))

    torch.manual_seed(0)
    model = MeanForTokenClassification()
    rows = [
        {"input_ids": [1, 2, 3, 4], "labels": [0, 1, 2, 0]},
        {"input_ids": [5, 6], "labels": [1, 2]},
    ]
    with pytest.raises(UnsupportedModel, match="depend on padding"):
        whence.from_transformers(model, rows)
    assert len(whence.from_transformers(model, rows[:1]).train) == 1


def test_packed_texts_of_trl_are_told_apart() -> None:
    texts = [[3, 4, 5, 6], [7, 8, 9]]
    packed = {
        "input_ids": [*texts[0], *texts[1]],
        "labels": [*texts[0], *texts[1]],
        "seq_lengths": [4, 3],
    }
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=12, hidden_size=8, intermediate_size=8, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=16, pad_token_id=0,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    apart = whence.from_transformers(model, [{"input_ids": text} for text in texts])
    one = whence.from_transformers(model, [packed])
    losses = [o.loss(o.outputs(o.train), o.train.targets).sum() for o in (apart, one)]
    torch.testing.assert_close(*losses)
