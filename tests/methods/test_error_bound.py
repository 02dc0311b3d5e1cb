"""The bound on the arithmetic of scores holds, and says where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale
from torch import Tensor

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


@pytest.mark.parametrize("measure", ["margin", "probability"])
def test_the_bound_is_of_the_measure_asked_for(measure: str) -> None:
    x, y = load_breast_cancer(return_X_y=True)
    x, y = scale(x)[:200, :6], y[:200]
    objective = whence.from_sklearn(MODELS["a free intercept"].fit(x, y), x, y)
    queries, loose = (x[:4] * 1.1, y[:4]), whence.CG(rtol=1e-1)
    options = {"measure": measure, "solver": loose, "damping": 0.0}
    right = {"measure": measure, "solver": whence.Cholesky(), "damping": 0.0}
    exact = whence.influence(objective, queries, **right).values
    error = np.abs(whence.influence(objective, queries, **options).values - exact)
    bound = whence.error_bound(objective, queries, **options)
    assert (error <= bound).all()
    assert error.max() > 1e-4 * bound.max()
    # A residual is as large as what it is a residual of: margins have slope 1 in the outputs, the
    # others p (1 - p) and less.
    p = MODELS["a free intercept"].predict_proba(queries[0])
    ratio = whence.error_bound(objective, queries, solver=loose, damping=0.0) / bound
    slope = 1 - p[np.arange(4), queries[1]]
    slope = slope if measure == "margin" else 1 / p[np.arange(4), queries[1]]
    np.testing.assert_allclose(ratio, np.tile(slope[:, None], 200), rtol=1e-6)


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


@pytest.mark.parametrize("rtol", [1e-1, 1e-3])
@pytest.mark.parametrize("name", ["every parameter penalized", "a free intercept", "no penalty"])
def test_the_bound_by_its_formula(name: str, rtol: float) -> None:
    x, y = load_breast_cancer(return_X_y=True)
    x, y = scale(x)[:200, :6], y[:200]
    objective = objective_of(whence.from_sklearn(MODELS[name].fit(x, y), x, y))
    queries = objective.examples((x[:3] * 1.1, y[:3]))
    right, h = objective.gradient_columns(queries, objective.loss), objective.dense_hessian()
    free, tied = (objective.l2 == 0).nonzero().flatten(), (objective.l2 > 0).nonzero().flatten()
    eta = float(objective.l2[tied].min()) if len(tied) else np.inf

    def least(u: Tensor) -> Tensor:
        """With U in the place of A⁻¹ B of H = [[A, B], [Bᵀ, C]], and P = B − A U."""
        if not len(free):
            return objective.l2.min()
        left_over = float((h[tied][:, free] - h[tied][:, tied] @ u).norm())
        z = torch.cat([-u, torch.eye(len(free), dtype=h.dtype)])
        order = torch.cat([tied, free])
        smallest = torch.linalg.eigvalsh(z.T @ h[order][:, order] @ z)[0] - left_over**2 / eta
        return 1 / (1 / eta + (1 + (u.norm() + left_over / eta) ** 2) / smallest)

    solver = whence.CG(rtol=rtol)
    prepared = prepare(objective, 3, solver=solver)
    if len(free):
        unit = torch.zeros(len(h), len(free), dtype=h.dtype)
        unit[free, torch.arange(len(free))] = 1
        value = prepared.inverse.solve(unit).value
        loose = least(-value[tied] @ torch.linalg.inv(value[free]))
        found = _least_curvature(objective.l2, prepared, free)
        assert found is None if loose <= 0 else found == pytest.approx(float(loose), rel=1e-6)
    residual = (right - h @ prepared.inverse.solve(right).value).norm(dim=0)
    sizes = objective.gradient_columns(objective.train, objective.loss).norm(dim=0) / 200
    exact = least(torch.linalg.solve(h[tied][:, tied], h[tied][:, free]))
    bound = whence.error_bound(objective, queries, solver=solver)
    np.testing.assert_allclose(bound, torch.outer(residual, sizes) / exact, rtol=1e-4)


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
