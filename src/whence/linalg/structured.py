"""Dense, block-diagonal and reordered matrices, and the dense matrix of an operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import singledispatch
from itertools import accumulate
from typing import final

import torch
from torch import Tensor

from whence.checked import checked
from whence.errors import InvalidInput
from whence.linalg.operator import LinearOperator
from whence.linalg.spectral import Spectral, require_floating
from whence.progress import progress
from whence.tiles import tiles


@final
class Identity(LinearOperator):
    """The identity I on [p].

    Args:
        size: p >= 0.
        dtype: The dtype of the tensors it meets.
        device: Their device.

    Examples:
        >>> import torch
        >>> Identity(2, dtype=torch.float32) @ torch.tensor([3.0, 4.0])
        tensor([3., 4.])
    """

    def __init__(
        self,
        size: int,
        *,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        """Store the size, the dtype and the device."""
        self._size = size
        self._dtype = dtype
        self._device = torch.empty((), device=device).device  # "cuda" becomes "cuda:0"

    @property
    def shape(self) -> tuple[int, int]:
        """P by p."""
        return self._size, self._size

    @property
    def dtype(self) -> torch.dtype:
        """The dtype given."""
        return self._dtype

    @property
    def device(self) -> torch.device:
        """The device given."""
        return self._device

    def matmat(self, V: Tensor) -> Tensor:
        """Return a copy of V."""
        return V.clone()

    def rmatmat(self, W: Tensor) -> Tensor:
        """Return a copy of W."""
        return W.clone()


@final
@dataclass(frozen=True, eq=False, repr=False)
class Dense(LinearOperator):
    """A matrix held in memory.

    Args:
        matrix: [m, p].

    Raises:
        InvalidInput: If the matrix does not have two axes or is not floating point.

    Examples:
        >>> import torch
        >>> Dense(torch.eye(2)) @ torch.tensor([3.0, 4.0])
        tensor([3., 4.])
    """

    matrix: Tensor

    def __post_init__(self) -> None:
        """Check the matrix."""
        require_floating("matrix", self.matrix, ndim=2)

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the matrix."""
        m, p = self.matrix.shape
        return m, p

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the matrix."""
        return self.matrix.dtype

    @property
    def device(self) -> torch.device:
        """The device of the matrix."""
        return self.matrix.device

    def matmat(self, V: Tensor) -> Tensor:
        """Return M V."""
        return self.matrix @ V

    def rmatmat(self, W: Tensor) -> Tensor:
        """Return Mᵀ W."""
        return self.matrix.mT @ W


@final
@dataclass(frozen=True, eq=False, repr=False)
class OneSided(LinearOperator):
    """A matrix that multiplies one side of a matrix of parameters: W ↦ M W, or W Mᵀ.

    Args:
        matrix: M, [out, out] or [in, in].
        sides: (out, in), the shape of W, which is flattened row by row.
        left: Whether M W.

    Raises:
        InvalidInput: If M does not have two axes or is not floating point.

    Examples:
        >>> import torch
        >>> OneSided(2 * torch.eye(3), (3, 2), left=True) @ torch.ones(6)
        tensor([2., 2., 2., 2., 2., 2.])
    """

    matrix: Tensor
    sides: tuple[int, int]
    left: bool

    def __post_init__(self) -> None:
        """Check the matrix."""
        require_floating("matrix", self.matrix, ndim=2)

    @property
    def shape(self) -> tuple[int, int]:
        """The number of parameters, twice."""
        p = self.sides[0] * self.sides[1]
        return p, p

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the matrix."""
        return self.matrix.dtype

    @property
    def device(self) -> torch.device:
        """The device of the matrix."""
        return self.matrix.device

    def matmat(self, V: Tensor) -> Tensor:
        """Return vec(M W), or vec(W Mᵀ), of each column."""
        return self._product(self.matrix, V)

    def rmatmat(self, W: Tensor) -> Tensor:
        """Return the same by Mᵀ."""
        return self._product(self.matrix.mT, W)

    def _product(self, matrix: Tensor, V: Tensor) -> Tensor:
        """Return the products of one side."""
        each = V.T.reshape(-1, *self.sides)
        found = matrix @ each if self.left else each @ matrix.mT
        return found.flatten(1).T


