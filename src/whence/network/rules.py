"""Objectives of modules: the module is probed, and the gradient rules that hold are selected."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from whence.errors import UnsupportedModel, WhenceError
from whence.network.agreement import agreeing, agreeing_in_sum
from whence.network.checks import check_losses, check_repeatable, differentiation
from whence.network.examples import ModuleExamples
from whence.network.layer_rules import rule_of
from whence.network.links import linked
from whence.network.objective import BATCH, PROBE, ModuleObjective
from whence.network.per_example import UNMAPPED
from whence.network.shared import Shared, places
from whence.tiles import spread

_CACHE = 2**20  # numbers of one activation that a cache holds beside the others: 4 MB of float32
_ROWS = 2**25  # numbers of gradients without a rule that are held at once: 128 MB of float32
_BATCH = 16  # examples of one batch on which all rules must hold together
_FAILURES = (RuntimeError, ValueError, TypeError, IndexError, AssertionError)


def module_objective(objective: ModuleObjective, batch_size: int | None) -> ModuleObjective:
    """Return the objective with its module probed: repeatable, finite, gradient rules selected.

    Args:
        objective: As put together, with nothing factored.
        batch_size: Examples differentiated at once; chosen by what a cache holds if `None`.

    Returns:
        The same, with `factored` and `batch_size` filled in.

    Raises:
        InvalidInput: If outputs, targets and losses do not fit, or one of the first losses is not
            finite.
        NotDeterministic: If the outputs differ when asked twice.
        UnsupportedModel: If an example's outputs depend on the rest of its batch, or none on the
            selected parameters.

    Cost:
        A few passes over eight examples: a loss that is not finite further on is found, and its
        example named, by the first pass over all.
    """
    some = objective.train.subset(np.arange(min(8, len(objective.train))))
    outputs = check_repeatable(lambda x: objective.run(objective.params, x), some.inputs)
    check_losses(objective.loss, outputs, objective.train)
    loss, notes = linked(objective.loss, outputs, objective.train.targets)
    del outputs  # of a language model they may be as large as its table of tokens
    few = some.subset(np.arange(min(PROBE, len(some))))
    largest, all_of_one, once = _measured(objective, few)
    objective = replace(
        objective,
        loss=loss,
        notes=tuple(dict.fromkeys((*objective.notes, *notes))),
        batch_size=batch_size or _cached_batch(objective, largest),
    )
    each = (some.subset(np.arange(b, b + 1)) for b in range(len(some)))
    if not any(objective.per_example.depends(one.inputs) for one in each):
        raise UnsupportedModel(
            "Expected outputs that depend on the selected parameters. Got outputs that are the "
            "same whatever these are. Select others with params=, or undo what replaced the "
            "model's forward pass: load the model anew from its checkpoint."
        )
    if len(few) * all_of_one > max(_ROWS, len(objective.params) / 2):
        few = few.subset(np.arange(min(2, len(few))))  # beside θ there is room for no more
    with differentiation():
        found = _ruled(objective, few, once)
        found = _within_batches(found, all_of_one)
        found = replace(found, mapped=_mapped(found, few))
    return found if batch_size else _within_rows(found)


def _ruled(
    objective: ModuleObjective, few: ModuleExamples, once: frozenset[str]
) -> ModuleObjective:
    """Return the objective with the rules that hold for each of a few examples.

    Args:
        objective: R.
        few: The examples.
        once: The parameters of tables that are read once for a batch.
    """
    every = frozenset(objective.shapes)
    # A position embedding is called once per batch; its output can be expanded to each example.
    plain = _with(objective, few, Shared(read=once), every) if once else objective
    if not once or not once <= plain.factored:
        plain = replace(objective, factored=agreeing(objective, few, every))
    shared = frozenset(
        name
        for module, held in plain.owners.items()
        for _, name in held
        if (rule := rule_of(module)) and rule.reads and name not in plain.factored
    )
    found = _with(plain, few, Shared(read=shared), shared)
    used = _broadcast(found, few)
    return _with(found, few, Shared(used=used), frozenset(used))


def _with(
    objective: ModuleObjective, few: ModuleExamples, shared: Shared, names: frozenset[str]
) -> ModuleObjective:
    """Return the objective with those of some parameters, shared ones too, that agree."""
    if not names:
        return objective
    try:
        holding = agreeing(replace(objective, shared=shared), few, names)
    except _FAILURES:  # the model relies on the shape it gave
        return objective
    both, had = shared.among(holding), objective.shared
    both = Shared(both.read | had.read, {**both.used, **had.used})
    return replace(objective, factored=objective.factored | holding, shared=both)


def _within_batches(objective: ModuleObjective, all_of_one: int) -> ModuleObjective:
    """Return the objective with those rules that hold in a batch from all of its examples too.

    Args:
        objective: R.
        all_of_one: The numbers that modules give for an example.
    """
    most = max(_ROWS, len(objective.params) // 2) // max(all_of_one, 1)
    b, n = min(_BATCH, objective.batch_size, most), len(objective.train)
    if min(b, n) < 2 or not objective.factored:
        return objective
    some = objective.train.subset(spread(n, b))
    try:
        holding = agreeing_in_sum(objective, some, objective.factored)
    except (*_FAILURES, WhenceError):  # the first pass over all says which example it is
        return objective
    return replace(objective, factored=holding, shared=objective.shared.among(holding))


def _broadcast(objective: ModuleObjective, few: ModuleExamples) -> dict[str, int]:
    """Return parameters without a rule of which each example may have a copy, and how."""
    if len(few) < 2 or objective.factored == frozenset(objective.shapes):
        return {}  # with one example whatever is shared looks the same
    values = objective.module.split(objective.params)
    outputs = objective.run(objective.params, few.inputs).detach()
    found: dict[str, int] = {}
    of_kind: dict[tuple[type, str], int | None] = {}
    for owner, held in objective.owners.items():
        for own, name in held:
            if name in objective.factored or name in found:
                continue
            kind = type(owner), own
            if kind not in of_kind:
                ways = places(objective.shapes[name])
                of_kind[kind] = next(
                    (way for way in ways if _same(objective, values, name, way, few, outputs)), None
                )
            if (way := of_kind[kind]) is not None:
                found[name] = way
    return found


def _same(
    objective: ModuleObjective,
    values: dict[str, Tensor],
    name: str,
    way: int,
    few: ModuleExamples,
    outputs: Tensor,
) -> bool:
    """Return whether outputs stay the same when each example has a copy of a parameter."""
    copies = Shared(used={name: way}).leaves(values, len(few))
    try:
        with torch.no_grad():
            found = objective.module({**values, **copies}, few.inputs)
    except _FAILURES:
        return False
    return found.shape == outputs.shape and torch.allclose(found, outputs, rtol=1e-3, atol=1e-5)


def _mapped(objective: ModuleObjective, few: ModuleExamples) -> bool:
    """Return whether a pass that is mapped over examples gives what a pass for each gives."""
    rest = [name for name in objective.shapes if name not in objective.factored]
    size = sum(objective.shapes[name].numel() for name in rest)
    if not rest or len(few) < 2 or 2 * size > _ROWS:  # no batch has room for two
        return False
    two, each = few.subset(np.arange(2)), objective.per_example
    given = two.inputs, two.targets, objective.loss.gradient, rest
    try:
        found = each.at_once(*given)
    except UNMAPPED:
        return False
    exact = each.looped(*given)
    return torch.allclose(found, exact, rtol=0, atol=1e-3 * float(exact.abs().max()))


def _within_rows(objective: ModuleObjective) -> ModuleObjective:
    """Return the objective with batches whose gradients without a rule, [b, p], fit in memory."""
    rest = sum(
        shape.numel()
        for name, shape in objective.shapes.items()
        if name not in objective.factored or name in objective.shared.used
    )
    most = max(_ROWS // max(rest, 1), 1)
    return replace(objective, batch_size=min(objective.batch_size, most))


def _cached_batch(objective: ModuleObjective, largest: int) -> int:
    """Return how many examples' largest output of a module a cache holds; on a GPU, many more."""
    cached = _CACHE if objective.params.device.type == "cpu" else 32 * _CACHE
    return min(max(cached // largest, 1), BATCH)


def _measured(objective: ModuleObjective, few: ModuleExamples) -> tuple[int, int, frozenset[str]]:
    """Return the sizes of what modules give for an example, and the tables read once for a batch.

    Args:
        objective: R.
        few: Some examples.

    Returns:
        The numbers of the largest output and of all, for one example; the parameters of tables.
    """
    largest, total, once = 1, 0, set[str]()

    def measure(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        nonlocal largest, total
        sizes = [leaf.numel() for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        largest, total = max(largest, *sizes, 1), total + sum(sizes)
        rule = rule_of(module) if module in objective.owners else None
        if rule and rule.reads and arguments and len(arguments[0]) != len(few):
            once.update(name for _, name in objective.owners[module])

    with torch.no_grad(), ExitStack() as stack:
        for module in objective.model.modules():
            stack.callback(module.register_forward_hook(measure).remove)
        objective.run(objective.params, few.inputs)
    return max(largest // len(few), 1), total // len(few), frozenset(once)
