"""Factor once, then every right-hand side costs two triangular solves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from whence.checked import checked
from whence.errors import InvalidInput, NotPositiveDefinite
from whence.linalg.eigenvalues import extreme_eigenvalues
from whence.linalg.operator import LinearOperator
from whence.linalg.solver import (
    Inverse,
    Solution,
    Solver,
    column_sizes,
    default_rtol,
    require_square,
    value_or_warn,
)
from whence.linalg.structured import Dense, materialize

_BLOCK = 256  # a square of these entries, twice, stays in cache
_MARGIN = 10  # over the rounding of an eigenvalue
_EXACT_EIGENVALUES = 1_000  # above this size the failing spectrum is estimated, not computed


@final
@checked
@dataclass(frozen=True, kw_only=True)
class Cholesky(Solver):
    """A = L Lᵀ: exact, for p up to some ten thousand, and best for many right-hand sides.

    With `refine` > 0 each answer is corrected against the operator itself,
    X ← X + (L Lᵀ)⁻¹ (B − A X), until the residual meets `rtol`: a float32 factor of a float64
    operator then gives float64 answers at half the memory and time.

    Args:
        refine: The most corrections per solve, >= 0.
        rtol: The relative residual asked for; √ε of A's dtype if `None`.
        factor_dtype: The dtype of L; A's if `None`.

    Raises:
        InvalidInput: If refine < 0 or rtol <= 0.

    Cost: p products to form A (none if it is `Dense`), p³/3 operations to factor, 2p² per
        right-hand side and correction; 2p² numbers while factoring, p² after.

    References:
        Higham (2002), "Accuracy and Stability of Numerical Algorithms", chapters 10 and 12.

    Examples:
        >>> import torch
        >>> from whence.linalg import Cholesky, Dense
        >>> A = Dense(torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64))
        >>> solution = Cholesky().prepare(A).solve(torch.tensor([3.0, 3.0], dtype=torch.float64))
        >>> solution.converged, [round(x, 12) for x in solution.value.tolist()]
        (True, [1.0, 1.0])
    """

    forms: ClassVar[bool] = True

    refine: int = 0
    rtol: float | None = None
    factor_dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        if self.refine < 0 or (self.rtol is not None and not self.rtol > 0):
            raise InvalidInput(
                f"Expected refine >= 0 and rtol > 0 (or None). "
                f"Got refine={self.refine}, rtol={self.rtol}. Leave both out for the defaults."
            )

    def prepare(self, A: LinearOperator) -> Inverse:
        """Form A, check that it is symmetric, and factor it.

        Args:
            A: A symmetric positive definite operator, [p, p].

        Returns:
            The inverse.

        Raises:
            InvalidInput: If A is not square, not symmetric, or not finite.
            NotPositiveDefinite: If A is indefinite or numerically singular; names the smallest
                eigenvalue and the damping that would suffice.
        """
        require_square(A, self)
        matrix = materialize(A).detach()
        _require_symmetric(A, matrix)
        factor, info = torch.linalg.cholesky_ex(matrix.to(self.factor_dtype or A.dtype))
        if int(info) or _singular(factor, matrix.diagonal().max()):
            raise _not_positive_definite(A, matrix, float(torch.finfo(factor.dtype).eps))
        rtol = default_rtol(A.dtype) if self.rtol is None else self.rtol
        return CholeskyInverse(A, factor, self.refine, rtol)


@final
@dataclass(frozen=True, eq=False, repr=False)
class CholeskyInverse(Inverse):
    """The inverse that `Cholesky` prepares.

    Args:
        operator: A, [p, p].
        factor: L, lower triangular, [p, p], perhaps of a lower precision.
        refine: The most corrections per solve.
        rtol: The relative residual asked for.
    """

    operator: LinearOperator
    factor: Tensor
    refine: int
    rtol: float

    def matmat(self, V: Tensor) -> Tensor:
        """Return A⁻¹ V, corrected (and then checked) if refinement was asked for."""
        if not self.refine:
            return self._substitute(V)
        return value_or_warn(
            self.solve_columns(V), "Raise refine or rtol, add damping, or factor in float64."
        )

    def forms(self, rows: Tensor) -> Tensor:
        """Return R A⁻¹ Rᵀ = (L⁻¹ Rᵀ)ᵀ (L⁻¹ Rᵀ) of each group of rows: half of a solve."""
        if self.refine or self.factor.dtype != rows.dtype:
            return super().forms(rows)
        columns = rows.flatten(0, 1).T
        half: Tensor = torch.linalg.solve_triangular(self.factor, columns, upper=False)
        groups = half.T.reshape(rows.shape)
        return groups @ groups.mT

    def solve_columns(self, B: Tensor) -> Solution:
        """Return A⁻¹ B with its residual."""
        X = self._substitute(B)
        best = Solution.checked(self.operator, B, X, rtol=self.rtol, iterations=0)
        for step in range(1, self.refine + 1):
            if best.converged:
                break
            R = B - self.operator.matmat(best.value).detach()
            X = best.value + self._substitute(R)
            corrected = Solution.checked(self.operator, B, X, rtol=self.rtol, iterations=step)
            if not corrected.residual < best.residual:  # as far as this factor can go
                break
            best = corrected
        return best

    def _substitute(self, B: Tensor) -> Tensor:
        """Return (L Lᵀ)⁻¹ B in B's dtype, scaled so that a narrow factor cannot underflow."""
        if self.factor.dtype == B.dtype:
            return self._twice(B)
        scale = column_sizes(B)
        return self._twice((B / scale).to(self.factor.dtype)).to(B.dtype) * scale

    def _twice(self, B: Tensor) -> Tensor:
        """Return L⁻ᵀ L⁻¹ B: for few columns 20 times as fast as a routine that copies L."""
        half = torch.linalg.solve_triangular(self.factor, B, upper=False)
        whole: Tensor = torch.linalg.solve_triangular(self.factor.mT, half, upper=True)
        return whole


