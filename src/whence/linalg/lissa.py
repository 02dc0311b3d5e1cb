"""The paper's stochastic recursion: its scale set, its divergence caught, its noise told."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from whence.errors import Diverged, InvalidInput, NotPositiveDefinite
from whence.linalg.operator import LinearOperator
from whence.linalg.solver import Inverse, Solution, Solver, require_square, value_or_warn
from whence.linalg.spectrum import extreme_eigenvalues
from whence.linalg.stochastic import sample

_SAFETY = 1.25  # the largest of a few samples is not the largest of all
_SAMPLES = 10
_LOOK_EVERY = 16  # steps between looks at the size of the iterate: each look waits for the device


@final
@dataclass(frozen=True, kw_only=True)
class LiSSA(Solver):
    """Linear-time stochastic second-order algorithm: a Neumann series on sampled curvature.

    x₀ = v, x_j = v + (I − S_j / σ) x_{j−1} with S_j an independent estimate of A; after t steps
    x_t / σ estimates A⁻¹ v with expectation (1/σ) Σ_{i≤t} (I − A/σ)ⁱ v. The error on a direction of
    eigenvalue λ shrinks as (1 − λ/σ)ᵗ: depth should be several times σ / λ_min.

    The batch is the operator's: a `StochasticOperator` says what a sample is. An operator that is
    not stochastic is used whole, and the series is then the plain Neumann series. The same seed
    draws the same samples for every right-hand side, so the estimate is linear in B, and does not
    depend on which columns are solved together.

    Args:
        depth: t, steps of the recursion, >= 1.
        repeats: Independent recursions, averaged, >= 1; from 2 on, the standard error is known.
        scale: σ > 0, above half the largest eigenvalue of the samples, better above all of it; if
            `None`, 1.25 times the largest found by Lanczos on A and on ten samples.
        seed: Of the samples.
        rtol: What `Solution.converged` holds the residual to. The residual weighs noise by
            curvature: scores can be good where it is not small.

    Raises:
        InvalidInput: If an option is out of range.

    Cost: depth · repeats products with a sample and one with A; 6pk numbers, whatever the depth.

    References:
        Agarwal, Bullins and Hazan (2017), "Second-Order Stochastic Optimization for Machine
        Learning in Linear Time", section 4. Koh and Liang (2017), "Understanding Black-box
        Predictions via Influence Functions", section 3.

    Examples:
        >>> import torch
        >>> from whence.linalg import Diagonal, LiSSA
        >>> A = Diagonal(torch.tensor([1.0, 2.0], dtype=torch.float64))
        >>> x = LiSSA(depth=200).prepare(A) @ torch.ones(2, dtype=torch.float64)
        >>> [round(v, 8) for v in x.tolist()]
        [1.0, 0.5]
    """

    depth: int
    repeats: int = 1
    scale: float | None = None
    seed: int = 0
    rtol: float = 0.1

    def __post_init__(self) -> None:
        """Check the options."""
        if self.depth < 1 or self.repeats < 1:
            raise InvalidInput(
                f"Expected depth >= 1 and repeats >= 1. Got depth={self.depth}, "
                f"repeats={self.repeats}. The paper took 5000 and 10."
            )
        if self.scale is not None and not 0 < self.scale < math.inf:
            raise InvalidInput(
                f"Expected scale > 0 or None. Got {self.scale}. None sets it from the spectrum."
            )

    def prepare(self, A: LinearOperator) -> Inverse:
        """Set the scale.

        Args:
            A: A symmetric positive definite operator, [p, p]; sampled where it is stochastic.

        Returns:
            The inverse, which iterates once it is given right-hand sides.

        Raises:
            InvalidInput: If A is not square.
            NotPositiveDefinite: If neither A nor a sample has a positive eigenvalue.
            Diverged: If a product is not finite.
        """
        require_square(A, self)
        scale = _scale(A, self.seed) if self.scale is None else self.scale
        if not scale > 0:
            raise NotPositiveDefinite(
                f"Expected a positive eigenvalue to set the scale from. Got {A!r} whose largest is "
                f"{scale:.3e}. Add damping."
            )
        return LiSSAInverse(A, self.depth, self.repeats, scale, self.seed, self.rtol)


@final
@dataclass(frozen=True, eq=False, repr=False)
class LiSSAInverse(Inverse):
    """The inverse that `LiSSA` prepares: symmetric in expectation.

    Args:
        operator: A, [p, p].
        depth: t, steps.
        repeats: Recursions averaged.
        scale: σ.
        seed: Of the samples.
        rtol: What `Solution.converged` holds the residual to.
    """

    operator: LinearOperator
    depth: int
    repeats: int
    scale: float
    seed: int
    rtol: float

    def matmat(self, V: Tensor) -> Tensor:
        """Return an estimate of A⁻¹ V; warns if its residual is above `rtol`."""
        return value_or_warn(
            self.solve_columns(V),
            "Raise depth (for bias) or repeats or the batch (for noise), or add damping.",
        )

    def solve_columns(self, B: Tensor) -> Solution:
        """Return the mean over repeats, its residual against all of A, and its standard error.

        Raises:
            Diverged: If the iterate grows faster than any convergent series could.
        """
        generator = torch.Generator().manual_seed(self.seed)
        mean, squares = torch.zeros_like(B), torch.zeros_like(B)
        for repeat in range(1, self.repeats + 1):  # Welford's update: no list of repeats
            X = self._recursion(B, generator)
            gap = X - mean
            mean.add_(gap, alpha=1 / repeat)
            squares.addcmul_(gap, X.sub_(mean))
        degrees = self.repeats * (self.repeats - 1)
        return Solution.checked(
            self.operator,
            B,
            mean,
            rtol=self.rtol,
            iterations=self.depth,
            standard_error=squares.div_(degrees).sqrt_() if degrees else None,
        )

    def _recursion(self, B: Tensor, generator: torch.Generator) -> Tensor:
        """Return x_t / σ for each column: one pass of `depth` steps."""
        norms = B.norm(dim=0)
        X = B.clone()
        for step in range(1, self.depth + 1):
            product = sample(self.operator, generator).matmat(X).detach()
            X.sub_(product, alpha=1 / self.scale).add_(B)
            if step % _LOOK_EVERY == 0 or step == self.depth:
                # Contracting factors give ‖x_j‖ <= (j + 1) ‖v‖; NaN fails the comparison too.
                bounded = X.norm(dim=0) <= 10 * (step + 1) * norms
                if not bool(bounded.all()):
                    raise self._diverged(step)
        return X.div_(self.scale)

    def _diverged(self, step: int) -> Diverged:
        """Return the error that says which of the two causes it is, and the remedy."""
        ends = extreme_eigenvalues(self.operator, seed=self.seed)
        remedy = []
        needed = _scale(self.operator, self.seed)
        if needed > self.scale:
            remedy.append(f"scale={needed:.3g} or more (or scale=None), with depth in proportion")
        if ends.smallest < 0:
            damping = ends.sufficient_damping(float(torch.finfo(self.dtype).eps))
            remedy.append(f"damping {damping:.2e} or more, as an eigenvalue is {ends.smallest:.2e}")
        if not remedy:
            remedy.append(f"scale={4 * self.scale:.3g}, or a larger batch")
        return Diverged(
            "Expected the LiSSA recursion to contract. Got an iterate that grew past any "
            f"convergent series by step {step} at scale {self.scale:.3g}; the eigenvalues of "
            f"{self.operator!r} run from about {ends.smallest:.3g} to {ends.largest:.3g}. "
            f"Use {'; and '.join(remedy)}."
        )


def _scale(A: LinearOperator, seed: int) -> float:
    """Return a bound on the eigenvalues of A and its samples, with a margin."""
    generator = torch.Generator().manual_seed(seed)
    ends = [extreme_eigenvalues(A, 20, seed=seed)]
    drawn = [sample(A, generator) for _ in range(_SAMPLES)]
    ends += [extreme_eigenvalues(S, 8, seed=seed) for S in drawn if S is not A]
    return _SAFETY * max(end.largest + end.largest_error for end in ends)
