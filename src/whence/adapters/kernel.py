r"""Coordinates in which a kernel or a wide linear model has at most n parameters.

A penalized model's optimum lies in the span of its training rows, and stays there whatever is
removed. With K = X Xᵀ (or any kernel matrix) and its pivoted Cholesky factor K ≈ Z Zᵀ, Z [n, r],
the rows of Z are features of the same model: equal inner products, equal penalty, r <= n columns.
A new row x has the features z(x) = L⁻¹ k(X_pivots, x), L [r, r] the pivot rows of Z.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.linalg.lapack import dpstrf

from whence.arrays import Floats
from whence.errors import InvalidInput, UnsupportedModel
from whence.linear.features import DenseFeatures, sparse_similarities
from whence.rows import dense, is_sparse, take
from whence.tiles import spread

_NEAR = 1e-6  # of its largest entry: how near coordinates must give a kernel matrix


def scale_gamma(rows: Any) -> float:
    """Return γ = 1/(d Var X) of an SVC with gamma="scale".

    Args:
        rows: X, dense or sparse, [n, d].

    Returns:
        γ; 1 where X does not vary.
    """
    if is_sparse(rows):
        variance = float(rows.multiply(rows).mean() - rows.mean() ** 2)
    else:
        variance = float(np.asarray(rows).var())
    return 1.0 / (rows.shape[1] * variance) if variance != 0 else 1.0


@dataclass(frozen=True)
class Kernel:
    """A kernel k(x, x′) with its derivative.

    Args:
        name: "linear", "rbf" or "poly".
        gamma: γ > 0.
        degree: Of the polynomial.
        coef0: The polynomial's constant.
        place: What rows of a linear kernel are taken relative to, [d], or `None` for 0.
    """

    name: str
    gamma: float = 1.0
    degree: float = 3.0
    coef0: float = 0.0
    place: Floats | None = field(default=None, compare=False)

    def __call__(self, a: Any, b: Any) -> Floats:
        """Return k(aᵢ, bⱼ), [len(a), len(b)]; a and b dense or sparse rows."""
        if self.name == "rbf" and not is_sparse(a) and not is_sparse(b):
            a, b = _near_zero(a, b)
        a, b = (a, b) if self.place is None else (self.apart(a), self.apart(b))
        dots = sparse_similarities(a) if a is b and is_sparse(a) else dense(a @ b.T)
        if self.name == "linear":
            return dots
        if self.name == "poly":
            return np.asarray((self.gamma * dots + self.coef0) ** self.degree)
        distances = _squares(a)[:, None] + _squares(b)[None, :]
        dots *= 2  # in place: a matrix of its own for each step takes longer than the step
        distances -= dots
        np.maximum(distances, 0, out=distances)
        distances *= -self.gamma
        return np.asarray(np.exp(distances, out=distances))

    def apart(self, rows: Any) -> Any:
        """Return rows relative to the kernel's place, [b, d]."""
        return rows if self.place is None else dense(rows) - self.place

    def gradient(self, weights: Floats, centers: Floats, x: Floats) -> Floats:
        """Return ∂/∂x_b Σⱼ weights[b, j] k(centersⱼ, x_b), [b, d], for dense rows."""
        if self.name == "linear":
            return np.asarray(weights @ self.apart(centers))
        if self.name == "poly":
            dots = self.gamma * (x @ centers.T) + self.coef0
            return (weights * self.degree * self.gamma * dots ** (self.degree - 1)) @ centers
        x, centers = _near_zero(x, centers)
        each = -2 * self.gamma * weights * self(x, centers)
        return np.asarray(each.sum(1, keepdims=True) * x - each @ centers)


