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
from whence.network.sketches import Sketch

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
    every = frozenset(objective.shapes)
    # A position embedding is called once per batch; its output can be expanded to each example.
    plain = _with(objective, few, Shared(read=once), every) if once else objective
    if not once or not once <= plain.factored:
        plain = replace(objective, factored=_agreeing(objective, few, every))
    shared = frozenset(
        name
        for module, held in plain.owners.items()
        for _, name in held
        if (rule := rule_of(module)) and rule.reads and name not in plain.factored
    )
    found = _with(plain, few, Shared(read=shared), shared)
    used = _broadcast(found, few)
    found = _with(found, few, Shared(used=used), frozenset(used))
    return found if batch_size else _within_rows(found)


def _with(
    objective: ModuleObjective, few: ModuleExamples, shared: Shared, names: frozenset[str]
) -> ModuleObjective:
    """Return the objective with those of some parameters, shared ones too, that agree."""
    if not names:
        return objective
    try:
        agreeing = _agreeing(replace(objective, shared=shared), few, names)
    except _FAILURES:  # the model relies on the shape it gave
        return objective
    both, had = shared.among(agreeing), objective.shared
    both = Shared(both.read | had.read, {**both.used, **had.used})
    return replace(objective, factored=objective.factored | agreeing, shared=both)


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


def _agreeing(
    objective: ModuleObjective, few: ModuleExamples, names: frozenset[str]
) -> frozenset[str]:
    """Return those of some parameters whose factored gradients agree with differentiation.

    Each is judged on its own scale: by the largest entry of its own gradients, and by the rounding
    of the sums that make them, which is all that is left where their terms cancel. Of matrices that
    are large a few random combinations of the entries count, as entries.
    """
    objective = objective.narrowed(names)
    found, sketches, rounding = _factored(objective, few, names)
    agreeing, eps = frozenset(found), torch.finfo(objective.params.dtype).eps
    for b in range(len(few)):
        exact, sizes = _differentiated(objective, few, b, sketches, agreeing)
        whole = max(sizes.values())
        agreeing = frozenset(
            name
            for name in agreeing
            if _largest(exact[name] - found[name][b])
            <= _AGREEMENT * sizes[name] + eps * (_OF_TERMS * rounding[name] + _OF_WHOLE * whole)
        )
    return agreeing


def _factored(
    objective: ModuleObjective, few: ModuleExamples, names: frozenset[str]
) -> tuple[dict[str, Tensor], dict[str, Sketch], dict[str, float]]:
    """Return gradients by rules from one pass over a few examples, of matrices their sketches.

    Args:
        objective: R.
        few: The examples.
        names: The parameters.

    Returns:
        By parameter, for those for which every call has a rule: the gradients or sketches [b, ·],
        what sketches those of matrices, and the size of the terms that make them.
    """
    found: dict[str, Tensor] = {}
    sketches: dict[str, Sketch] = {}
    rounding: dict[str, float] = {}
    unknown: set[str] = set()
    for call, delta, own, name in _calls(objective, few, names):
        if delta is None or name in unknown:  # no output depends on this call
            continue
        part = _entries(contribution(call, own, delta, len(few)), objective, name, sketches)
        if part is None or (name in found and found[name].shape != part.shape):
            unknown.add(name)
            continue
        found[name] = found[name] + part if name in found else part
        rounding[name] = max(rounding.get(name, 0.0), _terms(call, own, delta))
    known = {name: rows for name, rows in found.items() if name not in unknown}
    return known, sketches, rounding


def _entries(
    piece: Contribution | None,
    objective: ModuleObjective,
    name: str,
    sketches: dict[str, Sketch],
) -> Tensor | None:
    """Return gradients by a rule, or of a matrix their sketches; `None` where there are none.

    Args:
        piece: The gradients.
        objective: R.
        name: Their parameter.
        sketches: What sketches those of each matrix; one for a new matrix is added.
    """
    matrix, size = None if piece is None else piece.two_sided(), objective.shapes[name].numel()
    if piece is None or matrix is None:
        rows = None if piece is None else piece.whole()
        return None if rows is None or rows.shape[1] != size else rows
    if math.prod(matrix.sides) != size:
        return None
    if name not in sketches:
        sketches[name] = Sketch.of_size(*matrix.sides, objective.params)
    return matrix.between(sketches[name].left, sketches[name].right)


def _differentiated(
    objective: ModuleObjective,
    few: ModuleExamples,
    b: int,
    sketches: dict[str, Sketch],
    names: frozenset[str],
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Return one example's gradients as differentiation has them, and the sizes of all.

    The example is differentiated alone. Where a frozen part of the module computes in a lower
    precision than the parameters, it is differentiated in the same pass as the others, which
    rounds alike: alone, the rounding of the passes would be taken for a wrong rule.

    Args:
        objective: R.
        few: The examples of a pass.
        b: The position of one of them.
        sketches: What sketches gradients of matrices, by parameter.
        names: The parameters whose gradients or sketches are wanted.

    Returns:
        These, flat, and the largest entry for every parameter.
    """
    found = {name: objective.params.new_zeros(()) for name in names}
    sizes = dict.fromkeys(objective.shapes, 0.0)
    at = torch.tensor([b], device=objective.params.device)

    def visit(name: str, exact: Tensor) -> None:
        sketch = sketches.get(name)
        entries = exact.to_dense().flatten() if sketch is None else sketch.of(exact)
        if name in names:
            found[name] = found[name] + entries
        sizes[name] = max(sizes[name], _largest(found.get(name, entries)))

    def masked(outputs: Tensor, targets: Tensor) -> Tensor:
        slopes = objective.loss.gradient(outputs, targets)
        return torch.zeros_like(slopes).index_copy_(0, at, slopes[at])

    with objective.module.lock:  # a call in another thread replaces parameters
        rough = rounds(objective.model)
    one = few if rough else few.subset(np.arange(b, b + 1))
    cotangent = masked if rough else objective.loss.gradient
    twice = not rough or objective.params.device.type != "cpu"
    visit_each = objective.per_example.visit_alone
    visit_each(one.inputs, one.targets, cotangent, [*objective.shapes], visit, twice=twice)
    return found, sizes


def _calls(
    objective: ModuleObjective, few: ModuleExamples, names: frozenset[str]
) -> Iterator[tuple[ModuleCall, Tensor | None, str, str]]:
    """Yield each call of a layer on a few examples, with its output gradient, by parameter.

    The last comes first, and what a call holds is freed before the next.
    """
    together = replace(objective, batch_size=len(few))
    ((_, calls, passes),) = together.traced(
        lambda f, t: objective.loss.gradient(f, t).unsqueeze(-1), few
    )
    deltas = list(next(iter(passes), ()))
    del passes
    while deltas:
        call, delta = calls.pop(), deltas.pop()
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


def _largest(tensor: Tensor) -> float:
    """Return the largest absolute entry."""
    if not tensor.numel():
        return 0.0
    least, most = torch.aminmax(tensor)
    return max(-float(least), float(most))
