r"""Per-example gradients of a module's parameters, from activations and output gradients.

A module that multiplies its input has gradients that factor: with a [b, t, in] its inputs at t
positions and δ [b, t, out] the derivatives of the measure in its outputs, the gradient of example b
is Σ_t δ_bt a_btᵀ. One forward and one backward pass for the whole batch give both; no loop over
examples. A kind of module without a rule (`whence.network.layer_rules`) is left to differentiation,
one example at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

from whence.network.calls import ModuleCall
from whence.network.gradients import Contribution
from whence.network.layer_rules import rule_of


@contextmanager
def watched_calls(
    modules: list[nn.Module],
    b: int = 1,
    expanded: Collection[nn.Module] = (),
    flattened: Collection[nn.Module] = (),
) -> Iterator[list[ModuleCall]]:
    """List every call of some modules, by forward hooks, while the context lasts.

    Parameters may be constants: the first outputs then become the leaves of the autograd graph,
    which stores nothing for gradients in parameters.

    Args:
        modules: The modules.
        b: The number of examples in the batch.
        expanded: Modules called once per batch, such as position embeddings: inputs and outputs are
            expanded along the batch dimension to get per-example gradients.
        flattened: Modules that may get the tokens of all examples one after the other, [b t, d].

    Yields:
        The list of their calls, which fills.
    """
    calls: list[ModuleCall] = []

    def on_call(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
        tensors = [part for part in (output, *arguments) if isinstance(part, Tensor)]
        leads = len(tensors) > 1 and tensors[0] is output and tensors[1] is arguments[0]
        if not leads or not output.is_floating_point():
            return output
        inputs, first = arguments[0].detach(), not output.requires_grad
        if first:
            output.requires_grad_()
        shape = output.shape
        if module in expanded:
            inputs, output = _expanded(inputs, b, 2), _expanded(output, b, 3)
            shape = output.shape
        elif module in flattened and len(inputs) == len(output) != b and len(output) % b == 0:
            inputs = inputs.unflatten(0, (b, -1))
            shape = torch.Size((b, len(output) // b, *output.shape[1:]))
        parameters = dict(module.named_parameters(recurse=False))
        calls.append(
            ModuleCall(
                module=module,
                inputs=inputs,
                edge=get_gradient_edge(output),
                shape=shape,
                dtype=next(iter(parameters.values())).dtype,
                rest=tuple(part.detach() for part in tensors[2:]),
                parameters=parameters,
            )
        )
        return output.clone() if first else output  # a leaf cannot be changed in place

    inside = [module for module in modules if (rule := rule_of(module)) and rule.functional]
    hooked = [module for module in modules if module not in inside]
    handles = [module.register_forward_hook(on_call) for module in hooked]
    try:
        with _LinearCalls(inside, on_call) if inside else nullcontext():
            yield calls
    finally:
        for handle in handles:
            handle.remove()


class _LinearCalls(TorchFunctionMode):
    """Calls a hook when `functional.linear` takes the weight of one of some modules."""

    def __init__(
        self, modules: list[nn.Module], hook: Callable[[nn.Module, tuple[Any, ...], Any], Any]
    ) -> None:
        super().__init__()
        self.modules, self.hook = modules, hook

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if func is not linear or len(args) < 2:
            return found
        owner = (m for m in self.modules if m._parameters.get("weight") is args[1])
        module = next(owner, None)
        return found if module is None else self.hook(module, args[:1], found)


def _expanded(tensor: Tensor, b: int, ndim: int) -> Tensor:
    """Expand a tensor shared by all examples, [1, ...] or [...], along the batch dimension b."""
    one = tensor if tensor.ndim >= ndim else tensor.unsqueeze(0)
    return one.expand(b, *one.shape[1:])


def contribution(call: ModuleCall, name: str, delta: Tensor, b: int) -> Contribution | None:
    """Return the per-example gradients of one parameter through one call of its module.

    Args:
        call: The call.
        name: The module's own name of the parameter.
        delta: The derivatives of Σ_b m_b in the module's output.
        b: The number of examples.

    Returns:
        The gradients, or `None` where no rule is known, or the batch does not come first.
    """
    if delta.shape[0] != b or call.inputs.shape[0] != b:
        return None
    rule = rule_of(call.module)
    if rule is None or name not in rule.names:
        return None
    found = rule.of_call(call, name, delta)
    return None if found is None else found.widened(call.dtype)  # after a pass in bfloat16
