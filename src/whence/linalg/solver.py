"""Solvers, the inverses they prepare, and the solutions these return.

A [`Solver`][whence.linalg.Solver] is a frozen set of options. `solver.prepare(A)` pays once for
what all right-hand sides share (a factorization, a sketch, a scale) and returns an
[`Inverse`][whence.linalg.Inverse], itself a linear operator. `inverse.solve(B)` returns a
[`Solution`][whence.linalg.Solution] with the residual recomputed; `inverse @ B` only the value.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from torch import Tensor

from whence.errors import InvalidInput, warn_user
from whence.linalg.operator import Derived, LinearOperator, as_columns
from whence.linalg.structured import Reordered


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Solution:
    """The answer to A X = B, and how good it is.

    Attributes:
        value: X, [p] or [p, k], as B was given.
        converged: Whether `residual` is at most the solver's tolerance.
        iterations: Steps taken, for the slowest column: products with A for CG, depth for LiSSA,
            refinements for Cholesky, 0 for a closed form.
        residual: The largest of `residuals`.
        residuals: ‖b − A x‖ / ‖b‖ for each column, [k], recomputed from A at the end, not
            taken from the iteration; 0 for a zero column, whose answer is zero.
        standard_error: For a stochastic solver, the standard error of each entry of `value`,
            of its shape, estimated from independent repeats; else `None`.
    """

    value: Tensor
    converged: bool
    iterations: int
    residual: float
    residuals: Tensor
    standard_error: Tensor | None = None

    @staticmethod
    def checked(
        A: LinearOperator,
        B: Tensor,
        X: Tensor,
        *,
        rtol: float,
        iterations: int,
        standard_error: Tensor | None = None,
    ) -> Solution:
        """Return X with its residuals, computed here by one product A X.

        Args:
            A: The operator, [p, p].
            B: Right-hand sides, [p, k].
            X: The answer to check, [p, k].
            rtol: Converged means every relative residual is at most this.
            iterations: Steps taken.
            standard_error: Of each entry of X, [p, k], if known.

        Returns:
            The solution.
        """
        residuals = relative_norms(B - A.matmat(X).detach(), B)
        found = Solution.of(X, residuals, rtol=rtol, iterations=iterations)
        return replace(found, standard_error=standard_error)

    @staticmethod
    def of(X: Tensor, residuals: Tensor, *, rtol: float, iterations: int) -> Solution:
        """Return X with residuals that are known.

        Args:
            X: The answer, [p, k].
            residuals: ‖b − A x‖ / ‖b‖ of each column, [k].
            rtol: Converged means that none is above this.
            iterations: Steps taken.

        Returns:
            The solution.
        """
        residual = float(residuals.max()) if residuals.numel() else 0.0
        return Solution(
            value=X,
            converged=residual <= rtol,
            iterations=iterations,
            residual=residual,
            residuals=residuals,
        )


def relative_norms(R: Tensor, B: Tensor) -> Tensor:
    """Return ‖r‖ / ‖b‖ column by column, with 0 / 0 = 0.

    Args:
        R: Columns r, [p, k].
        B: Columns b, [p, k].

    Returns:
        The ratios, [k].
    """
    size = column_sizes(B)  # squares of a float32 gradient of 1e-25 would underflow
    above, below = (R / size).norm(dim=0), (B / size).norm(dim=0)
    return torch.where((above == 0) & (below == 0), 0.0, above / below)


def column_sizes(B: Tensor) -> Tensor:
    """Return the largest absolute entry of each column, 1 for a zero column.

    Args:
        B: Columns, [p, k].

    Returns:
        Positive numbers, [k].
    """
    size = B.abs().amax(dim=0)
    return torch.where(size > 0, size, 1.0)


def default_rtol(dtype: torch.dtype) -> float:
    """Return √ε of a dtype: 1.5e-8 in float64, 3.5e-4 in float32.

    Args:
        dtype: A floating-point dtype.

    Returns:
        The relative residual that solvers in closed form are held to.
    """
    return math.sqrt(torch.finfo(dtype).eps)


class Inverse(Derived):
    """A⁻¹ of a symmetric A, exact or approximate, as an operator with a stated residual.

    `inverse @ B` gives the value only, and warns `NotConvergedWarning` if an iteration fell short.
    Closed forms do not spend a product with A on checking themselves there: ask `solve`.

    Attributes:
        operator: A, the operator that this inverts; a field of each leaf.
        substitute: Whether A is itself an approximation of the operator that was to be inverted: a
            residual in A then says nothing of the answer.
    """

    operator: LinearOperator
    substitute: ClassVar[bool] = False

    @property
    def factors(self) -> bool:
        """Whether scores come of the factors of gradients, of some of which none is formed."""
        return False

    @property
    def gradient_rtol(self) -> float | None:
        """The relative error that gradients in scores may have; `None` for that of their dtype."""
        return None

    @property
    def approximation(self) -> LinearOperator:
        """An approximation M ≈ A⁻¹ that takes no iteration: what preconditions a system near A."""
        return self

    @abstractmethod
    def solve_columns(self, B: Tensor) -> Solution:
        """Return the solution for a block.

        Args:
            B: Right-hand sides, [p, k], finite, of A's dtype and device.

        Returns:
            The solution, its value [p, k].
        """

    def unchecked(self, B: Tensor) -> tuple[Tensor, int]:
        """Return A⁻¹ B and the steps taken, with no product with A spent on checking it.

        Args:
            B: Right-hand sides, [p, k], of A's dtype and device.

        Returns:
            X, [p, k], and its iterations; the caller checks.
        """
        return self.matmat(B), 0

    def solve(self, B: Tensor) -> Solution:
        """Return the solution of A X = B with its recomputed residual.

        Args:
            B: One right-hand side [p] or k of them [p, k], of A's dtype and device.

        Returns:
            The solution, its value of B's shape.

        Raises:
            InvalidInput: If B has the wrong shape, dtype or device, or is not finite.
        """
        columns = as_columns(self, B).detach()
        finite = torch.isfinite(columns).all(dim=0)
        if not bool(finite.all()):
            column = int((~finite).nonzero()[0])
            row = int((~torch.isfinite(columns[:, column])).nonzero()[0])
            raise InvalidInput(
                f"Expected finite right-hand sides. Got {float(columns[row, column])} at row {row} "
                f"of column {column}. Check the gradient that made this column."
            )
        solution = self.solve_columns(columns)
        if B.ndim == 2:
            return solution
        error = solution.standard_error
        return replace(
            solution,
            value=solution.value.squeeze(1),
            standard_error=None if error is None else error.squeeze(1),
        )

    def between(
        self, left: LinearOperator, right: LinearOperator
    ) -> tuple[Tensor, Solution | None]:
        """Return L A⁻¹ Rᵀ, by one solve for each row of L.

        Args:
            left: L, [q, p], of few rows.
            right: R, [b, p], of A's dtype or a narrower one, in which the products are then taken.

        Returns:
            The products, [q, b] in R's dtype, and the solution of A X = Lᵀ with its value in R's
            dtype; `None` for an inverse that multiplies without solving.
        """
        solution = self.solve(as_block(left))
        solution = replace(solution, value=solution.value.to(right.dtype))
        return right.matmat(solution.value).T, solution

    def quadratic(self, rows: LinearOperator) -> Tensor:
        """Return rᵀ A⁻¹ r for each row r, by one solve each, a block of rows at a time.

        Args:
            rows: R, [b, p], of A's dtype.

        Returns:
            The products, [b].
        """
        parts = [self.forms(block.T.unsqueeze(1)).flatten() for block in rows.row_blocks()]
        return torch.cat(parts)

    def downdated(self, rows: LinearOperator, signs: Tensor) -> LinearOperator | None:
        """Return (A + Rᵀ Σ R)⁻¹ in closed form, or `None` where this inverse has no such form.

        Args:
            rows: R, [r, p], of A's dtype.
            signs: The diagonal of Σ, ±1, [r].

        Returns:
            The inverse of the changed operator, [p, p].
        """
        return None

    @property
    def closed_form(self) -> Reordered | None:
        """A⁻¹ as blocks that can be stored, or `None` where it is known by its products alone."""
        return None

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of A."""
        return self.operator.shape

    def rmatmat(self, W: Tensor) -> Tensor:
        """Return A⁻ᵀ W = A⁻¹ W: A is symmetric."""
        return self.matmat(W)


