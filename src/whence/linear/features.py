"""The design matrix of a linear model, dense or sparse, with its constant column implied."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from whence.tiles import tiles

_TILE = 512  # rows whose weighted copies stay in cache
_STRIP = 96  # columns of a Gram matrix made at once; the upper half of its square is wasted
_SCATTERED = 32  # how many times longer a scattered addition takes than a streamed one
_COLUMNS = 512  # sparse columns that are made dense at once


class Features(ABC):
    """A matrix X [n, d] of which only products are asked, so that sparse stays sparse."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """The shape [n, d]."""

    @property
    def numbers(self) -> int:
        """How many numbers hold a row, at most."""
        return self.shape[1]

    @abstractmethod
    def matmul(self, v: Tensor) -> Tensor:
        """Return X V for V [d, k], shape [n, k]."""

    @abstractmethod
    def rmatmul(self, w: Tensor) -> Tensor:
        """Return Xᵀ W for W [n, k], shape [d, k]."""

    @abstractmethod
    def grams(self, weights: Tensor) -> Tensor:
        """Return Xᵀ diag(w) X for each column w of `weights` [n, m], dense, [m, d, d].

        A negative weight is allowed.
        """

    @abstractmethod
    def absolute(self) -> Features:
        """Return |X|."""

    @abstractmethod
    def similarities(self) -> Tensor:
        """Return X Xᵀ, dense, [n, n], in memory of its own."""

    @abstractmethod
    def rows(self, indices: NDArray[np.intp] | slice) -> Features:
        """Return the named rows."""

    @abstractmethod
    def dense(self) -> Tensor:
        """Return the rows as a dense tensor: call it on few rows only."""

    @abstractmethod
    def taken(self, columns: Tensor) -> Features:
        """Return the named columns."""

    def by_column(self) -> Tensor:
        """Return few rows as a dense tensor whose columns lie together in memory, [n, d]."""
        return self.dense()

    def in_float32(self) -> Features | None:
        """Return X in float32; `None` where it is in no precision to save from, or sparse."""
        return None

    @property
    def sparse(self) -> bool:
        """Whether zeros take no memory."""
        return False

    def held(self) -> tuple[Features, Tensor | None]:
        """Return the columns that can be nonzero, and their positions, ascending; `None`: all."""
        return self, None


@dataclass(frozen=True, eq=False)
class DenseFeatures(Features):
    """A dense design matrix.

    Args:
        matrix: X, [n, d].
        staircase: Positions such that row staircase[j] is zero beyond column j, [n], or `None`: a
            Gram matrix of such rows takes a third of the work.
    """

    matrix: Tensor
    staircase: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """The shape [n, d]."""
        return (self.matrix.shape[0], self.matrix.shape[1])

    def matmul(self, v: Tensor) -> Tensor:
        """Return X V."""
        return self.matrix @ v

    def rmatmul(self, w: Tensor) -> Tensor:
        """Return Xᵀ W, as (Wᵀ X)ᵀ: for few columns that is 3 times as fast as Xᵀ W."""
        return (w.T @ self.matrix).T

    def grams(self, weights: Tensor) -> Tensor:
        """Return Xᵀ diag(w) X for each w: the lower triangles in strips, the upper by symmetry."""
        (n, d), m = self.matrix.shape, weights.shape[1]
        total = self.matrix.new_empty(m, d, d)
        for start in range(0, d, _STRIP):
            stop = min(d, start + _STRIP)
            strip = self.matrix.new_zeros(m * (stop - start), stop)
            for row in range(0 if self.staircase is None else start, n, _TILE):
                where: slice | Tensor = slice(row, row + _TILE)
                if self.staircase is not None:
                    where = self.staircase[where]
                rows = self.matrix[:, :stop][where]
                weighted = weights[where].unsqueeze(2) * rows[:, None, start:]
                strip.addmm_(weighted.flatten(1).T, rows)
            square = strip.reshape(m, stop - start, stop)
            total[:, start:stop, :stop] = square
            total[:, :start, start:stop] = square[:, :, :start].mT
        return total

    def absolute(self) -> DenseFeatures:
        """Return |X|."""
        return DenseFeatures(self.matrix.abs())

    def similarities(self) -> Tensor:
        """Return X Xᵀ."""
        return self.matrix @ self.matrix.T

    def rows(self, indices: NDArray[np.intp] | slice) -> Features:
        """Return the named rows."""
        return DenseFeatures(self.matrix[indices])

    def dense(self) -> Tensor:
        """Return X itself."""
        return self.matrix

    def taken(self, columns: Tensor) -> Features:
        """Return the named columns."""
        return DenseFeatures(self.matrix[:, columns])

    def in_float32(self) -> CompactFeatures:
        """Return X in float32, without the columns that are zero in every row."""
        columns = self.matrix.any(dim=0).nonzero().flatten()
        narrow = torch.empty(len(self.matrix), len(columns), dtype=torch.float32)
        for tile in tiles(len(narrow), budget=_TILE):  # no second float64 matrix
            narrow[tile] = self.matrix[tile].float().index_select(1, columns)
        return CompactFeatures(DenseFeatures(narrow), columns, self.shape[1])


@dataclass(frozen=True, eq=False)
class CompactFeatures(Features):
    """A design matrix without the columns that are zero in every row.

    Args:
        nonzero: The other columns, [n, r].
        columns: Their positions, ascending, [r].
        width: d.
    """

    nonzero: DenseFeatures
    columns: Tensor
    width: int

    def held(self) -> tuple[Features, Tensor | None]:
        """Return the other columns, and their positions."""
        return self.nonzero, self.columns

    @property
    def shape(self) -> tuple[int, int]:
        """The shape [n, d]."""
        return (self.nonzero.shape[0], self.width)

    def matmul(self, v: Tensor) -> Tensor:
        """Return X V."""
        return self.nonzero.matmul(v[self.columns])

    def rmatmul(self, w: Tensor) -> Tensor:
        """Return Xᵀ W."""
        product = w.new_zeros(self.width, w.shape[1])
        product[self.columns] = self.nonzero.rmatmul(w)
        return product

    def grams(self, weights: Tensor) -> Tensor:
        """Return Xᵀ diag(w) X for each w."""
        total = weights.new_zeros(weights.shape[1], self.width, self.width)
        total[:, self.columns.unsqueeze(1), self.columns] = self.nonzero.grams(weights)
        return total

    def absolute(self) -> Features:
        """Return |X|."""
        return CompactFeatures(self.nonzero.absolute(), self.columns, self.width)

    def similarities(self) -> Tensor:
        """Return X Xᵀ."""
        return self.nonzero.similarities()

    def rows(self, indices: NDArray[np.intp] | slice) -> Features:
        """Return the named rows."""
        return CompactFeatures(
            DenseFeatures(self.nonzero.matrix[indices]), self.columns, self.width
        )

    def taken(self, columns: Tensor) -> Features:
        """Return the named columns, with their zeros."""
        return DenseFeatures(self.dense()[:, columns])

    def dense(self) -> Tensor:
        """Return the rows with their zeros."""
        matrix = self.nonzero.matrix.new_zeros(self.shape)
        matrix[:, self.columns] = self.nonzero.matrix
        return matrix


@dataclass(frozen=True, eq=False)
class SparseFeatures(Features):
    """A sparse design matrix in compressed rows; products go through SciPy.

    Args:
        matrix: X, a SciPy CSR array of float64 [n, d].
    """

    matrix: sparse.csr_array

    @property
    def shape(self) -> tuple[int, int]:
        """The shape [n, d]."""
        return (self.matrix.shape[0], self.matrix.shape[1])

    @property
    def numbers(self) -> int:
        """How many numbers hold a row on average."""
        return 1 + self.matrix.nnz // max(1, self.matrix.shape[0])

    def matmul(self, v: Tensor) -> Tensor:
        """Return X V."""
        return torch.from_numpy(np.asarray(self.matrix @ v.numpy()))

    def rmatmul(self, w: Tensor) -> Tensor:
        """Return Xᵀ W."""
        return torch.from_numpy(np.asarray(self.matrix.T @ w.numpy()))

    def grams(self, weights: Tensor) -> Tensor:
        """Return Xᵀ diag(w) X for each w: sparse products, dense only in their results."""
        scaled = (sparse.diags_array(w) @ self.matrix for w in weights.T.numpy())
        return torch.stack([torch.from_numpy((self.matrix.T @ x).toarray()) for x in scaled])

    def absolute(self) -> Features:
        """Return |X|."""
        return SparseFeatures(abs(self.matrix))

    def similarities(self) -> Tensor:
        """Return X Xᵀ."""
        return torch.from_numpy(sparse_similarities(self.matrix))

    def rows(self, indices: NDArray[np.intp] | slice) -> Features:
        """Return the named rows."""
        return SparseFeatures(self.matrix[indices])

    def dense(self) -> Tensor:
        """Return the rows as a dense tensor."""
        return torch.from_numpy(self.matrix.toarray())

    def by_column(self) -> Tensor:
        """Return the same, made by a product."""
        return self.rmatmul(torch.eye(self.shape[0], dtype=torch.float64)).T

    def taken(self, columns: Tensor) -> Features:
        """Return the named columns."""
        return SparseFeatures(self.matrix[:, columns.numpy()])

    @property
    def sparse(self) -> bool:
        """Whether zeros take no memory: they take none."""
        return True


def sparse_similarities(rows: Any) -> NDArray[np.float64]:
    """Return X Xᵀ of sparse rows: columns that many rows share as dense blocks, the rest sparse.

    A column with m entries takes m² scattered additions as sparse, n² streamed ones as dense.

    Args:
        rows: X, a SciPy matrix or array, [n, d].

    Returns:
        The products, [n, n].
    """
    n = rows.shape[0]
    columns = rows.tocsc()
    shared = np.diff(columns.indptr) * _SCATTERED > n
    rare = columns[:, ~shared].tocsr()
    products = (rare @ rare.T).toarray()
    common = np.flatnonzero(shared)
    for part in tiles(len(common), budget=_COLUMNS):
        block = columns[:, common[part]].toarray()
        for some in tiles(n, budget=_COLUMNS):
            products[some] += block[some] @ block.T
    return np.asarray(products, dtype=np.float64)
