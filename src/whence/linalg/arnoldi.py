"""The strongest directions of a curvature, found by Lanczos, inverted one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from whence.checked import checked
from whence.errors import InvalidInput
from whence.linalg.lanczos import lanczos
from whence.linalg.low_rank import Complement, invert_low_rank
from whence.linalg.operator import LinearOperator
from whence.linalg.solver import Inverse, Solver, require_square


@final
@checked
@dataclass(frozen=True, kw_only=True)
class Arnoldi(Solver):
    """Keep the `rank` eigenvalues of largest magnitude, and their eigenvectors.

    Of A = H + μ I (as `H.damped(μ)` says) the Lanczos process on H gives H ≈ U diag(λ) Uᵀ; then
    A⁻¹ ≈ U diag(1 / (λ + μ)) Uᵀ + (1/c)(I − U Uᵀ), with c by the rule `complement`. Curvature is
    symmetric, so Arnoldi's iteration is Lanczos's; the name is that of the influence literature.

    Args:
        rank: r, directions kept, >= 1.
        iterations: Lanczos steps, at least r; 2r + 20 if `None`.
        seed: Of the random start.
        complement: What is assumed elsewhere: "last" (as on the weakest direction kept), "zero" (no
            curvature but the damping), or "drop" (project; the choice of the paper).
        rtol: What `Solution.converged` holds the residual to.

    Raises:
        InvalidInput: If an option is out of range.

    Cost: `iterations` products once, 4pr operations per right-hand side after;
        (iterations + r) · p numbers.

    References:
        Schioppa, Zablotskaia, Vilar and Sokolov (2022), "Scaling Up Influence Functions",
        section 3 and algorithm 1.

    Examples:
        >>> import torch
        >>> from whence.linalg import Arnoldi, Diagonal
        >>> A = Diagonal(torch.tensor([4.0, 2.0, 0.0], dtype=torch.float64)).damped(1.0)
        >>> x = Arnoldi(rank=2, complement="zero").prepare(A) @ torch.ones(3, dtype=torch.float64)
        >>> [round(v, 10) for v in x.tolist()]
        [0.2, 0.3333333333, 1.0]
    """

    rank: int
    iterations: int | None = None
    seed: int = 0
    complement: Complement = "last"
    rtol: float = 0.1

    def __post_init__(self) -> None:
        """Check the options."""
        if self.rank < 1 or (self.iterations is not None and self.iterations < self.rank):
            raise InvalidInput(
                f"Expected rank >= 1 and iterations >= rank (or None). Got rank={self.rank}, "
                f"iterations={self.iterations}. Twice the rank settles the directions kept."
            )

    def prepare(self, A: LinearOperator) -> Inverse:
        """Run Lanczos and keep the strongest directions.

        Args:
            A: A symmetric operator, [p, p]; its outer damping is read, not sketched.

        Returns:
            The inverse in closed form.

        Raises:
            InvalidInput: If A is not square, or complement is "zero" without damping.
            NotPositiveDefinite: If a direction kept has no positive curvature, damping included.
            Diverged: If a product is not finite.
        """
        require_square(A, self)
        H, damping = A.undamped()
        T = lanczos(H, self.iterations or 2 * self.rank + 20, seed=self.seed)
        values, vectors = T.ritz()
        keep = values.abs().argsort(descending=True)[: self.rank]
        basis = T.basis @ vectors[:, keep]
        return invert_low_rank(A, basis, values[keep], damping, self.complement, self.rtol)
