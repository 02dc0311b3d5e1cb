"""Rows between two transformers, and columns of numbers that may be differentiated."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class Rows(ABC):
    """Rows as one transformer hands them to the next: a user's own, or columns of numbers."""

    @property
    @abstractmethod
    def plain(self) -> Any:
        """The rows as transformers take them: a frame, an array, a CSR array, texts."""

    @abstractmethod
    def numbers(self) -> Columns:
        """Return the rows as columns of float64.

        Raises:
            ValueError: If a cell is no number.
        """

    @abstractmethod
    def part(self, which: Any) -> Rows:
        """Return the columns that a column transformer selects."""


class Columns(Rows):
    """Columns of float64, [n, d], whose values may be differentiated.

    Args:
        values: The cells that are held: all of them, [n, d], or those of a sparse matrix, [m].
    """

    is_dense: ClassVar[bool]
    values: Tensor

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """The shape [n, d]."""

    def numbers(self) -> Columns:
        """Return the columns themselves."""
        return self

    def part(self, which: Any) -> Columns:
        """Return the columns at the positions that a selection means."""
        return self.at(np.atleast_1d(np.arange(self.shape[1])[which]))

    @abstractmethod
    def at(self, which: NDArray[np.intp]) -> Columns:
        """Return the columns at some positions, in the order given."""

    @abstractmethod
    def with_values(self, values: Tensor) -> Columns:
        """Return other values in the same places."""

    @abstractmethod
    def places(self) -> tuple[Tensor, Tensor]:
        """Return the row and the column of each value, [m] each."""

    @abstractmethod
    def dense(self) -> Tensor:
        """Return every cell, [n, d]."""

    @abstractmethod
    def cells(self) -> Tensor:
        """Return every cell, [n, d], for a statistic that is written out for dense columns alone.

        Raises:
            ValueError: If the columns are sparse: the transformer is held.
        """

    @abstractmethod
    def times(self, v: Tensor) -> Tensor:
        """Return X V, [n, k], of V [d, k]."""

    @abstractmethod
    def outer(self, left: Tensor, right: Tensor) -> Tensor:
        """Return left [n, k] times right [k, d] where the columns hold values."""

    @abstractmethod
    def moments(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weighted mean and variance of each column, [d], missing cells aside."""

    @abstractmethod
    def largest(self, kept: Tensor) -> Tensor:
        """Return the largest size in each column, [d], linear in which rows are there, [n]."""

    @abstractmethod
    def shifted(self, center: Tensor | None, scale: Tensor | None) -> Columns:
        """Return (x − center) / scale, missing cells as they are.

        Args:
            center: [d], or `None` for zero.
            scale: [d], or `None` for one.

        Raises:
            ValueError: If sparse columns are to be centered.
        """

    @abstractmethod
    def row_sums(self) -> Tensor:
        """Return the sum of each row, [n]."""

    @abstractmethod
    def over_rows(self, sizes: Tensor) -> Columns:
        """Return each row divided by its size, [n]."""

    @abstractmethod
    def added(self, rows: Tensor, columns: Tensor, values: Tensor) -> Columns:
        """Return the columns with numbers added in some places, [m] each."""

    @abstractmethod
    def spectrum(self, k: int) -> tuple[Tensor, Tensor]:
        """Return leading eigenvectors of XᵀX, at least k where there are, and eigenvalues.

        Args:
            k: How many are in use.

        Returns:
            Vectors as columns, [d, m], and values, [m].

        Raises:
            ValueError: If there are too many columns.
        """
