"""Whether gradients by rules agree with differentiation, parameter by parameter."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from whence.network.calls import ModuleCall
from whence.network.examples import ModuleExamples
from whence.network.gradients import Contribution
from whence.network.layer_rules import rule_of
from whence.network.layers import contribution
from whence.network.objective import ModuleObjective
from whence.network.precision import rounds
from whence.network.sketches import Sketch

_AGREEMENT = 1e-3  # of a parameter's largest entry; rules are right or far off
_OF_TERMS, _OF_WHOLE = 100, 30  # units of the last place: of a sum's terms, of all gradients


def agreeing(
    objective: ModuleObjective, few: ModuleExamples, names: frozenset[str]
) -> frozenset[str]:
    """Return those of some parameters whose factored gradients agree with differentiation.

    Each is judged on its own scale: by the largest entry of its own gradients, and by the rounding
    of the sums that make them, which is all that is left where their terms cancel. Of matrices that
    are large a few random combinations of the entries count, as entries.

    Args:
        objective: R, of which a pass takes these examples at once.
        few: Some examples, each of which is differentiated alone.
        names: The parameters.
    """
    objective = objective.narrowed(names)
    found, sketches, rounding = _factored(objective, few, names)
    agreeing = frozenset(found)
    for b in range(len(few)):
        of_one = torch.zeros(len(few)).to(objective.params)
        of_one[b] = 1
        with objective.module.lock:  # a call in another thread replaces parameters
            rough = rounds(objective.model)
        # Where a frozen part computes in a lower precision than the parameters, the others of the
        # batch are in the pass too: alone, its rounding would be taken for a wrong rule.
        examples, share = (few, of_one) if rough else (few.subset(np.arange(b, b + 1)), of_one[[b]])
        exact = _differentiated(objective, examples, share, sketches, agreeing, rough)
        agreeing = _close(objective, found, exact, rounding, of_one)
    return agreeing


def agreeing_in_sum(
    objective: ModuleObjective, some: ModuleExamples, names: frozenset[str]
) -> frozenset[str]:
    """Return those of some parameters whose gradients in a batch agree in a sum over it.

    Each example has a weight in the sum that is not its neighbors'.

    A rule takes a row of what a layer sees for the example at its place in the batch. A module that
    sorts texts by their length, or picks some of them, may leave the order of a few as it was.

    Args:
        objective: R.
        some: Examples of all the data.
        names: The parameters.
    """
    objective = objective.narrowed(names)
    found, sketches, rounding = _factored(objective, some, names)
    # Powers of two round nothing, in whatever precision a part of the module computes.
    share = (-2.0) ** (torch.arange(len(some)) % 3).to(objective.params)
    exact = _differentiated(objective, some, share, sketches, frozenset(found), True)
    return _close(objective, found, exact, rounding, share)


def _close(
    objective: ModuleObjective,
    found: dict[str, Tensor],
    exact: tuple[dict[str, Tensor], dict[str, float]],
    rounding: dict[str, float],
    share: Tensor,
) -> frozenset[str]:
    """Return the parameters of which a sum of gradients by rules is that of differentiation.

    Args:
        objective: R.
        found: Gradients or sketches by rules, [b, ·].
        exact: The same sums by differentiation, and the largest entry for every parameter.
        rounding: The size of the terms that make them.
        share: How often each example counts, [b].
    """
    sums, sizes = exact
    eps, whole = torch.finfo(objective.params.dtype).eps, max(sizes.values())
    of_terms = _OF_TERMS * float(share.norm())
    return frozenset(
        name
        for name, right in sums.items()
        if _largest(right - share @ found[name])
        <= _AGREEMENT * sizes[name] + eps * (of_terms * rounding[name] + _OF_WHOLE * whole)
    )


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
    examples: ModuleExamples,
    share: Tensor,
    sketches: dict[str, Sketch],
    names: frozenset[str],
    alike: bool,
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Return a sum of gradients of one pass as differentiation has it, and the sizes of all.

    Args:
        objective: R.
        examples: The examples of the pass.
        share: How often each counts, [b].
        sketches: What sketches gradients of matrices, by parameter.
        names: The parameters whose gradients or sketches are wanted.
        alike: Whether by the operations of the pass that rules take.

    Returns:
        These, flat, and the largest entry for every parameter.
    """
    found = {name: objective.params.new_zeros(()) for name in names}
    sizes = dict.fromkeys(objective.shapes, 0.0)

    def visit(name: str, exact: Tensor) -> None:
        sketch = sketches.get(name)
        entries = exact.to_dense().flatten() if sketch is None else sketch.of(exact)
        if name in names:
            found[name] = found[name] + entries
        sizes[name] = max(sizes[name], _largest(found.get(name, entries)))

    def shared_out(outputs: Tensor, targets: Tensor) -> Tensor:
        slopes = objective.loss.gradient(outputs, targets)
        return slopes * share.reshape(-1, *[1] * (slopes.ndim - 1)).to(slopes.dtype)

    every, twice = [*objective.shapes], not alike or objective.params.device.type != "cpu"
    visit_each = objective.per_example.visit_alone
    visit_each(examples.inputs, examples.targets, shared_out, every, visit, twice=twice)
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
