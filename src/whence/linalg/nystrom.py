"""Nyström approximation of a curvature: an inverse, or a preconditioner for conjugate gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from whence.checked import checked
from whence.errors import Diverged, InvalidInput, NotPositiveDefinite
from whence.linalg.eigenvalues import extreme_eigenvalues
from whence.linalg.low_rank import Complement, invert_low_rank
from whence.linalg.operator import LinearOperator
from whence.linalg.solver import Inverse, Solver, require_square


@final
@checked
@dataclass(frozen=True, kw_only=True)
class Nystrom(Solver):
    """Sketch H ≈ H Ω (Ωᵀ H Ω)⁺ (H Ω)ᵀ = U diag(λ) Uᵀ with a random Ω, and invert that.

    Of A = H + μ I (as `H.damped(μ)` says): A⁻¹ ≈ U diag(1 / (λ + μ)) Uᵀ + (1/c)(I − U Uᵀ), with
    c by the rule `complement`. With "last", c = λ_r + μ and this is, up to a factor that CG does
    not feel, the preconditioner of Frangella, Tropp and Udell: write
    `CG(preconditioner=Nystrom(rank=100))`. With "zero", c = μ: sketch-and-solve.

    Args:
        rank: r, columns of Ω, >= 1; no more than p are used.
        seed: Of Ω.
        complement: What is assumed elsewhere: "last" (as on the weakest direction kept), "zero" (no
            curvature but the damping), or "drop" (project).
        rtol: What `Solution.converged` holds the residual to.

    Raises:
        InvalidInput: If an option is out of range.

    Cost: one product with r columns once, 4pr operations per right-hand side after; 3rp numbers
        while sketching, rp after.

    References:
        Frangella, Tropp and Udell (2023), "Randomized Nyström Preconditioning", algorithm 2.1 and
        equation (1.3).

    Examples:
        >>> import torch
        >>> from whence.linalg import CG, Diagonal, Nystrom
        >>> A = Diagonal(torch.tensor([4.0, 1.0], dtype=torch.float64)).damped(1.0)
        >>> x = CG(preconditioner=Nystrom(rank=2)).prepare(A) @ torch.ones(2, dtype=torch.float64)
        >>> [round(v, 8) for v in x.tolist()]
        [0.2, 0.5]
    """

    rank: int
    seed: int = 0
    complement: Complement = "last"
    rtol: float = 0.1

    def __post_init__(self) -> None:
        """Check the options."""
        if self.rank < 1:
            raise InvalidInput(
                f"Expected rank >= 1. Got {self.rank}. A preconditioner takes 50 to 200."
            )

    def prepare(self, A: LinearOperator) -> Inverse:
        """Sketch the operator.

        Args:
            A: A symmetric operator whose undamped part is positive semidefinite, [p, p].

        Returns:
            The inverse in closed form.

        Raises:
            InvalidInput: If A is not square, or complement is "zero" without damping.
            NotPositiveDefinite: If the undamped part has a negative eigenvalue, or there is
                neither curvature nor damping.
            Diverged: If a product is not finite.
        """
        require_square(A, self)
        H, damping = A.undamped()
        basis, values = _sketch(H, min(self.rank, H.shape[0]), self.seed)
        return invert_low_rank(A, basis, values, damping, self.complement, self.rtol)


def _sketch(H: LinearOperator, rank: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return U [p, r] and λ [r] of the Nyström approximation, in a numerically stable way."""
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.randn(H.shape[0], rank, generator=generator, dtype=H.dtype).to(H.device)
    test, _ = torch.linalg.qr(gaussian)  # Ω
    Y = H.matmat(test).detach()
    size = float(Y.norm())
    if not size < float("inf"):
        raise Diverged(
            f"Expected finite products with {H!r}. Got values that are not finite. "
            "Check the loss and its derivatives for overflow, or use float64."
        )
    if size == 0:
        return test, test.new_zeros(rank)
    eps = float(torch.finfo(H.dtype).eps)
    for power in range(5):
        # A shift by ν makes ΩᵀHΩ factorable in the presence of rounding; it is taken out of λ.
        shift = eps * size * 10**power
        shifted = torch.add(Y, test, alpha=shift)
        factor, info = torch.linalg.cholesky_ex(test.mT @ shifted)
        if not int(info):
            half = torch.linalg.solve_triangular(factor.mT, shifted, upper=True, left=False)
            basis, roots, _ = torch.linalg.svd(half, full_matrices=False)
            return basis, roots.square() - shift
    ends = extreme_eigenvalues(H)
    damping = ends.sufficient_damping(eps)
    raise NotPositiveDefinite(
        f"Expected a positive semidefinite operator under the damping. Got {H!r} with smallest "
        f"eigenvalue about {ends.smallest:.3e}. Use the Gauss-Newton matrix, which has no negative "
        f"eigenvalue, or CG with damping {damping:.2e} or more.",
        sufficient_damping=damping,
    )
