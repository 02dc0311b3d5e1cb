"""An objective of a module, after a look at the module: what it gives, and which rules fit it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from whence.errors import InvalidInput
from whence.network.checks import check_finite, check_repeatable
from whence.network.layers import contribution
from whence.network.objective import BATCH, PROBE, ModuleExamples, ModuleObjective

_CACHE = 2**20  # numbers of one activation that a cache holds beside the others: 4 MB of float32
_AGREEMENT = 1e-3  # of the largest entry, in float32; rules are right or far off


def module_objective(objective: ModuleObjective, batch_size: int | None) -> ModuleObjective:
    """Return the objective with its model probed: repeatable, finite, and what factors known.

    Args:
        objective: As put together, with nothing factored.
        batch_size: Examples differentiated at once; chosen by what a cache holds if `None`.

    Returns:
        The same, with `factored` and `batch_size` filled in.

    Raises:
        InvalidInput: If outputs, targets and losses do not fit, or one of the first losses is not
            finite.
        NotDeterministic: If the outputs differ when asked twice.
        UnsupportedModel: If an example's outputs depend on the rest of its batch.

    Cost:
        A few passes over eight examples: a loss that is not finite further on is found, and its
        example named, by the first pass over all.
    """
    few = objective.train.subset(np.arange(min(8, len(objective.train))))
    check_repeatable(lambda x: objective.run(objective.params, x), few.inputs)
    objective = replace(objective, batch_size=batch_size or _cached_batch(objective))
    _check_losses(objective, few)
    plain = replace(objective, factored=_agreeing(objective))
    # An embedding of positions does not see the examples; its output can be repeated for each.
    shared = frozenset(
        name
        for module, held in plain.owners.items()
        for _, name in held
        if type(module) is nn.Embedding and name not in plain.factored
    )
    if not shared:
        return plain
    spread = replace(objective, spread=shared)
    try:
        agreeing = _agreeing(spread)
    except (RuntimeError, ValueError, TypeError):  # the model relies on the shape it gave
        return plain
    return replace(plain, factored=plain.factored | agreeing, spread=shared & agreeing)


def _cached_batch(objective: ModuleObjective) -> int:
    """Return how many examples' largest output of a module a cache holds; on a GPU, many more."""
    one, largest = objective.train.subset(np.arange(1)), 1

    def measure(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        nonlocal largest
        sizes = [leaf.numel() for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        largest = max(largest, *sizes, 1)

    with torch.no_grad(), ExitStack() as stack:
        for module in objective.model.modules():
            stack.callback(module.register_forward_hook(measure).remove)
        objective.run(objective.params, one.inputs)
    cached = _CACHE if objective.params.device.type == "cpu" else 32 * _CACHE
    return min(max(cached // largest, 1), BATCH)


def _check_losses(objective: ModuleObjective, few: ModuleExamples) -> None:
    """Raise unless outputs, targets and losses fit, and a few of the losses are finite."""
    train = objective.train
    outputs = objective.outputs(few)
    if len(outputs) != len(few):
        raise InvalidInput(
            f"Expected one row of outputs per example, {len(few)}. Got {len(outputs)}. "
            "Return outputs [b, c] from the model."
        )
    objective.loss.check_targets(outputs[:1].expand(len(train), *outputs.shape[1:]), train.targets)
    losses = objective.loss(outputs, few.targets)
    if losses.shape != (len(few),):
        raise InvalidInput(
            f"Expected the loss to return one value per example, shape ({len(few)},). Got "
            f"shape {tuple(losses.shape)}. Use reduction='none'."
        )
    check_finite(losses, few.ids)


def _agreeing(objective: ModuleObjective) -> frozenset[str]:
    """Return the parameters whose factored gradients agree with differentiation, one by one."""
    few = objective.train.subset(np.arange(min(PROBE, len(objective.train))))
    exact = objective.looped(few.inputs, few.targets, objective.loss.gradient)
    eye = torch.eye(len(few), dtype=exact.dtype, device=exact.device)
    found: dict[str, Tensor] = {}
    uses, passes = objective.passes(
        few.inputs, few.targets, lambda f, t: objective.loss.gradient(f, t).unsqueeze(-1)
    )
    unknown: set[str] = set()
    for use, delta in zip(uses, next(passes, ()), strict=True):
        for own, name in objective.owners[use.module]:
            piece = None if delta is None else contribution(use, own, delta, len(few))
            if piece is None:
                unknown.add(name)
            else:
                found[name] = found.get(name, 0) + piece.sum(eye).T
    agreeing, tolerance = set(), _AGREEMENT * _largest(exact)
    for name, gradients in found.items():
        truth = exact[:, objective.slices[name]]
        if gradients.shape == truth.shape and _largest(gradients - truth) <= tolerance:
            agreeing.add(name)
    return frozenset(agreeing - unknown)


def _largest(tensor: Tensor) -> float:
    """Return the largest absolute entry."""
    return float(torch.linalg.vector_norm(tensor, float("inf")))
