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
from torch import Tensor

from whence.preprocessing.columns import Columns
from whence.preprocessing.dense import DenseColumns
from whence.preprocessing.step import Leaf

_SAME = 1e-9  # relative distance of eigenvalues below which their vectors may turn freely


@dataclass(frozen=True, eq=False)
class Projected(Leaf):
    """`PCA` and `TruncatedSVD`.

    Args:
        transformer: Fitted.
        centered: Whether means are subtracted.
    """

    transformer: Any
    centered: bool

    def statistics(self, x: Columns, kept: Tensor) -> tuple[Tensor, ...]:
        """Return means, components as columns, and the scale of each coordinate."""
        components = np.ascontiguousarray(self.transformer.components_.T, dtype=np.float64)
        mean = x.moments(kept)[0] if self.centered else kept.new_zeros(x.shape[1])
        apart = self._centered(x, mean)
        known = _leading(apart.with_values(apart.values.detach()), torch.from_numpy(components))
        vectors: Tensor = _Vectors.apply(kept, apart.values, apart, known)  # type: ignore[no-untyped-call]
        scale = kept.new_ones(vectors.shape[1])
        if getattr(self.transformer, "whiten", False):
            along = kept @ apart.times(vectors).square()
            scale = (along / (kept.sum() - 1)).sqrt()
        return mean, vectors, scale

    def apply(self, x: Columns, *statistics: Tensor) -> Columns:
        """Return (x − mean) V, over the scale."""
        mean, vectors, scale = statistics
        return DenseColumns(self._centered(x, mean).times(vectors) / scale)

    def _centered(self, x: Columns, mean: Tensor) -> Columns:
        """Return x − mean."""
        return x.shifted(mean, None) if self.centered else x


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
    scores, trace = x.times(fitted), float(x.values.square().sum())
    found, size = x.spectrum(k)
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
        ctx: Any, kept: Tensor, values: Tensor, places: Columns, known: _Eigenpairs
    ) -> Tensor:
        """Return V, [d, k], of the values in their places."""
        ctx.save_for_backward(kept, values)
        ctx.places, ctx.known = places, known
        return known.vectors[:, : known.used].clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        """Return the derivatives in k and in the values of X."""
        kept, values = ctx.saved_tensors
        known, x = ctx.known, ctx.places.with_values(values)
        used = known.vectors[:, : known.used]
        z = known.response(gradients[0])
        left, right = x.times(z), x.times(used)
        there = kept.unsqueeze(1)
        inside = x.outer(there * left, used.T) + x.outer(there * right, z.T)
        return (left * right).sum(1), inside, None, None
