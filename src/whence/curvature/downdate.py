r"""A group's curvature taken out of an approximate inverse, in closed form.

The changed curvature is H′ = A + U Σ Uᵀ, A the damped approximation, U = [√|δ/n| Jᵀ S^½] of the
changed examples and Σ the signs of δ. In the span of A⁻¹U, with directions x_j that are orthonormal
in A and diagonalize H′,

```
x_jᵀ A x_j = 1,   x_jᵀ H′ x_j = ω_j,   H′⁻¹ = A⁻¹ + Σ_j (1/ω_j − 1) x_j x_jᵀ
```

which is the Woodbury identity. An approximation may hold less curvature than the group truly had,
and ω_j ≤ 0; but what is left of the data curves nowhere downwards, so that no direction can keep
less than the penalty and the damping: ω_j ≥ μ ‖x_j‖², μ the smallest eigenvalue of A.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from whence.linalg.operator import LinearOperator


@final
@dataclass(frozen=True, eq=False, repr=False)
class Downdated(LinearOperator):
    """H′⁻¹ = A⁻¹ + Σ_j g_j x_j x_jᵀ.

    Args:
        inverse: A⁻¹, [p, p].
        directions: X, [p, r].
        gains: g = 1/ω − 1, [r].
    """

    inverse: LinearOperator
    directions: Tensor
    gains: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """P by p."""
        return self.inverse.shape

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of A."""
        return self.inverse.dtype

    @property
    def device(self) -> torch.device:
        """The device of A."""
        return self.inverse.device

    def matmat(self, V: Tensor) -> Tensor:
        """Return H′⁻¹ V."""
        inside = self.gains.unsqueeze(1) * (self.directions.T @ V)
        return self.inverse.matmat(V) + self.directions @ inside

    def rmatmat(self, W: Tensor) -> Tensor:
        """Return H′⁻¹ W."""
        return self.matmat(W)


def downdated(inverse: LinearOperator, U: Tensor, signs: Tensor, least: float) -> Downdated:
    """Return (A + U Σ Uᵀ)⁻¹, no direction's curvature below that of μ I.

    Args:
        inverse: A⁻¹, [p, p].
        U: Columns, [p, r].
        signs: The diagonal of Σ, ±1, [r].
        least: μ > 0, the least curvature that any direction keeps.

    Returns:
        The inverse.

    Cost: r products with A⁻¹, and 4 p r² operations.
    """
    B = inverse.matmat(U)
    sizes, basis = torch.linalg.eigh(U.T @ B)
    nonzero = sizes > torch.finfo(U.dtype).eps * len(sizes) * sizes[-1]
    roots, basis = sizes[nonzero].sqrt(), basis[:, nonzero]
    turned = basis * roots
    eye = torch.eye(len(roots), dtype=U.dtype, device=U.device)
    curvatures, Z = torch.linalg.eigh(eye + turned.T @ (signs.unsqueeze(1) * turned))
    directions = B @ ((basis / roots) @ Z)
    floor = least * directions.square().sum(0)
    return Downdated(inverse, directions, 1 / torch.maximum(curvatures, floor) - 1)
