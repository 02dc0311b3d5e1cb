r"""Per-example gradients of a module's parameters, from what goes into it and what comes back.

A module that multiplies its input has gradients that factor: with a [b, t, in] its inputs at t
positions and δ [b, t, out] the derivatives of the measure in its outputs, the gradient of example b
is Σ_t δ_bt a_btᵀ. One forward and one backward pass for the whole batch give both; no loop over
examples. What is not listed in `contribution` is left to differentiation, one example at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

_TILE = 2**25  # numbers of per-example gradients that stand at once: 128 MB of float32
_FEW_SUMS = 4  # columns below which sums of factored gradients are products of factors
_SMALL_TABLE = 4  # rows of an embedding per position up to which its gradients are formed
_FEW = 16  # columns below which one wide product beats one per output


class Contribution(ABC):
    """The gradients g_b of one parameter for b examples, through one use of one module."""

    @abstractmethod
    def dot(self, v: Tensor) -> Tensor:
        """Return g_bᵀ V for V [p, k], shape [b, k]."""

    @abstractmethod
    def sum(self, w: Tensor) -> Tensor:
        """Return Σ_b W[b, k] g_b, [p, k]."""

    @abstractmethod
    def squares(self, w: Tensor) -> Tensor:
        """Return Σ_b w_b g_b², entry by entry, [p]."""

    def products(self, v: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """Return G V and Gᵀ W."""
        return self.dot(v), self.sum(w)


@final
@dataclass(frozen=True, eq=False)
class Rows(Contribution):
    """Gradients that are stored as they are: of biases and norms, which are small.

    Args:
        matrix: G, [b, p].
    """

    matrix: Tensor

    def dot(self, v: Tensor) -> Tensor:
        """Return G V."""
        return self.matrix @ v

    def sum(self, w: Tensor) -> Tensor:
        """Return Gᵀ W."""
        return self.matrix.T @ w

    def squares(self, w: Tensor) -> Tensor:
        """Return (G²)ᵀ w."""
        return self.matrix.square().T @ w


@final
@dataclass(frozen=True, eq=False)
class Outer(Contribution):
    """Gradients Σ_t left_t right_tᵀ, flat row by row.

    Args:
        left: [b, t, m].
        right: [b, t, d].
    """

    left: Tensor
    right: Tensor

    def rows(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield slices of examples with their gradients, [·, m d]."""
        b, _, m = self.left.shape
        step = max(1, _TILE // (m * self.right.shape[2]))
        for start in range(0, b, step):
            part = slice(start, start + step)
            yield part, torch.bmm(self.left[part].mT, self.right[part]).flatten(1)

    def dot(self, v: Tensor) -> Tensor:
        """Return G V: from the factors at one position, else a tile of G at a time."""
        if self.left.shape[1] == 1:
            return self._dot_at_one_position(v)
        return torch.cat([matrix @ v for _, matrix in self.rows()])

    def _dot_at_one_position(self, v: Tensor) -> Tensor:
        """Return leftᵀ V right per example: G, whose size is bound by memory, is never made."""
        left, right = self.left[:, 0], self.right[:, 0]
        m, d, k = left.shape[1], right.shape[1], v.shape[1]
        columns = v.reshape(m, d, k)
        if k < _FEW:
            product = right @ columns.transpose(0, 1).reshape(d, m * k)
            return torch.einsum("bm,bmk->bk", left, product.reshape(-1, m, k))
        return torch.einsum("mb,mbk->bk", left.T, torch.matmul(right, columns))

    def sum(self, w: Tensor) -> Tensor:
        """Return Gᵀ W: few columns as products of factors, else a tile of G at a time."""
        if w.shape[1] < _FEW_SUMS:
            left, right = self.left, self.right.flatten(0, 1)
            columns = [(left * c.reshape(-1, 1, 1)).flatten(0, 1).T @ right for c in w.unbind(1)]
            return torch.stack(columns, -1).flatten(0, 1)
        total = w.new_zeros(self.left.shape[2] * self.right.shape[2], w.shape[1])
        for part, matrix in self.rows():
            total.addmm_(matrix.T, w[part])
        return total

    def products(self, v: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """Return G V and Gᵀ W; at several positions from the same tiles of G."""
        if self.left.shape[1] == 1:
            return self.dot(v), self.sum(w)
        total = w.new_zeros(self.left.shape[2] * self.right.shape[2], w.shape[1])
        dots = []
        for part, matrix in self.rows():
            dots.append(matrix @ v)
            total.addmm_(matrix.T, w[part])
        return torch.cat(dots), total

    def squares(self, w: Tensor) -> Tensor:
        """Return (G²)ᵀ w; at one position the square of a product is the product of squares."""
        if self.left.shape[1] == 1:
            left, right = self.left[:, 0].square(), self.right[:, 0].square()
            return ((left * w.unsqueeze(1)).T @ right).flatten()
        total = w.new_zeros(self.left.shape[2] * self.right.shape[2])
        for part, matrix in self.rows():
            total.addmv_(matrix.square_().T, w[part])
        return total


@final
@dataclass(frozen=True, eq=False)
class Lookup(Contribution):
    """Gradients of a table of which each example reads a few rows: an embedding.

    Args:
        indices: Rows read, [b, t].
        left: Derivatives in what was read, [b, t, d]; zero where the row is not trained.
        size: The number of rows of the table.
    """

    indices: Tensor
    left: Tensor
    size: int

    def dot(self, v: Tensor) -> Tensor:
        """Return Σ_t δ_tᵀ V[row_t]: one column of V at a time, or from G where tables are small."""
        b, t, d = self.left.shape
        if self.size <= _SMALL_TABLE * t:
            example = torch.arange(b, device=v.device).unsqueeze(1)
            G = self.left.new_zeros(b * self.size, d)
            G.index_add_(0, (example * self.size + self.indices).flatten(), self.left.flatten(0, 1))
            return G.view(b, -1) @ v
        tables = v.T.reshape(-1, self.size, d)
        return torch.stack([(t[self.indices] * self.left).sum((1, 2)) for t in tables], 1)

    def sum(self, w: Tensor) -> Tensor:
        """Return Σ_b W[b, k] g_b, one column of W at a time."""
        d, rows = self.left.shape[2], self.indices.flatten()
        total = w.new_zeros(w.shape[1], self.size, d)
        for k, table in enumerate(total):
            table.index_add_(0, rows, (w[:, k].reshape(-1, 1, 1) * self.left).reshape(-1, d))
        return total.reshape(len(total), -1).T

    def squares(self, w: Tensor) -> Tensor:
        """Return Σ_b w_b g_b²: what one example reads twice is summed before it is squared."""
        b, _, d = self.left.shape
        example = torch.arange(b, device=w.device).unsqueeze(1)
        read, place = torch.unique(example * self.size + self.indices, return_inverse=True)
        summed = w.new_zeros(len(read), d).index_add_(0, place.flatten(), self.left.reshape(-1, d))
        table = w.new_zeros(self.size, d)
        scaled = summed.square_().mul_(w[read // self.size].unsqueeze(1))
        return table.index_add_(0, read % self.size, scaled).flatten()


@dataclass(frozen=True, eq=False)
class Use:
    """One call of a module: what went in, and where its output stands in the graph.

    Args:
        module: The module.
        inputs: Its first argument.
        edge: The place of its output in the graph, before anything acts on it in place.
        shape: The shape of its output.
    """

    module: nn.Module
    inputs: Tensor
    edge: GradientEdge
    shape: torch.Size


@contextmanager
def recorded(
    modules: list[nn.Module], b: int = 1, spread: Collection[nn.Module] = ()
) -> Iterator[list[Use]]:
    """Record every call of some modules while the context lasts.

    Args:
        modules: The modules.
        b: The number of examples in the batch.
        spread: Those that are called once for all examples, as embeddings of positions are: their
            output, and what they saw, are repeated for each example, so that each has its own.

    Yields:
        The list that fills with their uses.
    """
    uses: list[Use] = []

    def record(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
        tensor = isinstance(output, Tensor) and output.requires_grad
        if tensor and arguments and isinstance(arguments[0], Tensor):
            inputs = arguments[0].detach()
            if module in spread:
                inputs, output = _spread(inputs, b, 2), _spread(output, b, 3)
            edge = get_gradient_edge(output)
            uses.append(Use(module, inputs, edge, output.shape))
        return output

    handles = [module.register_forward_hook(record) for module in modules]
    try:
        yield uses
    finally:
        for handle in handles:
            handle.remove()


def _spread(tensor: Tensor, b: int, ndim: int) -> Tensor:
    """Return what holds for all examples, [1, ...] or [...] of fewer dimensions, for each of b."""
    one = tensor if tensor.ndim >= ndim else tensor.unsqueeze(0)
    return one.expand(b, *one.shape[1:])


def contribution(use: Use, name: str, delta: Tensor, b: int) -> Contribution | None:
    """Return what one use of a module contributes to the gradients of one of its parameters.

    Args:
        use: The call.
        name: The module's own name of the parameter: "weight" or "bias".
        delta: The derivatives of Σ_b m_b in the module's output.
        b: The number of examples.

    Returns:
        The gradients, or `None` where no rule is known, or the batch does not come first.
    """
    a, module = use.inputs, use.module
    if delta.shape[0] != b or a.shape[0] != b:
        return None
    rule = _rule(module)
    return None if rule is None else rule(module, name, a, delta)


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
    if kind in (nn.LayerNorm, nn.GroupNorm) or isinstance(module, _BatchNorm):
        return _norm
    if kind.__name__ == "Conv1D" and kind.__module__.startswith("transformers."):
        return _conv1d_of_transformers
    return None


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
    """Return what the weight of a module that `multiplies` is applied to, [b, t, in]."""
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        unfolded = patches(module, a)
        assert unfolded is not None
        return unfolded
    return _positions(a)


def products(module: nn.Module, delta: Tensor) -> Tensor:
    """Return the derivatives in what the weight makes of it, [b, t, out]."""
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        return delta.flatten(2).mT
    return _positions(delta)


def stored_by_inputs(module: nn.Module) -> bool:
    """Return whether a module that multiplies stores its weight as [in, out]."""
    return _rule(module) is _conv1d_of_transformers


def _linear(module: nn.Linear, name: str, a: Tensor, delta: Tensor) -> Contribution:
    """Return Σ_t δ_t a_tᵀ, or Σ_t δ_t."""
    delta = _positions(delta)
    return Rows(delta.sum(1)) if name == "bias" else Outer(delta, _positions(a))


def _conv1d_of_transformers(module: Any, name: str, a: Tensor, delta: Tensor) -> Contribution:
    """Return the same for a weight stored as [in, out]."""
    delta = _positions(delta)
    return Rows(delta.sum(1)) if name == "bias" else Outer(_positions(a), delta)


def patches(module: nn.Conv1d | nn.Conv2d, a: Tensor) -> Tensor | None:
    """Return what a convolution multiplies at each output position, [b, t, in · kernel].

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
    return None if unfolded is None else Outer(delta, unfolded)


def _embedding(module: nn.Embedding, name: str, a: Tensor, delta: Tensor) -> Contribution | None:
    """Return the rows that were read."""
    if module.max_norm is not None or module.scale_grad_by_freq:
        return None
    indices = a.reshape(len(a), -1)
    left = delta.reshape(len(a), indices.shape[1], -1)
    if module.padding_idx is not None:
        left = left * (indices != module.padding_idx).unsqueeze(2)
    return Lookup(indices, left, module.num_embeddings)


def _norm(module: Any, name: str, a: Tensor, delta: Tensor) -> Contribution | None:
    """Return Σ_t δ_t x̂_t or Σ_t δ_t, x̂ the normalized input."""
    if isinstance(module, nn.LayerNorm):
        size = delta.shape[delta.ndim - len(module.normalized_shape) :].numel()
        normal = functional.layer_norm(a, module.normalized_shape, eps=module.eps)
        product = (delta if name == "bias" else delta * normal).reshape(len(a), -1, size)
        return Rows(product.sum(1))
    if isinstance(module, nn.GroupNorm):
        normal = functional.group_norm(a, module.num_groups, eps=module.eps)
    elif module.training or module.running_mean is None:
        return None
    else:
        mean, variance = module.running_mean, module.running_var
        normal = functional.batch_norm(a, mean, variance, eps=module.eps)
    product = delta if name == "bias" else delta * normal
    return Rows(product.flatten(2).sum(2) if product.ndim > 2 else product)
