"""Models of the transformers library as modules that return logits, and their rows as tensors.

Nothing is imported from that library: classes are told by their names.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from whence.errors import InvalidInput
from whence.network.numbers import numbers

Task = Literal["causal", "tokens", "classification"]

IGNORED = -100  # the label of a position without a loss
_TASKS: dict[str, Task] = {
    "ForCausalLM": "causal",
    "LMHeadModel": "causal",
    "ForMaskedLM": "tokens",
    "ForTokenClassification": "tokens",
    "ForSequenceClassification": "classification",
    "ForImageClassification": "classification",
}
_LABELS = ("labels", "label")


@final
class Logits(nn.Module):
    """A transformer as a module from a batch to its logits; the last token predicts nothing."""

    def __init__(self, model: nn.Module, task: Task) -> None:
        """Wrap a model, in its own mode.

        Args:
            model: A model whose result has `logits`.
            task: What it is for.
        """
        super().__init__()
        self.model = model
        self.causal = task == "causal"
        self.training = model.training

    def forward(self, **batch: Tensor) -> Tensor:
        """Return [b, c], or [b, t, c]; [b, t − 1, c] for causal language models."""
        logits: Tensor = self.model(**batch).logits
        return logits[:, :-1] if self.causal else logits


def task_of(model: nn.Module) -> Task | None:
    """Return what a model is for, by the name of its class; `None` for any other module.

    Args:
        model: Any module.
    """
    name = type(model).__name__
    known = hasattr(model, "config")
    return next((task for end, task in _TASKS.items() if known and name.endswith(end)), None)


@final
@dataclass(frozen=True)
class Rows:
    """Turns tokenized examples of different lengths into tensors, padded at the end.

    Args:
        task: What the model is for.
        inputs: What its forward pass takes, by name; other columns are not read.
        pad: The model's own padding token, or `None` if it has none.
        labels: The number of its outputs, or `None` where it is not known.
    """

    task: Task
    inputs: frozenset[str]
    pad: int | None
    labels: int | None

    @classmethod
    def of(cls, model: nn.Module, task: Task) -> Rows:
        """Return what reads the rows of a model.

        Args:
            model: The model.
            task: What it is for.
        """
        config = getattr(model, "config", None)
        inner = config if hasattr(config, "pad_token_id") else getattr(config, "text_config", None)
        parameters = inspect.signature(model.forward).parameters
        return cls(
            task=task,
            inputs=frozenset(parameters) - {*_LABELS},
            pad=getattr(inner, "pad_token_id", None),
            labels=getattr(config, "num_labels", None),
        )

    def __call__(self, rows: list[Mapping[str, Any]]) -> tuple[dict[str, Tensor], Tensor]:
        """Return the inputs of a batch by name, and its targets."""
        names = [name for name in rows[0] if name in self.inputs]
        if not any(name in names for name in ("input_ids", "inputs_embeds", "pixel_values")):
            raise InvalidInput(
                f"Expected examples with 'input_ids'. Got {', '.join(map(str, rows[0]))}. "
                "Tokenize the texts first."
            )
        for name in names:
            missing = next((i for i, row in enumerate(rows) if name not in row), None)
            if missing is not None:
                raise InvalidInput(
                    f"Expected {name!r} in every example, as in the first. Got none in example "
                    f"{missing}."
                )
        columns = {name: [numbers(f"{name!r} value", row[name]) for row in rows] for name in names}
        inputs = {name: self._padded(parts, name) for name, parts in columns.items()}
        if "input_ids" in columns and "attention_mask" not in inputs:
            ones = [torch.ones_like(part) for part in columns["input_ids"]]
            inputs["attention_mask"] = _pad(ones, 0)
        if self.task == "classification":
            return inputs, self._classes(rows)
        return inputs, self._tokens(rows, inputs)

    def _padded(self, parts: list[Tensor], name: str) -> Tensor:
        """Return one input of all rows as one tensor."""
        if len({part.shape for part in parts}) == 1:
            return torch.stack(parts)
        fill = self.pad if name == "input_ids" else 0
        if fill is None and self.task == "classification":
            raise InvalidInput(
                "Expected a model that knows its padding token, for texts of different lengths. "
                "Got config.pad_token_id = None. Set it to the token that the model was trained "
                "with."
            )
        return _pad(parts, 0 if fill is None else fill)

    def _tokens(self, rows: list[Mapping[str, Any]], inputs: Mapping[str, Tensor]) -> Tensor:
        """Return a target for each token; padding has none."""
        key = _label(rows[0])
        if key is None and self.task == "tokens":
            raise InvalidInput("Expected examples with 'labels', one per token. Got none.")
        labels = _pad([numbers("label", row[key or "input_ids"]) for row in rows], IGNORED)
        mask = inputs.get("attention_mask")
        if mask is not None and mask.shape == labels.shape:
            labels = labels.masked_fill(mask == 0, IGNORED)
        return labels[:, 1:] if self.task == "causal" else labels

    def _classes(self, rows: list[Mapping[str, Any]]) -> Tensor:
        """Return a class index for each row, a number for a regression, or 0 and 1 per label."""
        key = _label(rows[0])
        if key is None:
            raise InvalidInput("Expected examples with 'labels'. Got none. Add the class index.")
        labels = torch.stack([numbers("label", row[key]) for row in rows])
        if self.labels == 1 or labels.ndim > 1:
            return labels.float() if not labels.is_floating_point() else labels
        if not bool((labels == labels.round()).all()):
            at = int((labels != labels.round()).nonzero()[0, 0])
            raise InvalidInput(
                f"Expected class indices as labels of a model with {self.labels} outputs. Got "
                f"{float(labels[at])} in example {at}. A regression has num_labels=1."
            )
        return labels.long()


def _label(row: Mapping[str, Any]) -> str | None:
    """Return the name of the labels in a row, or `None`."""
    return next((name for name in _LABELS if name in row), None)


def _pad(parts: list[Tensor], fill: int) -> Tensor:
    """Return rows of different lengths as one tensor, filled at the end."""
    return nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=fill)
