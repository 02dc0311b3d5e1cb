r"""Per-example gradients of one parameter, stored in the form whose products are cheap.

Factors may be in bfloat16. What is large is then multiplied in bfloat16 as well, and sums over
examples are taken in the precision of what they are added to.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from whence.tiles import tiles

_TILE = 2**25  # numbers of per-example gradients in memory at once: 128 MB of float32
_FEW_SUMS = 4  # columns below which sums of factored gradients are products of factors
_SMALL_TABLE = 4  # rows of an embedding per position up to which its gradients are formed
_FEW = 16  # columns below which one wide product beats one per output


class Contribution(ABC):
    """The gradients g_b of one parameter for b examples, through one call of one module.

    Products take V and W in the precision of the factors or above it.
    """

    @abstractmethod
    def dot(self, v: Tensor) -> Tensor:
        """Return g_bᵀ V for V [p, k], shape [b, k]."""

    @abstractmethod
    def sum(self, w: Tensor) -> Tensor:
        """Return Σ_b W[b, k] g_b, [p, k]."""

    @abstractmethod
    def squares(self, w: Tensor) -> Tensor:
        """Return Σ_b w_b g_b², entry by entry, [p]."""

    def whole(self) -> Tensor | None:
        """Return G [b, p], if it is in memory."""
        return None

    def rank_one(self) -> tuple[tuple[Tensor, Tensor]] | tuple[()]:
        """Return [b, m] and [b, d] of which g_b is the outer product, if it is one of a layer."""
        return ()

    def two_sided(self) -> TwoSided | None:
        """Return itself if it is a sum of outer products, which each side can project."""
        return None

    def widened(self, dtype: torch.dtype) -> Contribution:
        """Return it in another precision where it is small; factors at all positions are not."""
        return self


class TwoSided(Contribution):
    """Gradients Σ_t left_t right_tᵀ [m, d] for b examples."""

    @property
    @abstractmethod
    def sides(self) -> tuple[int, int]:
        """The lengths m and d."""

    @abstractmethod
    def between(self, left: Tensor, right: Tensor) -> Tensor:
        """Return Lᵀ g_b R for L [m, r] and R [d, r′], flat, [b, r r′] in their precision."""

    def two_sided(self) -> TwoSided:
        """Return itself."""
        return self


@final
@dataclass(frozen=True, eq=False)
class Rows(Contribution):
    """Dense gradients, of biases and norms, which are small.

    Args:
        matrix: G, [b, p].
    """

    matrix: Tensor

    def dot(self, v: Tensor) -> Tensor:
        """Return G V."""
        return self.matrix @ v.to(self.matrix.dtype)

    def sum(self, w: Tensor) -> Tensor:
        """Return Gᵀ W."""
        return self.matrix.T @ w

    def squares(self, w: Tensor) -> Tensor:
        """Return (G²)ᵀ w."""
        return self.matrix.square().T @ w

    def whole(self) -> Tensor:
        """Return G."""
        return self.matrix

    def widened(self, dtype: torch.dtype) -> Rows:
        """Return the same gradients in another precision."""
        return Rows(self.matrix.to(dtype))


@final
@dataclass(frozen=True, eq=False)
class Outer(TwoSided):
    """Gradients Σ_t left_t right_tᵀ, flat row by row.

    Args:
        left: [b, t, m].
        right: [b, t, d], in the same precision.
    """

    left: Tensor
    right: Tensor

    @property
    def sides(self) -> tuple[int, int]:
        """M and d."""
        return self.left.shape[2], self.right.shape[2]

    def between(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the products, from projected factors."""
        dtype = self.left.dtype
        first, second = self.left @ left.to(dtype), self.right @ right.to(dtype)
        return torch.bmm(first.mT, second).flatten(1).to(left.dtype)

    def rank_one(self) -> tuple[tuple[Tensor, Tensor]] | tuple[()]:
        """Return the factors, if there is one position per example."""
        return ((self.left[:, 0], self.right[:, 0]),) if self.left.shape[1] == 1 else ()

    def rows(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield slices of examples with their gradients, [·, m d]."""
        b, _, m = self.left.shape
        for part in tiles(b, m * self.right.shape[2], _TILE):
            yield part, torch.bmm(self.left[part].mT, self.right[part]).flatten(1)

    def dot(self, v: Tensor) -> Tensor:
        """Return G V: from the factors at one position, else a tile of G at a time."""
        if self.left.shape[1] == 1:
            return self._dot_at_one_position(v)
        v = v.to(self.left.dtype)
        return torch.cat([matrix @ v for _, matrix in self.rows()])

    def _dot_at_one_position(self, v: Tensor) -> Tensor:
        """Return leftᵀ V right per example: G, whose size is bound by memory, is never made."""
        left, right = self.left[:, 0], self.right[:, 0]
        m, d, k = left.shape[1], right.shape[1], v.shape[1]
        columns = v.to(left.dtype).reshape(m, d, k)
        if k < _FEW:
            product = right @ columns.transpose(0, 1).reshape(d, m * k)
            return torch.einsum("bm,bmk->bk", left, product.reshape(-1, m, k))
        return torch.einsum("mb,mbk->bk", left.T, torch.matmul(right, columns))

    def sum(self, w: Tensor) -> Tensor:
        """Return Gᵀ W: few columns as products of factors, else a tile of G at a time."""
        if w.shape[1] < _FEW_SUMS:
            left, right = self.left, self.right.flatten(0, 1)
            scales = w.to(left.dtype).unbind(1)
            columns = [(left * c.reshape(-1, 1, 1)).flatten(0, 1).T @ right for c in scales]
            if len(columns) == 1:
                return columns[0].reshape(-1, 1).to(w.dtype)
            return torch.stack(columns, -1).flatten(0, 1).to(w.dtype)
        total = w.new_zeros(self.left.shape[2] * self.right.shape[2], w.shape[1])
        for part, matrix in self.rows():
            _add_product(total, matrix.T, w[part])
        return total

    def squares(self, w: Tensor) -> Tensor:
        """Return (G²)ᵀ w; at one position the square of a product is the product of squares."""
        if self.left.shape[1] == 1:
            left, right = self.left[:, 0].to(w.dtype).square(), self.right[:, 0].square()
            return ((left * w.unsqueeze(1)).T @ right.to(w.dtype)).flatten()
        total = w.new_zeros(self.left.shape[2] * self.right.shape[2], 1)
        for part, matrix in self.rows():
            _add_product(total, matrix.square_().T, w[part].unsqueeze(1))
        return total.flatten()


@final
@dataclass(frozen=True, eq=False)
class Lookup(TwoSided):
    """Gradients of a table of which each example reads a few rows: an embedding.

    Args:
        indices: Rows read, [b, t].
        left: Derivatives in what was read, [b, t, d]; zero where the row is not trained.
        size: The number of rows of the table.
    """

    indices: Tensor
    left: Tensor
    size: int

    @property
    def sides(self) -> tuple[int, int]:
        """Rows of the table, and their length."""
        return self.size, self.left.shape[2]

    def between(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the products: what was read is a one-hot row."""
        first, second = left[self.indices], self.left @ right
        return torch.bmm(first.mT, second).flatten(1).to(left.dtype)

    def widened(self, dtype: torch.dtype) -> Lookup:
        """Return the same gradients in another precision."""
        return replace(self, left=self.left.to(dtype))

    def dot(self, v: Tensor) -> Tensor:
        """Return Σ_t δ_tᵀ V[row_t]: one column of V at a time, or from G where tables are small."""
        b, t, d = self.left.shape
        if self.size <= _SMALL_TABLE * t:
            example = torch.arange(b, device=v.device).unsqueeze(1)
            G = self.left.new_zeros(b * self.size, d)
            G.index_add_(0, (example * self.size + self.indices).flatten(), self.left.flatten(0, 1))
            return G.view(b, -1) @ v.to(G.dtype)
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


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add A B, multiplied in the precision of A, to a total that is at least as precise."""
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b.to(a.dtype)
