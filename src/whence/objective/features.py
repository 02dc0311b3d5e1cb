"""The design matrix of a linear model, dense or sparse, with its constant column implied."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

_TILE = 1024  # rows


class Features(ABC):
    """A matrix X [n, d] of which only products are asked, so that sparse stays sparse."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """The shape [n, d]."""

    @abstractmethod
    def matmul(self, v: Tensor) -> Tensor:
        """Return X V for V [d, k], shape [n, k]."""

    @abstractmethod
    def rmatmul(self, w: Tensor) -> Tensor:
        """Return Xᵀ W for W [n, k], shape [d, k]."""

    @abstractmethod
    def gram(self, weights: Tensor) -> Tensor:
        """Return Xᵀ diag(weights) X, dense, [d, d]; a negative weight is allowed."""

    @abstractmethod
    def rows(self, indices: NDArray[np.intp] | slice) -> Features:
        """Return the named rows."""

    @abstractmethod
    def dense(self) -> Tensor:
        """Return the rows as a dense tensor: call it on few rows only."""


@dataclass(frozen=True, eq=False)
class DenseFeatures(Features):
    """A dense design matrix.

    Args:
        matrix: X, [n, d].
    """

    matrix: Tensor

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

    def gram(self, weights: Tensor) -> Tensor:
        """Return Xᵀ diag(weights) X, a tile of rows at a time, weighted while it is in cache."""
        d = self.matrix.shape[1]
        total = self.matrix.new_zeros(d, d)
        for start in range(0, len(self.matrix), _TILE):
            rows = self.matrix[start : start + _TILE]
            total.addmm_(rows.T, rows * weights[start : start + _TILE].unsqueeze(1))
        return total

    def rows(self, indices: NDArray[np.intp] | slice) -> Features:
        """Return the named rows."""
        return DenseFeatures(self.matrix[indices])

    def dense(self) -> Tensor:
        """Return X itself."""
        return self.matrix


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

    def matmul(self, v: Tensor) -> Tensor:
        """Return X V."""
        return torch.from_numpy(np.asarray(self.matrix @ v.numpy()))

    def rmatmul(self, w: Tensor) -> Tensor:
        """Return Xᵀ W."""
        return torch.from_numpy(np.asarray(self.matrix.T @ w.numpy()))

    def gram(self, weights: Tensor) -> Tensor:
        """Return Xᵀ diag(weights) X: a sparse product, dense only in its result."""
        scaled = sparse.diags_array(weights.numpy()) @ self.matrix
        return torch.from_numpy((self.matrix.T @ scaled).toarray())

    def rows(self, indices: NDArray[np.intp] | slice) -> Features:
        """Return the named rows."""
        return SparseFeatures(self.matrix[indices])

    def dense(self) -> Tensor:
        """Return the rows as a dense tensor."""
        return torch.from_numpy(self.matrix.toarray())
