"""Checks of a model and its loss before anything is differentiated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import singledispatch
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._pytree import tree_leaves, tree_map

from whence.errors import InvalidInput, NotDeterministic, UnsupportedModel, WhenceError
from whence.network.examples import ModuleExamples
from whence.objective.losses import Loss

_PART = 2**18  # outputs that are compared at once: 1 MB of float32
_HELD = 2**24  # outputs of the examples of a check: 64 MB of float32, two examples at least
_ROUNDING = 100  # units of the last place by which two equal calls may differ


def refuse_random_modules(model: nn.Module) -> None:
    """Raise for modules that are random, or mix the examples of a batch, in training mode.

    Args:
        model: Any module.

    Raises:
        NotDeterministic: For dropout in training mode.
        UnsupportedModel: For batch norm in training mode.
    """
    for name, module in model.named_modules():
        if module.training:
            _refuse_training(module, f"{type(module).__name__} {name!r}")


@singledispatch
def _refuse_training(module: nn.Module, label: str) -> None:
    """Raise for a module that in training mode is another function of its input."""


@_refuse_training.register
def _(module: _BatchNorm, label: str) -> None:
    raise UnsupportedModel(
        f"Expected a model whose outputs depend on one example each. Got {label} in training mode, "
        "which normalizes over the batch. Call .eval() on it (its running statistics are then "
        "constants), or use GroupNorm or LayerNorm."
    )


@_refuse_training.register
def _of_dropout(module: _DropoutNd, label: str) -> None:
    if module.p > 0:
        raise NotDeterministic(
            f"Expected a deterministic model. Got {label} in training mode with p = {module.p}. "
            "Set p = 0, or call .eval() on it."
        )


def check_repeatable(outputs: Callable[[Any], Tensor], inputs: Any) -> Tensor:
    """Raise if outputs change from call to call, or with the other examples of the batch.

    Args:
        outputs: From inputs to outputs, [b, ...].
        inputs: A few examples: a tensor, or tensors in any nesting, [b, ...] each.

    Returns:
        The outputs of the first of them, [b, ...]: of all but where they are very many, as of a
        language model, whose table of tokens they are as large as.

    Raises:
        InvalidInput: If the model cannot take the inputs, or the outputs are not one row each.
        NotDeterministic: If they differ when asked twice.
        UnsupportedModel: If an example's outputs depend on the rest of its batch.
    """
    every, b = inputs, len(tree_leaves(inputs)[0])
    first = _outputs(outputs, inputs := tree_map(lambda part: part[:2], every))
    b = min(b, max(2, _HELD // max(first[0].numel(), 1)))
    if b > 2:
        first = _outputs(outputs, inputs := tree_map(lambda part: part[:b], every))
    with torch.no_grad():
        again = outputs(inputs)
    scale = max(-float(first.min()), float(first.max()))
    # Kernels may round otherwise from call to call, by how memory happens to be aligned.
    rounding = _ROUNDING * torch.finfo(first.dtype).eps
    if not _close(first, again, rounding, rounding * scale):
        raise NotDeterministic(
            "Expected a model that gives the same outputs when asked twice. Got two different "
            "ones. Remove its randomness (noise layers, sampled masks), or call .eval()."
        )
    del again
    for at in {0, b - 1}:  # a running sum leaves the first example as it is
        alone = _alone(outputs, tree_map(lambda part, at=at: part[at : at + 1], inputs), first)
        if not _close(first[at : at + 1], alone, 1e-3, 1e-3 * scale):
            raise UnsupportedModel(
                "Expected outputs that depend on one example each. Got others when an example was "
                "alone in its batch. Replace what normalizes or attends over the batch."
            )
    with torch.no_grad():
        turned = outputs(tree_map(lambda part: part.flip(0), inputs))
    if not _close(first, turned.flip(0), 1e-3, 1e-3 * scale):
        raise UnsupportedModel(
            "Expected outputs that depend on one example each. Got others when the examples of a "
            "batch came in another order. Replace what normalizes or attends over the batch."
        )
    return first


def _outputs(outputs: Callable[[Any], Tensor], inputs: Any) -> Tensor:
    """Return the outputs of a batch, one row per example, or raise `InvalidInput`."""
    with torch.no_grad():
        found = _accepted(outputs, inputs)
    if found.ndim < 2:
        raise InvalidInput(
            f"Expected outputs of shape [b, c]. Got {list(found.shape)}. "
            "Return one row per example, with c = 1 for a single output."
        )
    b = len(tree_leaves(inputs)[0])
    if len(found) != b:
        raise InvalidInput(
            f"Expected outputs of shape [{b}, c], one row per example. Got {list(found.shape)}. "
            "Return one row per example, with c = 1 for a single output."
        )
    return found


def _alone(outputs: Callable[[Any], Tensor], inputs: Any, together: Tensor) -> Tensor:
    """Return the outputs of a batch of one example, or say why there are none.

    Args:
        outputs: From inputs to outputs, [b, ...].
        inputs: The example.
        together: The outputs of several, [b, ...].
    """
    try:
        with torch.no_grad():
            found = outputs(inputs)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise UnsupportedModel(
            f"Expected a model that takes one example alone. Got one that says: {error}. Replace "
            "what normalizes over the batch, such as BatchNorm without running statistics."
        ) from error
    if found.shape != (1, *together.shape[1:]):
        raise UnsupportedModel(
            f"Expected outputs of shape {[1, *together.shape[1:]]} for one example alone. Got "
            f"{list(found.shape)}. Name the dimension that the model drops: .squeeze(-1)."
        )
    return found


def _close(one: Tensor, other: Tensor, rtol: float, atol: float) -> bool:
    """Return whether outputs are the same but for rounding: a part at a time, to save memory.

    Args:
        one: Outputs, [b, ...].
        other: The same shape.
        rtol: As of `torch.allclose`.
        atol: As of `torch.allclose`.
    """
    return all(
        torch.allclose(mine, theirs, rtol=rtol, atol=atol)
        for a, b in zip(one, other, strict=True)
        for mine, theirs in zip(a.flatten().split(_PART), b.flatten().split(_PART), strict=True)
    )


def check_losses(loss: Loss, outputs: Tensor, examples: ModuleExamples) -> None:
    """Raise unless a loss gives each example its own finite value, whatever is in its batch.

    Args:
        loss: ℓ.
        outputs: f of the first examples, [b, ...].
        examples: The training examples, of which these are the first.

    Raises:
        InvalidInput: If the loss cannot take outputs and targets, gives not one value per example,
            or one of the values is not finite.
        UnsupportedModel: If the loss of an example depends on the rest of its batch.
    """
    targets = examples.targets[: len(outputs)]
    try:
        with torch.no_grad():
            one = outputs[:1].expand(len(examples), *outputs.shape[1:])
            loss.check_targets(one, examples.targets)
            losses = loss(outputs, targets)
    except WhenceError:
        raise
    except (RuntimeError, TypeError, ValueError, IndexError, UserWarning) as error:
        raise InvalidInput(
            f"Expected a loss that takes outputs {outputs.dtype} {list(outputs.shape)} and targets "
            f"{targets.dtype} {list(targets.shape)}. Got an error: {str(error).rstrip('.')}. "
            "Call it on a few of them yourself first; targets may need the shape of the outputs, "
            "and weights their dtype."
        ) from error
    if losses.shape != (len(outputs),):
        raise InvalidInput(
            f"Expected the loss to return one value per example, shape ({len(outputs)},). Got "
            f"shape {tuple(losses.shape)}. Use reduction='none', and targets in the shape of the "
            "outputs."
        )
    check_finite(losses, examples.ids)
    scale = float(losses.abs().max())
    for at in range(len(outputs)):
        with torch.no_grad():
            alone = loss(outputs[at : at + 1], targets[at : at + 1])
        if not torch.allclose(losses[at : at + 1], alone, rtol=1e-3, atol=1e-4 * scale):
            raise UnsupportedModel(
                "Expected a loss that depends on one example each. Got "
                f"{float(losses[at]):.4g} for example {examples.ids[at]} in a batch and "
                f"{float(alone):.4g} alone. Losses that contrast, normalize or average over the "
                "batch give no example a loss of its own; check also that outputs [b, 1] are not "
                "compared with targets [b]."
            )


def check_accepted(
    outputs: Callable[[Any], Tensor], queries: ModuleExamples, train: ModuleExamples
) -> None:
    """Raise if a model cannot take queries whose shape is another than the training examples'.

    Args:
        outputs: From inputs to outputs, [b, ...].
        queries: The queries.
        train: The training examples.

    Raises:
        InvalidInput: If the model says so.
    """
    pairs = zip(tree_leaves(queries.inputs), tree_leaves(train.inputs), strict=True)
    if all(mine.shape[1:] == theirs.shape[1:] for mine, theirs in pairs):
        return
    shapes = ", ".join(
        f"[q, {', '.join(map(str, part.shape[1:]))}]" for part in tree_leaves(train.inputs)
    )
    with torch.no_grad():
        try:
            outputs(queries.subset(np.arange(1)).inputs)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            found = ", ".join(str(list(part.shape)) for part in tree_leaves(queries.inputs))
            raise InvalidInput(
                f"Expected queries (x, y) with x of shape {shapes}. Got {found}, of which the "
                f"model says: {error}."
            ) from error


def _accepted(outputs: Callable[[Any], Tensor], inputs: Any) -> Tensor:
    """Return the outputs of a first call, or say why there are none."""
    try:
        found = outputs(inputs)
    except WhenceError:
        raise
    except (RuntimeError, TypeError, ValueError, IndexError, KeyError) as error:
        shapes = ", ".join(f"{p.dtype} {list(p.shape)}" for p in tree_leaves(inputs))
        raise InvalidInput(
            f"Expected inputs that the model can take. Got {shapes}, of which it says: "
            f"{error}. Call the model on a few of them yourself first."
        ) from error
    if any(bool(torch.isnan(row).any()) for row in (found if found.ndim else found[None])):
        raise InvalidInput(
            "Expected outputs that are numbers. Got NaN on the first examples. If the model "
            "itself gives numbers on them, it keeps a reference of its own to a parameter, such as "
            "a list of tensors made once: use nn.ParameterList, or read self.name in forward."
        )
    return found


def check_finite(losses: Tensor, ids: NDArray[Any]) -> None:
    """Raise unless every training loss is finite, and name the first that is not.

    Args:
        losses: ℓ of some training examples, [b].
        ids: Their names, [b].

    Raises:
        InvalidInput: If a loss is infinite or NaN.
    """
    bad = ~torch.isfinite(losses)
    if bad.any():
        at = int(bad.nonzero()[0])
        raise InvalidInput(
            f"Expected finite losses. Got {float(losses[at])} on training example {ids[at]}. "
            "Check its inputs and target, or the model."
        )


def check_apart(model: nn.Module, outputs: Callable[[Any], Tensor], inputs: Any) -> None:
    """Raise if the copy of a module computes with parameters of the module that was copied.

    Args:
        model: The user's module.
        outputs: Of the copy, at constants: from inputs to outputs, [b, ...].
        inputs: An example.

    Raises:
        UnsupportedModel: If the outputs have a derivative in one of the user's parameters.
    """
    with torch.enable_grad():
        root = outputs(inputs).grad_fn
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    seen, ahead = set[Any](), [root]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name = names.get(id(getattr(node, "variable", None)))
        if name is not None:
            raise UnsupportedModel(
                f"Expected a module that reads its parameters by its own names. Got one with a "
                f"function that reads {name!r} of the module it was made for, and does so in a "
                "copy too. Make it a method, or pass it the module."
            )
        ahead += [following for following, _ in node.next_functions]


@contextmanager
def differentiation() -> Iterator[None]:
    """Say in words why a model cannot be differentiated, while the context lasts.

    Raises:
        UnsupportedModel: If torch has an error.
    """
    try:
        yield
    except RuntimeError as error:
        first = str(error).strip().partition("\n")[0].rstrip(".")
        raise UnsupportedModel(
            f"Expected a model that torch.autograd.grad differentiates. Got one of which it says: "
            f"{first}. Switch off gradient checkpointing (torch.utils.checkpoint), and change no "
            "tensor in place that another operation needs."
        ) from error


def derivatives_not_finite() -> InvalidInput:
    """Return what is said where derivatives are infinite or NaN and no training loss is."""
    return InvalidInput(
        "Expected finite derivatives. Got NaN or infinity, though every training loss is "
        "finite. Check the queries, the gradient of the loss, and the scale of the inputs."
    )