def _near_zero(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Return rows without their common place, which distances do not see but their squares do."""
    place = a.mean(0)
    return a - place, b - place


def _squares(rows: Any) -> Floats:
    """Return ‖row‖², dense or sparse."""
    return np.asarray((rows.multiply(rows) if is_sparse(rows) else rows * rows).sum(1)).ravel()


@dataclass(frozen=True, eq=False)
class RowSpace:
    """The coordinates of a kernel's span of training rows; made by `row_space`.

    Args:
        kernel: k.
        pivots: The r training rows that span the rest, dense or sparse, [r, d].
        factor: L, lower triangular, [r, r].
        positions: Where the pivots are in the training data, [r].
    """

    kernel: Kernel
    pivots: Any
    factor: Floats
    positions: NDArray[np.intp]

    def coordinates(self, rows: Any) -> Floats:
        """Return z(x) for each row, [b, r]."""
        return np.ascontiguousarray(self.forward(self.kernel(self.pivots, rows)).T)

    def forward(self, v: Floats) -> Floats:
        """Return L⁻¹ V for V [r, k]: from values at the pivots to coefficients."""
        return np.asarray(solve_triangular(self.factor, v, lower=True))

    def dual(self, v: Floats) -> Floats:
        """Return L⁻ᵀ V for V [r, k]: weights on the pivots, so that f(x) = Σ k(pivotⱼ, x) Vⱼ."""
        return np.asarray(solve_triangular(self.factor, v, lower=True, trans="T"))

    def lift(self, v: Floats) -> Floats:
        """Return V [r, k] as coefficients of the columns of X, [d, k], for the linear kernel."""
        if self.kernel.name != "linear":
            raise UnsupportedModel(
                f"Expected a linear kernel to name parameters. Got {self.kernel.name!r}, whose "
                "parameters are infinitely many. Ask for effects on queries instead."
            )
        return np.asarray(self.kernel.apart(self.pivots).T @ self.dual(v))


def row_space(kernel: Kernel, rows: Any) -> tuple[RowSpace, DenseFeatures]:
    """Return the row space of training rows, and their coordinates Z.

    Args:
        kernel: k.
        rows: X, dense or sparse, [n, d].

    Returns:
        The row space and Z, [n, r].

    Raises:
        InvalidInput: If the kernel matrix is zero.
        UnsupportedModel: If it is not positive semidefinite, so that no coordinates give it.

    Cost:
        One kernel matrix [n, n] and n r² operations.
    """
    gram = np.ascontiguousarray(kernel(rows, rows))
    n = len(gram)
    # LAPACK goes by columns: the upper factor of the transpose is the lower one, with no copy.
    factor, order, rank, _ = dpstrf(
        gram.T,
        tol=n * np.finfo(float).eps * float(gram.diagonal().max()),
        lower=0,
        overwrite_a=1,
    )
    if rank == 0:
        raise InvalidInput("Expected at least one training row that is not zero. Got none.")
    order = order - 1
    lower = factor.T[:, :rank]
    for row in range(rank):
        lower[row, row + 1 :] = 0
    z = np.empty((n, rank))
    z[order] = lower
    pivots = np.asarray(order[:rank], dtype=np.intp)
    few = spread(n, 50)
    own = kernel(rows[few], rows[few])
    if np.abs(z[few] @ z[few].T - own).max() > _NEAR * np.abs(own).max():
        raise UnsupportedModel(
            f"Expected a positive semidefinite kernel. Got {kernel.name!r}, whose matrix has "
            "negative eigenvalues on these rows. Use another kernel, as 'rbf'."
        )
    space = RowSpace(kernel, rows[pivots], np.ascontiguousarray(lower[:rank]), pivots)
    return space, DenseFeatures(torch.from_numpy(z), torch.from_numpy(order))


def row_space_among(
    kernel: Kernel, rows: Any, kept: NDArray[np.bool_]
) -> tuple[RowSpace, DenseFeatures]:
    """Return the row space of some of the training rows, and the coordinates of all.

    Args:
        kernel: k.
        rows: X, dense or sparse, [n, d].
        kept: Which rows are there, [n]: the pivots are among them.

    Returns:
        The row space and Z, [n, r]; that of a row that is not there is as that of a query.

    Raises:
        InvalidInput: As `row_space`.
        UnsupportedModel: As `row_space`.

    Cost:
        As `row_space`.
    """
    if kept.all():
        return row_space(kernel, rows)
    there, gone = np.flatnonzero(kept), np.flatnonzero(~kept)
    space, part = row_space(kernel, take(rows, there))
    assert part.staircase is not None
    z = np.empty((len(kept), len(space.positions)))
    z[there], z[gone] = part.matrix.numpy(), space.coordinates(take(rows, gone))
    order = np.concatenate([there[part.staircase.numpy()], gone])
    features = DenseFeatures(torch.from_numpy(z), torch.from_numpy(order))
    return replace(space, positions=there[space.positions]), features