def as_block(rows: LinearOperator) -> Tensor:
    """Return the rows of an operator [q, p] as columns, [p, q], of which no second copy is made.

    Args:
        rows: R, [q, p].
    """
    q, p = rows.shape
    columns = torch.empty(p, q, dtype=rows.dtype, device=rows.device)
    start = 0
    for block in rows.row_blocks():
        if block.shape[1] == q:
            return block
        columns[:, start : start + block.shape[1]] = block
        start += block.shape[1]
    return columns


class Solver(ABC):
    """A way to solve A X = B for symmetric A: frozen options and one method.

    Examples:
        >>> import torch
        >>> from whence.linalg import Cholesky, Dense
        >>> inverse = Cholesky().prepare(Dense(torch.tensor([[4.0, 0.0], [0.0, 2.0]])))
        >>> inverse @ torch.ones(2)
        tensor([0.2500, 0.5000])

    Attributes:
        forms: Whether it takes A as a matrix.
        approximates: Whether it takes a Gauss–Newton matrix for A, and that approximately.
    """

    forms: ClassVar[bool] = False
    approximates: ClassVar[bool] = False

    @abstractmethod
    def prepare(self, A: LinearOperator) -> Inverse:
        """Pay once for what all right-hand sides share.

        Args:
            A: A symmetric operator, [p, p].

        Returns:
            Its inverse.
        """

    def default_damping(self, A: LinearOperator) -> tuple[float, str] | None:
        """Return the damping that suits what this solver inverts in place of A.

        Args:
            A: A symmetric operator, [p, p], not damped.

        Returns:
            λ >= 0 with what it is, in words, or `None` for a solver that inverts A itself: λ then
            depends on A alone.
        """
        return None


