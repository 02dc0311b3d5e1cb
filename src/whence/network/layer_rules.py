"""How the per-example gradients of each kind of module are made: one rule per kind."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from whence.network.attention import InProjection
from whence.network.calls import ModuleCall
from whence.network.experts import FusedExperts, are_fused_experts
from whence.network.gradients import Contribution, Lookup, Outer, Rows
from whence.network.rule import Rule, positions
from whence.network.shared import Copies


def rule_of(module: nn.Module) -> Rule | None:
    """Return how a kind of module's gradients are made; subclasses may compute otherwise.

    Args:
        module: The module.
    """
    kind = type(module)
    if kind in _RULES:
        return _RULES[kind]
    if kind.__module__.startswith("transformers."):
        if kind.__name__.endswith("RMSNorm"):
            return _RMS_NORM_OF_TRANSFORMERS
        if kind.__name__ == "Conv1D":
            return _BY_INPUTS
        if issubclass(kind, nn.Linear):
            return _RULES[nn.Linear]  # Falcon's multiplies without functional.linear
    if isinstance(module, nn.Embedding):
        return _READS
    if are_fused_experts(module):
        return _EXPERTS
    if issubclass(kind, nn.LayerNorm):
        return _FUNCTIONAL_LAYER_NORM
    if _only_a_scale(module):
        return _SCALE
    if kind is nn.ParameterDict:
        return _Scales(module)
    weight = dict(module.named_parameters(recurse=False)).get("weight")
    return _FUNCTIONAL if weight is not None and weight.ndim == 2 else None


class _Multiplies(Rule):
    """Σ_t δ_t a_tᵀ, and Σ_t δ_t of the bias."""

    def multiplies(self, module: Any) -> bool:
        """Return whether it is one matrix: it is."""
        return True

    def gradients(self, module: Any, name: str, a: Tensor, delta: Tensor) -> Contribution | None:
        """Return the two factors, both in the lower precision of the two."""
        delta = self.output_gradients(delta)
        if name == "bias":
            return Rows(delta.sum(1))
        if not self.multiplies(module):
            return None
        a = self.activations(module, a)
        least = min(a.dtype, delta.dtype, key=lambda dtype: dtype.itemsize)
        a, delta = a.to(least), delta.to(least)
        return Outer(a, delta) if self.by_inputs else Outer(delta, a)


@final
class _Linear(_Multiplies):
    """A linear layer."""


@final
class _ByInputs(_Multiplies):
    """A linear layer of the transformers library whose weight is stored as [in, out]."""

    by_inputs: ClassVar[bool] = True


@final
class _Functional(_Multiplies):
    """A module of any type that calls `functional.linear` on its weight: a router of experts."""

    functional: ClassVar[bool] = True


class _Convolution(_Multiplies):
    """A convolution: one matrix on patches, or one for each group of channels."""

    def multiplies(self, module: Any) -> bool:
        """Return whether it is one matrix."""
        return bool(module.groups == 1)

    def gradients(self, module: Any, name: str, a: Tensor, delta: Tensor) -> Contribution | None:
        """Return the two factors, or of each group the product, [out, in / groups · kernel]."""
        if self.multiplies(module) or name == "bias":
            return super().gradients(module, name, a, delta)
        seen, left = self.activations(module, a).mT, self.output_gradients(delta).mT
        each = (len(a), module.groups, -1, left.shape[2])
        return Rows((left.reshape(each) @ seen.reshape(each).mT.to(left.dtype)).flatten(1))

    def activations(self, module: Any, a: Tensor) -> Tensor:
        """Return the input patches, one per output position, [b, t, in · kernel]."""
        return functional.unfold(
            self._padded(module, a),
            module.kernel_size,
            dilation=module.dilation,
            stride=module.stride,
        ).mT

    def _padded(self, module: Any, a: Tensor) -> Tensor:
        """Return the input as it is padded: around, by as much as makes it the same, or not."""
        mode = {"zeros": "constant"}.get(module.padding_mode, module.padding_mode)
        return functional.pad(a, module._reversed_padding_repeated_twice, mode)

    def output_gradients(self, delta: Tensor) -> Tensor:
        """Return δ at each output position."""
        return delta.flatten(2).mT


@final
class _Convolution2d(_Convolution):
    """A convolution of images."""


@final
class _Convolution1d(_Convolution):
    """A convolution of sequences: of images one pixel high."""

    def activations(self, module: Any, a: Tensor) -> Tensor:
        """Return the input patches, one per output position, [b, t, in · kernel]."""
        return functional.unfold(
            self._padded(module, a).unsqueeze(2),
            (1, *module.kernel_size),
            dilation=(1, *module.dilation),
            stride=(1, *module.stride),
        ).mT


@final
class _Embedding(Rule):
    """A table: the rows that were read."""

    reads: ClassVar[bool] = True

    def gradients(self, module: Any, name: str, a: Tensor, delta: Tensor) -> Contribution | None:
        """Return the rows; `None` of a table whose gradients are scaled, or its rows cut."""
        if module.max_norm is not None or module.scale_grad_by_freq:
            return None
        indices = a.reshape(len(a), -1)
        left = delta.reshape(len(a), indices.shape[1], -1)
        if module.padding_idx is not None:
            left = left * (indices != module.padding_idx).unsqueeze(2)
        return Lookup(indices, left, module.num_embeddings)


@final
class _LayerNorm(Rule):
    """Σ_t δ_t x̂_t or Σ_t δ_t, x̂ the input normalized in each example.

    Args:
        functional: See `Rule`: of a kind that moves the channels before it normalizes.
    """

    def __init__(self, functional: bool = False) -> None:
        self.functional = functional  # type: ignore[misc]

    def gradients(self, module: Any, name: str, a: Tensor, delta: Tensor) -> Contribution:
        """Return the sums."""
        size = delta.shape[delta.ndim - len(module.normalized_shape) :].numel()
        if name == "weight":
            shape = module.normalized_shape  # with constants it is twice as fast as without
            like = torch.ones(shape, dtype=delta.dtype, device=a.device)
            normal = functional.layer_norm(a, shape, like, torch.zeros_like(like), module.eps)
            delta = delta * normal
        return Rows(delta.reshape(len(a), -1, size).sum(1))


class _ChannelNorm(Rule):
    """Σ_t δ_t x̂_t or Σ_t δ_t, with a weight per channel."""

    @abstractmethod
    def normalized(self, module: Any, a: Tensor) -> Tensor | None:
        """Return x̂; `None` where it depends on the other examples."""

    def gradients(self, module: Any, name: str, a: Tensor, delta: Tensor) -> Contribution | None:
        """Return the sums."""
        normal = self.normalized(module, a)
        if normal is None:
            return None
        product = delta if name == "bias" else delta * normal
        return Rows(product.flatten(2).sum(2) if product.ndim > 2 else product)


@final
class _GroupNorm(_ChannelNorm):
    """Groups of channels are normalized together."""

    def normalized(self, module: Any, a: Tensor) -> Tensor:
        """Return x̂."""
        return functional.group_norm(a, module.num_groups, eps=module.eps)


@final
class _BatchNorm(_ChannelNorm):
    """Running statistics normalize, outside training."""

    def normalized(self, module: Any, a: Tensor) -> Tensor | None:
        """Return x̂; `None` in training."""
        if module.training or module.running_mean is None:
            return None
        return functional.batch_norm(a, module.running_mean, module.running_var, eps=module.eps)


@final
class _RMSNorm(Rule):
    """Σ_t δ_t x/rms(x)."""

    def gradients(self, module: Any, name: str, a: Tensor, delta: Tensor) -> Contribution:
        """Return the sums."""
        shape = tuple(module.normalized_shape)
        product = delta * functional.rms_norm(a, shape, eps=module.eps)
        return Rows(product.reshape(len(a), -1, math.prod(shape)).sum(1))


@final
class _RMSNormOfTransformers(Rule):
    """The same for a layer that normalizes in float32, whatever its input."""

    def gradients(self, module: Any, name: str, a: Tensor, delta: Tensor) -> Contribution | None:
        """Return the sums."""
        eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        if eps is None:
            return None
        wide = a.float()
        normal = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        return Rows(positions(delta * normal.to(a.dtype)).sum(1))


@final
class _Scale(Rule):
    """Σ_t δ_t h(x)_t of a module that computes w ⊙ h(x), or (1 + w) ⊙ h(x).

    h is what the module gives for w = 1 less what it gives for w = 0. Whether a module is of this
    form is not known here: the rule counts where it agrees with differentiation.
    """

    def slopes(
        self, module: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]
    ) -> Tensor | None:
        """Return h(x)."""
        weight = torch.ones_like(module.weight)
        values = weight, torch.zeros_like(weight)
        one, zero = (_with_weight(module, value, *arguments, **named) for value in values)
        return None if one is None or zero is None else one - zero

    def of_call(self, call: ModuleCall, name: str, delta: Tensor) -> Contribution | None:
        """Return the sums."""
        found, size = call.slopes, call.parameters["weight"].shape[0]
        if found is None or found.shape != delta.shape or delta.shape[-1] != size:
            return None
        return Rows(positions(delta * found.to(delta.dtype)).sum(1))

    def gradients(self, module: Any, name: str, a: Tensor, delta: Tensor) -> None:
        """Return `None`: the module may take more than one input."""


@final
class _Scales(Rule):
    """Σ_t δ_t x_t of vectors that a module holds, by which another one scales x."""

    def __init__(self, module: Any) -> None:
        self.names = frozenset(module)  # type: ignore[misc]

    def gradients(self, module: Any, name: str, a: Tensor, delta: Tensor) -> Contribution | None:
        """Return the sums."""
        if a.shape != delta.shape:
            return None
        return Rows(positions(delta * a.to(delta.dtype)).sum(1))


@final
class _Copies(Rule):
    """The output gradients of copies of a parameter, one for each example, are its gradients."""

    names: ClassVar[frozenset[str]] = frozenset({Copies.value})

    def gradients(self, module: Any, name: str, a: Tensor, delta: Tensor) -> Contribution:
        """Return them."""
        return Rows(delta.reshape(len(a), -1))


@final
class _Reads(Rule):
    """The rows that were read by a kind of embedding: one that scales, or counts positions.

    A table of ones gives the scale of what was read, and a table of row numbers gives the rows.
    Whether a module reads rows at all is not known here: the rule counts where it agrees with
    differentiation.
    """

    reads: ClassVar[bool] = True

    def gradients(self, module: Any, name: str, a: Tensor, delta: Tensor) -> Contribution | None:
        """Return the rows."""
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


_BY_INPUTS, _RMS_NORM_OF_TRANSFORMERS = _ByInputs(), _RMSNormOfTransformers()
_READS, _SCALE, _EXPERTS, _FUNCTIONAL = _Reads(), _Scale(), FusedExperts(), _Functional()
_FUNCTIONAL_LAYER_NORM = _LayerNorm(functional=True)
_RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: _Linear(),
    InProjection: _Linear(),
    NonDynamicallyQuantizableLinear: _Linear(),  # the output projection of attention
    nn.Conv1d: _Convolution1d(),
    nn.Conv2d: _Convolution2d(),
    nn.Embedding: _Embedding(),
    nn.LayerNorm: _LayerNorm(),
    nn.GroupNorm: _GroupNorm(),
    nn.BatchNorm1d: _BatchNorm(),
    nn.BatchNorm2d: _BatchNorm(),
    nn.BatchNorm3d: _BatchNorm(),
    nn.RMSNorm: _RMSNorm(),
    Copies: _Copies(),
}


def _only_a_scale(module: nn.Module) -> bool:
    """Return whether a module of any type has one parameter, a vector called weight."""
    held = dict(module.named_parameters(recurse=False))
    lone = list(held) == ["weight"] and held["weight"].ndim == 1
    return lone and not any(True for _ in module.children())


def _with_weight(module: nn.Module, weight: Tensor, *arguments: Any, **named: Any) -> Tensor | None:
    """Return what a module gives with another weight; `None` if it fails or gives no tensor."""
    twin = copy.copy(module)  # the module itself may be running in another thread
    twin._parameters = {"weight": nn.Parameter(weight, requires_grad=False)}
    twin._forward_hooks = OrderedDict()
    try:
        with torch.no_grad():
            found = twin(*arguments, **named)
    except (RuntimeError, TypeError, ValueError, IndexError):
        return None
    return found if isinstance(found, Tensor) else None
