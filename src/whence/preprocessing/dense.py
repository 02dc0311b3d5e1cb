"""Dense columns of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.preprocessing.columns import Columns
from whence.preprocessing.order import extremes

_EXACT = 1_000  # columns up to which eigenvectors are found


@dataclass(frozen=True, eq=False)
class DenseColumns(Columns):
    """A matrix whose cells may be differentiated.

    Args:
        values: [n, d], missing cells as NaN.
    """

    values: Tensor
    is_dense: ClassVar[bool] = True

    @property
    def shape(self) -> tuple[int, int]:
        """The shape [n, d]."""
        n, d = self.values.shape
        return n, d

    @property
    def plain(self) -> NDArray[np.float64]:
        """The cells as an array."""
        cells: NDArray[np.float64] = self.values.detach().numpy()
        return cells

    def at(self, which: NDArray[np.intp]) -> DenseColumns:
        """Return the columns at some positions."""
        return DenseColumns(self.values[:, torch.from_numpy(which)])

    def with_values(self, values: Tensor) -> DenseColumns:
        """Return other cells."""
        return DenseColumns(values)

    def places(self) -> tuple[Tensor, Tensor]:
        """Return the row and the column of each cell, row by row."""
        n, d = self.shape
        return torch.arange(n).repeat_interleave(d), torch.arange(d).repeat(n)

    def dense(self) -> Tensor:
        """Return the cells."""
        return self.values

    def cells(self) -> Tensor:
        """Return the cells."""
        return self.values

    def times(self, v: Tensor) -> Tensor:
        """Return X V."""
        return self.values @ v

    def outer(self, left: Tensor, right: Tensor) -> Tensor:
        """Return left times right."""
        return left @ right

    def moments(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and variances of the cells that are not missing."""
        x = self.values
        there = ~torch.isnan(x)
        numbers = torch.where(there, x, torch.zeros_like(x))
        total = weights @ there.to(x.dtype)
        mean = (weights @ numbers) / total
        apart = torch.where(there, numbers - mean, torch.zeros_like(x))
        return mean, (weights @ apart.square()) / total

    def largest(self, kept: Tensor) -> Tensor:
        """Return the largest sizes."""
        return extremes(self.values.abs(), kept)

    def shifted(self, center: Tensor | None, scale: Tensor | None) -> DenseColumns:
        """Return (x − center) / scale."""
        x = self.values
        missing = torch.isnan(x)
        numbers = torch.where(missing, torch.zeros_like(x), x)
        numbers = numbers if center is None else numbers - center
        numbers = numbers if scale is None else numbers / scale
        return DenseColumns(torch.where(missing, x.detach(), numbers))

    def row_sums(self) -> Tensor:
        """Return the sum of each row."""
        return self.values.sum(1)

    def over_rows(self, sizes: Tensor) -> DenseColumns:
        """Return each row divided by its size."""
        return DenseColumns(self.values / sizes.unsqueeze(1))

    def added(self, rows: Tensor, columns: Tensor, values: Tensor) -> DenseColumns:
        """Return the cells with numbers added to some."""
        return DenseColumns(self.values.index_put((rows, columns), values, accumulate=True))

    def spectrum(self, k: int) -> tuple[Tensor, Tensor]:
        """Return all eigenvectors, where there are few columns."""
        if self.shape[1] > _EXACT:
            raise ValueError("Projections of that many dense columns are held.")
        values, vectors = torch.linalg.eigh(self.values.T @ self.values)
        return vectors, values
