"""Quantile regression from vertex to vertex: the linear program's minimum, removals included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import linprog
from sklearn.base import clone
from sklearn.cross_decomposition import PLSRegression
from sklearn.datasets import load_diabetes
from sklearn.linear_model import QuantileRegressor

import whence
from whence.adapters.anything import Estimator
from whence.adapters.quantile import QuantileModel
from whence.errors import NotConvergedWarning
from whence.fitting.pinball import Vertex, vertex_near
from whence.methods.choose import default_of

Floats = NDArray[np.float64]


def rows() -> tuple[Floats, Floats]:
    x, y = load_diabetes(return_X_y=True)
    x, y = (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std()
    return x[:120, :5], y[:120]


def least(matrix: Floats, targets: Floats, low: Floats, high: Floats) -> float:
    """The minimum of Σ max(high r, low r), as a linear program in θ and the parts of r."""
    m, p = matrix.shape
    cost = np.concatenate([np.zeros(p), high, -low])
    equal = np.hstack([matrix, np.eye(m), -np.eye(m)])
    bounds = [(None, None)] * p + [(0, None)] * (2 * m)
    return float(linprog(cost, A_eq=equal, b_eq=targets, bounds=bounds).fun)


def value(vertex: Vertex, low: Floats, high: Floats) -> float:
    r = vertex.targets - vertex.matrix @ vertex.theta
    return float(np.maximum(high * r, low * r).sum())


@pytest.mark.parametrize("digits", [None, 0])  # rounded: many rows are met at once
@pytest.mark.parametrize("seed", range(4))
def test_the_walk_ends_at_the_minimum(seed: int, digits: int | None) -> None:
    draw = np.random.default_rng(seed)
    matrix, targets = draw.normal(size=(60, 4)), draw.normal(size=60)
    if digits is not None:
        matrix, targets = matrix.round(digits), targets.round(digits)
    high, low = draw.uniform(size=60), -draw.uniform(size=60)
    high[:5] = low[:5] = 0  # rows without weight
    vertex = vertex_near(matrix, targets, draw.normal(size=4)).minimum(low, high)
    assert value(vertex, low, high) == pytest.approx(least(matrix, targets, low, high), abs=1e-9)


def test_bounds_without_a_minimum_are_said() -> None:
    draw = np.random.default_rng(0)
    vertex = vertex_near(draw.normal(size=(9, 2)), draw.normal(size=9), np.zeros(2))
    with pytest.warns(NotConvergedWarning, match="given up"):
        found = vertex.minimum(np.full(9, 0.5), np.ones(9))
    met = found.targets - found.matrix @ found.theta
    np.testing.assert_allclose(met[found.basis], [0, 0], atol=1e-12)  # a vertex all the same


@pytest.mark.parametrize(
    "options",
    [
        {"quantile": 0.7, "alpha": 0.02},
        {"quantile": 0.5, "alpha": 0.0},
        {"quantile": 0.2, "alpha": 0.01, "fit_intercept": False},
    ],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_removal_is_the_own_refit(options: dict[str, Any], weighted: bool) -> None:
    x, y = rows()
    weights = np.random.default_rng(0).uniform(0.5, 2, len(y)) if weighted else None
    model = QuantileRegressor(**options).fit(x, y, sample_weight=weights)
    trained = whence.from_sklearn(model, x, y, sample_weight=weights)
    assert isinstance(trained, QuantileModel)
    assert isinstance(default_of(trained)[0], whence.LeaveOneOut)
    queries = (x[:6], y[:6])
    where = np.array([0, 11, 50, 80, 119])
    found = whence.leave_one_out(trained, where, queries, measure="prediction")
    for column, gone in enumerate(where):
        kept = np.arange(len(y)) != gone
        given = None if weights is None else weights[kept]
        own = clone(model).fit(x[kept], y[kept], sample_weight=given)
        change = own.predict(x[:6]) - model.predict(x[:6])
        np.testing.assert_allclose(found[:, column], change, atol=1e-9)


def test_partial_least_squares_is_refitted_without_each_row() -> None:
    x, y = rows()
    trained = whence.from_sklearn(PLSRegression(2).fit(x, y), x, y)
    assert isinstance(trained, Estimator)
    assert isinstance(default_of(trained)[0], whence.LeaveOneOut)
    scores = whence.explain(trained, (x[3], y[3]), k=2)
    own = PLSRegression(2).fit(np.delete(x, 7, 0), np.delete(y, 7))
    found = whence.leave_one_out(trained, [7], (x[3], y[3]), measure="prediction")
    change = own.predict(x[3:4]).ravel() - PLSRegression(2).fit(x, y).predict(x[3:4]).ravel()
    assert found[0, 0] == pytest.approx(change[0], abs=1e-10)
    assert "LeaveOneOut" in str(scores)
