"""Eigenvalues by products alone: the two ends, and the density between."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from whence.checked import checked
from whence.errors import InvalidInput
from whence.linalg.lanczos import lanczos
from whence.linalg.operator import LinearOperator


@final
@dataclass(frozen=True, kw_only=True)
class ExtremeEigenvalues:
    """The two ends of a spectrum.

    The estimates lie inside the true range: `smallest` is never below the smallest eigenvalue and
    `largest` never above the largest (up to rounding).

    Attributes:
        smallest: The smallest Ritz value.
        smallest_error: Some eigenvalue lies within this of `smallest`.
        largest: The largest Ritz value.
        largest_error: Some eigenvalue lies within this of `largest`.
        iterations: Products spent.
    """

    smallest: float
    smallest_error: float
    largest: float
    largest_error: float
    iterations: int

    def sufficient_damping(self, eps: float) -> float:
        """Return a damping that lifts the smallest eigenvalue, error included, above rounding.

        Args:
            eps: The rounding unit of the dtype at work.

        Returns:
            λ >= 0; 0 if the spectrum is positive as it stands.
        """
        floor = 1e3 * eps * max(abs(self.largest), abs(self.smallest))
        lowest = self.smallest - self.smallest_error
        return 0.0 if lowest > floor else 1.05 * (floor - lowest)


@checked
def extreme_eigenvalues(
    A: LinearOperator, iterations: int = 50, *, seed: int = 0, start: Tensor | None = None
) -> ExtremeEigenvalues:
    """Estimate the smallest and the largest eigenvalue by Lanczos, with error bounds.

    Args:
        A: A symmetric operator, [p, p].
        iterations: Products to spend, >= 1; exact once it reaches p.
        seed: Of the random start.
        start: The first direction, [p]; random if `None`.

    Returns:
        Both ends with their bounds.

    Raises:
        InvalidInput: If A is not square or iterations < 1.
        Diverged: If a product is not finite.

    Cost: `iterations` products with one column; `iterations` · p numbers.

    References:
        Parlett (1998), "The Symmetric Eigenvalue Problem", chapter 13.

    Examples:
        >>> import torch
        >>> from whence.linalg import Diagonal, extreme_eigenvalues
        >>> A = Diagonal(torch.tensor([-1.0, 2.0, 5.0], dtype=torch.float64))
        >>> ends = extreme_eigenvalues(A)
        >>> round(ends.smallest, 8), round(ends.largest, 8)
        (-1.0, 5.0)
    """
    T = lanczos(A, iterations, seed=seed, start=start)
    values, vectors = T.ritz()
    errors = T.error_bounds(vectors)
    return ExtremeEigenvalues(
        smallest=float(values[0]),
        smallest_error=float(errors[0]),
        largest=float(values[-1]),
        largest_error=float(errors[-1]),
        iterations=len(T.diagonal),
    )


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class SpectralDensity:
    """A spectrum as point masses: a quadrature rule for the mean of f over the eigenvalues.

    Attributes:
        nodes: Where the masses sit, ascending, [r].
        weights: The masses, nonnegative, summing to one, [r].
        size: p, the number of eigenvalues they stand for.
    """

    nodes: Tensor
    weights: Tensor
    size: int

    def trace(self) -> float:
        """Return the estimated sum of the eigenvalues, p Σ w θ."""
        return self.size * float(self.weights @ self.nodes)

    def density(self, grid: Tensor, width: float) -> Tensor:
        """Return the masses smoothed by a Gaussian: what one plots.

        Args:
            grid: Where to evaluate, [g].
            width: Standard deviation of the Gaussian, > 0, in the units of the eigenvalues.

        Returns:
            The density, [g], which integrates to one.

        Raises:
            InvalidInput: If the width is not positive.
        """
        if not width > 0:
            raise InvalidInput(
                f"Expected width > 0. Got {width}. A hundredth of the spectrum's range shows it."
            )
        z = (grid.unsqueeze(1) - self.nodes) / width
        return torch.exp(-0.5 * z.square()) @ self.weights / (width * math.sqrt(2 * math.pi))


@checked
def spectral_density(
    A: LinearOperator, *, probes: int = 8, iterations: int = 64, seed: int = 0
) -> SpectralDensity:
    """Estimate how the eigenvalues are distributed, by stochastic Lanczos quadrature.

    For a random unit start, the Ritz values θ_j weighted by the squared first entries of the
    eigenvectors of T form a Gauss rule for the spectral measure; the mean over starts has the
    density of the eigenvalues as its expectation.

    Args:
        A: A symmetric operator, [p, p].
        probes: Random starts, >= 1.
        iterations: Lanczos steps for each, >= 1.
        seed: Of the starts.

    Returns:
        Nodes and weights; exact moments up to degree 2 · iterations − 1 for each start.

    Raises:
        InvalidInput: If A is not square, or probes or iterations < 1.
        Diverged: If a product is not finite.

    Cost: probes · iterations products with one column; iterations · p numbers.

    References:
        Ubaru, Chen and Saad (2017), "Fast Estimation of tr(f(A)) via Stochastic Lanczos
        Quadrature", section 3. Ghorbani, Krishnan and Xiao (2019), "An Investigation into Neural
        Net Optimization via Hessian Eigenvalue Density", section 2.

    Examples:
        >>> import torch
        >>> from whence.linalg import Diagonal, spectral_density
        >>> spectrum = spectral_density(Diagonal(torch.full((5,), 3.0, dtype=torch.float64)))
        >>> round(spectrum.trace(), 8)
        15.0
    """
    if probes < 1:
        raise InvalidInput(f"Expected probes >= 1. Got {probes}. Eight are customary.")
    nodes, weights = [], []
    for probe in range(probes):
        values, vectors = lanczos(A, iterations, seed=seed + probe).ritz()
        nodes.append(values)
        weights.append(vectors[0].square() / probes)
    order = torch.cat(nodes).argsort()
    return SpectralDensity(
        nodes=torch.cat(nodes)[order], weights=torch.cat(weights)[order], size=A.shape[1]
    )
