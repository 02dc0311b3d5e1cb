"""Models of the transformers library as objectives: language models and classifiers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from whence.adapters.torch import bound
from whence.checked import checked
from whence.errors import UnsupportedModel
from whence.network.examples import ModuleExamples, named_input
from whence.network.module import Selection
from whence.network.objective import ModuleObjective
from whence.network.transformers import IGNORED, Logits, Rows, Task, losses_left_out, task_of
from whence.objective.derived_losses import CallableLoss
from whence.objective.losses import CrossEntropy, Loss, SquaredError

_CLOSE = 1e-2  # of the largest output, between a text alone and padded


@checked
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

    Causal language models and encoder–decoders: ℓ is the sum over the tokens of −log p(token |
    those before), labels of −100 left out. The library averages over the tokens of a batch instead:
    a weight decay λ of a training on that mean is l2 = λ times the tokens of an average example.
    Masked language models and token classifiers: the sum over the labeled tokens. Classifiers of
    sequences and images: the cross entropy of the label; half the squared error where the model has
    one output, and the sum of the binary cross entropies where its `problem_type` is
    "multi_label_classification", or where it has none and labels are a row of numbers.

    Args:
        model: A `…ForCausalLM`, `…ForMaskedLM`, `…ForTokenClassification`, `…ForSeq2SeqLM`,
            `…ForConditionalGeneration`, `…ForSequenceClassification` or
            `…ForImageClassification`, also with adapters of the library peft, in eval mode; it is
            copied.
        dataset: Examples as dicts with "input_ids" or "pixel_values", and whatever else the model
            takes by name, such as "attention_mask" and "position_ids"; other columns are not read.
            "labels" are needed but for causal language models, where they default to the tokens:
            padding, the token after it and the first token of a packed text (one whose
            "position_ids" begin again, without a mask) then have none. Labels that are given count
            as the model's own loss counts them, so mark padding by −100. A Hugging Face data set, a
            list of dicts, or a dict of batches. Texts of different lengths are padded at the end
            with the model's own `pad_token_id`; before the text where a classifier needs that.
        task: "causal", "tokens", "seq2seq" or "classification"; told by the model's class if
            `None`.
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
        UnsupportedModel: If the model's task is another, or its answers depend on padding, before
            the text or after it.

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
    model = getattr(model, "_orig_mod", model)  # of torch.compile
    chosen = task or task_of(model)
    if chosen is None:
        raise UnsupportedModel(
            "Expected a model for causal, masked or sequence-to-sequence language modeling, or for "
            "the classification of sequences, tokens or images. Got "
            f"{type(model).__name__}. Pass task=, the model itself where it is wrapped "
            "(model.module), or a module of your own to whence.from_torch."
        )
    rows = Rows.of(model, chosen)

    def read(rows: Rows) -> ModuleObjective:
        objective = bound(
            Logits(model, chosen),
            lambda train: _loss(chosen, rows, model, train),
            dataset,
            l2=l2,
            params=_inner(model, params),
            weights=weights,
            batch_size=batch_size,
            classes=tuple(classes),
            rows=rows,
        )
        return replace(objective, notes=(*objective.notes, *losses_left_out(model)))

    found = read(rows)
    # Where each token sees those before it, padding after them is never seen.
    if chosen in ("causal", "seq2seq") or _alike_padded(found):
        return found
    left = read(replace(rows, left=True)) if chosen == "classification" else found
    masks = (each.train.inputs["attention_mask"] for each in (found, left))
    if chosen == "classification" and torch.equal(*masks):
        return found  # the user's own padding, as in training
    if chosen == "classification" and _alike_padded(left):
        return left
    raise UnsupportedModel(
        "Expected a model whose answer to a text does not depend on padding that its "
        "attention_mask hides. Got one that answers otherwise to a padded text than to the text "
        "alone. Pass texts of one length, padded as in training."
    )


def _alike_padded(objective: ModuleObjective) -> bool:
    """Return whether the shortest text has the same outputs alone as among longer ones."""
    mask = named_input(objective.train.inputs, "attention_mask")
    if mask is None or mask.ndim != 2 or bool(mask.all()):
        return True
    lengths = (mask != 0).sum(1)
    at = int(lengths.argmin())
    places = mask[at].nonzero()[:, 0]
    first, last = int(places[0]), int(places[-1]) + 1
    if last - first != len(places):
        return True  # a mask of the user's own
    one = objective.train.subset(np.array([at])).inputs
    long = mask.shape[1]
    cut = {
        name: part[:, first:last] if part.ndim > 1 and part.shape[1] == long else part
        for name, part in one.items()
    }
    with torch.no_grad():
        padded, alone = (objective.run(objective.params, each) for each in (one, cut))
    if padded.ndim == 3:
        padded = padded[:, first : first + alone.shape[1]]
    close = _CLOSE * float(alone.abs().max())
    return padded.shape == alone.shape and bool((padded - alone).abs().max() <= close)


def _inner(model: nn.Module, params: Selection | None) -> set[str]:
    """Return the selected parameters by their names inside the wrapped model."""
    named = dict(model.named_parameters())
    if params is None:
        names = {name for name, parameter in named.items() if parameter.requires_grad}
    elif callable(params):
        names = {name for name, parameter in named.items() if params(name, parameter)}
    else:
        names = {params} if isinstance(params, str) else set(params)
    return {f"model.{name}" for name in names}


def _loss(task: Task, rows: Rows, model: nn.Module, train: ModuleExamples) -> Loss:
    """Return the loss that a task is trained with, chosen as the model's own forward pass does."""
    if task != "classification":
        return CrossEntropy(ignore_index=IGNORED)
    kind = getattr(model.config, "problem_type", None)
    if kind == "regression" or (kind is None and rows.labels == 1):
        return SquaredError()
    if kind == "multi_label_classification" or (kind is None and train.targets.ndim == 2):
        return CallableLoss(_multi_label)
    return CrossEntropy(ignore_index=IGNORED)


def _multi_label(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the sum over labels of the binary cross entropies, [b]."""
    each = functional.binary_cross_entropy_with_logits(
        outputs, targets.to(outputs.dtype), reduction="none"
    )
    return each.sum(1)
