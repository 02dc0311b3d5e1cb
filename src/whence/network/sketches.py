"""Gradients of a matrix by their products with random signs, for where two are to be compared.

Gradients of all weights by rules and by differentiation together are many times as large as the
model. Their products with a few vectors are not, and are linear: those of all uses of a tied weight
add. Two gradients whose difference is δ ‖G‖ differ in such products by about δ of the largest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from whence.linalg.signs import random_signs

_VECTORS = 16  # for each side of a matrix


@final
@dataclass(frozen=True, eq=False)
class Sketch:
    """The products Lᵀ G R, in units of the entries of G.

    Args:
        left: L, [m, r]: random signs over √m, or one where m is small.
        right: R, [d, r′].
    """

    left: Tensor
    right: Tensor

    @classmethod
    def of_size(cls, m: int, d: int, like: Tensor) -> Sketch:
        """Return the sketch of matrices, the same each time.

        Args:
            m: Their number of rows.
            d: Their number of columns.
            like: A tensor of their dtype, on their device.
        """
        generator = torch.Generator().manual_seed(0)
        return cls(_vectors(m, generator, like), _vectors(d, generator, like))

    def of(self, gradient: Tensor) -> Tensor:
        """Return the products of one gradient, which may be sparse in its rows, [r r′]."""
        if gradient.is_sparse:
            rows, values = gradient._indices()[0], gradient._values()
            return (self.left[rows].T @ (values @ self.right)).flatten()
        return (self.left.T @ gradient.reshape(len(self.left), -1) @ self.right).flatten()


def _vectors(n: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """Return vectors as columns, [n, r]."""
    if n <= _VECTORS:
        return torch.eye(n).to(like)
    return random_signs((n, _VECTORS), generator, like).div_(math.sqrt(n))
