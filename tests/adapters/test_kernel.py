"""The row space of wide models: products of sparse rows, and coordinates that keep them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import whence
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


def test_rows_that_are_gone_carry_nothing() -> None:
    # A cubic of two columns spans ten dimensions, most of them by the first rows that are far out.
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 2))
    x[:3] *= 4
    y = x[:, 0] * x[:, 1] + rng.normal(size=30)
    kernel = KernelRidge(kernel="poly", degree=3, gamma=0.5, coef0=1.0, alpha=0.1)
    model = make_pipeline(StandardScaler(), kernel)
    gone, kept = np.arange(3), np.arange(3, 30)
    objective = whence.from_sklearn(model.fit(x, y), x, y)
    weights = objective.weights.clone()
    weights[gone] = 0
    refitted = objective.refit(weights)
    others = whence.from_sklearn(model.fit(x[kept], y[kept]), x[kept], y[kept])
    query = rng.normal(size=(2, 2)), np.zeros(2)
    found = whence.influence(refitted, query).values
    expected = whence.influence(others, query).values
    np.testing.assert_allclose(found[:, kept], expected, rtol=1e-6)
    assert not found[:, gone].any()
    first, last = 0, 29
    weights[last] = 0
    ridge = make_pipeline(StandardScaler(), Ridge())
    linear = whence.from_sklearn(ridge.fit(x, y), x, y).refit(weights)
    assert not whence.perturbation(linear, [first, last], query).any()
    assert whence.perturbation(linear, [last - 1], query).all()


@pytest.mark.parametrize("level", [0.0, 0.1])
def test_gamma_of_columns_that_do_not_vary_is_one_without_any_row(level: float) -> None:
    x, y = np.full((30, 2), level), np.arange(30) % 2
    y[:4] = 1
    query = np.full((1, 2), level), np.array([0])
    scaled, given = (
        whence.influence(whence.from_sklearn(SVC(gamma=gamma).fit(x, y), x, y), query).values
        for gamma in ("scale", 1.0)
    )
    np.testing.assert_allclose(scaled, given, rtol=1e-6)
    assert abs(given).max() > 0
