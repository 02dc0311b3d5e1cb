r"""A cheap approximate inverse of a linear model's Hessian, for conjugate gradients to start from.

The Hessian of outputs W x is the mean of Sᵢ ⊗ xᵢxᵢᵀ, plus the penalty, with Sᵢ = ∂²ℓᵢ/∂f². Most of
what makes it ill-conditioned lies in the few leading principal components of x. There (and on the
intercept) it is formed and factored exactly; on the other components it is taken as S̄ ⊗ diag(s),
with S̄ the mean of Sᵢ and s the variance of each component, whose inverse is a division.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from whence.objective.features import DenseFeatures
from whence.objective.losses import output_hessian

if TYPE_CHECKING:
    from whence.objective.linear import LinearObjective

_COMPONENTS = 50  # leading components: on MNIST, 67 products with H become 12
_SAMPLE = 8192  # rows that tell the components and the mean of Sᵢ
_TILE = 1024  # rows whose temporaries stay in cache
_WIDEST = 2048  # columns of X whose components are worth finding
_FLOOR = 1e-12  # of the largest eigenvalue, below which none of the approximation may be


@dataclass(frozen=True, eq=False, kw_only=True)
class TwoLevel:
    """M ≈ (H + λ I)⁻¹, symmetric and positive definite; made by `two_level`.

    Args:
        components: Principal components of x as columns, the leading first, [d, d].
        factor: Cholesky factor of H + λ I on the leading components and the intercept.
        output_basis: Eigenvectors of S̄, [c, c].
        eigenvalues: Of the approximation on the other components, [c, d − r].
        intercept: Whether θ ends with c intercepts.
    """

    components: Tensor
    factor: Tensor
    output_basis: Tensor
    eigenvalues: Tensor
    intercept: bool

    def __call__(self, v: Tensor) -> Tensor:
        """Return M V for V [p, k]."""
        c, k = len(self.output_basis), v.shape[1]
        r = len(self.components) - self.eigenvalues.shape[1]
        rotated = _rotated(self.components, v, c)
        leading = _with_intercept(rotated[:, :r], v, self.intercept)
        solved = torch.cholesky_solve(leading.reshape(-1, k), self.factor).reshape(leading.shape)
        rest = torch.einsum("ab,ajk->bjk", self.output_basis, rotated[:, r:])
        rest = rest / self.eigenvalues.unsqueeze(2)
        rest = torch.einsum("ab,bjk->ajk", self.output_basis, rest)
        coef = torch.matmul(self.components, torch.cat([solved[:, :r], rest], 1)).reshape(-1, k)
        return torch.cat([coef, solved[:, r]]) if self.intercept else coef


def applies(objective: LinearObjective) -> bool:
    """Return whether `two_level` has an inverse to offer: many outputs, dense X, not too wide."""
    features = objective.train.features
    wide = features.shape[1] > _WIDEST
    dense = isinstance(features, DenseFeatures)
    return dense and objective.c > 1 and not wide and objective.free is None


def two_level(objective: LinearObjective, damping: float = 0.0) -> TwoLevel | None:
    """Return an approximate inverse of H + λ I, or `None` where it would not pay.

    Args:
        objective: R at θ̂.
        damping: λ >= 0.

    Returns:
        M; `None` for one output, for sparse or very wide X, and where an L1 penalty holds
        parameters fixed.

    Cost:
        2 n d r + n c² r² operations for r = 50 components; d³ for finding them. One product with M
        costs 4 c d² per column.

    References:
        Nocedal & Wright (2006), section 5.1, on preconditioning; Martens & Grosse (2015) for the
        Kronecker approximation.
    """
    features, c = objective.train.features, objective.c
    if not applies(objective) or not isinstance(features, DenseFeatures):
        return None
    n, d = features.shape
    r = min(_COMPONENTS, d)
    intercept = objective.constant is not None
    sample = slice(None, None, ceil(n / _SAMPLE))
    rows = features.matrix[sample]
    variances, components = torch.linalg.eigh(rows.T @ rows / len(rows))
    variances, components = variances.flip(0).clamp_min(0), components.flip(1)
    outputs, targets = objective.outputs(objective.train), objective.train.targets
    typical = output_hessian(objective.loss, outputs[sample], targets[sample]).mean(0)
    curvatures, output_basis = torch.linalg.eigh(typical * objective.weights.mean())
    penalty = float(objective.l2[: c * d].mean()) + damping
    eigenvalues = curvatures.clamp_min(0).unsqueeze(1) * variances[r:] + penalty
    leading = _leading_hessian(objective, components[:, :r])
    leading.diagonal().add_(damping)
    flat = objective.flat_directions()
    if flat.shape[1]:
        part = _with_intercept(_rotated(components, flat, c)[:, :r], flat, intercept)
        leading += part.flatten(0, 1) @ part.flatten(0, 1).T
    largest = float(curvatures.max() * variances.max()) + penalty
    leading.diagonal().add_(_FLOOR * largest)
    factor, failed = torch.linalg.cholesky_ex(leading)
    if failed:
        return None
    return TwoLevel(
        components=components,
        factor=factor,
        output_basis=output_basis,
        eigenvalues=eigenvalues.clamp_min(_FLOOR * largest),
        intercept=intercept,
    )


def _leading_hessian(objective: LinearObjective, components: Tensor) -> Tensor:
    """Return ∇²R on the leading components [d, r] and the intercept, [c r′, c r′]."""
    train, c, constant = objective.train, objective.c, objective.constant
    (d, r), n = components.shape, len(train)
    outputs = objective.outputs(train)
    width = r + (constant is not None)
    hessian = components.new_zeros(c, width, c, width)
    for start in range(0, n, _TILE):
        tile = slice(start, start + _TILE)
        z = train.features.rows(tile).matmul(components)
        if constant is not None:
            z = torch.cat([z, z.new_full((len(z), 1), constant)], 1)
        curvature = output_hessian(objective.loss, outputs[tile], train.targets[tile])
        curvature = curvature * (objective.weights[tile] / n).reshape(-1, 1, 1)
        for a in range(c):
            weighted = (curvature[:, a, a:].unsqueeze(2) * z.unsqueeze(1)).flatten(1)
            hessian[a, :, a:] += (z.T @ weighted).reshape(width, c - a, width)
    for a in range(c):
        hessian[a + 1 :, :, a] = hessian[a, :, a + 1 :].permute(1, 2, 0)
        l2 = objective.l2[a * d : (a + 1) * d]
        hessian[a, :r, a, :r] += (components * l2.unsqueeze(1)).T @ components
        if constant is not None:
            hessian[a, r, a, r] += objective.l2[c * d + a]
    return hessian.reshape(c * width, c * width)


def _rotated(components: Tensor, v: Tensor, c: int) -> Tensor:
    """Return the coefficients of V along each component, [c, d, k]."""
    d = len(components)
    return torch.matmul(components.T, v[: c * d].reshape(c, d, -1))


def _with_intercept(leading: Tensor, v: Tensor, intercept: bool) -> Tensor:
    """Return leading coefficients [c, r, k] with the intercepts of V behind, [c, r′, k]."""
    return torch.cat([leading, v[-len(leading) :].unsqueeze(1)], 1) if intercept else leading
