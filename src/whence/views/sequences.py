"""Sequences of tokens as a page shows them: each token a text, with its part of the effect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import singledispatch
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.arrays import Floats
from whence.methods.features import Side
from whence.methods.method import Method
from whence.methods.prediction import MeasureLike
from whence.methods.tokens import influence_by_token
from whence.objective.losses import CrossEntropy
from whence.objective.objective import objective_of
from whence.objective.trained import Examples, Trained

Decode: TypeAlias = Callable[[list[int]], str]  # such as a tokenizer's decode

_ARROW = " → "  # between a text and the answer to it, where they are two


def pieces_of(examples: Examples, index: int, decode: Decode | None) -> tuple[str, ...]:
    """Return the tokens of one example as texts, padding left out.

    Args:
        examples: The examples it is one of.
        index: Its position among them.
        decode: From token numbers to text; the numbers themselves if `None`.

    Returns:
        One text per token; none where the inputs are not tokens.
    """
    tokens = _tokens(examples, index)
    if tokens is None:
        return ()
    pieces = _texts(tokens.tolist(), decode)
    target = _separate(examples, index)
    return pieces if target is None else (*pieces, _ARROW, *_texts(target.tolist(), decode))


def is_sequence(trained: Trained) -> bool:
    """Return whether a model answers each token of its input: its outputs are [b, t, c].

    Args:
        trained: The model.

    Returns:
        True for language models.
    """
    return trained.outputs(trained.train.subset(np.arange(1))).ndim == 3


def counted(trained: Trained, target: Tensor) -> int | None:
    """Return how many tokens of a sequence have a loss; `None` where the target is no sequence.

    Args:
        trained: The model, which knows the loss.
        target: One encoded target.

    Returns:
        The number of tokens.
    """
    if target.ndim != 1 or target.is_floating_point():
        return None
    has = _predicted(trained, target)
    return None if has is None else int(has.sum())


def answered(trained: Trained, examples: Examples, index: int) -> NDArray[np.bool_]:
    """Return which tokens of an example, as they are shown, are predicted: what it answers.

    Args:
        trained: A sequence model on tokens, which knows the loss.
        examples: The examples it is one of.
        index: Its position among them.

    Returns:
        One value per token that is shown.
    """
    target = examples.targets[index]
    has = _predicted(trained, target)
    has = torch.ones_like(target) if has is None else has
    return placed(examples, index, has.cpu().numpy().astype(np.float64)) > 0


def _predicted(trained: Trained, target: Tensor) -> Tensor | None:
    """Return which tokens of a target have a loss; `None` where the loss knows no tokens."""
    loss = trained.loss
    return target != loss.ignore_index if isinstance(loss, CrossEntropy) else None


def parts_of(
    trained: Trained,
    query: Examples,
    where: NDArray[np.intp],
    *,
    measure: MeasureLike,
    method: Method,
    side: Side = "training",
) -> list[Floats]:
    """Return which part of each example's effect comes from each token, first order.

    Args:
        trained: A sequence model on tokens.
        query: One query.
        where: Positions of the examples, [k].
        measure: What is predicted.
        method: What is split.
        side: Whose tokens: the "training" example's, or the "query"'s.

    Returns:
        One array per example, one number per token that is shown of it, or of the query; tokens
        that are not predicted, such as the first, have no part.

    Raises:
        UnsupportedModel: If the method knows no parts of that side.
    """
    found = influence_by_token(
        objective_of(trained), query, side=side, measure=measure, indices=where, method=method
    ).values[0]
    if side == "query":
        return [placed(query, 0, values) for values in found]
    shown = trained.train.subset(where)
    return [placed(shown, index, values) for index, values in enumerate(found)]


def placed(examples: Examples, index: int, values: Floats) -> Floats:
    """Return numbers of an example's targets as numbers of the tokens that are shown.

    Args:
        examples: The examples it is one of.
        index: Its position among them.
        values: A number per target, [t].
    """
    ids, kept = _ids(examples), _kept(examples, index)
    assert ids is not None
    if (target := _answer(examples, index)) is not None:
        before = int(ids.shape[1] if kept is None else kept.sum()) + 1  # and what stands between
        return np.concatenate([np.zeros(before), values[target]])
    # Where the targets are the tokens after the first, the first has none.
    each = np.concatenate([np.zeros(ids.shape[1] - len(values)), values])
    return each if kept is None else each[kept]


def _texts(numbers: list[int], decode: Decode | None) -> tuple[str, ...]:
    """Return tokens as texts, each with the space that stands before it.

    Many tokenizers drop the space before the first token that they are given: what the token
    before it leaves of both is this one's.
    """
    if decode is None:
        return tuple(f"{number} " for number in numbers)
    decode = getattr(decode, "decode", decode)  # of a tokenizer itself
    alone = [decode([number]) for number in numbers]
    found = alone[:1]
    for before, own, pair in zip(alone, alone[1:], pairwise(numbers), strict=False):
        both = decode(list(pair))
        found.append(both[len(before) :] if both.startswith(before) else own)
    return tuple(found)


def _answer(examples: Examples, index: int) -> NDArray[np.bool_] | None:
    """Return which targets of an example are tokens of a text of its own, [t]; else `None`."""
    if _part(examples.inputs, "decoder_input_ids") is None:
        return None
    found: NDArray[np.bool_] = (examples.targets[index] >= 0).cpu().numpy()
    return found


def _separate(examples: Examples, index: int) -> Tensor | None:
    """Return the tokens of an example's answer where it is a text of its own."""
    has = _answer(examples, index)
    return None if has is None else examples.targets[index].cpu()[torch.from_numpy(has)]


def _ids(examples: Examples) -> Tensor | None:
    """Return the token numbers [b, t], or `None` where the inputs are not tokens."""
    return _numbers(_part(examples.inputs, "input_ids"))


@singledispatch
def _part(inputs: Any, name: str) -> Any:
    """Return a part of the inputs that has a name; inputs without names are token numbers."""
    return inputs if name == "input_ids" else None


@_part.register(Mapping)
def _named_part(inputs: Mapping[str, Any], name: str) -> Any:
    return inputs.get(name)


@singledispatch
def _numbers(ids: Any) -> Tensor | None:
    """Return inputs that are token numbers, [b, t]."""
    return None


@_numbers.register(Tensor)
def _whole_numbers(ids: Tensor) -> Tensor | None:
    return ids if ids.ndim == 2 and not ids.is_floating_point() else None


def _kept(examples: Examples, index: int) -> NDArray[np.bool_] | None:
    """Return which tokens of an example are no padding, [t]; `None` for all."""
    mask = _part(examples.inputs, "attention_mask")
    if mask is None:
        return None
    kept: NDArray[np.bool_] = (mask[index] != 0).cpu().numpy()
    return kept


def _tokens(examples: Examples, index: int) -> Tensor | None:
    """Return one example's token numbers without padding, or `None`."""
    ids = _ids(examples)
    if ids is None:
        return None
    kept = _kept(examples, index)
    return ids[index] if kept is None else ids[index][torch.from_numpy(kept).to(ids.device)]
