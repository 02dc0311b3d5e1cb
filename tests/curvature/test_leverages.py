"""Leverages from an inverse, or from products of rows, against those of the dense Hessian."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.svm import LinearSVC

import whence
from whence.curvature import leverages as rule
from whence.curvature.leverages import (
    determines_itself,
    dual_leverages,
    in_columns,
    leverages,
)
from whence.errors import InvalidInput, NotPositiveDefinite
from whence.linalg import CG, Cholesky, Dense
from whence.linear.objective import LinearObjective
from whence.objective.objective import Objective


def fitted(
    seed: int,
    *,
    intercept: bool = True,
    c: float = 10.0,
    spread: float = 1.0,
    is_sparse: bool = True,
) -> LinearObjective:
    """A logistic model of 30 rows and 80 columns, in X's own columns."""
    rng = np.random.default_rng(seed)
    x = spread * rng.normal(size=(30, 80)) * (rng.random((30, 80)) < 0.3)
    y = np.arange(30) % 2
    weights = rng.integers(0, 3, 30).astype(float)
    weights[:2] = 1.0
    model = LogisticRegression(C=c, fit_intercept=intercept, tol=1e-10, max_iter=10_000)
    rows = sparse.csr_array(x) if is_sparse else x
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # lbfgs may end at rounding before
        model.fit(rows, y, sample_weight=weights)
    objective = whence.from_sklearn(model, rows, y, sample_weight=weights)
    columns = in_columns(objective)
    assert columns is not None
    return columns


def solved(objective: LinearObjective, where: Any, damping: float | None = None) -> torch.Tensor:
    """The leverages, with a solution that is checked against the matrix."""
    right = torch.linspace(-1, 2, len(objective.params)).double()
    found, solution = dual_leverages(objective, where, damping, right)
    product = objective.hvp(solution.unsqueeze(1)).squeeze(1) + (damping or 0) * solution
    torch.testing.assert_close(product, right, rtol=1e-6, atol=1e-7)
    return found


def naive(objective: LinearObjective, damping: float = 0.0) -> torch.Tensor:
    """J H⁻¹ Jᵀ of all training examples, from the matrix."""
    jacobians = objective.jacobians(objective.train).squeeze(1)
    hessian = objective.dense_hessian() + damping * torch.eye(len(objective.params))
    return (jacobians * torch.linalg.solve(hessian, jacobians.T).T).sum(1)


@example(seed=2841, intercept=True, c=1e-3, spread=0.1, damping=None, is_sparse=False)
@settings(deadline=None)
@given(
    seed=st.integers(0, 10_000),
    intercept=st.booleans(),
    c=st.sampled_from([1e-3, 1.0, 1e4]),
    spread=st.sampled_from([0.1, 1.0, 30.0]),
    damping=st.sampled_from([None, 0.0, 0.1]),
    is_sparse=st.booleans(),
)
def test_leverages_are_those_of_the_dense_hessian(
    seed: int, intercept: bool, c: float, spread: float, damping: float | None, is_sparse: bool
) -> None:
    objective = fitted(seed, intercept=intercept, c=c, spread=spread, is_sparse=is_sparse)
    where = np.random.default_rng(seed).permutation(30)[:17]
    found = solved(objective, where, damping)
    torch.testing.assert_close(found, naive(objective, damping or 0.0)[where], rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("far", [1.0, 5.0, 12.0, 18.0])
def test_rows_that_the_model_is_certain_of_lose_no_digits(far: float) -> None:
    objective = fitted(0)
    at = objective.at(objective.params * far)
    curvature = at.loss.hvp(at.outputs(at.train), at.train.targets, torch.ones(30, 1, 1))
    assert far < 10 or float(curvature.min()) < 1e-14
    found = solved(at, np.arange(30))
    torch.testing.assert_close(found, naive(at), rtol=1e-6, atol=0.0)


def test_rows_near_zero_lose_no_digits() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(20, 50)), np.arange(20) % 2
    x[::3] *= 1e-6
    model = LogisticRegression(fit_intercept=False, tol=1e-10).fit(x, y)
    objective = in_columns(whence.from_sklearn(model, x, y))
    assert objective is not None
    found = solved(objective, np.arange(20))
    torch.testing.assert_close(found, naive(objective), rtol=1e-8, atol=0.0)


def test_a_penalized_intercept_and_another_constant_count() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(25, 60)), np.arange(25) % 2
    model = LogisticRegression(solver="liblinear", intercept_scaling=3.0, tol=1e-10).fit(x, y)
    objective = in_columns(whence.from_sklearn(model, x, y))
    assert objective is not None
    assert objective.constant == 3.0
    assert float(objective.l2[-1]) > 0
    found = solved(objective, np.arange(25))
    torch.testing.assert_close(found, naive(objective), rtol=1e-8, atol=0.0)


def test_only_wide_models_of_one_output_and_one_penalty_are_taken() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 50)), np.arange(20) % 2
    assert in_columns(whence.from_sklearn(Ridge().fit(x, y), x, y)) is not None
    assert (
        in_columns(whence.from_sklearn(Ridge().fit(x.T, np.arange(50)), x.T, np.arange(50))) is None
    )
    three = np.arange(20) % 3
    for classes in (three, np.arange(20) % 2 + (np.arange(20) < 3)):
        softmax = LogisticRegression(max_iter=1000).fit(x, classes)
        assert in_columns(whence.from_sklearn(softmax, x, classes)) is None
    two = np.stack([y, three], 1)
    assert in_columns(whence.from_sklearn(Ridge().fit(x, two), x, two)) is None
    free = LinearRegression().fit(x, y)
    assert in_columns(whence.from_sklearn(free, x, y)) is None
    objective = whence.from_sklearn(Ridge().fit(x, y), x, y)
    assert in_columns(objective.reweighted(2 * objective.weights)) is None


