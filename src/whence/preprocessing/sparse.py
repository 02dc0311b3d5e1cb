"""Sparse columns of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import svds
from torch import Tensor

from whence.preprocessing.columns import Columns

_BEYOND = 50  # singular vectors found beyond four times those in use


@dataclass(frozen=True, eq=False)
class SparseColumns(Columns):
    """A sparse matrix whose values may be differentiated; where they are may not.

    Args:
        rows: The row of each value, ascending, [m].
        columns: The column of each value, [m].
        values: [m].
        size: n and d.
    """

    rows: Tensor
    columns: Tensor
    values: Tensor
    size: tuple[int, int]
    is_dense: ClassVar[bool] = False

    @property
    def shape(self) -> tuple[int, int]:
        """The shape [n, d]."""
        return self.size

    @property
    def plain(self) -> Any:
        """The matrix as a CSR array."""
        places = self.rows.numpy(), self.columns.numpy()
        return sparse.csr_array((self.values.detach().numpy(), places), shape=self.size)

    def at(self, which: NDArray[np.intp]) -> SparseColumns:
        """Return the columns at some positions."""
        place = torch.full((self.size[1],), -1)
        place[torch.from_numpy(which)] = torch.arange(len(which))
        moved = place[self.columns]
        there = moved >= 0
        size = self.size[0], len(which)
        return SparseColumns(self.rows[there], moved[there], self.values[there], size)

    def with_values(self, values: Tensor) -> SparseColumns:
        """Return other values in the same places."""
        return SparseColumns(self.rows, self.columns, values, self.size)

    def places(self) -> tuple[Tensor, Tensor]:
        """Return the row and the column of each value."""
        return self.rows, self.columns

    def dense(self) -> Tensor:
        """Return every cell, [n, d]."""
        whole = self.values.new_zeros(self.size)
        return whole.index_put((self.rows, self.columns), self.values, accumulate=True)

    def cells(self) -> Tensor:
        """Raise `ValueError`."""
        raise ValueError("Expected dense columns. Got sparse ones: the transformer is held.")

    def times(self, v: Tensor) -> Tensor:
        """Return X V without forming a row of V for each value."""
        places = torch.stack([self.rows, self.columns])
        matrix = torch.sparse_coo_tensor(places, self.values, self.size, check_invariants=False)
        products: Tensor = torch.sparse.mm(matrix, v)
        return products

    def outer(self, left: Tensor, right: Tensor) -> Tensor:
        """Return left times right in the places of the values, [m]."""
        return (left[self.rows] * right.T[self.columns]).sum(1)

    def moments(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and variances."""
        shares = weights[self.rows] / weights.sum()
        zero = self.values.new_zeros(self.size[1])
        mean = zero.index_add(0, self.columns, shares * self.values)
        squares = zero.index_add(0, self.columns, shares * self.values.square())
        return mean, squares - mean.square()

    def largest(self, kept: Tensor) -> Tensor:
        """Return the largest sizes."""
        sizes, d = self.values.abs(), self.size[1]
        best = sizes.new_zeros(d).scatter_reduce(0, self.columns, sizes, "amax")
        holds = sizes == best.detach()[self.columns]
        second = sizes.new_zeros(d).scatter_reduce(
            0, self.columns, torch.where(holds, torch.zeros_like(sizes), sizes), "amax"
        )
        several = sizes.new_zeros(d).index_add(0, self.columns, holds.to(sizes)) > 1
        fall = torch.where(several, torch.zeros_like(best), best - second).detach()
        change = (kept - kept.detach())[self.rows] * holds * fall[self.columns]
        return best.index_add(0, self.columns, change)

    def shifted(self, center: Tensor | None, scale: Tensor | None) -> SparseColumns:
        """Return x / scale."""
        if center is not None:
            raise ValueError("Expected dense columns to center. Got sparse ones.")
        return self if scale is None else self.with_values(self.values / scale[self.columns])

    def row_sums(self) -> Tensor:
        """Return the sum of each row."""
        return self.values.new_zeros(self.size[0]).index_add(0, self.rows, self.values)

    def over_rows(self, sizes: Tensor) -> SparseColumns:
        """Return each row divided by its size."""
        return self.with_values(self.values / sizes[self.rows])

    def added(self, rows: Tensor, columns: Tensor, values: Tensor) -> SparseColumns:
        """Return the matrix with more values, perhaps in places that have one."""
        return SparseColumns(
            torch.cat([self.rows, rows]),
            torch.cat([self.columns, columns]),
            torch.cat([self.values, values]),
            self.size,
        )

    def spectrum(self, k: int) -> tuple[Tensor, Tensor]:
        """Return 4k + 50 eigenvectors, or as many as there are less one."""
        matrix = self.plain
        most = min(*matrix.shape) - 1
        _, _, found = svds(matrix, k=min(most, 4 * k + _BEYOND), random_state=0)
        vectors = torch.from_numpy(np.ascontiguousarray(found.T))
        return vectors, self.times(vectors).square().sum(0)


def as_sparse(columns: Columns) -> SparseColumns:
    """Return columns as sparse ones; of dense ones every cell is held, zero or not.

    Args:
        columns: Dense or sparse.
    """
    rows, places = columns.places()
    return SparseColumns(rows, places, columns.values.flatten(), columns.shape)


def beside(parts: list[Columns]) -> SparseColumns:
    """Return columns next to each other as sparse ones.

    Args:
        parts: The columns, each [n, d_k].
    """
    shifted, width = [as_sparse(part) for part in parts], 0
    columns = []
    for part in shifted:
        columns.append(part.columns + width)
        width += part.shape[1]
    return SparseColumns(
        torch.cat([part.rows for part in shifted]),
        torch.cat(columns),
        torch.cat([part.values for part in shifted]),
        (shifted[0].shape[0], width),
    )
