r"""Per-example gradients of a module's parameters, from activations and output gradients.

A module that multiplies its input has gradients that factor: with a [b, t, in] its inputs at t
positions and δ [b, t, out] the derivatives of the measure in its outputs, the gradient of example b
is Σ_t δ_bt a_btᵀ. One forward and one backward pass for the whole batch give both; no loop over
examples. A kind of module without a rule (`whence.network.layer_rules`) is left to differentiation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.nn.functional import layer_norm, linear
from torch.overrides import TorchFunctionMode

from whence.network.calls import ModuleCall
from whence.network.gradients import Contribution
from whence.network.layer_rules import rule_of
from whence.network.readers import Reader, watched_readers

_WEIGHTS: dict[Any, int] = {linear: 1, layer_norm: 2}  # which argument is the weight


@contextmanager
def watched_calls(
    owners: Mapping[nn.Module, list[tuple[str, str]]],
    b: int = 1,
    expanded: Collection[nn.Module] = (),
    readers: Collection[Reader] = (),
) -> Iterator[list[ModuleCall]]:
    """List every call of some modules, by forward hooks, while the context lasts.

    Parameters may be constants: the first outputs then become the leaves of the autograd graph,
    which stores nothing for gradients in parameters.

    Args:
        owners: The modules, with the own name of each parameter and its name in θ.
        b: The number of examples in the batch.
        expanded: Modules called once per batch, such as position embeddings: inputs and outputs are
            expanded along the batch dimension to get per-example gradients.
        readers: Modules that use what others hold, in place of which they are listed.

    Yields:
        The list of their calls, which fills.
    """
    watch = _Watch(owners, b, expanded)
    inside = [module for module, rule in watch.rules.items() if rule.functional]
    through = [reader for reader in readers if reader.table in watch.rules]
    apart = {*inside, *(reader.table for reader in through)}
    hooked = [module for module in watch.rules if module not in apart]
    handles = [m.register_forward_hook(watch.on_call, with_kwargs=True) for m in hooked]
    try:
        with (
            _FunctionCalls(inside, watch.on_call) if inside else nullcontext(),
            watched_readers(through, watch.on_call),
        ):
            yield watch.calls
    finally:
        for handle in handles:
            handle.remove()


class _Watch:
    """Lists calls of the modules whose layers have a rule; its method is their forward hook."""

    def __init__(
        self,
        owners: Mapping[nn.Module, list[tuple[str, str]]],
        b: int,
        expanded: Collection[nn.Module],
    ) -> None:
        self.calls: list[ModuleCall] = []
        self.rules = {module: rule for module in owners if (rule := rule_of(module)) is not None}
        self.names = {
            module: tuple((own, name) for own, name in owners[module] if own in rule.names)
            for module, rule in self.rules.items()
        }
        self.b, self.expanded = b, expanded
        self.asleep = False  # while a rule calls what it knows the rule of

    def on_call(
        self,
        module: nn.Module,
        arguments: tuple[Any, ...],
        named: Mapping[str, Any],
        output: Any,
    ) -> Any:
        """List a call, and return its output as the model is to have it."""
        tensors = [part for part in (output, *arguments) if isinstance(part, Tensor)]
        leads = len(tensors) > 1 and tensors[0] is output and tensors[1] is arguments[0]
        if self.asleep or not leads or not output.is_floating_point():
            return output
        self.asleep = True
        slopes = self.rules[module].slopes(module, arguments, named)
        self.asleep = False
        first = not output.requires_grad
        if first:
            output.requires_grad_()
        inputs, output, shape = self._by_example(module, arguments[0].detach(), output)
        parameters = dict(module.named_parameters(recurse=False))
        self.calls.append(
            ModuleCall(
                module=module,
                inputs=inputs,
                edge=get_gradient_edge(output),
                shape=shape,
                dtype=next(iter(parameters.values())).dtype,
                names=self.names[module],
                rest=tuple(part.detach() for part in tensors[2:]),
                parameters=parameters,
                slopes=slopes,
            )
        )
        return output.clone() if first else output  # a leaf cannot be changed in place

    def _by_example(
        self, module: nn.Module, inputs: Tensor, output: Tensor
    ) -> tuple[Tensor, Tensor, torch.Size]:
        """Return inputs and output of a call with the examples first, and the output's shape."""
        b, shape = self.b, output.shape
        if module in self.expanded:
            inputs, output = _expanded(inputs, b, 2), _expanded(output, b, 3)
            return inputs, output, output.shape
        if inputs.shape[:1] == shape[:1] != (b,) and inputs.ndim and shape[0] % b == 0:
            # The tokens or windows of all examples, one example after the other.
            inputs = inputs.unflatten(0, (b, -1))
            shape = torch.Size((b, len(output) // b, *output.shape[1:]))
        return inputs, output, shape


class _FunctionCalls(TorchFunctionMode):
    """Calls a hook when a function of torch takes the weight of one of some modules."""

    def __init__(
        self,
        modules: list[nn.Module],
        hook: Callable[[nn.Module, tuple[Any, ...], Mapping[str, Any], Any], Any],
    ) -> None:
        super().__init__()
        self.modules, self.hook = modules, hook

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if func not in _WEIGHTS:
            return found
        given = (kwargs or {}).get("weight", [*args, *[None] * 3][_WEIGHTS[func]])
        owner = (m for m in self.modules if m._parameters.get("weight") is given)
        module = None if given is None else next(owner, None)
        return found if module is None else self.hook(module, args[:1], {}, found)


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
