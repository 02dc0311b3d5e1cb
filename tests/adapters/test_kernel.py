"""The row space of wide models: products of sparse rows, and coordinates that keep them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from whence.adapters.kernel import Kernel, row_space
from whence.adapters.kernel_models import KernelFunction
from whence.errors import UnsupportedModel


def rows(seed: int = 0) -> sparse.csr_array:
    """Rows with columns that all share, columns that few share, and rows given twice."""
    rng = np.random.default_rng(seed)
    shares = np.r_[np.full(20, 0.8), np.full(700, 0.01), np.zeros(3)]
    x = rng.normal(size=(150, len(shares))) * (rng.random((150, len(shares))) < shares)
    x[100:] = x[:50]
    return sparse.csr_array(x)


@pytest.mark.parametrize("name", ["linear", "poly", "rbf"])
def test_coordinates_keep_the_kernel_and_form_a_staircase(name: str) -> None:
    x = rows()
    dense = x.toarray()
    kernel = Kernel(name, gamma=0.1, coef0=1.0)
    space, features = row_space(kernel, x)
    z, order = features.matrix.numpy(), features.staircase
    naive = kernel(dense, dense.copy())
    np.testing.assert_allclose(z @ z.T, naive, atol=1e-9 * np.abs(naive).max())
    assert z.shape[1] <= 100
    assert order is not None
    assert not np.triu(z[order], 1).any()
    np.testing.assert_array_equal(space.factor, z[order[: z.shape[1]]])
    np.testing.assert_allclose(space.coordinates(x[:9]), z[:9], atol=1e-6)


def test_products_of_sparse_rows_are_those_of_dense_ones() -> None:
    x = rows()
    naive = x.toarray() @ x.toarray().T
    np.testing.assert_allclose(Kernel("linear")(x, x), naive, atol=1e-12)


def test_a_kernel_with_negative_eigenvalues_is_refused() -> None:
    x = np.random.default_rng(0).normal(size=(30, 3))
    kernel = KernelFunction(name="sigmoid", function=lambda a, b: np.tanh(a @ b.T + 1))
    with pytest.raises(UnsupportedModel, match="Got 'sigmoid', whose matrix has negative"):
        row_space(kernel, x)
