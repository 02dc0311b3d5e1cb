"""How many operations a pass through a module takes, counted on a few of its own examples."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

from torch import Tensor, nn

from whence.network.objective import PROBE, ModuleObjective
from whence.objective.cache import cached
from whence.tiles import spread


def forward_operations(objective: ModuleObjective) -> float:
    """Return the operations of one example's forward pass, counted once per objective.

    Every layer with a matrix of weights multiplies it with each of its positions: twice its
    numbers. What takes no weights, such as the products of attention, is left out.

    Args:
        objective: R at θ̂.

    Returns:
        The mean of a few training examples.
    """
    return cached(objective, forward_operations, _counted)


def _counted(objective: ModuleObjective) -> float:
    total = 0.0

    def count(module: nn.Module, arguments: Any, output: Any) -> None:
        nonlocal total
        weights = [w for w in module.parameters(recurse=False) if w.ndim > 1]
        total += sum(2.0 * _numbers(output) * w.numel() / w.shape[0] for w in weights)

    n = len(objective.train)
    some = spread(n, PROBE)
    with objective.module.lock:
        hooks = [module.register_forward_hook(count) for module in objective.model.modules()]
        try:
            objective.outputs(objective.train.subset(some))
        finally:
            for hook in hooks:
                hook.remove()
    return total / len(some)


@singledispatch
def _numbers(output: Any) -> int:
    """Return how many numbers a layer answers with; the first of several answers counts."""
    return 0


@_numbers.register
def _of_one(output: Tensor) -> int:
    return output.numel()


@_numbers.register
def _of_several(output: tuple) -> int:  # type: ignore[type-arg]
    return _numbers(output[0])
