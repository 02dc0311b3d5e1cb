"""Sequences of tokens as a page shows them: each token a text, with its part of the effect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import singledispatch
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.methods.method import Method
from whence.methods.prediction import Floats, MeasureLike
from whence.methods.tokens import influence_by_token
from whence.objective.losses import CrossEntropy
from whence.objective.objective import objective_of
from whence.objective.trained import Examples, Trained

Decode: TypeAlias = Callable[[list[int]], str]  # such as a tokenizer's decode


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
    numbers = tokens.tolist()
    if decode is None:
        return tuple(f"{number} " for number in numbers)
    return tuple(decode([number]) for number in numbers)


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
    loss = trained.loss
    if not isinstance(loss, CrossEntropy) or target.ndim != 1 or target.is_floating_point():
        return None
    return int((target != loss.ignore_index).sum())


def parts_of(
    trained: Trained,
    query: Examples,
    where: NDArray[np.intp],
    *,
    measure: MeasureLike,
    method: Method,
) -> list[Floats]:
    """Return which part of each example's effect comes from each of its tokens, first order.

    Args:
        trained: A sequence model on tokens.
        query: One query.
        where: Positions of the examples, [k].
        measure: What is predicted.
        method: What is split.

    Returns:
        One array per example, one number per token that is shown; where the targets are the
        tokens after the first, the first has no part.
    """
    found = influence_by_token(
        objective_of(trained), query, measure=measure, indices=where, method=method
    ).values[0]
    shown = trained.train.subset(where)
    ids = _ids(shown)
    assert ids is not None
    length, parts = ids.shape[1], []
    for index, values in enumerate(found):
        each = np.concatenate([np.zeros(length - len(values)), values])
        kept = _kept(shown, index)
        parts.append(each if kept is None else each[kept])
    return parts


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
