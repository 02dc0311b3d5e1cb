"""The bound on the arithmetic of scores holds, and says where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale

import whence
from whence.curvature.prepare import prepare
from whence.errors import UnsupportedModel
from whence.methods.error_bound import _least_curvature
from whence.objective.objective import objective_of

_TIGHT = {"tol": 1e-10, "max_iter": 10_000}

MODELS = {
    "every parameter penalized": LogisticRegression(C=0.1, fit_intercept=False, **_TIGHT),
    "a free intercept": LogisticRegression(C=0.1, **_TIGHT),
    "three free intercepts": LogisticRegression(C=0.1, **_TIGHT),
    "no penalty": LogisticRegression(C=np.inf, **_TIGHT),
    "scaled": make_pipeline(StandardScaler(), LogisticRegression(C=0.1, **_TIGHT)),
    "balanced": LogisticRegression(C=0.1, class_weight="balanced", **_TIGHT),
}


@pytest.mark.parametrize("rtol", [1e-1, 1e-3])
@pytest.mark.parametrize("name", MODELS)
def test_scores_of_a_loose_solve_are_within_the_bound(name: str, rtol: float) -> None:
    x, y = load_breast_cancer(return_X_y=True)
    x, y = scale(x)[:200, :6], y[:200]
    if name.startswith("three"):
        y = y + (x[:, 0] > 0.5)
    objective = whence.from_sklearn(MODELS[name].fit(x, y), x, y)
    queries = x[:4] * 1.1, y[:4]
    loose = whence.CG(rtol=rtol, max_iterations=1000)
    exact = whence.influence(objective, queries, solver=whence.Cholesky(), damping=0.0).values
    found = whence.influence(objective, queries, solver=loose, damping=0.0).values
    bound = whence.error_bound(objective, queries, solver=loose, damping=0.0)
    error = np.abs(found - exact)
    assert (error <= bound).all()
    if np.isfinite(MODELS[name][-1].C if "scaled" in name else MODELS[name].C):
        assert error.max() > 1e-4 * bound.max()  # not a bound that says nothing
    if rtol < 1e-2:
        assert bound.max() < np.abs(exact).max()
    some = whence.error_bound(objective, queries, solver=loose, damping=0.0, indices=[5, 17])
    np.testing.assert_allclose(some, bound[:, [5, 17]], rtol=1e-9)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("rtol", [1e-1, 1e-10])
def test_the_curvature_is_nowhere_below_the_bound(name: str, rtol: float) -> None:
    x, y = load_breast_cancer(return_X_y=True)
    x, y = scale(x)[:200, :6], y[:200]
    objective = objective_of(whence.from_sklearn(MODELS[name].fit(x, y), x, y))
    prepared = prepare(objective, 1, solver=whence.CG(rtol=rtol))
    free = (objective.l2 == 0).nonzero().flatten()
    least = _least_curvature(objective.l2, prepared, free)
    smallest = float(torch.linalg.eigvalsh(objective.dense_hessian())[0])
    if rtol < 1e-5:
        assert least is not None
        assert 0.05 * smallest < least <= smallest
    assert least is None or least <= smallest


def test_no_bound_where_none_is_known() -> None:
    x, y = load_diabetes(return_X_y=True)
    objective = whence.from_sklearn(Ridge().fit(x, y), x, y)
    torch.manual_seed(0)
    rows, labels = torch.randn(20, 3).double(), torch.arange(20) % 2
    net = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
    curved = whence.from_torch(net.double(), whence.CrossEntropy(), (rows, labels), l2=0.1)
    with pytest.raises(UnsupportedModel, match="bounded below"):
        whence.error_bound(curved, (rows, labels))
    wide = np.random.default_rng(0).normal(size=(30, 600))
    moving = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, **_TIGHT))
    labels = (wide[:, 0] > 0).astype(int)
    many = whence.from_sklearn(moving.fit(wide, labels), wide, labels)
    assert whence.error_bound(many, (wide[:1], labels[:1])).shape == (1, 30)
    assert whence.error_bound(objective, (x[:1], y[:1]), damping=0.1).shape == (1, 442)
