r"""A cheap approximate inverse of a linear model's Hessian, for conjugate gradients to start from.

The Hessian of outputs W x is the mean of Sᵢ ⊗ xᵢxᵢᵀ, plus the penalty, with Sᵢ = ∂²ℓᵢ/∂f². Most of
what makes it ill-conditioned lies in the few leading principal components of x. There (and on the
intercept) it is formed and factored exactly; on the other components it is taken as S̄ ⊗ diag(s),
with S̄ the mean of Sᵢ and s the variance of each component, whose inverse is a division.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from math import ceil
from typing import final

import torch
from torch import Tensor

from whence.curvature.exact import Curvature
from whence.linear.features import DenseFeatures
from whence.linear.objective import LinearObjective
from whence.objective.losses import output_hessian
from whence.objective.objective import Objective

_COMPONENTS = 50  # leading components for one column: on MNIST, 67 products with H become 12
_LARGEST = 4000  # rows of the largest matrix that is factored
_SAMPLE = 8192  # rows that tell the components and the mean of Sᵢ
_WIDEST = 2048  # columns of X whose components are worth finding


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class TwoLevel(Curvature):
    """M ≈ (H + λ I)⁻¹, symmetric and positive definite; made by `two_level`.

    Args:
        objective: R at θ̂.
        components: Principal components of x as columns, the leading first, [d, d].
        factor: Cholesky factor of H + λ I on the leading components and the intercept.
        output_basis: Eigenvectors of S̄, [c, c].
        eigenvalues: Of the approximation on the other components, [c, d − r].
        intercept: Whether θ ends with c intercepts.
    """

    objective: LinearObjective
    components: Tensor
    factor: Tensor
    output_basis: Tensor
    eigenvalues: Tensor
    intercept: bool

    def matmat(self, V: Tensor) -> Tensor:
        """Return M V for V [p, k]."""
        c, k = len(self.output_basis), V.shape[1]
        r = len(self.components) - self.eigenvalues.shape[1]
        rotated = _rotated(self.components, V, c)
        leading = _leading(rotated[:, :r], V, self.intercept)
        solved = torch.cholesky_solve(leading, self.factor)
        rest = torch.einsum("ab,ajk->bjk", self.output_basis, rotated[:, r:])
        rest = rest / self.eigenvalues.unsqueeze(2)
        rest = torch.einsum("ab,bjk->ajk", self.output_basis, rest)
        both = torch.cat([solved[: c * r].reshape(c, r, k), rest], 1)
        coef = torch.matmul(self.components, both).reshape(-1, k)
        return torch.cat([coef, solved[c * r :]]) if self.intercept else coef


@singledispatch
def applies(objective: Objective) -> bool:
    """Return whether `two_level` has an inverse to offer: many outputs, dense X, not too wide."""
    return False


@applies.register
def _(objective: LinearObjective) -> bool:
    features = objective.train.features
    wide = features.shape[1] > _WIDEST
    return not features.sparse and objective.c > 1 and not wide and objective.free is None


@singledispatch
def two_level(objective: Objective, damping: float = 0.0, columns: int = 1) -> TwoLevel | None:
    """Return an approximate inverse of H + λ I, or `None` where it would not pay.

    Args:
        objective: R at θ̂.
        damping: λ >= 0.
        columns: k >= 1, how many columns it will be applied to. The work of forming the leading
            block grows as r², the steps it leaves fall about as 1/r and cost k columns each, so
            that r = 50 k^⅓ components lead.

    Returns:
        M; `None` for a model that is not linear in θ, for one output, for sparse or very wide X,
        and where an L1 penalty holds parameters fixed.

    Cost:
        2 n d r + n c² r² / 2 operations for r components; d³ for finding them. One product with M
        costs 4 c d² per column.

    References:
        Nocedal & Wright (2006), section 5.1, on preconditioning; Martens & Grosse (2015) for the
        Kronecker approximation.
    """
    return None


@two_level.register
def _(objective: LinearObjective, damping: float = 0.0, columns: int = 1) -> TwoLevel | None:
    if not applies(objective):
        return None
    features, c = objective.train.features, objective.c
    n, d = features.shape
    r = max(1, min(d, round(_COMPONENTS * columns ** (1 / 3)), _LARGEST // c))
    intercept = objective.constant is not None
    sample = slice(None, None, ceil(n / _SAMPLE))
    rows = features.rows(sample).dense()
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
    part = _leading(_rotated(components, flat, c)[:, :r], flat, intercept)
    leading += part @ part.T
    largest = float(curvatures.max() * variances.max()) + penalty
    floor = largest * float(torch.finfo(rows.dtype).eps) ** 0.75  # no eigenvalue may be below
    leading.diagonal().add_(floor)
    factor, failed = torch.linalg.cholesky_ex(leading)
    if failed:
        return None
    return TwoLevel(
        objective=objective,
        components=components,
        factor=factor,
        output_basis=output_basis,
        eigenvalues=eigenvalues.clamp_min(floor),
        intercept=intercept,
    )


def _leading_hessian(objective: LinearObjective, components: Tensor) -> Tensor:
    """Return ∇²R on the leading components [d, r] and the intercept, [c r′, c r′]."""
    c, (d, r) = objective.c, components.shape
    rotated = DenseFeatures(objective.train.features.matmul(components))
    hessian = objective.data_hessian(rotated)
    for a in range(c):
        penalty = components.T * objective.l2[a * d : (a + 1) * d]
        hessian[a * r : (a + 1) * r, a * r : (a + 1) * r] += penalty @ components
    hessian.diagonal()[c * r :] += objective.l2[c * d :]
    return hessian


def _rotated(components: Tensor, v: Tensor, c: int) -> Tensor:
    """Return the coefficients of V along each component, [c, d, k]."""
    d = len(components)
    return torch.matmul(components.T, v[: c * d].reshape(c, d, -1))


def _leading(rotated: Tensor, v: Tensor, intercept: bool) -> Tensor:
    """Return leading coefficients [c, r, k] with the intercepts of V behind, [c r′, k]."""
    flat = rotated.flatten(0, 1)
    return torch.cat([flat, v[-len(rotated) :]]) if intercept else flat