def factored_by_column(A: LinearOperator) -> CholeskyInverse:
    """Return the inverse of weighted sums of squares of columns, in whatever units these are.

    A pivot is rounding beside the diagonal of its own column: that of a column a million times as
    large says nothing of it, since a sum of squares is exact to its own last digit.

    Args:
        A: The matrix, [p, p], symmetric and positive semidefinite but for rounding.

    Returns:
        The inverse.

    Raises:
        NotPositiveDefinite: If a column is a combination of others but for rounding.
    """
    matrix = materialize(A).detach()
    _require_symmetric(A, matrix)
    factor, info = torch.linalg.cholesky_ex(matrix)
    eps = float(torch.finfo(factor.dtype).eps)
    if int(info) or _singular(factor, matrix.diagonal()):
        raise _not_positive_definite(A, matrix, eps)
    return CholeskyInverse(A, factor, refine=0, rtol=default_rtol(A.dtype))


def factor_in_place(matrix: Tensor) -> Tensor | None:
    """Return L with A = L Lᵀ in the memory of A; `None` where A is not safely positive definite.

    Args:
        matrix: A, [p, p], known to be symmetric; overwritten.

    Returns:
        L, lower triangular, [p, p], or `None`.
    """
    largest = matrix.diagonal().max()
    factor, info = matrix.mT, torch.zeros((), dtype=torch.int32, device=matrix.device)
    torch.linalg.cholesky_ex(factor, out=(factor, info))  # by columns, as LAPACK does: no copy
    return None if int(info) or _singular(factor, largest) else factor


def _singular(factor: Tensor, sizes: Tensor) -> bool:
    """Return whether pivots are rounding: numpy's rank rule, for the largest diagonal or each."""
    pivots, eps = factor.diagonal().square(), torch.finfo(factor.dtype).eps
    return bool((pivots <= len(factor) * eps * sizes.to(pivots)).any())


def _require_symmetric(A: LinearOperator, matrix: Tensor) -> None:
    """Raise unless the matrix is finite and symmetric up to rounding."""
    size = float(torch.stack(tuple(torch.aminmax(matrix))).abs().max())  # no second p × p matrix
    if not size < float("inf"):
        raise InvalidInput(
            f"Expected a finite matrix. Got {A!r} with entries that are not finite. "
            "Check the loss and its derivatives for overflow, or use float64."
        )
    tolerance = default_rtol(matrix.dtype) * size
    starts = range(0, len(matrix), _BLOCK)
    for row, column in ((i, j) for i in starts for j in starts if j <= i):
        rows, columns = slice(row, row + _BLOCK), slice(column, column + _BLOCK)
        gap = float((matrix[rows, columns] - matrix[columns, rows].mT).abs().max())
        if gap > tolerance:
            raise InvalidInput(
                f"Expected a symmetric operator. Got {A!r} with |A - A.T| up to {gap:.2e} where "
                f"entries reach {size:.2e}. Cholesky reads one triangle only; "
                "for a rectangular or skew system solve with A.T @ A."
            )


def _not_positive_definite(A: LinearOperator, matrix: Tensor, eps: float) -> NotPositiveDefinite:
    """Return the error that says how negative the matrix is and what would lift it."""
    if len(matrix) <= _EXACT_EIGENVALUES:
        values = torch.linalg.eigvalsh(matrix.double())
        smallest, largest, error = float(values[0]), float(values[-1]), 0.0
    else:
        ends = extreme_eigenvalues(Dense(matrix), 100)
        smallest, largest, error = ends.smallest, ends.largest, ends.smallest_error
    floor = _MARGIN * len(matrix) * eps * max(abs(smallest), abs(largest))
    damping = 1.05 * max(error - smallest, 0.0) + floor
    return NotPositiveDefinite(
        f"Expected a positive definite operator. Got {A!r} with smallest eigenvalue "
        f"{smallest:.3e} (largest {largest:.3e}). Use A.damped({damping:.2e}) or more, or the "
        "Gauss-Newton matrix, which has no negative eigenvalue.",
        sufficient_damping=damping,
    )
