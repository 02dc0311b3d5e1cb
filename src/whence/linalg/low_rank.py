"""The inverse of a low-rank approximation, with a stated rule for the complement."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from whence.errors import InvalidInput, NotPositiveDefinite
from whence.linalg.direct import DirectInverse
from whence.linalg.operator import LinearOperator
from whence.linalg.spectral import LowRank

Complement: TypeAlias = Literal["last", "zero", "drop"]
"""What is assumed of the curvature on the directions orthogonal to the basis.

- `"last"`: as much as on the weakest direction kept; the inverse is 1 / (|λ_r| + μ) there. An upper
  bound of the curvature if the basis holds the strongest directions, so the answer errs small.
- `"zero"`: none; the inverse is 1 / μ there, and needs damping μ > 0.
- `"drop"`: the answer is projected on the basis; the inverse is 0 there.
"""


def invert_low_rank(
    A: LinearOperator,
    basis: Tensor,
    values: Tensor,
    damping: float,
    complement: Complement,
    rtol: float,
) -> DirectInverse:
    """Return (U diag(λ) Uᵀ + μ I)⁻¹ on the basis, and by the rule elsewhere.

    Args:
        A: The operator pictured, damping included, [p, p].
        basis: U, orthonormal columns, [p, r].
        values: λ without the damping, [r].
        damping: μ ≥ 0.
        complement: The rule for the rest of [p].
        rtol: What `Solution.converged` holds the residual to.

    Returns:
        The inverse.

    Raises:
        InvalidInput: If the rule is "zero" and there is no damping.
        NotPositiveDefinite: If λ + μ is not positive on a direction kept.
    """
    size = float(values.abs().max())
    p = basis.shape[0]
    eps = float(torch.finfo(basis.dtype).eps)
    seen = values.abs() > p * eps * size  # the rest is rounding, not curvature: complement
    basis, values = basis[:, seen], values[seen]
    everything = basis.shape[1] == p
    lowest = float(values.min()) + damping if values.numel() else damping
    if not lowest > eps * size and (values.numel() or complement != "drop"):
        sufficient = 1.05 * max(damping - lowest, 0.0) + 1e3 * eps * size
        raise NotPositiveDefinite(
            f"Expected positive curvature. Got {A!r} with eigenvalue {lowest:.3e}, damping "
            f"included, where the largest is {size + damping:.3e}. Use damping {sufficient:.2e} "
            "or more in place of what is there, or the Gauss-Newton matrix.",
            sufficient_damping=sufficient,
        )
    inside = (values + damping).reciprocal()
    if everything or complement == "drop":
        return DirectInverse(A, LowRank(basis, inside), rtol)
    if complement == "zero" and not damping > 0:
        raise InvalidInput(
            f'Expected damping > 0 with complement="zero": the inverse is 1 / damping there. Got '
            f'{A!r} without damping. Use A.damped(...), or complement="last".'
        )
    weakest = float(values.abs().min()) if complement == "last" and values.numel() else 0.0
    outside = 1.0 / (weakest + damping)
    return DirectInverse(A, LowRank(basis, inside - outside, outside), rtol)
