"""Symmetric matrices whose eigenvectors are known: any function of them in closed form."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from whence.checked import checked
from whence.errors import InvalidInput
from whence.linalg.operator import LinearOperator


class Spectral(LinearOperator):
    """A symmetric operator with a known eigendecomposition, A = Q diag(λ) Qᵀ.

    So f(A) = Q diag(f(λ)) Qᵀ costs no more than A itself: the inverse, the inverse square root,
    any damped form. [`Direct`][whence.linalg.Direct] solves with it.
    """

    @abstractmethod
    def eigenvalues(self) -> Tensor:
        """Return all p eigenvalues with multiplicity, [p], in no particular order."""

    @abstractmethod
    def map_spectrum(self, function: Callable[[Tensor], Tensor]) -> Spectral:
        """Return f(A): the same eigenvectors, each eigenvalue λ replaced by f(λ).

        Args:
            function: f, elementwise on tensors of any shape.
        """

    def extremes(self) -> tuple[float, float]:
        """Return the smallest and the largest eigenvalue."""
        least, most = torch.aminmax(self.eigenvalues())
        return float(least), float(most)

    def rmatmat(self, W: Tensor) -> Tensor:
        """Return A W: A is symmetric."""
        return self.matmat(W)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Diagonal(Spectral):
    """diag(d).

    Args:
        diagonal: d, [p].

    Raises:
        InvalidInput: If d does not have one axis or is not floating point.

    Examples:
        >>> import torch
        >>> Diagonal(torch.tensor([2.0, 4.0])).map_spectrum(torch.reciprocal) @ torch.ones(2)
        tensor([0.5000, 0.2500])
    """

    diagonal: Tensor

    def __post_init__(self) -> None:
        """Check the diagonal."""
        require_floating("diagonal", self.diagonal, ndim=1)

    @property
    def shape(self) -> tuple[int, int]:
        """P by p."""
        return self.diagonal.shape[0], self.diagonal.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of d."""
        return self.diagonal.dtype

    @property
    def device(self) -> torch.device:
        """The device of d."""
        return self.diagonal.device

    def matmat(self, V: Tensor) -> Tensor:
        """Return d ⊙ V, row by row."""
        return self.diagonal.unsqueeze(1) * V

    def eigenvalues(self) -> Tensor:
        """Return d."""
        return self.diagonal

    def map_spectrum(self, function: Callable[[Tensor], Tensor]) -> Diagonal:
        """Return diag(f(d))."""
        return Diagonal(function(self.diagonal))


