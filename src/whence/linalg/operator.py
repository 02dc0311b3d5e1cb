"""Linear operators: matrices known by their products, and their sums, multiples and products.

A [`LinearOperator`][whence.linalg.LinearOperator] of shape [m, p] maps a block of k columns,
[p, k] → [m, k], and its transpose maps back: one axis for parameters, one dtype, one device.
They combine as matrices do (`A + B`, `2.0 * A`, `A @ B`, `A.T`, `A.damped(λ)`), lazily.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final, overload

import torch
from torch import Tensor

from whence.errors import InvalidInput
from whence.tiles import tiles

_ROWS = 256  # rows that are formed at once


class LinearOperator(ABC):
    """A matrix of shape [m, p], known by its products with blocks of vectors.

    A subclass defines `shape`, `dtype`, `device` and two products on blocks, `matmat` (A V) and
    `rmatmat` (Aᵀ W), which check nothing and are what solvers call. Users write `A @ v`.

    Examples:
        >>> import torch
        >>> from whence.linalg import Diagonal
        >>> A = Diagonal(torch.tensor([1.0, 2.0]))
        >>> (2.0 * A).damped(0.5) @ torch.ones(2)
        tensor([2.5000, 4.5000])
    """

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """The number of rows m and of columns p."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """The dtype of the operator, and of every tensor it meets."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """The device of the operator, and of every tensor it meets."""

    @abstractmethod
    def matmat(self, V: Tensor) -> Tensor:
        """Return A V.

        Args:
            V: Columns, [p, k].

        Returns:
            The products, [m, k].
        """

    @abstractmethod
    def rmatmat(self, W: Tensor) -> Tensor:
        """Return Aᵀ W.

        Args:
            W: Columns, [m, k].

        Returns:
            The products, [p, k].
        """

    def forms(self, rows: Tensor) -> Tensor:
        """Return R A Rᵀ of each group of rows, for a square A.

        Args:
            rows: m groups R of c rows, [m, c, p].

        Returns:
            The matrices, [m, c, c].
        """
        product = self.matmat(rows.flatten(0, 1).T).T.reshape(rows.shape)
        return rows @ product.mT

    def row_blocks(self) -> Iterator[Tensor]:
        """Yield consecutive rows as columns, [p, b] a block: so that A need not be held whole."""
        m = self.shape[0]
        for part in tiles(m, budget=_ROWS):
            unit = torch.zeros(m, part.stop - part.start, dtype=self.dtype, device=self.device)
            unit[part].fill_diagonal_(1)
            yield self.rmatmat(unit)

    @overload
    def __matmul__(self, other: Tensor) -> Tensor: ...
    @overload
    def __matmul__(self, other: LinearOperator) -> LinearOperator: ...
    def __matmul__(self, other: Tensor | LinearOperator) -> Tensor | LinearOperator:
        """Return A v for a vector [p], A V for a block [p, k], A B for an operator."""
        if isinstance(other, LinearOperator):
            return Composed(self, other)
        V = as_columns(self, other)
        product = self.matmat(V)
        return product.squeeze(1) if other.ndim == 1 else product

    @property
    def T(self) -> LinearOperator:
        """The transpose, [p, m]."""
        return Transposed(self)

    def __add__(self, other: LinearOperator) -> LinearOperator:
        """Return A + B."""
        return Sum(self, other)

    def __sub__(self, other: LinearOperator) -> LinearOperator:
        """Return A − B."""
        return Sum(self, Scaled(other, -1.0))

    def __mul__(self, factor: float) -> LinearOperator:
        """Return c A for a number c."""
        return Scaled(self, factor)

    __rmul__ = __mul__

    def damped(self, damping: float) -> LinearOperator:
        """Return A + λ I.

        Args:
            damping: λ ≥ 0, in the units of A's eigenvalues.

        Returns:
            The damped operator, which remembers A and λ apart; A itself if λ is 0.

        Raises:
            InvalidInput: If λ is negative or not finite, or A is not square.
        """
        return Damped(self, damping) if damping != 0 else self

    def undamped(self) -> tuple[LinearOperator, float]:
        """Return A₀ and λ ≥ 0 with A = A₀ + λ I: what `damped` has put together."""
        return self, 0.0

    def __repr__(self) -> str:
        """Name the kind, the shape and the dtype."""
        m, p = self.shape
        return f"{type(self).__name__}([{m}, {p}], {self.dtype}, {self.device})"


def as_columns(A: LinearOperator, V: Tensor) -> Tensor:
    """Return `V` as a block [p, k] that A of shape [m, p] accepts, or say why it does not.

    Raises:
        InvalidInput: If V is not a tensor of A's dtype on A's device with p rows.
    """
    p = A.shape[1]
    if not isinstance(V, Tensor):
        raise InvalidInput(
            f"Expected a torch.Tensor of shape [{p}] or [{p}, k] to multiply {A!r}. "
            f"Got {type(V).__name__}. Convert it with torch.as_tensor(...)."
        )
    if V.ndim not in (1, 2) or V.shape[0] != p:
        raise InvalidInput(
            f"Expected a tensor of shape [{p}] or [{p}, k] to multiply {A!r}. "
            f"Got {list(V.shape)}. Right-hand sides are columns: transpose if they are rows."
        )
    if V.dtype != A.dtype:
        raise InvalidInput(
            f"Expected {A.dtype}, the dtype of {A!r}. Got {V.dtype}. Cast with .to({A.dtype})."
        )
    if V.device != A.device:
        raise InvalidInput(
            f"Expected a tensor on {A.device}, the device of {A!r}. "
            f"Got {V.device}. Move it with .to('{A.device}')."
        )
    return V.unsqueeze(1) if V.ndim == 1 else V


def _require_alike(A: LinearOperator, B: LinearOperator) -> None:
    """Raise unless two operators share dtype and device."""
    if not isinstance(B, LinearOperator):
        raise InvalidInput(
            f"Expected a LinearOperator to combine with {A!r}. Got {type(B).__name__}. "
            "Wrap a matrix as Dense(M); add a multiple of the identity with .damped(λ)."
        )
    if A.dtype != B.dtype or A.device != B.device:
        raise InvalidInput(
            f"Expected two operators of one dtype on one device. Got {A!r} and {B!r}. "
            "Build both from parameters of the same dtype and device."
        )


def _number(value: object) -> float:
    """Return a number as it is, and NaN for what is none."""
    return value if isinstance(value, (int, float)) else math.nan


class Derived(LinearOperator):
    """An operator derived from another, with its dtype and device."""

    operator: LinearOperator

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of A."""
        return self.operator.dtype

    @property
    def device(self) -> torch.device:
        """The device of A."""
        return self.operator.device


