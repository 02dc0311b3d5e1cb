"""The bound on the arithmetic of scores holds, and says where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale

import whence
from whence.errors import UnsupportedModel


@pytest.mark.parametrize("rtol", [1e-1, 1e-3])
def test_scores_of_a_loose_solve_are_within_the_bound(rtol: float) -> None:
    x, y = load_breast_cancer(return_X_y=True)
    x, y = scale(x)[:200], y[:200]
    model = LogisticRegression(C=0.1, fit_intercept=False, tol=1e-10, max_iter=10_000).fit(x, y)
    objective = whence.from_sklearn(model, x, y)
    queries = x[:4] * 1.1, y[:4]
    loose = whence.CG(rtol=rtol, max_iterations=1000)
    exact = whence.influence(objective, queries, solver=whence.Cholesky(), damping=0.0).values
    found = whence.influence(objective, queries, solver=loose, damping=0.0).values
    bound = whence.error_bound(objective, queries, solver=loose, damping=0.0)
    error = np.abs(found - exact)
    assert (error <= bound).all()
    assert error.max() > 1e-3 * bound.max()  # not a bound that says nothing
    some = whence.error_bound(objective, queries, solver=loose, damping=0.0, indices=[5, 17])
    np.testing.assert_allclose(some, bound[:, [5, 17]], rtol=1e-9)


def test_no_bound_where_none_is_known() -> None:
    x, y = load_diabetes(return_X_y=True)
    free = whence.from_sklearn(Ridge().fit(x, y), x, y)
    moving = make_pipeline(StandardScaler(), Ridge(fit_intercept=False)).fit(x, y)
    for objective in (free, whence.from_sklearn(moving, x, y)):
        with pytest.raises(UnsupportedModel, match="a penalty on every parameter"):
            whence.error_bound(objective, (x[:1], y[:1]))
    assert whence.error_bound(free, (x[:1], y[:1]), damping=0.1).shape == (1, 442)