@final
@dataclass(frozen=True, eq=False, repr=False)
class LowRank(Spectral):
    """U diag(s) Uᵀ + t I, with r orthonormal columns U.

    Eigenvalue s_j + t on the j-th column, t on the p − r directions orthogonal to all of them; so
    f(A) = U diag(f(s + t) − f(t)) Uᵀ + f(t) I (for f = 1/x, the Woodbury identity).

    Args:
        basis: U, [p, r], orthonormal columns (not checked: it would cost what a product does).
        values: s, [r].
        shift: t, the eigenvalue on the complement.

    Raises:
        InvalidInput: If shapes or dtypes do not fit.

    Cost: 4prk operations for k columns; (p + 1)r numbers.

    Examples:
        >>> import torch
        >>> A = LowRank(torch.eye(3)[:, :1], torch.tensor([3.0]), shift=1.0)
        >>> A @ torch.ones(3)
        tensor([4., 1., 1.])
    """

    basis: Tensor
    values: Tensor
    shift: float = 0.0

    def __post_init__(self) -> None:
        """Check that the basis and the values fit."""
        require_floating("basis", self.basis, ndim=2)
        require_floating("values", self.values, ndim=1)
        p, r = self.basis.shape
        if self.values.shape[0] != r or r > p or self.values.dtype != self.basis.dtype:
            raise InvalidInput(
                f"Expected a basis [p, r] with r <= p and values [r] of one dtype. Got basis "
                f"{[p, r]} {self.basis.dtype} and values {list(self.values.shape)} "
                f"{self.values.dtype}. Pass one value per column of the basis."
            )

    @property
    def shape(self) -> tuple[int, int]:
        """P by p."""
        return self.basis.shape[0], self.basis.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of U."""
        return self.basis.dtype

    @property
    def device(self) -> torch.device:
        """The device of U."""
        return self.basis.device

    def matmat(self, V: Tensor) -> Tensor:
        """Return U (s ⊙ Uᵀ V) + t V."""
        product = self.basis @ (self.values.unsqueeze(1) * (self.basis.mT @ V))
        return product.add_(V, alpha=self.shift)

    def eigenvalues(self) -> Tensor:
        """Return s + t and p − r times t, [p]."""
        p, r = self.basis.shape
        return torch.cat([self.values + self.shift, self.values.new_full((p - r,), self.shift)])

    def map_spectrum(self, function: Callable[[Tensor], Tensor]) -> LowRank:
        """Return f(A)."""
        p, r = self.basis.shape
        inside = function(self.values + self.shift)
        if r == p:  # no complement: f need not be finite at the shift
            return LowRank(self.basis, inside)
        shift = float(function(self.values.new_tensor(self.shift)))
        return LowRank(self.basis, inside - shift, shift)


@final
@dataclass(frozen=True, eq=False, repr=False)
class KroneckerEigen(Spectral):
    """(Q_out ⊗ Q_in) diag(Λ) (Q_out ⊗ Q_in)ᵀ on flat vectors: the shape of KFAC and EKFAC.

    A vector of length p = out · in is the row-major flattening of a matrix W [out, in], a torch
    weight's own layout: entry (o, i) stands at o · in + i. In that layout the product is
    A w = vec(Q_out (Λ ⊙ (Q_outᵀ W Q_in)) Q_inᵀ), two small GEMMs each way.

    Args:
        left: Q_out, [out, out], orthogonal (not checked).
        right: Q_in, [in, in], orthogonal (not checked).
        values: Λ, [out, in]; for KFAC the outer product of the factors' eigenvalues.

    Raises:
        InvalidInput: If shapes, dtypes or devices do not fit.

    Cost: 4 p (out + in) k operations for k columns; out² + in² + p numbers.

    References:
        Martens and Grosse (2015), "Optimizing Neural Networks with Kronecker-factored Approximate
        Curvature", section 3. George et al. (2018), "Fast Approximate Natural Gradient Descent in
        a Kronecker-factored Eigenbasis", section 3.

    Examples:
        >>> import torch
        >>> A = KroneckerEigen(torch.eye(2), torch.eye(1), torch.tensor([[2.0], [5.0]]))
        >>> A @ torch.ones(2)
        tensor([2., 5.])
    """

    left: Tensor
    right: Tensor
    values: Tensor

    def __post_init__(self) -> None:
        """Check that the factors fit the values."""
        for name, tensor in (("left", self.left), ("right", self.right), ("values", self.values)):
            require_floating(name, tensor, ndim=2)
        m, d = self.values.shape
        kinds = {(x.dtype, x.device) for x in (self.left, self.right, self.values)}
        if self.left.shape != (m, m) or self.right.shape != (d, d) or len(kinds) > 1:
            raise InvalidInput(
                f"Expected left [{m}, {m}] and right [{d}, {d}] for values [{m}, {d}], all of one "
                f"dtype on one device. Got left {list(self.left.shape)} {self.left.dtype}, right "
                f"{list(self.right.shape)} {self.right.dtype}, values {self.values.dtype}. "
                "left acts on the outputs, right on the inputs."
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Out · in, twice."""
        return self.values.numel(), self.values.numel()

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of Λ."""
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        """The device of Λ."""
        return self.values.device

    def matmat(self, V: Tensor) -> Tensor:
        """Return A V: rotate, scale, rotate back."""
        W = V.mT.reshape(-1, *self.values.shape)  # [k, out, in]
        W = self.left.mT @ W @ self.right
        W = self.left @ (self.values * W) @ self.right.mT
        return W.reshape(W.shape[0], -1).mT

    def eigenvalues(self) -> Tensor:
        """Return Λ, flat, [p]."""
        return self.values.reshape(-1)

    def map_spectrum(self, function: Callable[[Tensor], Tensor]) -> KroneckerEigen:
        """Return f(A): f on Λ, the same rotations."""
        return KroneckerEigen(self.left, self.right, function(self.values))


@checked
def eigendecompose(matrix: Tensor) -> LowRank:
    """Return a symmetric matrix as an operator with its eigendecomposition.

    Args:
        matrix: [p, p], symmetric; only the lower triangle is read.

    Returns:
        The matrix as a `LowRank` of full rank.

    Cost: one symmetric eigendecomposition, O(p³).
    """
    require_floating("matrix", matrix, ndim=2)
    values, basis = torch.linalg.eigh(matrix.detach())
    return LowRank(basis, values)


def require_floating(name: str, tensor: Tensor, *, ndim: int) -> None:
    """Raise unless `tensor` is a floating-point tensor with `ndim` axes."""
    if not isinstance(tensor, Tensor):
        got = type(tensor).__name__
    elif tensor.ndim == ndim and tensor.is_floating_point():
        return
    else:
        got = f"{list(tensor.shape)} {tensor.dtype}"
    raise InvalidInput(
        f"Expected {name} to be a floating-point tensor with {ndim} "
        f"{'axis' if ndim == 1 else 'axes'}. Got {got}. Convert with .to(torch.float64)."
    )