@final
@dataclass(frozen=True, eq=False, repr=False)
class Transposed(Derived):
    """The transpose Aᵀ of A [p, m]: written `A.T`."""

    operator: LinearOperator

    @property
    def shape(self) -> tuple[int, int]:
        """Columns and rows of A."""
        m, p = self.operator.shape
        return p, m

    def matmat(self, V: Tensor) -> Tensor:
        """Return Aᵀ V."""
        return self.operator.rmatmat(V)

    def rmatmat(self, W: Tensor) -> Tensor:
        """Return A W."""
        return self.operator.matmat(W)

    @property
    def T(self) -> LinearOperator:
        """A itself."""
        return self.operator


@final
@dataclass(frozen=True, eq=False, repr=False)
class Sum(Derived):
    """The sum A + B of two operators of one shape, dtype and device: written `A + B`.

    Args:
        operator: A, [m, p].
        other: B, [m, p].
    """

    operator: LinearOperator
    other: LinearOperator

    def __post_init__(self) -> None:
        """Check that the two can be added."""
        _require_alike(self.operator, self.other)
        if self.operator.shape != self.other.shape:
            raise InvalidInput(
                f"Expected two operators of one shape to add. Got {self.operator!r} and "
                f"{self.other!r}. Check that both are over the same parameters."
            )

    @property
    def shape(self) -> tuple[int, int]:
        """The common shape."""
        return self.operator.shape

    def matmat(self, V: Tensor) -> Tensor:
        """Return A V + B V."""
        return self.operator.matmat(V) + self.other.matmat(V)

    def rmatmat(self, W: Tensor) -> Tensor:
        """Return Aᵀ W + Bᵀ W."""
        return self.operator.rmatmat(W) + self.other.rmatmat(W)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Scaled(Derived):
    """The multiple c A: written `c * A`.

    Args:
        operator: A, [m, p].
        factor: c, any finite number.
    """

    operator: LinearOperator
    factor: float

    def __post_init__(self) -> None:
        """Check the factor."""
        if not math.isfinite(_number(self.factor)):
            raise InvalidInput(
                f"Expected a finite number to scale {self.operator!r}. Got {self.factor!r}. "
                "To apply an operator to a tensor write A @ v."
            )

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of A."""
        return self.operator.shape

    def matmat(self, V: Tensor) -> Tensor:
        """Return c A V."""
        return self.operator.matmat(V) * self.factor

    def rmatmat(self, W: Tensor) -> Tensor:
        """Return c Aᵀ W."""
        return self.operator.rmatmat(W) * self.factor


@final
@dataclass(frozen=True, eq=False, repr=False)
class Damped(Derived):
    """A + λ I, with A and λ stored separately: written `A.damped(λ)`.

    Args:
        operator: A, square, [p, p].
        damping: λ ≥ 0, in the units of A's eigenvalues.

    Raises:
        InvalidInput: If λ is negative or not finite, or A is not square.
    """

    operator: LinearOperator
    damping: float

    def __post_init__(self) -> None:
        """Check the damping and the shape."""
        if self.operator.shape[0] != self.operator.shape[1]:
            raise InvalidInput(
                f"Expected a square operator to damp it. Got {self.operator!r}. "
                "A rectangular G becomes square as G.T @ G."
            )
        if not 0 <= _number(self.damping) < math.inf:
            raise InvalidInput(
                f"Expected a damping λ with 0 <= λ < inf. Got {self.damping!r}. "
                "Damping is added to every eigenvalue; 0 adds none."
            )

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of A."""
        return self.operator.shape

    def matmat(self, V: Tensor) -> Tensor:
        """Return A V + λ V."""
        return torch.add(self.operator.matmat(V), V, alpha=self.damping)

    def rmatmat(self, W: Tensor) -> Tensor:
        """Return Aᵀ W + λ W."""
        return torch.add(self.operator.rmatmat(W), W, alpha=self.damping)

    def undamped(self) -> tuple[LinearOperator, float]:
        """Return A without any damping, and the sum of all that was added."""
        inner, damping = self.operator.undamped()
        return inner, damping + self.damping


@final
@dataclass(frozen=True, eq=False, repr=False)
class Composed(Derived):
    """The product A B of operators of one dtype and device: written `A @ B`.

    Args:
        operator: A, [m, r].
        other: B, [r, p].
    """

    operator: LinearOperator
    other: LinearOperator

    def __post_init__(self) -> None:
        """Check that the two can be multiplied."""
        _require_alike(self.operator, self.other)
        if self.operator.shape[1] != self.other.shape[0]:
            raise InvalidInput(
                f"Expected as many columns on the left as rows on the right. "
                f"Got {self.operator!r} @ {self.other!r}. Transpose one of them with .T."
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows of A, columns of B."""
        return self.operator.shape[0], self.other.shape[1]

    def matmat(self, V: Tensor) -> Tensor:
        """Return A (B V)."""
        return self.operator.matmat(self.other.matmat(V))

    def rmatmat(self, W: Tensor) -> Tensor:
        """Return Bᵀ (Aᵀ W)."""
        return self.other.rmatmat(self.operator.rmatmat(W))
