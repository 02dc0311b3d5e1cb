"""Models of the transformers library as modules that return logits, and their rows as tensors.

Nothing is imported from that library: classes are told by their names.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from whence.errors import InvalidInput
from whence.network.numbers import numbers

Task = Literal["causal", "tokens", "classification", "seq2seq"]

IGNORED = -100  # the label of a position without a loss
_TASKS: dict[str, Task] = {
    "ForCausalLM": "causal",
    "LMHeadModel": "causal",
    "ForSeq2SeqLM": "seq2seq",
    "MTModel": "seq2seq",
    "ForMaskedLM": "tokens",
    "ForTokenClassification": "tokens",
    "ForSequenceClassification": "classification",
    "ForImageClassification": "classification",
}
_LABELS = ("labels", "label")
_PROMPTS = ("PROMPT_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING")  # of peft: before the tokens
_MAIN = ("input_ids", "inputs_embeds", "pixel_values", "input_features", "input_values")


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
        self.task = task
        # As in training: a cache of keys costs memory, and hides packed texts from the attention.
        self.options = {"use_cache": False} if "use_cache" in _taken(model) else {}
        self.prompted = _prompted(model)
        self.training = model.training

    def forward(self, **batch: Tensor) -> Tensor:
        """Return [b, c], or [b, t, c]; [b, t − 1, c] for causal language models.

        With a tuned prompt these answer each token too, the first from the prompt: [b, t, c].
        """
        pooled = self.task == "classification" and hasattr(_inner(self.model), "score")
        if pooled and self.prompted and "attention_mask" in batch:
            return self._of_last(batch)
        logits: Tensor = self.model(**batch, **self.options).logits
        if self.task not in ("causal", "tokens"):
            return logits
        main = next(batch[name] for name in _MAIN if name in batch)
        if self.task == "causal" and self.prompted:
            return logits[:, -main.shape[1] - 1 : -1]
        own = logits[:, -main.shape[1] :]  # without the tokens of a tuned prompt
        return own[:, :-1] if self.task == "causal" else own

    def _of_last(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the logits of each text's last token, [b, c], as of the text alone.

        Behind a tuned prompt a decoder sees no token ids, and takes the last place of the batch.
        """
        every: list[Tensor] = []
        score = _inner(self.model).get_submodule("score")
        with score.register_forward_hook(lambda module, inputs, found: every.append(found)):
            self.model(**batch, **self.options)
        mask = batch["attention_mask"]
        places = torch.arange(1, mask.shape[1] + 1, device=mask.device)
        last = (places * (mask != 0)).argmax(1)[:, None, None]
        own = every[-1][:, -mask.shape[1] :]
        return own.gather(1, last.expand(-1, 1, own.shape[2])).squeeze(1)


@singledispatch
def users_module(module: nn.Module) -> nn.Module:
    """Return the module that a user passed.

    Args:
        module: It, or what it is wrapped in.
    """
    return module


@users_module.register
def _(module: Logits) -> nn.Module:
    return module.model


def _taken(model: nn.Module) -> frozenset[str]:
    """Return what a model takes by name, also where adapters of the library peft wrap it."""
    return frozenset(
        name
        for each in (model, _inner(model))
        for name in inspect.signature(each.forward).parameters
    )


def _inner(model: nn.Module) -> nn.Module:
    """Return a model without the adapters that wrap it."""
    inner: nn.Module = getattr(model, "get_base_model", lambda: model)()
    return inner


def _prompted(model: nn.Module) -> bool:
    """Return whether a tuned prompt of the library peft stands before the tokens."""
    return getattr(getattr(model, "active_peft_config", None), "peft_type", "") in _PROMPTS


def task_of(model: nn.Module) -> Task | None:
    """Return what a model is for, by the name of its class; `None` for any other module.

    Args:
        model: Any module; adapters of the library peft that name no task have the inner model's.
    """
    model = _inner(model)
    name = type(model).__name__
    known = hasattr(model, "config")
    if known and name.endswith("ForConditionalGeneration"):
        return "seq2seq" if getattr(model.config, "is_encoder_decoder", False) else "causal"
    return next((task for end, task in _TASKS.items() if known and name.endswith(end)), None)


def losses_left_out(model: nn.Module) -> tuple[str, ...]:
    """Return what a model's own `loss` has besides the losses of its examples, a sentence each.

    Args:
        model: Any module, also with adapters of the library peft.
    """
    adapter, config = getattr(model, "active_peft_config", None), getattr(model, "config", None)
    balances = getattr(config, "output_router_logits", False)
    added = {
        "penalty that keeps AdaLoRA's matrices orthogonal (orth_reg_weight": getattr(
            adapter, "orth_reg_weight", 0
        ),
        "loss that balances its experts (router_aux_loss_coef": balances
        and getattr(config, "router_aux_loss_coef", 0),
    }
    return tuple(
        f"The model's own loss adds the {term} = {weight:g}), which is left out here."
        for term, weight in added.items()
        if weight
    )


