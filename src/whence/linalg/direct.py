"""Closed-form inverses of operators with a known eigendecomposition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from typing import final

import torch
from torch import Tensor

from whence.checked import checked
from whence.errors import InvalidInput, NotPositiveDefinite
from whence.linalg.operator import Damped, LinearOperator, Scaled
from whence.linalg.solver import Inverse, Solution, Solver, default_rtol, require_square
from whence.linalg.spectral import Spectral


@final
@checked
@dataclass(frozen=True, kw_only=True)
class Direct(Solver):
    """Invert an operator with a known eigendecomposition: `KroneckerEigen`, `Diagonal`, ….

    A = c Q diag(λ) Qᵀ + μ I gives A⁻¹ = Q diag(1 / (c λ + μ)) Qᵀ: exact for EKFAC, and at the price
    of one product. Used by itself or as the preconditioner of CG on the true curvature.

    Args:
        rtol: What `Solution.converged` holds the residual to; √ε of the dtype if `None`.

    Examples:
        >>> import torch
        >>> from whence.linalg import Diagonal, Direct
        >>> A = Diagonal(torch.tensor([1.0, 3.0])).damped(1.0)
        >>> Direct().prepare(A) @ torch.ones(2)
        tensor([0.5000, 0.2500])
    """

    rtol: float | None = None

    def prepare(self, A: LinearOperator) -> DirectInverse:
        """Return A⁻¹ in closed form.

        Args:
            A: A `Spectral` operator, [p, p], possibly scaled and damped.

        Returns:
            The inverse; `matmat` costs what a product with A costs.

        Raises:
            InvalidInput: If the spectrum of A is not known in closed form.
            NotPositiveDefinite: If an eigenvalue is zero or negative.
        """
        require_square(A, self)
        base, function = _spectrum_of(A)
        # The function is a line: it takes the extremes to the extremes, in one order or the other.
        ends = function(torch.tensor(base.extremes(), dtype=A.dtype))
        require_positive(A, float(ends.min()), float(ends.max()))
        closed = base.map_spectrum(lambda x: function(x).reciprocal())
        return DirectInverse(A, closed, default_rtol(A.dtype) if self.rtol is None else self.rtol)


@final
@dataclass(frozen=True, eq=False, repr=False)
class DirectInverse(Inverse):
    """The inverse that `Direct` prepares.

    Args:
        operator: A.
        closed: A⁻¹, in closed form.
        rtol: What `Solution.converged` holds the residual to.
    """

    operator: LinearOperator
    closed: Spectral
    rtol: float

    def matmat(self, V: Tensor) -> Tensor:
        """Return A⁻¹ V, unchecked."""
        return self.closed.matmat(V)

    def solve_columns(self, B: Tensor) -> Solution:
        """Return A⁻¹ B with its residual."""
        return Solution.checked(self.operator, B, self.matmat(B), rtol=self.rtol, iterations=0)


def require_positive(A: LinearOperator, smallest: float, largest: float) -> None:
    """Raise `NotPositiveDefinite` unless all eigenvalues are positive.

    Args:
        A: The operator.
        smallest: Its smallest eigenvalue.
        largest: Its largest.
    """
    eps = float(torch.finfo(A.dtype).eps)
    if not smallest > eps * largest:
        damping = max(-smallest, 0.0) * 1.05 + 1e3 * eps * max(abs(smallest), abs(largest))
        raise NotPositiveDefinite(
            f"Expected an operator with positive eigenvalues. Got {A!r} with the smallest "
            f"{smallest:.3e} and the largest {largest:.3e}. "
            f"Use A.damped({damping:.2e}) or more.",
            sufficient_damping=damping,
        )


@singledispatch
def _spectrum_of(A: LinearOperator) -> tuple[Spectral, Callable[[Tensor], Tensor]]:
    """Return S and f such that A = f(S), or raise."""
    raise InvalidInput(
        f"Expected an operator that knows its spectrum (Diagonal, LowRank, KroneckerEigen, a "
        f"BlockDiagonal of them), damped or scaled. Got {A!r}. Solve with CG() or Cholesky()."
    )


@_spectrum_of.register
def _(A: Spectral) -> tuple[Spectral, Callable[[Tensor], Tensor]]:
    return A, lambda x: x


@_spectrum_of.register
def _(A: Damped) -> tuple[Spectral, Callable[[Tensor], Tensor]]:
    base, inner = _spectrum_of(A.operator)
    return base, lambda x: inner(x) + A.damping


@_spectrum_of.register
def _(A: Scaled) -> tuple[Spectral, Callable[[Tensor], Tensor]]:
    base, inner = _spectrum_of(A.operator)
    return base, lambda x: inner(x) * A.factor
