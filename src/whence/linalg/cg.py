"""Conjugate gradients for many right-hand sides, with everything that can go wrong named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from whence.checked import checked
from whence.errors import Diverged, InvalidInput, NotPositiveDefinite
from whence.linalg.eigenvalues import extreme_eigenvalues
from whence.linalg.operator import LinearOperator
from whence.linalg.solver import (
    Inverse,
    Solution,
    Solver,
    column_sizes,
    prepared_preconditioner,
    relative_norms,
    require_square,
    value_or_warn,
)
from whence.linalg.structured import Identity


@final
@checked
@dataclass(frozen=True, kw_only=True)
class CG(Solver):
    """Conjugate gradients: products with A only, for any p, one right-hand side or many.

    Each column runs its own recurrence; all share one product A P per step, and a column that has
    converged leaves the block. When the recurrences say they are done the residual B − A X is
    recomputed, and a column that rounding has kept above `rtol` starts again from where it is, as
    long as that helps. So `converged` is a fact about A X, not about a recurrence.

    Args:
        rtol: The relative residual ‖b − A x‖ / ‖b‖ asked of each column, > 0.
        max_iterations: The most products with A in the recurrences, >= 1.
        preconditioner: An approximate inverse M of A, symmetric positive definite: an operator
            (`Direct().prepare(ekfac)`, a factor of a subsample), or a solver that prepares one from
            A itself (`Nystrom(rank=100)`). `None` for none.

    Raises:
        InvalidInput: If an option is out of range.

    Cost: one product A P with at most k columns per step; 5pk numbers, whatever the steps. About
        √κ/2 · log(2/rtol) steps for a condition number κ.

    References:
        Hestenes and Stiefel (1952), "Methods of Conjugate Gradients for Solving Linear Systems".
        Golub and Van Loan (2013), "Matrix Computations", 4th edition, section 11.5.

    Examples:
        >>> import torch
        >>> from whence.linalg import CG, Dense
        >>> A = Dense(torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64))
        >>> solution = CG(rtol=1e-10).prepare(A).solve(torch.ones(2, dtype=torch.float64))
        >>> solution.converged, solution.iterations, round(float(solution.value[0]), 10)
        (True, 1, 0.3333333333)
    """

    rtol: float = 1e-6
    max_iterations: int = 1000
    preconditioner: LinearOperator | Solver | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        if not 0 < self.rtol < 1 or self.max_iterations < 1:
            raise InvalidInput(
                f"Expected 0 < rtol < 1 and max_iterations >= 1. Got rtol={self.rtol}, "
                f"max_iterations={self.max_iterations}. The defaults are 1e-6 and 1000."
            )

    def prepare(self, A: LinearOperator) -> Inverse:
        """Prepare the preconditioner.

        Args:
            A: A symmetric positive definite operator, [p, p].

        Returns:
            The inverse, which iterates once it is given right-hand sides.

        Raises:
            InvalidInput: If A is not square or the preconditioner does not fit it.
        """
        require_square(A, self)
        M = prepared_preconditioner(self.preconditioner, A)
        return CGInverse(A, M, self.rtol, self.max_iterations)


@final
@dataclass(frozen=True, eq=False, repr=False)
class CGInverse(Inverse):
    """The inverse that `CG` prepares.

    Args:
        operator: A, [p, p].
        preconditioner: M ≈ A⁻¹, [p, p], or `None`.
        rtol: The relative residual asked for.
        max_iterations: The most products with A in the recurrences.
    """

    operator: LinearOperator
    preconditioner: LinearOperator | None
    rtol: float
    max_iterations: int

    @property
    def approximation(self) -> LinearOperator:
        """The preconditioner."""
        if self.preconditioner is not None:
            return self.preconditioner
        return Identity(self.shape[0], dtype=self.dtype, device=self.device)

    def matmat(self, V: Tensor) -> Tensor:
        """Return A⁻¹ V; warns if it did not converge."""
        return value_or_warn(
            self.solve_columns(V),
            "Raise max_iterations or rtol, add damping, pass a preconditioner, or use float64.",
        )

    def unchecked(self, B: Tensor) -> tuple[Tensor, int]:
        """Return A⁻¹ B by one sweep of the recurrence, and its steps."""
        size = column_sizes(B)
        scaled = B / size
        X = torch.zeros_like(B)
        nonzero = scaled.any(dim=0)
        targets = self.rtol * scaled[:, nonzero].norm(dim=0)
        if len(targets):
            X[:, nonzero], steps = self._sweep(scaled[:, nonzero], targets, self.max_iterations)
            return X * size, steps
        return X, 0

    def solve_columns(self, B: Tensor) -> Solution:
        """Return A⁻¹ B: sweeps of the recurrence between recomputed residuals.

        Raises:
            NotPositiveDefinite: If a direction of zero or negative curvature is met.
            Diverged: If a product with A is not finite.
        """
        size = column_sizes(B)
        B = B / size  # a column's scale must not decide whether its squares underflow
        X = torch.zeros_like(B)
        R = B.clone()
        norms = B.norm(dim=0)
        active = B.any(dim=0)  # a zero column is solved by zero
        residuals = active.to(B.dtype)
        iterations = 0
        while bool(active.any()) and iterations < self.max_iterations:
            columns = active.nonzero()[:, 0]
            step, taken = self._sweep(
                R[:, columns], self.rtol * norms[columns], self.max_iterations - iterations
            )
            iterations += taken
            X[:, columns] += step
            R[:, columns] = B[:, columns] - self.operator.matmat(X[:, columns]).detach()
            recomputed = relative_norms(R, B)
            # A restart that does not halve the residual has reached what this precision allows.
            active = (recomputed > self.rtol) & (recomputed < 0.5 * residuals)
            residuals = recomputed
        return Solution.of(X * size, residuals, rtol=self.rtol, iterations=iterations)

    def _sweep(self, R: Tensor, targets: Tensor, budget: int) -> tuple[Tensor, int]:
        """Run the recurrence from residuals R; return the steps D with A D ≈ R, and the count."""
        D = torch.zeros_like(R)
        where = torch.arange(R.shape[1], device=R.device)  # the columns still in the block
        X, R = torch.zeros_like(R), R.clone()
        Z, rz = self._precondition(R)
        P = Z.clone()
        for count in range(1, budget + 1):
            Q = self.operator.matmat(P).detach()
            curvature = (P * Q).sum(dim=0)
            self._require_positive(P, Q, curvature)
            step = rz / curvature
            X.addcmul_(P, step)
            R.addcmul_(Q, step, value=-1)
            going = R.norm(dim=0) > targets
            if not bool(going.all()):
                D[:, where] = X
                if not bool(going.any()):
                    return D, count
                where, targets, rz = where[going], targets[going], rz[going]
                X, R, P = X[:, going], R[:, going], P[:, going]
            Z, rz_next = self._precondition(R)
            P.mul_(rz_next / rz).add_(Z)
            rz = rz_next
        D[:, where] = X
        return D, budget

    def _precondition(self, R: Tensor) -> tuple[Tensor, Tensor]:
        """Return Z = M R and rᵀ z for each column."""
        Z = R if self.preconditioner is None else self.preconditioner.matmat(R).detach()
        rz = (R * Z).sum(dim=0)
        if not bool((rz > 0).all()):
            raise NotPositiveDefinite(
                f"Expected a positive definite preconditioner. Got {self.preconditioner!r} with "
                f"rᵀ M r = {float(rz.min()):.3e} for a residual r. "
                "Add damping to it, or leave it out."
            )
        return Z, rz

    def _require_positive(self, P: Tensor, Q: Tensor, curvature: Tensor) -> None:
        """Raise unless each direction P has positive curvature Pᵀ Q, Q = A P, beyond rounding."""
        eps = float(torch.finfo(P.dtype).eps)
        floor = eps * P.norm(dim=0) * Q.norm(dim=0)
        if bool((curvature > floor).all()):
            return
        if not bool(torch.isfinite(curvature).all()):
            raise Diverged(
                f"Expected finite products with {self.operator!r}. Got values that are not finite. "
                "Check the loss and its derivatives for overflow, or use float64."
            )
        worst = int((curvature - floor).argmin())
        p = P[:, worst]
        found = float(curvature[worst] / p.square().sum())
        ends = extreme_eigenvalues(self.operator, start=p)  # from p: sees what CG just saw
        damping = ends.sufficient_damping(eps)
        raise NotPositiveDefinite(
            f"Expected a positive definite operator. Got {self.operator!r} with curvature "
            f"{found:.3e} along a search direction; its smallest eigenvalue is about "
            f"{ends.smallest:.3e} (within {ends.smallest_error:.1e}), its largest "
            f"{ends.largest:.3e}. Use A.damped({damping:.2e}) or more, or the Gauss-Newton "
            "matrix, which has no negative eigenvalue.",
            sufficient_damping=damping,
        )