@final
@dataclass(frozen=True)
class Rows:
    """Turns tokenized examples of different lengths into tensors, padded at the end.

    Args:
        task: What the model is for.
        inputs: What its forward pass takes, by name; other columns are not read.
        pad: The model's own padding token, or `None` if it has none.
        labels: The number of its outputs, or `None` where it is not known.
        start: What a decoder begins with, or `None`.
        wraps: Whether it begins with the last token of the answer: a language's, as of MBart.
        left: Whether padding stands before the tokens.
        prompted: Whether a tuned prompt does, from which the first token is predicted.
    """

    task: Task
    inputs: frozenset[str]
    pad: int | None
    labels: int | None
    start: int | None = None
    wraps: bool = False
    left: bool = False
    prompted: bool = False

    @classmethod
    def of(cls, model: nn.Module, task: Task) -> Rows:
        """Return what reads the rows of a model.

        Args:
            model: The model.
            task: What it is for.
        """
        config = getattr(model, "config", None)
        inner = config if hasattr(config, "pad_token_id") else getattr(config, "text_config", None)
        return cls(
            task=task,
            inputs=_taken(model) - {*_LABELS},
            pad=getattr(inner, "pad_token_id", None),
            labels=getattr(config, "num_labels", None),
            start=getattr(config, "decoder_start_token_id", None),
            wraps=task == "seq2seq" and _wraps(model),
            prompted=_prompted(model),
        )

    def __call__(self, rows: list[Mapping[str, Any]]) -> tuple[dict[str, Tensor], Tensor]:
        """Return the inputs of a batch by name, and its targets."""
        if self.task == "causal":
            rows = [_unpacked(row) for row in rows]
        names = [name for name in rows[0] if name in self.inputs]
        if not any(name in names for name in _MAIN):
            raise InvalidInput(
                f"Expected examples with 'input_ids'. Got {', '.join(map(str, rows[0]))}. "
                "Tokenize the texts first; an index takes texts with tokenizer=."
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
        # Without a mask, a causal model tells packed texts apart by their positions.
        packed = self.task == "causal" and "position_ids" in columns
        if "input_ids" in columns and "attention_mask" not in inputs and not packed:
            ones = [torch.ones_like(part) for part in columns["input_ids"]]
            inputs["attention_mask"] = _pad(ones, 0, self.left)
        if self.task == "classification":
            return inputs, self._classes(rows)
        targets = self._tokens(rows, inputs)
        if self.task == "seq2seq" and "decoder_input_ids" not in inputs:
            inputs["decoder_input_ids"] = self._shifted(targets)
        return inputs, targets

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
        return _pad(parts, 0 if fill is None else fill, self.left)

    def _tokens(self, rows: list[Mapping[str, Any]], inputs: Mapping[str, Tensor]) -> Tensor:
        """Return a target for each token: the labels as they are given, or the tokens themselves.

        Where the tokens are the targets, padding and what follows it have none, nor has the first
        token of a packed text.
        """
        key = _label(rows[0])
        if key is None and self.task != "causal":
            raise InvalidInput("Expected examples with 'labels', one per token. Got none.")
        labels = _pad([numbers("label", row[key or "input_ids"]) for row in rows], IGNORED)
        if self.task != "causal":
            return labels
        if not self.prompted:
            labels = labels[:, 1:]
        if key is not None:
            return labels
        mask, places = inputs.get("attention_mask"), inputs.get("position_ids")
        if self.prompted:
            mask = mask if mask is None else torch.cat([torch.ones_like(mask[:, :1]), mask], 1)
            places = places if places is None else torch.cat([places[:, :1] - 1, places], 1)
        if mask is not None and mask.ndim == 2:
            labels = labels.masked_fill((mask[:, 1:] == 0) | (mask[:, :-1] == 0), IGNORED)
        elif places is not None and places.ndim == 2:
            labels = labels.masked_fill(places.diff(dim=1) != 1, IGNORED)
        return labels

    def _shifted(self, targets: Tensor) -> Tensor:
        """Return what a decoder reads before each target: the start, then the targets, [b, t]."""
        if (self.start is None and not self.wraps) or self.pad is None:
            raise InvalidInput(
                "Expected 'decoder_input_ids' in the examples, or a model whose config has "
                "decoder_start_token_id and pad_token_id. Got neither."
            )
        if self.wraps:
            filled = targets.masked_fill(targets == IGNORED, self.pad)
            first = filled.gather(1, (filled != self.pad).sum(1, keepdim=True).clamp_min(1) - 1)
        else:
            first = targets.new_full((len(targets), 1), self.start or 0)
        before = torch.cat([first, targets[:, :-1]], 1)
        return before.masked_fill(before == IGNORED, self.pad)

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


def _unpacked(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a row whose texts begin where its lengths say, as the library trl packs them.

    Positions begin again at each text, and the first token of a text is no answer to the one
    before it.
    """
    if "seq_lengths" not in row or "position_ids" in row:
        return row
    lengths = numbers("'seq_lengths' value", row["seq_lengths"]).tolist()
    places = torch.cat([torch.arange(length) for length in lengths])
    found = {name: value for name, value in row.items() if name != "attention_mask"}
    key = _label(row)
    if key is not None:
        labels = numbers("label", row[key])
        found[key] = labels.masked_fill(places == 0, IGNORED)
    return {**found, "position_ids": places}


def _wraps(model: nn.Module) -> bool:
    """Return whether a decoder begins with the last token of the answer, as the model says."""
    shift = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    if shift is None:
        return False
    try:
        return bool(shift(labels=torch.tensor([[4, 5, 6]]))[0, 0] == 6)
    except (ValueError, TypeError, RuntimeError):  # it does not know what it begins with
        return False


def _pad(parts: list[Tensor], fill: int, left: bool = False) -> Tensor:
    """Return rows of different lengths as one tensor, filled at the end, or before the tokens."""
    if left:
        return _pad([part.flip(0) for part in parts], fill).flip(1)
    return nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=fill)
