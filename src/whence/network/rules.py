"""Objectives of modules: the module is probed, and the gradient rules that hold are selected."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from whence.errors import UnsupportedModel
from whence.network.calls import ModuleCall
from whence.network.checks import check_losses, check_repeatable
from whence.network.examples import ModuleExamples
from whence.network.gradients import Contribution
from whence.network.layer_rules import rule_of
from whence.network.layers import contribution
from whence.network.links import linked
from whence.network.objective import BATCH, PROBE, ModuleObjective
from whence.network.precision import rounds
from whence.network.shared import Shared, places

_CACHE = 2**20  # numbers of one activation that a cache holds beside the others: 4 MB of float32
_ROWS = 2**25  # numbers of gradients without a rule that are held at once: 128 MB of float32
_FAILURES = (RuntimeError, ValueError, TypeError, IndexError, AssertionError)
_AGREEMENT = 1e-3  # of a parameter's largest entry; rules are right or far off
_OF_TERMS, _OF_WHOLE = 100, 30  # units of the last place: of a sum's terms, of all gradients


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
    few = objective.train.subset(np.arange(min(8, len(objective.train))))
    outputs = check_repeatable(lambda x: objective.run(objective.params, x), few.inputs)
    check_losses(objective.loss, outputs, objective.train)
    loss, notes = linked(objective.loss, outputs, objective.train.targets)
    del outputs  # of a language model they may be as large as its table of tokens
    objective = replace(
        objective,
        loss=loss,
        notes=tuple(dict.fromkeys((*objective.notes, *notes))),
        batch_size=batch_size or _cached_batch(objective),
    )
    each = (few.subset(np.arange(b, b + 1)) for b in range(len(few)))
    if not any(objective.per_example.depends(one.inputs) for one in each):
        raise UnsupportedModel(
            "Expected outputs that depend on the selected parameters. Got outputs that are the "
            "same whatever these are. Select others with params=, or undo what replaced the "
            "model's forward pass: load the model anew from its checkpoint."
        )
    plain = replace(objective, factored=_agreeing(objective, frozenset(objective.shapes)))
    if batch_size is None:
        plain = _within_rows(plain)
    # A position embedding is called once per batch; its output can be expanded to each example.
    shared = frozenset(
        name
        for module, held in plain.owners.items()
        for _, name in held
        if (rule := rule_of(module)) and rule.reads and name not in plain.factored
    )
    found = _with(plain, Shared(read=shared))
    found = _with(found, Shared(used=_broadcast(found)))
    return found if batch_size else _within_rows(replace(found, batch_size=objective.batch_size))


def _with(objective: ModuleObjective, shared: Shared) -> ModuleObjective:
    """Return the objective with those shared parameters whose gradients agree."""
    names = shared.read | frozenset(shared.used)
    if not names:
        return objective
    try:
        agreeing = _agreeing(replace(objective, shared=shared), names)
    except _FAILURES:  # the model relies on the shape it gave
        return objective
    both, had = shared.among(agreeing), objective.shared
    both = Shared(both.read | had.read, {**both.used, **had.used})
    return replace(objective, factored=objective.factored | agreeing, shared=both)


def _broadcast(objective: ModuleObjective) -> dict[str, int]:
    """Return parameters without a rule of which each example may have a copy, and how."""
    few = objective.train.subset(np.arange(min(PROBE, len(objective.train))))
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


def _within_rows(objective: ModuleObjective) -> ModuleObjective:
    """Return the objective with batches whose gradients without a rule, [b, p], fit in memory."""
    rest = sum(
        shape.numel()
        for name, shape in objective.shapes.items()
        if name not in objective.factored or name in objective.shared.used
    )
    most = max(_ROWS // max(rest, 1), 1)
    return replace(objective, batch_size=min(objective.batch_size, most))


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


def _agreeing(objective: ModuleObjective, names: frozenset[str]) -> frozenset[str]:
    """Return those of some parameters whose factored gradients agree with differentiation.

    Each is judged on its own scale: by the largest entry of its own gradients, and by the rounding
    of the sums that make them, which is all that is left where their terms cancel.
    """
    few = objective.train.subset(np.arange(min(PROBE, len(objective.train))))
    found: dict[str, list[Contribution]] = {}
    rounding: dict[str, float] = {}
    unknown: set[str] = set()
    for call, delta, own, name in _calls(objective, few, names):
        if delta is None:  # no output depends on this call
            continue
        piece = contribution(call, own, delta, len(few))
        if piece is None:
            unknown.add(name)
        else:
            found.setdefault(name, []).append(piece)
            rounding[name] = max(rounding.get(name, 0.0), _terms(call, own, delta))
    agreeing = {name for name in found if name not in unknown}
    eps = torch.finfo(objective.params.dtype).eps
    for b in range(len(few)):
        candidates = {name: found[name] for name in agreeing}
        sizes, gaps = _compared(objective, few, b, candidates, names)
        whole = max(sizes.values())
        agreeing = {
            name
            for name in agreeing
            if gaps[name]
            <= _AGREEMENT * sizes[name] + eps * (_OF_TERMS * rounding[name] + _OF_WHOLE * whole)
        }
    return frozenset(agreeing)


def _compared(
    objective: ModuleObjective,
    few: ModuleExamples,
    b: int,
    found: dict[str, list[Contribution]],
    names: frozenset[str],
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the sizes of one example's gradients by parameter, and how far factored ones are off.

    The example is differentiated alone. Where a frozen part of the module computes in a lower
    precision than the parameters, it is differentiated in the same pass as the others, which
    rounds alike: alone, the rounding of the passes would be taken for a wrong rule.

    Args:
        objective: R.
        few: The examples whose gradients were factored.
        b: The position of one of them.
        found: Their gradients by parameter.
        names: The parameters to differentiate in.
    """
    seed = torch.eye(len(few)).to(objective.params)[:, b : b + 1]
    sizes = dict.fromkeys(names, 0.0)
    gaps: dict[str, float] = {}

    def compare(name: str, exact: Tensor) -> None:
        sizes[name] = _largest(exact)
        if name in found:
            gaps[name] = _gap(found[name], seed, exact)

    def masked(outputs: Tensor, targets: Tensor) -> Tensor:
        slopes = objective.loss.gradient(outputs, targets)
        return slopes * seed[:, 0].reshape(-1, *[1] * (slopes.ndim - 1))

    with objective.module.lock:  # a call in another thread replaces parameters
        rough = rounds(objective.model)
    one = few if rough else few.subset(np.arange(b, b + 1))
    cotangent = masked if rough else objective.loss.gradient
    twice = not rough or objective.params.device.type != "cpu"
    visit = objective.per_example.visit_alone
    visit(one.inputs, one.targets, cotangent, sorted(names), compare, twice=twice)
    for name in found.keys() - gaps.keys():  # the outputs do not depend on it
        gaps[name] = _gap(found[name], seed, objective.params.new_zeros(objective.shapes[name]))
    return sizes, gaps