@pytest.mark.parametrize(
    "model",
    [
        LogisticRegression(C=100, tol=1e-10, max_iter=10_000),
        Ridge(alpha=0.1),
        LinearSVC(tol=1e-10, max_iter=100_000),
    ],
)
def test_the_functions_of_a_user_agree_with_a_solver_of_his_own(model: Any) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(40, 90)), np.arange(40) % 2
    model.fit(x, y)
    objective = whence.from_sklearn(model, x, y)
    some = [3, 17, 4]
    for indices in (None, some):
        by_rows = whence.self_influence(objective, indices=indices)
        solved = whence.self_influence(objective, indices=indices, solver=Cholesky())
        np.testing.assert_allclose(by_rows, solved, rtol=1e-6, atol=1e-14 * solved.max())


def test_a_wrong_damping_and_an_intercept_that_nothing_tells_are_named() -> None:
    objective = fitted(0)
    with pytest.raises(InvalidInput, match=r"Expected damping >= 0\. Got -1"):
        dual_leverages(objective, np.arange(3), -1.0, objective.params)
    certain = objective.reweighted(torch.zeros(30, dtype=torch.float64))
    with pytest.raises(NotPositiveDefinite, match="tell the intercept"):
        dual_leverages(certain, np.arange(3), None, certain.params)


def objective_of(kind: str, *, intercept: bool) -> LinearObjective:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(24, 40 if kind == "wide" else 5)) * (rng.random((24, 1)) < 0.9)
    y = rng.integers(0, 3 if kind == "classes" else 2, 24)
    rows = sparse.csr_array(x) if kind == "sparse" else x
    penalty = {"penalty": "l1", "solver": "liblinear"} if kind == "l1" else {}
    model = LogisticRegression(C=0.5, fit_intercept=intercept, max_iter=1000, **penalty)
    return whence.from_sklearn(model.fit(rows, y), rows, y)


@pytest.mark.filterwarnings("ignore:.*penalty.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*penalty.*:UserWarning")
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("kind", ["dense", "wide", "classes", "sparse", "l1"])
def test_columns_jacobians_and_leverages(kind: str, intercept: bool) -> None:
    objective = objective_of(kind, intercept=intercept)
    train, loss, c = objective.train, objective.loss, objective.c
    some = train.subset(np.array([3, 0, 21]))
    unit = torch.eye(3, dtype=torch.float64)
    columns = objective.gradient_columns(some, loss)
    torch.testing.assert_close(columns, objective.gradient_sum(some, loss, unit))
    torch.testing.assert_close(columns, Objective.gradient_columns(objective, some, loss))
    jacobians = objective.jacobians(some)
    for at in range(3):
        one = some.subset(np.array([at]))
        naive = objective.vjp(one, torch.eye(c, dtype=torch.float64).unsqueeze(0)).T
        torch.testing.assert_close(jacobians[at], naive)
    hessian = objective.dense_hessian() + 0.1 * torch.eye(len(objective.params))
    inverse = Cholesky().prepare(Dense(hessian))
    naive = jacobians @ torch.linalg.inv(hessian) @ jacobians.mT
    torch.testing.assert_close(leverages(objective, inverse, some), naive)


@pytest.mark.parametrize("intercept", [False, True])
def test_many_outputs_take_the_inverse_matrix(intercept: bool) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 4)), np.arange(60) % 6
    model = LogisticRegression(fit_intercept=intercept, tol=1e-8, max_iter=1000).fit(x, y)
    objective = whence.from_sklearn(model, x, y)
    matrix = objective.dense_hessian() + 0.1 * torch.eye(len(objective.params))
    inverse = Cholesky().prepare(Dense(matrix))
    found = leverages(objective, inverse, objective.train)
    jacobians = objective.jacobians(objective.train)
    torch.testing.assert_close(found, jacobians @ torch.linalg.solve(matrix, jacobians.mT))
    few = leverages(objective, inverse, objective.train.subset(np.arange(2)))
    torch.testing.assert_close(few, found[:2])


def test_the_inverse_matrix_is_made_where_it_is_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more than two outputs, for more half solves than it has columns, from an exact factor."""
    rng = np.random.default_rng(0)
    made = []
    monkeypatch.setattr(rule, "_by_matrix", lambda matrix, *_: made.append(1) or matrix)
    for classes, count, solver, expected in (
        (3, 6, Cholesky(), True),
        (3, 5, Cholesky(), False),
        (2, 30, Cholesky(), False),
        (3, 6, Cholesky(refine=1), False),
        (3, 6, CG(), False),
    ):
        x, y = rng.normal(size=(30, 4)), np.arange(30) % classes
        objective = whence.from_sklearn(LogisticRegression().fit(x, y), x, y)
        matrix = objective.dense_hessian() + 0.1 * torch.eye(len(objective.params))
        inverse = solver.prepare(Dense(matrix))
        made.clear()
        leverages(objective, inverse, objective.train.subset(np.arange(count)))
        assert bool(made) == expected, (classes, count, solver)


def test_a_row_that_alone_has_a_column_determines_itself() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(12, 3)), generator.normal(size=12)
    x[:, 2] = np.arange(12) == 5
    where = np.array([2, 5, 7])
    free = whence.from_sklearn(LinearRegression().fit(x, y), x, y)
    assert determines_itself(free, where).tolist() == [False, True, False]
    held = whence.from_sklearn(Ridge(alpha=1e-3).fit(x, y), x, y)
    assert not determines_itself(held, where).any()
