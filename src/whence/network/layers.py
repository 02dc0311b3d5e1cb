r"""Per-example gradients of a module's parameters, from activations and output gradients.

A module that multiplies its input has gradients that factor: with a [b, t, in] its inputs at t
positions and δ [b, t, out] the derivatives of the measure in its outputs, the gradient of example b
is Σ_t δ_bt a_btᵀ. One forward and one backward pass for the whole batch give both; no loop over
examples. A kind of module without a rule (`whence.network.layer_rules`) is left to differentiation,
one example at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from whence.network.gradients import Contribution
from whence.network.layer_rules import rule_of


@dataclass(frozen=True, eq=False)
class ModuleCall:
    """One call of a module: its input, and the place of its output in the autograd graph.

    Args:
        module: The module.
        inputs: Its first argument.
        edge: The place of its output in the graph, before anything acts on it in place.
        shape: The shape of its output.
        dtype: The dtype of its parameters, read during the call, when they have values.
    """

    module: nn.Module
    inputs: Tensor
    edge: GradientEdge
    shape: torch.Size
    dtype: torch.dtype


@contextmanager
def watched_calls(
    modules: list[nn.Module], b: int = 1, expanded: Collection[nn.Module] = ()
) -> Iterator[list[ModuleCall]]:
    """List every call of some modules, by forward hooks, while the context lasts.

    Parameters may be constants: the first outputs then become the leaves of the autograd graph,
    which stores nothing for gradients in parameters.

    Args:
        modules: The modules.
        b: The number of examples in the batch.
        expanded: Modules called once per batch, such as position embeddings: inputs and outputs are
            expanded along the batch dimension to get per-example gradients.

    Yields:
        The list of their calls, which fills.
    """
    calls: list[ModuleCall] = []

    def on_call(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
        tensors = [part for part in (output, *arguments[:1]) if isinstance(part, Tensor)]
        if len(tensors) < 2 or not output.is_floating_point():
            return output
        inputs, first = arguments[0].detach(), not output.requires_grad
        if first:
            output.requires_grad_()
        if module in expanded:
            inputs, output = _expanded(inputs, b, 2), _expanded(output, b, 3)
        dtype = next(module.parameters(recurse=False)).dtype
        calls.append(ModuleCall(module, inputs, get_gradient_edge(output), output.shape, dtype))
        return output.clone() if first else output  # a leaf cannot be changed in place

    handles = [module.register_forward_hook(on_call) for module in modules]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _expanded(tensor: Tensor, b: int, ndim: int) -> Tensor:
    """Expand a tensor shared by all examples, [1, ...] or [...], along the batch dimension b."""
    one = tensor if tensor.ndim >= ndim else tensor.unsqueeze(0)
    return one.expand(b, *one.shape[1:])


def contribution(call: ModuleCall, name: str, delta: Tensor, b: int) -> Contribution | None:
    """Return the per-example gradients of one parameter through one call of its module.

    Args:
        call: The call.
        name: The module's own name of the parameter: "weight" or "bias".
        delta: The derivatives of Σ_b m_b in the module's output.
        b: The number of examples.

    Returns:
        The gradients, or `None` where no rule is known, or the batch does not come first.
    """
    a, module = call.inputs, call.module
    if delta.shape[0] != b or a.shape[0] != b:
        return None
    rule = rule_of(module) if name in ("weight", "bias") else None
    found = None if rule is None else rule.gradients(module, name, a, delta)
    return None if found is None else found.widened(call.dtype)  # after a pass in bfloat16