def require_square(A: LinearOperator, solver: Solver) -> None:
    """Raise `InvalidInput` unless A is square.

    Raises:
        InvalidInput: If A has more rows than columns or fewer.
    """
    if A.shape[0] != A.shape[1]:
        raise InvalidInput(
            f"Expected a square symmetric operator for {type(solver).__name__}. Got {A!r}. "
            "A rectangular G becomes square as (G.T @ G).damped(damping)."
        )


def prepared_preconditioner(
    M: LinearOperator | Solver | None, A: LinearOperator
) -> LinearOperator | None:
    """Return M, prepared from A where it is a solver, and checked against A.

    Args:
        M: An approximate inverse of A, a solver that prepares one, or `None`.
        A: The operator, [p, p].

    Returns:
        The approximate inverse, or `None`.

    Raises:
        InvalidInput: If it does not fit A.
    """
    if isinstance(M, Solver):
        M = M.prepare(A)
    if M is not None and (M.shape, M.dtype, M.device) != (A.shape, A.dtype, A.device):
        raise InvalidInput(
            f"Expected a preconditioner of shape {list(A.shape)}, {A.dtype}, on {A.device}. "
            f"Got {M!r}. Build it over the same parameters."
        )
    return M


def value_or_warn(solution: Solution, remedy: str) -> Tensor:
    """Return the value, and warn if it has not converged.

    Args:
        solution: A solution.
        remedy: What to do about it: a sentence for the user.

    Returns:
        The value.
    """
    if not solution.converged:
        warn_user(
            f"A solve stopped after {solution.iterations} iterations at relative residual "
            f"{solution.residual:.2e}. {remedy}"
        )
    return solution.value
