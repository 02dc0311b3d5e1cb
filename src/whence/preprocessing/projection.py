r"""Projections on leading singular vectors, as functions of which rows they were found on.

With A = Xᵀ diag(k) X and its eigenpairs (λᵢ, vᵢ), first-order perturbation gives

```
dvⱼ = Σ_{i ≠ j} vᵢ (vᵢᵀ dA vⱼ)/(λⱼ − λᵢ)        so that  Σⱼ v̄ⱼᵀ dvⱼ = Σⱼ zⱼᵀ dA vⱼ
zⱼ = Σ_{i ≠ j} vᵢ (vᵢᵀ v̄ⱼ)/(λⱼ − λᵢ)
```

Eigenvectors beyond those that are known share their mean eigenvalue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import svds
from sklearn.decomposition import PCA, TruncatedSVD
from torch import Tensor

from whence.preprocessing.columns import Columns, SparseColumns
from whence.preprocessing.scaling import moments
from whence.preprocessing.step import Leaf

_EXACT = 1_000  # columns up to which all eigenvectors are found
_BEYOND = 50  # singular vectors found beyond four times those in use, where there are more columns
_SAME = 1e-9  # relative distance of eigenvalues below which their vectors may turn freely


@dataclass(frozen=True, eq=False)
class Projected(Leaf):
    """`PCA` and `TruncatedSVD`.

    Args:
        transformer: Fitted.
    """

    transformer: Any

    @property
    def centered(self) -> bool:
        """Whether means are subtracted."""
        return isinstance(self.transformer, PCA)

    def statistics(self, x: Columns, kept: Tensor) -> tuple[Tensor, ...]:
        """Return means, components as columns, and the scale of each coordinate."""
        components = np.ascontiguousarray(self.transformer.components_.T, dtype=np.float64)
        fitted = torch.from_numpy(components)
        if isinstance(x, SparseColumns):
            if self.centered:
                raise ValueError("Centered sparse columns are held.")
            known = _leading(x, fitted)
            vectors = _vectors(kept, x.values, x, known)
            zero = kept.new_zeros(x.shape[1])
            return zero, vectors, kept.new_ones(fitted.shape[1])
        mean = kept.new_zeros(x.shape[1])
        if self.centered:
            mean, _ = moments(x, kept)
        apart = x - mean
        vectors = _vectors(kept, apart, None, _leading(apart.detach(), fitted))
        scale = kept.new_ones(fitted.shape[1])
        if getattr(self.transformer, "whiten", False):
            along = kept @ (apart @ vectors).square()
            scale = (along / (kept.sum() - 1)).sqrt()
        return mean, vectors, scale

    def apply(self, x: Columns, *statistics: Tensor) -> Columns:
        """Return (x − mean) V, over the scale."""
        mean, vectors, scale = statistics
        if isinstance(x, SparseColumns):
            return product(x, vectors)
        return (x - mean) @ vectors / scale


def product(x: SparseColumns, v: Tensor) -> Tensor:
    """Return X V, [n, k], without forming a row of V for each value.

    Args:
        x: X, [n, d].
        v: V, [d, k].
    """
    matrix = torch.sparse_coo_tensor(
        torch.stack([x.rows, x.columns]), x.values, x.shape, check_invariants=False
    )
    products: Tensor = torch.sparse.mm(matrix, v)
    return products


@dataclass(frozen=True, eq=False)
class _Eigenpairs:
    """The eigenpairs of A that are known, those in use first.

    Args:
        vectors: [d, m].
        values: [m].
        rest: The mean of the other eigenvalues.
        used: How many are in use.
    """

    vectors: Tensor
    values: Tensor
    rest: float
    used: int

    def response(self, change: Tensor) -> Tensor:
        """Return Z for V̄ [d, k]."""
        k = self.used
        along = self.vectors.T @ change
        gaps = self.values[:k].unsqueeze(0) - self.values.unsqueeze(1)
        same = gaps.abs() <= _SAME * self.values[0].abs()
        z = self.vectors @ torch.where(same, torch.zeros_like(along), along / _safe(gaps, same))
        outside = change - self.vectors @ along
        return z + outside / (self.values[:k] - self.rest)


def _safe(gaps: Tensor, same: Tensor) -> Tensor:
    """Return gaps with 1 in place of those that are none."""
    return torch.where(same, torch.ones_like(gaps), gaps)


def _leading(x: Columns, fitted: Tensor) -> _Eigenpairs:
    """Return the eigenpairs of XᵀX: the fitted components, then others orthogonal to them."""
    d, k = fitted.shape
    if isinstance(x, SparseColumns):
        places = x.rows.numpy(), x.columns.numpy()
        matrix: Any = sparse.csr_array((x.values.detach().numpy(), places), shape=x.shape)
        scores = torch.from_numpy(np.asarray(matrix @ fitted.numpy()))
        trace = float((matrix.data**2).sum())
        most = min(*matrix.shape) - 1
        _, _, others = svds(matrix, k=min(most, 4 * k + _BEYOND), random_state=0)
        found = torch.from_numpy(np.ascontiguousarray(others.T))
        size = torch.from_numpy(np.asarray(matrix @ found.numpy())).square().sum(0)
    else:
        scores, trace = x @ fitted, float(x.square().sum())
        if d > _EXACT:
            raise ValueError("Projections of that many dense columns are held.")
        size, found = torch.linalg.eigh(x.T @ x)
    order = size.argsort(descending=True)
    found, size = found[:, order[k:]], size[order[k:]]
    found = found - fitted @ (fitted.T @ found)
    found = torch.linalg.qr(found).Q
    values = torch.cat([scores.square().sum(0), size])
    beyond = d - len(values)
    rest = max(0.0, trace - float(values.sum())) / beyond if beyond else 0.0
    return _Eigenpairs(torch.cat([fitted, found], 1), values, rest, k)


class _Vectors(torch.autograd.Function):
    """The fitted components, with the derivative of leading eigenvectors of Xᵀ diag(k) X."""

    @staticmethod
    def forward(
        ctx: Any, kept: Tensor, values: Tensor, places: SparseColumns | None, known: _Eigenpairs
    ) -> Tensor:
        """Return V, [d, k]."""
        ctx.save_for_backward(kept, values)
        ctx.places, ctx.known = places, known
        return known.vectors[:, : known.used].clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        """Return the derivatives in k and in the values of X."""
        kept, values = ctx.saved_tensors
        known, places = ctx.known, ctx.places
        used = known.vectors[:, : known.used]
        z = known.response(gradients[0])
        if places is None:
            left, right = values @ z, values @ used
            inside = kept.unsqueeze(1) * (left @ used.T + right @ z.T)
        else:
            x = places.with_values(values)
            left, right = product(x, z), product(x, used)
            inside = kept[x.rows] * (
                (left[x.rows] * used[x.columns]).sum(1) + (right[x.rows] * z[x.columns]).sum(1)
            )
        return (left * right).sum(1), inside, None, None


def _vectors(
    kept: Tensor, values: Tensor, places: SparseColumns | None, known: _Eigenpairs
) -> Tensor:
    """Return the fitted components as a function of which rows are there and of their numbers."""
    vectors: Tensor = _Vectors.apply(kept, values, places, known)  # type: ignore[no-untyped-call]
    return vectors


KINDS = (PCA, TruncatedSVD)
