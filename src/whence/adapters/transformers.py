"""Models of the transformers library as objectives: language models and sequence classifiers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from whence.adapters.torch import Selection, from_torch
from whence.errors import InvalidInput, UnsupportedModel
from whence.network.objective import ModuleObjective
from whence.objective.losses import CrossEntropy

Task = Literal["causal", "classification"]

_IGNORED = -100
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def from_transformers(
    model: nn.Module,
    dataset: Any,
    *,
    task: Task | None = None,
    l2: float = 0.0,
    params: Selection | None = None,
    weights: Any = None,
    batch_size: int | None = None,
    classes: Collection[Any] = (),
) -> ModuleObjective:
    """Return a fine-tuned transformer, with the data it was tuned on, as its objective.

    Causal language models: ℓ is the sum over the tokens of −log p(token | those before), padding
    and labels of −100 left out. Sequence classifiers: ℓ is the cross entropy of the label.

    Args:
        model: A `…ForCausalLM` or `…ForSequenceClassification`, in eval mode; it is copied.
        dataset: Examples as dicts with "input_ids" and, where there is padding, "attention_mask";
            "labels" are needed for classification, and for language models default to the tokens.
            A Hugging Face data set, a list of dicts of different lengths, or a dict of batches.
        task: "causal" or "classification"; told by the model's class if `None`.
        l2: The penalty >= 0 on every selected parameter.
        params: Names of parameters, or a function (name, parameter) -> bool, in the model's own
            names; all that require a gradient if `None`.
        weights: wᵢ >= 0, [n]; 1 if `None`.
        batch_size: Sequences differentiated at once: time and memory, not the answer, depend on it;
            chosen by the size of the model's activations if `None`.
        classes: Names of the classes, for reports.

    Returns:
        The objective. Queries have the form of the data set.

    Raises:
        InvalidInput: If the data lack what the task needs.
        UnsupportedModel: If the model's task is neither.

    Cost:
        A few passes over eight examples. Linear layers, Conv1D, embeddings and norms factor.

    References:
        Grosse et al. (2023), "Studying Large Language Model Generalization with Influence
        Functions", section 2.

    Examples:
        >>> import torch, whence
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> config = GPT2Config(vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=2)
        >>> model = GPT2LMHeadModel(config).eval()
        >>> texts = [{"input_ids": [1, 2, 3]}, {"input_ids": [4, 5, 6, 7]}]
        >>> objective = whence.from_transformers(model, texts)
        >>> len(objective.train), objective.train.targets.tolist()[0]
        (2, [2, 3, -100])
    """
    chosen = task or _task(model)
    prefix = "model."
    inner = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    named = dict(model.named_parameters())
    if callable(params):
        inner = {name for name, parameter in named.items() if params(name, parameter)}
    elif params is not None:
        inner = {params} if isinstance(params, str) else set(params)
    objective = from_torch(
        _Logits(model, chosen == "causal"),
        CrossEntropy(ignore_index=_IGNORED),
        _batch(dataset, chosen),
        l2,
        {prefix + name for name in inner},
        weights=weights,
        batch_size=batch_size,
        classes=classes,
    )
    encode = objective.encode
    return replace(objective, encode=lambda data: encode(_batch(data, chosen)))


class _Logits(nn.Module):
    """A transformer as a module from a batch to its logits; the last token predicts nothing."""

    def __init__(self, model: nn.Module, causal: bool) -> None:
        super().__init__()
        self.model = model
        self.causal = causal
        self.train(model.training)

    def forward(self, **batch: Tensor) -> Tensor:
        """Return [b, c], or [b, t − 1, vocabulary]."""
        logits: Tensor = self.model(**batch).logits
        return logits[:, :-1] if self.causal else logits


def _task(model: nn.Module) -> Task:
    """Return what a model is for, by the name of its class."""
    name = type(model).__name__
    if name.endswith(("ForCausalLM", "LMHeadModel")):
        return "causal"
    if name.endswith("ForSequenceClassification"):
        return "classification"
    raise UnsupportedModel(
        "Expected a model for causal language modeling or sequence classification. "
        f"Got {name}. Pass task=, or wrap the model and use whence.from_torch."
    )


def _batch(dataset: Any, task: Task) -> tuple[dict[str, Tensor], Tensor]:
    """Return a data set as padded tensors and targets."""
    if isinstance(dataset, tuple) and len(dataset) == 2:
        inputs, targets = dataset
        return dict(inputs), torch.as_tensor(targets)
    rows = _rows(dataset)
    if not rows:
        raise InvalidInput("Expected at least one example. Got none.")
    if "input_ids" not in rows[0]:
        raise InvalidInput(
            f"Expected examples with 'input_ids'. Got {', '.join(map(str, rows[0]))}. "
            "Tokenize the texts first."
        )
    masks = [row.get("attention_mask", torch.ones(len(row["input_ids"]))) for row in rows]
    inputs = {
        name: _padded([row[name] for row in rows], 0)
        for name in _INPUTS
        if name in rows[0] and name != "attention_mask"
    }
    inputs["attention_mask"] = _padded(masks, 0)
    if task == "classification":
        key = next((name for name in ("labels", "label") if name in rows[0]), None)
        if key is None:
            raise InvalidInput("Expected examples with 'labels'. Got none. Add the class index.")
        return inputs, torch.as_tensor([int(row[key]) for row in rows])
    labels = _padded([row.get("labels", row["input_ids"]) for row in rows], _IGNORED)
    labels = labels.masked_fill(inputs["attention_mask"] == 0, _IGNORED)
    return inputs, labels[:, 1:]


def _rows(dataset: Any) -> list[Mapping[str, Any]]:
    """Return a data set as a list of dicts, one per example."""
    if isinstance(dataset, Mapping):
        n = len(dataset["input_ids"]) if "input_ids" in dataset else 0
        return [{name: values[i] for name, values in dataset.items()} for i in range(n)]
    return [dataset[i] for i in range(len(dataset))]


def _padded(rows: list[Any], fill: int) -> Tensor:
    """Return rows of different lengths as one tensor of integers, filled at the end."""
    tensors = [torch.as_tensor(row).long() for row in rows]
    return nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=fill)
