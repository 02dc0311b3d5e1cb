"""Weighted Gram matrices and the compact float32 copy, against plain products."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from whence.linear.features import CompactFeatures, DenseFeatures, Features, SparseFeatures

_N, _D = 600, 110  # beyond one tile of rows and one strip of columns


def matrix() -> torch.Tensor:
    x = torch.randn(_N, _D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[:, [0, 7, 100]] = 0
    return x


def compact() -> CompactFeatures:
    columns = matrix().any(dim=0).nonzero().flatten()
    return CompactFeatures(DenseFeatures(matrix()[:, columns]), columns, _D)


def staircase() -> DenseFeatures:
    """Rows in any order of which the j-th by pivot is zero beyond column j."""
    order = torch.randperm(_N, generator=torch.Generator().manual_seed(2))
    x = matrix()
    x[order] = x[order].tril()
    return DenseFeatures(x, order)


KINDS = {
    "dense": lambda: DenseFeatures(matrix()),
    "compact": compact,
    "sparse": lambda: SparseFeatures(sparse.csr_array(matrix().numpy())),
}


@pytest.fixture(params=KINDS)
def features(request: pytest.FixtureRequest) -> Features:
    return KINDS[request.param]()


def test_grams(features: Features) -> None:
    x = matrix()
    weights = torch.randn(_N, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    naive = torch.einsum("nd,nm,ne->mde", x, weights, x)
    torch.testing.assert_close(features.grams(weights), naive)


def test_grams_of_a_staircase() -> None:
    features = staircase()
    x = features.matrix
    weights = torch.randn(_N, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    naive = torch.einsum("nd,nm,ne->mde", x, weights, x)
    torch.testing.assert_close(features.grams(weights), naive)


def test_products(features: Features) -> None:
    x = matrix()
    assert features.shape == x.shape
    assert torch.equal(features.dense(), x)
    some = np.array([3, 500, 3])
    assert torch.equal(features.rows(some).dense(), x[some])
    torch.testing.assert_close(features.matmul(x.T), x @ x.T)
    torch.testing.assert_close(features.rmatmul(x), x.T @ x)


def test_held_columns_are_all_that_can_be_nonzero(features: Features) -> None:
    held, columns = features.held()
    x = matrix() if columns is None else matrix()[:, columns]
    assert torch.equal(held.dense(), x)
    assert columns is None or not matrix().index_fill(1, columns, 0).any()


def test_in_float32_it_is_the_matrix_without_its_zero_columns() -> None:
    narrow = DenseFeatures(matrix()).in_float32()
    assert narrow.nonzero.shape == (_N, _D - 3)
    assert torch.equal(narrow.dense(), matrix().float())
