r"""Per-example gradients of a module's parameters, from activations and output gradients.

A module that multiplies its input has gradients that factor: with a [b, t, in] its inputs at t
positions and δ [b, t, out] the derivatives of the measure in its outputs, the gradient of example b
is Σ_t δ_bt a_btᵀ. One forward and one backward pass for the whole batch give both; no loop over
examples. What is not listed in `contribution` is left to differentiation, one example at a time.
"""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional

from whence.network.gradients import Contribution, Lookup, Outer, Rows


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
        floating = isinstance(output, Tensor) and output.is_floating_point()
        if not floating or not arguments or not isinstance(arguments[0], Tensor):
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
    rule = _rule(module) if name in ("weight", "bias") else None
    found = None if rule is None else rule(module, name, a, delta)
    return None if found is None else found.widened(call.dtype)  # after a pass in bfloat16


def _outer(left: Tensor, right: Tensor) -> Outer:
    """Return the gradients of two factors, both in the lower precision of the two."""
    least = min(left.dtype, right.dtype, key=lambda dtype: dtype.itemsize)
    return Outer(left.to(least), right.to(least))


_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_Rule = Callable[[Any, str, Tensor, Tensor], Contribution | None]


def _rule(module: nn.Module) -> _Rule | None:
    """Return how a kind of module's gradients are made; subclasses may compute otherwise."""
    kind = type(module)
    if kind is nn.Linear:
        return _linear
    if kind in (nn.Conv1d, nn.Conv2d):
        return _convolution
    if kind is nn.Embedding:
        return _embedding
    if kind in _NORMS:
        return _norm
    if kind is nn.RMSNorm:
        return _rms_norm
    if kind.__name__.endswith("RMSNorm") and kind.__module__.startswith("transformers."):
        return _rms_norm_of_transformers
    if kind.__name__ == "Conv1D" and kind.__module__.startswith("transformers."):
        return _conv1d_of_transformers
    if isinstance(module, nn.Embedding):
        return _lookup
    return _scale if _only_a_scale(module) else None


def _only_a_scale(module: nn.Module) -> bool:
    """Return whether a module of any type has one parameter, a vector called weight."""
    held = dict(module.named_parameters(recurse=False))
    lone = list(held) == ["weight"] and held["weight"].ndim == 1
    return lone and not any(True for _ in module.children())


def _positions(tensor: Tensor) -> Tensor:
    """Return [b, ..., d] as [b, t, d]."""
    return tensor.reshape(len(tensor), -1, tensor.shape[-1])


def _unfolds(module: nn.Conv1d | nn.Conv2d) -> bool:
    """Return whether a convolution is one matrix on patches padded with zeros."""
    plain = module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return module.groups == 1 and plain


def multiplies(module: nn.Module) -> bool:
    """Return whether a module is one matrix that multiplies its input, position by position."""
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        return _unfolds(module)
    return _rule(module) in (_linear, _conv1d_of_transformers)


def multiplied(module: nn.Module, a: Tensor) -> Tensor:
    """Return the input activations of a module that `multiplies`, [b, t, in]."""
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        unfolded = patches(module, a)
        assert unfolded is not None
        return unfolded
    return _positions(a)


def products(module: nn.Module, delta: Tensor) -> Tensor:
    """Return the output gradients of a module that `multiplies`, [b, t, out]."""
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        return delta.flatten(2).mT
    return _positions(delta)


def stored_by_inputs(module: nn.Module) -> bool:
    """Return whether a module that multiplies stores its weight as [in, out]."""
    return _rule(module) is _conv1d_of_transformers


def _linear(module: nn.Linear, name: str, a: Tensor, delta: Tensor) -> Contribution:
    """Return Σ_t δ_t a_tᵀ, or Σ_t δ_t."""
    delta = _positions(delta)
    return Rows(delta.sum(1)) if name == "bias" else _outer(delta, _positions(a))


def _conv1d_of_transformers(module: Any, name: str, a: Tensor, delta: Tensor) -> Contribution:
    """Return the same for a weight stored as [in, out]."""
    delta = _positions(delta)
    return Rows(delta.sum(1)) if name == "bias" else _outer(_positions(a), delta)


def patches(module: nn.Conv1d | nn.Conv2d, a: Tensor) -> Tensor | None:
    """Return the input patches of a convolution, one per output position, [b, t, in · kernel].

    Args:
        module: The convolution.
        a: Its input, [b, in, ...].

    Returns:
        The patches; `None` for grouped convolutions and paddings other than zeros.
    """
    padding = module.padding
    if not _unfolds(module) or isinstance(padding, str):
        return None
    if isinstance(module, nn.Conv1d):
        unfolded = functional.unfold(
            a.unsqueeze(2),
            (1, *module.kernel_size),
            dilation=(1, *module.dilation),
            padding=(0, *padding),
            stride=(1, *module.stride),
        )
    else:
        unfolded = functional.unfold(
            a,
            module.kernel_size,
            dilation=module.dilation,
            padding=padding,
            stride=module.stride,
        )
    return unfolded.mT