def _calls(
    objective: ModuleObjective, few: ModuleExamples, names: frozenset[str]
) -> Iterator[tuple[ModuleCall, Tensor | None, str, str]]:
    """Yield each call of a layer on a few examples, with its output gradient, by parameter."""
    together = replace(objective, batch_size=len(few))
    ((_, calls, passes),) = together.traced(
        lambda f, t: objective.loss.gradient(f, t).unsqueeze(-1), few
    )
    for call, delta in zip(calls, next(iter(passes), ()), strict=True):
        for own, name in call.names:
            if name in names:
                yield call, delta, own, name


def _terms(call: ModuleCall, own: str, delta: Tensor) -> float:
    """Return the size of one term of the sum that makes a gradient, times the root of their number.

    That is, in units of the last place, what rounding leaves of a sum that cancels.
    """
    rule = rule_of(call.module)
    multiplies = own == "weight" and rule is not None and rule.multiplies(call.module)
    factor = _largest(call.inputs) if multiplies else 1.0
    return factor * _largest(delta) * math.sqrt(delta.numel() / len(delta))


def _gap(pieces: list[Contribution], seed: Tensor, exact: Tensor) -> float:
    """Return how far the gradient of one example in one parameter is from differentiation's.

    The exact gradient is overwritten: beside a large embedding there is no room for a copy.
    """
    rest = exact.reshape(-1)
    for piece in pieces:
        try:
            piece.take(rest, seed[:, 0])
        except RuntimeError:  # of another size: no rule of this module
            return math.inf
    return _largest(rest)


def _largest(tensor: Tensor) -> float:
    """Return the largest absolute entry."""
    if not tensor.numel():
        return 0.0
    least, most = torch.aminmax(tensor)
    return max(-float(least), float(most))
