"""The Lanczos process: a symmetric operator restricted to a Krylov subspace."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from whence.checked import checked
from whence.errors import Diverged, InvalidInput
from whence.linalg.operator import LinearOperator, as_columns

_PASSES = 2  # of orthogonalization
_ROUNDING = 10  # over ε ‖A‖ times √p or the steps: what is left of a vector within the basis


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Tridiagonal:
    """What `lanczos` found: A Q = Q T + β q eᵀ with Q orthonormal and T tridiagonal.

    Attributes:
        basis: Q, [p, r], r at most the number of steps asked for.
        diagonal: The diagonal of T, [r].
        off_diagonal: The off-diagonal of T, [r − 1]; a zero marks an invariant subspace that was
            exhausted, after which the process started again from a fresh direction.
        remainder: β, what the next off-diagonal entry would have been; 0 if all of [p] was seen.
    """

    basis: Tensor
    diagonal: Tensor
    off_diagonal: Tensor
    remainder: float

    def ritz(self) -> tuple[Tensor, Tensor]:
        """Return the eigenvalues of T, ascending [r], and its eigenvectors [r, r] as columns."""
        T = torch.diag(self.diagonal)
        T += torch.diag(self.off_diagonal, 1) + torch.diag(self.off_diagonal, -1)
        values, vectors = torch.linalg.eigh(T)
        return values, vectors

    def error_bounds(self, vectors: Tensor) -> Tensor:
        """Return ‖A u − θ u‖ for each Ritz pair: some eigenvalue of A lies that close to θ.

        Args:
            vectors: The eigenvectors of T, [r, r].

        Returns:
            β |s_r| for each column s, [r].
        """
        return self.remainder * vectors[-1].abs()


@checked
def lanczos(
    A: LinearOperator, steps: int, *, seed: int = 0, start: Tensor | None = None
) -> Tridiagonal:
    """Run the Lanczos process with full reorthogonalization.

    From q₁ = start / ‖start‖: β_j q_{j+1} = A q_j − α_j q_j − β_{j−1} q_{j−1}, each new q
    orthogonalized twice against all before it. Where β_j vanishes the subspace seen is
    invariant; the process records β_j = 0 and goes on from a random direction orthogonal to it, so
    repeated eigenvalues are found as well.

    Args:
        A: A symmetric operator, [p, p].
        steps: Products to spend, >= 1; no more than p are used.
        seed: Of the random start, and of restarts.
        start: The first direction, [p], not zero; random if `None`.

    Returns:
        The basis and the tridiagonal matrix.

    Raises:
        InvalidInput: If A is not square, steps < 1, or the start is zero or does not fit.
        Diverged: If a product is not finite.

    Cost: `steps` products with one column; `steps` · p numbers; 4 p steps² operations.

    References:
        Golub and Van Loan (2013), "Matrix Computations", 4th edition, section 10.3.

    Examples:
        >>> import torch
        >>> from whence.linalg import Diagonal, lanczos
        >>> T = lanczos(Diagonal(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)), 3)
        >>> [round(float(x), 10) for x in T.ritz()[0]]
        [1.0, 2.0, 4.0]
    """
    p = A.shape[1]
    if A.shape[0] != p or p == 0:
        raise InvalidInput(
            f"Expected a square symmetric operator with p >= 1. Got {A!r}. Use G.T @ G."
        )
    if steps < 1:
        raise InvalidInput(f"Expected steps >= 1. Got {steps}. 30 are enough for the extremes.")
    steps = min(steps, p)
    generator = torch.Generator().manual_seed(seed)
    first = _random(A, generator) if start is None else as_columns(A, start)[:, 0].detach()
    if not float(first.norm()) > 0:
        raise InvalidInput("Expected a start with a positive norm. Got zero. Pass start=None.")
    basis = torch.empty(steps, p, dtype=A.dtype, device=A.device).mT  # columns contiguous
    basis[:, 0] = first / first.norm()
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    size = 0.0  # the largest entry of T so far: the scale of rounding
    eps = float(torch.finfo(A.dtype).eps)
    while True:
        j = len(diagonal)
        w = A.matmat(basis[:, j : j + 1]).detach()[:, 0]
        diagonal.append(float(basis[:, j] @ w))
        w, beta = _orthogonalize(w, basis[:, : j + 1])
        if not math.isfinite(beta + diagonal[-1]):
            raise Diverged(
                f"Expected finite products with {A!r}. Got {diagonal[-1]} at Lanczos step {j + 1}. "
                "Check the loss and its derivatives for overflow, or use float64."
            )
        size = max(size, abs(diagonal[-1]), beta)
        invariant = beta <= _ROUNDING * eps * max(j + 1, p**0.5) * size
        if j + 1 == steps:
            break
        if invariant:
            beta = 0.0
            w, norm = _orthogonalize(_random(A, generator), basis[:, : j + 1])
            basis[:, j + 1] = w / norm
        else:
            basis[:, j + 1] = w / beta
        off_diagonal.append(beta)
    return Tridiagonal(
        basis=basis,
        diagonal=basis.new_tensor(diagonal),
        off_diagonal=basis.new_tensor(off_diagonal),
        remainder=0.0 if invariant or steps == p else beta,
    )


def _orthogonalize(w: Tensor, basis: Tensor) -> tuple[Tensor, float]:
    """Return w less its part in the basis, removed twice, and the norm of what is left."""
    for _ in range(_PASSES):  # once leaves a part of size ε‖w‖, which grows when β is small
        w = w - basis @ (basis.mT @ w)
    return w, float(w.norm())


def _random(A: LinearOperator, generator: torch.Generator) -> Tensor:
    """Return a Gaussian vector of A's size, drawn on the CPU so that devices agree."""
    return torch.randn(A.shape[1], generator=generator, dtype=A.dtype).to(A.device)
