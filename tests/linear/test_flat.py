"""Least squares without a penalty on dependent columns, against scikit-learn's own refits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.base import clone
from sklearn.linear_model import LinearRegression, LogisticRegression

import whence
from whence.errors import NotPositiveDefinite
from whence.fitting.least_norm import least_norm
from whence.linear.features import DenseFeatures
from whence.linear.flat import null_space
from whence.linear.objective import LinearObjective

Data = tuple[np.ndarray, np.ndarray, np.ndarray]


def rows(kind: str) -> Data:
    """Training rows and targets, and queries."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 2))
    if kind == "one-hot":
        design = np.c_[np.eye(4)[np.arange(40) % 4], x]
    elif kind == "constant":
        design = np.c_[x, np.full(40, 3.0), 2e3 * x[:, 0]]
    elif kind == "rare category":  # row 3 is the only one of its category
        category = np.where(np.arange(40) == 3, 4, np.arange(40) % 4)
        design = np.c_[np.eye(5)[category], x]
    else:
        design = rng.normal(size=(15, 30))
    y = design @ rng.normal(size=design.shape[1]) + rng.normal(size=len(design))
    return design, y, design[:6] if kind != "wide" else rng.normal(size=(6, 30))


KINDS = ["one-hot", "constant", "rare category", "wide"]


@pytest.mark.parametrize("targets", [1, 2])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_removals_are_those_of_refits(kind: str, intercept: bool, targets: int) -> None:
    x, y, q = rows(kind)
    if targets == 2:
        y = np.stack([y, y[::-1]], 1)
    wanted = np.ones((len(q), *y.shape[1:]))
    model = LinearRegression(fit_intercept=intercept).fit(x, y)
    objective = whence.from_sklearn(model, x, y)
    where = [0, 3, 5, 9]

    def losses(fitted: Any) -> np.ndarray:
        return ((fitted.predict(q) - wanted) ** 2).reshape(len(q), -1).sum(1) / 2

    refits = [clone(model).fit(np.delete(x, i, 0), np.delete(y, i, 0)) for i in where]
    actual = np.stack([losses(refit) for refit in refits], 1) - losses(model)[:, None]
    newton = whence.influence(objective, (q, wanted), order="newton", indices=where)
    np.testing.assert_allclose(newton.values, actual, atol=1e-7 * np.abs(actual).max())
    retrained = whence.leave_one_out(objective, where, (q, wanted))
    np.testing.assert_allclose(retrained, actual, atol=1e-7 * np.abs(actual).max())
    assert newton.diagnostics.fit == "converged"
    dependent = objective.dependent_columns > 0
    assert any("columns are linear comb" in n for n in newton.diagnostics.notes) == dependent
    assert dependent == (intercept or kind == "constant")
    if kind == "wide":
        assert any("more columns than rows" in note for note in newton.diagnostics.notes)


@pytest.mark.parametrize("kind", KINDS)
def test_first_order_is_the_pseudoinverse(kind: str) -> None:
    x, y, q = rows(kind)
    model = LinearRegression(fit_intercept=False).fit(x, y)
    objective = whence.from_sklearn(model, x, y)
    wanted = np.ones(len(q))
    scores = whence.influence(objective, (q, wanted))
    residuals, slopes = x @ model.coef_ - y, q @ model.coef_ - wanted
    inverse = np.linalg.pinv(x.T @ x)
    exact = (slopes[:, None] * q) @ inverse @ (residuals[:, None] * x).T
    np.testing.assert_allclose(scores.values, exact, atol=1e-9 * max(np.abs(exact).max(), 1e-4))


@settings(deadline=None, max_examples=30)
@given(
    n=st.integers(2, 12),
    d=st.integers(1, 8),
    rank=st.integers(1, 8),
    seed=st.integers(0, 999),
    scale=st.sampled_from([1e-4, 1.0, 1e5]),
    constant=st.sampled_from([None, 1.0, 3.0]),
)
def test_the_null_space_is_all_that_vanishes(
    n: int, d: int, rank: int, seed: int, scale: float, constant: float | None
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, rank)) @ rng.normal(size=(rank, d))
    x[:, 0] *= scale
    weights = torch.from_numpy(rng.integers(0, 2, n) + np.eye(n)[0])
    full = x if constant is None else np.c_[x, np.full(n, constant)]
    there = full[weights.numpy() > 0]
    columns = torch.arange(full.shape[1])
    found = null_space(DenseFeatures(torch.from_numpy(x)), weights, constant, columns).numpy()
    unit = there / np.maximum(np.linalg.norm(there, axis=0), 1e-300)
    assert found.shape == (full.shape[1], full.shape[1] - np.linalg.matrix_rank(unit, tol=1e-9))
    np.testing.assert_allclose(found.T @ found, np.eye(found.shape[1]), atol=1e-9)
    size = np.abs(there).max() + 1
    np.testing.assert_allclose(there @ found, 0, atol=1e-6 * size)


def test_softmax_without_a_penalty_has_shifts_and_dependent_columns() -> None:
    rng = np.random.default_rng(0)
    x = np.c_[np.eye(3)[np.arange(60) % 3], rng.normal(size=(60, 2))]
    y = rng.integers(0, 3, 60)
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(x, y)
    objective = whence.from_sklearn(model, x, y)
    flat = objective.flat_directions()
    values = torch.linalg.eigvalsh(objective.dense_hessian())
    assert flat.shape[1] == int((values < 1e-9).sum()) == 6 + 2
    torch.testing.assert_close(flat.T @ flat, torch.eye(8).double())
    assert float((objective.dense_hessian() @ flat).abs().max()) < 1e-12
    moved = objective.at(objective.params + flat.sum(1))
    expected = torch.softmax(objective.outputs(objective.train), 1)
    torch.testing.assert_close(torch.softmax(moved.outputs(moved.train), 1), expected)
    scores = whence.influence(objective, (x[:2], y[:2]), order="newton", indices=[4])
    assert np.isfinite(scores.values).all()


def test_sparse_rows_and_a_penalty_on_some_outputs_only() -> None:
    x, y, _ = rows("one-hot")
    dense, thin = (
        whence.from_sklearn(LinearRegression().fit(x, y), kind(x), y)
        for kind in (np.asarray, sparse.csr_array)
    )
    assert thin.dependent_columns == dense.dependent_columns == 1
    torch.testing.assert_close(thin.flat_directions().abs(), dense.flat_directions().abs())


def test_of_many_columns_dependence_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whence.linear.flat._MOST", 3)
    x, y, q = rows("one-hot")
    objective = whence.from_sklearn(LinearRegression().fit(x, y), x, y)
    with pytest.raises(NotPositiveDefinite, match="linearly dependent"):
        whence.influence(objective, (q, np.ones(len(q))))


def test_least_norm_leaves_a_unique_minimum_alone() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 3)), rng.normal(size=20)
    objective: LinearObjective = whence.from_sklearn(LinearRegression().fit(x, y), x, y)
    assert least_norm(objective) is objective


def test_of_many_columns_as_many_combinations_are_found_as_the_rank_leaves() -> None:
    rng = np.random.default_rng(0)
    d, rank = 200, 8
    x = rng.normal(size=(300, rank)) @ rng.normal(size=(rank, d))
    features = DenseFeatures(torch.from_numpy(x))
    found = null_space(features, torch.ones(300).double(), None, torch.arange(d))
    assert found.shape == (d, d - rank)
    assert float(np.abs(x @ found.numpy()).max()) < 1e-10
