"""Solves in float32 that are checked and corrected in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from whence.errors import Diverged, NotPositiveDefinite
from whence.linalg.cg import CG
from whence.linalg.operator import LinearOperator
from whence.linalg.signs import random_signs
from whence.linalg.solver import (
    Inverse,
    Solution,
    column_sizes,
    relative_norms,
    value_or_warn,
)

_PROBES = 8  # combinations of the columns whose residuals are computed


@final
@dataclass(frozen=True, eq=False, repr=False)
class Rounded(LinearOperator):
    """An operator of lower precision, multiplied by vectors of higher precision.

    Args:
        operator: M, of a lower precision.
        vectors: The dtype of the vectors.
    """

    operator: LinearOperator
    vectors: torch.dtype

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of M."""
        return self.operator.shape

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the vectors."""
        return self.vectors

    @property
    def device(self) -> torch.device:
        """The device of M."""
        return self.operator.device

    def matmat(self, V: Tensor) -> Tensor:
        """Return M V, each column scaled so that none can underflow."""
        size = column_sizes(V)
        return self.operator.matmat((V / size).to(self.operator.dtype)).to(V.dtype) * size

    def rmatmat(self, W: Tensor) -> Tensor:
        """Return Mᵀ W."""
        size = column_sizes(W)
        return self.operator.rmatmat((W / size).to(self.operator.dtype)).to(W.dtype) * size


@final
@dataclass(frozen=True, eq=False, repr=False)
class MixedInverse(Inverse):
    r"""A⁻¹ of a float64 operator by a float32 solver, held to a residual measured in float64.

    X = fast(B). Up to eight columns, every residual b − A x is computed. With more it is taken of
    eight random combinations: for independent signs z, E‖(B − A X) z‖² = Σⱼ ‖bⱼ − A xⱼ‖², so that
    columns scaled to ‖bⱼ‖ = 1 give the root mean square of the relative residuals. Where that is
    above `rtol`, conjugate gradients on A itself, started from X and preconditioned, mend it.

    Args:
        operator: A, float64, [p, p].
        fast: The inverse of A in float32.
        preconditioner: M ≈ A⁻¹ in float32, symmetric positive definite.
        rtol: The relative residual asked for, > 0.

    Cost:
        fast(B), and eight products with A. Only where float32 does not suffice: a few products
        with A per column.

    References:
        Higham & Mary (2022), "Mixed precision algorithms in numerical linear algebra", section 7;
        Freivalds (1979) for checking a product by random combinations.
    """

    operator: LinearOperator
    fast: Inverse
    preconditioner: LinearOperator
    rtol: float = 1e-6

    @property
    def approximation(self) -> LinearOperator:
        """The preconditioner."""
        return Rounded(self.preconditioner, self.dtype)

    def matmat(self, V: Tensor) -> Tensor:
        """Return A⁻¹ V; warns if it did not converge."""
        return value_or_warn(self.solve_columns(V), "Pass a solver of your own, or add damping.")

    def solve_columns(self, B: Tensor) -> Solution:
        """Return A⁻¹ B with its residuals, estimated where there are more than eight."""
        X, steps = self._fast(B)
        fast = Solution.of(X, self._residuals(B, X), rtol=self.rtol, iterations=steps)
        if fast.converged:
            return fast
        if not fast.residual < 1:  # float32 overflowed, or did worse than nothing
            X = torch.zeros_like(B)
        careful = CG(rtol=self.rtol, preconditioner=Rounded(self.preconditioner, B.dtype))
        correction = careful.prepare(self.operator).solve_columns(B - self.operator.matmat(X))
        X += correction.value
        steps += correction.iterations
        return Solution.checked(self.operator, B, X, rtol=self.rtol, iterations=steps)

    def _fast(self, B: Tensor) -> tuple[Tensor, int]:
        """Return the float32 answer and its steps; zero where A is not definite in float32."""
        size = column_sizes(B)
        try:
            X, steps = self.fast.unchecked((B / size).to(self.fast.dtype))
        except (NotPositiveDefinite, Diverged):
            return torch.zeros_like(B), 0
        return X.to(B.dtype) * size, steps

    def _residuals(self, B: Tensor, X: Tensor) -> Tensor:
        """Return ‖b − A x‖ / ‖b‖ of each column, or its root mean square for all of them, [k]."""
        k = B.shape[1]
        if k <= _PROBES:
            return relative_norms(B - self.operator.matmat(X), B)
        norms = B.norm(dim=0)
        generator = torch.Generator().manual_seed(0)
        signs = random_signs((k, _PROBES), generator, B)
        signs /= torch.where(norms > 0, norms, 1.0).unsqueeze(1)
        gap = B @ signs - self.operator.matmat(X @ signs)
        return (gap.square().sum() / (_PROBES * k)).sqrt().expand(k)
