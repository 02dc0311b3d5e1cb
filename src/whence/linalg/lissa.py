"""LiSSA, the paper's stochastic recursion, with its scale, its divergence check and its error."""

from __future__ import annotations

import math
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
    prepared_preconditioner,
    require_square,
    value_or_warn,
)
from whence.linalg.stochastic import batched, sample

_SAFETY = 1.25  # the largest of a few samples is not the largest of all
_SAMPLES = 10
_POWERS = 15  # steps of power iteration
_STEPS = 8  # Lanczos steps for the largest eigenvalue of a sample
_GROWTH = 10.0  # over what contracting factors allow
_GROWTH_OF_NORMS = 1e3  # the same where they contract in the norm of the preconditioner only
_LOOK_EVERY = 16  # steps between looks at the size of the iterate: each look waits for the device


@final
@checked
@dataclass(frozen=True, kw_only=True)
class LiSSA(Solver):
    r"""Linear-time stochastic second-order algorithm: a Neumann series on sampled curvature.

    x₀ = M b/σ, x_j = x_{j−1} + (M/σ) (b − S_j x_{j−1}) with S_j an independent estimate of A; after
    t steps x_t estimates A⁻¹ b with expectation Σ_{i≤t} (I − M A/σ)ⁱ (M/σ) b. Without a
    preconditioner M = I: the paper's recursion, over σ. The error on a direction of eigenvalue λ of
    M A shrinks as (1 − λ/σ)ᵗ: depth should be several times σ / λ_min. With M near A⁻¹, as
    `preconditioner=EKFAC()` makes it (ASTRA), all λ are near 1 and a short series is enough. With
    momentum μ the steps add up, d_j = μ d_{j−1} + (M/σ)(b − S_j x_{j−1}), x_j = x_{j−1} + d_j.

    The batch is the operator's: a `StochasticOperator` says what a sample is. An operator that is
    not stochastic is used whole, and the series is then the plain Neumann series. The same seed
    draws the same samples for every right-hand side, so the estimate is linear in B, and does not
    depend on which columns are solved together.

    Args:
        depth: t, steps of the recursion, >= 1; there is no default.
        repeats: Independent recursions, averaged, >= 1; from 2 on, the standard error is known.
        scale: σ > 0, above half the largest eigenvalue of M S, better above all of it; if `None`,
            1.25 times the largest found on ten samples, and on A where there is no preconditioner.
        seed: Of the samples.
        preconditioner: M ≈ A⁻¹, symmetric positive definite: an operator, or a solver that prepares
            one from A. `None` for none.
        momentum: μ in [0, 1). Faster where σ / λ_min is large, and noisier.
        batch_size: Examples in a sample, >= 1; the operator's own number, often 1, if `None`. With
            a preconditioner take a hundred or more: σ, and so the depth, grows with the noise.
        averaged: Return the mean of the last half of the iterates: a little more bias, and far less
            of the noise that a constant step leaves however deep the series.
        rtol: What `Solution.converged` holds the residual to. The residual weighs noise by
            curvature: scores can be good where it is not small.

    Raises:
        InvalidInput: If an option is out of range.

    Cost: depth · repeats products with a sample (and with M) and one with A; 8pk numbers, whatever
        the depth.

    References:
        Agarwal, Bullins and Hazan (2017), "Second-Order Stochastic Optimization for Machine
        Learning in Linear Time", section 4. Koh and Liang (2017), "Understanding Black-box
        Predictions via Influence Functions", section 3. Wang et al. (2025), "Better Training Data
        Attribution via Better Inverse Hessian-Vector Products" (ASTRA). Polyak (1964) for momentum;
        Polyak and Juditsky (1992) for averaging.

    Examples:
        >>> import torch
        >>> from whence.linalg import Diagonal, LiSSA
        >>> A = Diagonal(torch.tensor([1.0, 2.0], dtype=torch.float64))
        >>> x = LiSSA(depth=200).prepare(A) @ torch.ones(2, dtype=torch.float64)
        >>> [round(v, 8) for v in x.tolist()]
        [1.0, 0.5]
    """

    depth: int = 0
    repeats: int = 1
    scale: float | None = None
    seed: int = 0
    rtol: float = 0.1
    preconditioner: LinearOperator | Solver | None = None
    momentum: float = 0.0
    batch_size: int | None = None
    averaged: bool = False

    def __post_init__(self) -> None:
        """Check the options."""
        if not 0 <= self.momentum < 1 or (self.batch_size is not None and self.batch_size < 1):
            raise InvalidInput(
                "Expected 0 <= momentum < 1, and batch_size >= 1 or None. Got "
                f"momentum={self.momentum}, batch_size={self.batch_size}."
            )
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
            InvalidInput: If A is not square, or the preconditioner does not fit it.
            NotPositiveDefinite: If neither A nor a sample has a positive eigenvalue.
            Diverged: If a product is not finite.
        """
        require_square(A, self)
        if self.batch_size is not None:
            A = batched(A, self.batch_size)
        M = prepared_preconditioner(self.preconditioner, A)
        scale = _scale(A, M, self.seed) if self.scale is None else self.scale
        if not scale > 0:
            raise NotPositiveDefinite(
                f"Expected a positive eigenvalue to set the scale from. Got {A!r} whose largest is "
                f"{scale:.3e}. Add damping."
            )
        return LiSSAInverse(
            A,
            M,
            self.depth,
            self.repeats,
            scale,
            self.seed,
            self.rtol,
            self.momentum,
            self.averaged,
        )


@final
@dataclass(frozen=True, eq=False, repr=False)
class LiSSAInverse(Inverse):
    """The inverse that `LiSSA` prepares: symmetric in expectation.

    Args:
        operator: A, [p, p].
        preconditioner: M, [p, p], or `None`.
        depth: t, steps.
        repeats: Recursions averaged.
        scale: σ.
        seed: Of the samples.
        rtol: What `Solution.converged` holds the residual to.
        momentum: μ.
        averaged: Whether the last half of the iterates is averaged.
    """

    operator: LinearOperator
    preconditioner: LinearOperator | None
    depth: int
    repeats: int
    scale: float
    seed: int
    rtol: float
    momentum: float
    averaged: bool

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
        """Return x_t, or the mean of the last half, for each column: a pass of `depth` steps."""
        X = self._step(B)
        mean, kept = torch.zeros_like(X), 0
        D = X.clone()
        slack = _GROWTH if self.preconditioner is None else _GROWTH_OF_NORMS
        bound = slack / (1 - self.momentum) * X.norm(dim=0)
        for step in range(1, self.depth + 1):
            product = sample(self.operator, generator).matmat(X).detach()
            D.mul_(self.momentum).add_(self._step(B - product))
            X.add_(D)
            if self.averaged and step > self.depth // 2:
                kept += 1
                mean.add_(X - mean, alpha=1 / kept)
            look = step % _LOOK_EVERY == 0 or step == self.depth
            # Contracting factors give ‖x_j‖ <= (j + 1) ‖x₀‖ <= 2j ‖x₀‖; NaN fails this, too.
            if look and not bool((X.norm(dim=0) <= step * bound).all()):
                raise self._diverged(step)
        return mean if self.averaged else X

    def _step(self, R: Tensor) -> Tensor:
        """Return M R / σ."""
        step = R if self.preconditioner is None else self.preconditioner.matmat(R).detach()
        return step / self.scale

    def _diverged(self, step: int) -> Diverged:
        """Return the error that says which of the two causes it is, and the remedy."""
        ends = extreme_eigenvalues(self.operator, seed=self.seed)
        remedy = []
        needed = _scale(self.operator, self.preconditioner, self.seed)
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


def _scale(A: LinearOperator, M: LinearOperator | None, seed: int) -> float:
    """Return a bound on the eigenvalues of A and its samples, times M, with a margin."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [sample(A, generator) for _ in range(_SAMPLES)]
    if M is not None:
        # A mean has no larger eigenvalue than the largest of its parts: A itself can be spared.
        once = drawn if drawn[0] is not A else [A]
        return _SAFETY * max(_largest(S, M, generator) for S in once)
    ends = [extreme_eigenvalues(A, 20, seed=seed)]
    ends += [extreme_eigenvalues(S, _STEPS, seed=seed) for S in drawn if S is not A]
    return _SAFETY * max(end.largest + end.largest_error for end in ends)


def _largest(S: LinearOperator, M: LinearOperator, generator: torch.Generator) -> float:
    """Return the largest eigenvalue of M S, by power iteration."""
    v = torch.randn(S.shape[1], 1, dtype=torch.float64, generator=generator)
    v = v.to(dtype=S.dtype, device=S.device)
    size = 0.0
    for _ in range(_POWERS):
        v = M.matmat(S.matmat(v / v.norm())).detach()
        size = float(v.norm())
        if not size > 0:
            break
    return size