def _convolution(
    module: nn.Conv1d | nn.Conv2d, name: str, a: Tensor, delta: Tensor
) -> Contribution | None:
    """Return Σ_t δ_t patch_tᵀ, t the output positions."""
    delta = delta.flatten(2).mT
    if name == "bias":
        return Rows(delta.sum(1))
    unfolded = patches(module, a)
    return None if unfolded is None else _outer(delta, unfolded)


def _embedding(module: nn.Embedding, name: str, a: Tensor, delta: Tensor) -> Contribution | None:
    """Return the rows that were read."""
    if module.max_norm is not None or module.scale_grad_by_freq:
        return None
    indices = a.reshape(len(a), -1)
    left = delta.reshape(len(a), indices.shape[1], -1)
    if module.padding_idx is not None:
        left = left * (indices != module.padding_idx).unsqueeze(2)
    return Lookup(indices, left, module.num_embeddings)


def _rms_norm(module: nn.RMSNorm, name: str, a: Tensor, delta: Tensor) -> Contribution:
    """Return Σ_t δ_t x/rms(x)."""
    shape = tuple(module.normalized_shape)
    product = delta * functional.rms_norm(a, shape, eps=module.eps)
    return Rows(product.flatten(-len(shape)).reshape(len(a), -1, math.prod(shape)).sum(1))


def _rms_norm_of_transformers(
    module: Any, name: str, a: Tensor, delta: Tensor
) -> Contribution | None:
    """Return the same for a layer that normalizes in float32, whatever its input."""
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if eps is None:
        return None
    wide = a.float()
    normal = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return Rows(_positions(delta * normal.to(a.dtype)).sum(1))


def _scale(module: Any, name: str, a: Tensor, delta: Tensor) -> Contribution | None:
    """Return Σ_t δ_t h(x)_t of a module that computes w ⊙ h(x), or (1 + w) ⊙ h(x).

    h is what the module gives for w = 1 less what it gives for w = 0. Whether a module is of this
    form is not known here: the rule counts where it agrees with differentiation.
    """
    size = module.weight.shape[0]
    if a.shape != delta.shape or a.shape[-1] != size:
        return None
    weight = module.weight.new_ones(size)
    one, zero = (_with_weight(module, value, a) for value in (weight, weight - 1))
    if one is None or zero is None or one.shape != delta.shape:
        return None
    return Rows(_positions(delta * (one - zero).to(delta.dtype)).sum(1))


def _lookup(module: nn.Embedding, name: str, a: Tensor, delta: Tensor) -> Contribution | None:
    """Return the rows that were read by a kind of embedding: one that scales, or counts positions.

    A table of ones gives the scale of what was read, and a table of row numbers gives the rows.
    Whether a module reads rows at all is not known here: the rule counts where it agrees with
    differentiation.
    """
    if module.max_norm is not None or module.scale_grad_by_freq:
        return None
    rows, d = module.num_embeddings, module.embedding_dim
    numbers = torch.arange(rows, dtype=torch.float64, device=a.device)
    scale = _with_weight(module, torch.ones_like(numbers)[:, None].expand(rows, d), a)
    read = _with_weight(module, numbers[:, None].expand(rows, d), a)
    if scale is None or read is None or scale.shape != delta.shape or scale.ndim < 2:
        return None
    scale, read = (part.reshape(len(a), -1, d) for part in (scale, read))
    indices = torch.where(scale == 0, 0.0, read / scale)[..., 0].round().long()
    left = delta.reshape(scale.shape) * scale.to(delta.dtype)
    if module.padding_idx is not None:
        left = left * (indices != module.padding_idx).unsqueeze(2)
    return Lookup(indices.clamp(0, rows - 1), left, rows)


def _with_weight(module: nn.Module, weight: Tensor, a: Tensor) -> Tensor | None:
    """Return what a module gives with another weight; `None` if it takes more than one argument."""
    twin = copy.copy(module)  # the module itself may be running in another thread
    twin._parameters = {"weight": nn.Parameter(weight, requires_grad=False)}
    twin._forward_hooks = OrderedDict()
    try:
        with torch.no_grad():
            found = twin(a)
    except (RuntimeError, TypeError, ValueError, IndexError):
        return None
    return found if isinstance(found, Tensor) else None


def _norm(module: Any, name: str, a: Tensor, delta: Tensor) -> Contribution | None:
    """Return Σ_t δ_t x̂_t or Σ_t δ_t, x̂ the normalized input."""
    if isinstance(module, nn.LayerNorm):
        size = delta.shape[delta.ndim - len(module.normalized_shape) :].numel()
        if name == "weight":
            shape = module.normalized_shape  # with constants it is twice as fast as without
            like = torch.ones(shape, dtype=delta.dtype, device=a.device)
            normal = functional.layer_norm(a, shape, like, torch.zeros_like(like), module.eps)
            delta = delta * normal
        return Rows(delta.reshape(len(a), -1, size).sum(1))
    if isinstance(module, nn.GroupNorm):
        normal = functional.group_norm(a, module.num_groups, eps=module.eps)
    elif module.training or module.running_mean is None:
        return None
    else:
        mean, variance = module.running_mean, module.running_var
        normal = functional.batch_norm(a, mean, variance, eps=module.eps)
    product = delta if name == "bias" else delta * normal
    return Rows(product.flatten(2).sum(2) if product.ndim > 2 else product)