@final
@dataclass(frozen=True, eq=False, repr=False)
class BlockDiagonal(Spectral):
    """Operators along the diagonal, zero elsewhere: one block per layer, say.

    Its spectrum is known when every block's is; products need only the blocks' products.

    Args:
        blocks: Square operators of one dtype on one device, in the order of the parameters.

    Raises:
        InvalidInput: If there is no block, one is not square, or dtypes or devices differ.

    Examples:
        >>> import torch
        >>> from whence.linalg import Diagonal
        >>> A = BlockDiagonal((Diagonal(torch.ones(1)), Dense(torch.full((2, 2), 3.0))))
        >>> A @ torch.ones(3)
        tensor([1., 6., 6.])
    """

    blocks: tuple[LinearOperator, ...]

    def __post_init__(self) -> None:
        """Check that the blocks fit together."""
        if not self.blocks:
            raise InvalidInput("Expected at least one block. Got none. Pass a tuple of operators.")
        first = self.blocks[0]
        for index, block in enumerate(self.blocks):
            if block.shape[0] != block.shape[1]:
                raise InvalidInput(
                    f"Expected square blocks. Got {block!r} at index {index}. "
                    "A rectangular G becomes square as G.T @ G."
                )
            if block.dtype != first.dtype or block.device != first.device:
                raise InvalidInput(
                    f"Expected blocks of one dtype on one device. Got {first!r} at index 0 and "
                    f"{block!r} at index {index}. Build all from the same parameters."
                )

    @property
    def shape(self) -> tuple[int, int]:
        """The sum of the blocks' sizes, twice."""
        p = sum(block.shape[0] for block in self.blocks)
        return p, p

    @property
    def dtype(self) -> torch.dtype:
        """The blocks' dtype."""
        return self.blocks[0].dtype

    @property
    def device(self) -> torch.device:
        """The blocks' device."""
        return self.blocks[0].device

    def matmat(self, V: Tensor) -> Tensor:
        """Return each block times its rows of V."""
        return torch.cat([A.matmat(V[rows]) for A, rows in self._rows()])

    def rmatmat(self, W: Tensor) -> Tensor:
        """Return each block's transpose times its rows of W."""
        return torch.cat([A.rmatmat(W[rows]) for A, rows in self._rows()])

    def eigenvalues(self) -> Tensor:
        """Return the blocks' eigenvalues, one block after the other, [p]."""
        return torch.cat([block.eigenvalues() for block in self._spectral_blocks()])

    def extremes(self) -> tuple[float, float]:
        """Return the smallest and the largest eigenvalue of all blocks."""
        least, most = zip(*(block.extremes() for block in self._spectral_blocks()), strict=True)
        return min(least), max(most)

    def map_spectrum(self, function: Callable[[Tensor], Tensor]) -> BlockDiagonal:
        """Return f of each block."""
        return BlockDiagonal(tuple(A.map_spectrum(function) for A in self._spectral_blocks()))

    def _rows(self) -> list[tuple[LinearOperator, slice]]:
        """Return each block with the rows it acts on."""
        ends = list(accumulate(block.shape[0] for block in self.blocks))
        return [(A, slice(end - A.shape[0], end)) for A, end in zip(self.blocks, ends, strict=True)]

    def _spectral_blocks(self) -> list[Spectral]:
        """Return the blocks, if each knows its spectrum; else raise `InvalidInput`."""
        return [_spectral(block) for block in self.blocks]


def _spectral(block: LinearOperator) -> Spectral:
    """Return a block that knows its spectrum, or say that it does not."""
    if not isinstance(block, Spectral):
        raise InvalidInput(
            f"Expected every block to know its spectrum. Got {block!r}. "
            "Decompose a symmetric matrix with eigendecompose(matrix), or solve with CG()."
        )
    return block


@final
@dataclass(frozen=True, eq=False, repr=False)
class Reordered(Spectral):
    """Blocks on permuted parameters: row j of `inner` is parameter `order[j]`.

    Args:
        inner: The blocks in their own order, [p, p].
        order: A permutation of 0..p−1, [p].
    """

    inner: BlockDiagonal
    order: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """P by p."""
        return self.inner.shape

    @property
    def dtype(self) -> torch.dtype:
        """The inner dtype."""
        return self.inner.dtype

    @property
    def device(self) -> torch.device:
        """The inner device."""
        return self.inner.device

    def matmat(self, V: Tensor) -> Tensor:
        """Return A V."""
        product = torch.empty_like(V)
        for block, places in self.placed():
            product[places] = block.matmat(V[places])
        return product

    def placed(self) -> Iterator[tuple[LinearOperator, Tensor]]:
        """Yield each block with the parameters it acts on."""
        sizes = [block.shape[0] for block in self.inner.blocks]
        yield from zip(self.inner.blocks, torch.split(self.order, sizes), strict=True)

    def extremes(self) -> tuple[float, float]:
        """Return the smallest and the largest inner eigenvalue."""
        return self.inner.extremes()

    def eigenvalues(self) -> Tensor:
        """Return the inner eigenvalues, [p]."""
        return self.inner.eigenvalues()

    def map_spectrum(self, function: Callable[[Tensor], Tensor]) -> Reordered:
        """Return f(A)."""
        return Reordered(self.inner.map_spectrum(function), self.order)


@checked
def materialize(A: LinearOperator, block: int = 256) -> Tensor:
    """Return A as a matrix, by products with blocks of the identity.

    Args:
        A: An operator, [m, p].
        block: Columns per product: memory only, the result does not depend on it.

    Returns:
        The matrix, [m, p] (a `Dense` gives its own, uncopied).

    Cost: p products with one column; m p numbers.
    """
    return _formed(A, block)


@singledispatch
def _formed(A: LinearOperator, block: int) -> Tensor:
    """Return A as a matrix, by products."""
    m, p = A.shape
    matrix = torch.empty(m, p, dtype=A.dtype, device=A.device)
    for part in progress(list(tiles(p, budget=block)), desc="columns", unit="block"):
        columns = torch.zeros(p, part.stop - part.start, dtype=A.dtype, device=A.device)
        columns[part].fill_diagonal_(1)
        matrix[:, part] = A.matmat(columns).detach()
    return matrix


@_formed.register
def _(A: Dense, block: int) -> Tensor:
    return A.matrix
