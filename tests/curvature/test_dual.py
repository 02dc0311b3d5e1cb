"""The inverse Hessian of wide models by matrices of rows, against the dense matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, RidgeClassifier

import whence
from whence.curvature.dual import by_rows, dual
from whence.curvature.exact import Hessian
from whence.curvature.prepare import prepare
from whence.linalg.spectral import LowRank
from whence.linear.objective import LinearObjective

_MODELS = {
    "softmax": LogisticRegression(C=2.0, tol=1e-10, max_iter=10_000),
    "softmax-weak": LogisticRegression(C=1e4, tol=1e-8, max_iter=10_000),
    "softmax-no-intercept": LogisticRegression(fit_intercept=False, tol=1e-10, max_iter=10_000),
    "squares": RidgeClassifier(alpha=0.3),
    "squares-no-intercept": RidgeClassifier(fit_intercept=False, class_weight="balanced"),
}


def wide(model: Any, n: int = 40) -> LinearObjective:
    """A model of n rows, 300 columns and 4 classes, some rows of weight 0."""
    rng = np.random.default_rng(0)
    x, y, weights = rng.normal(size=(n, 300)), np.arange(n) % 4, rng.integers(0, 3, n) * 1.0
    weights[:8] = 1.0
    model.fit(x, y, sample_weight=weights)
    return whence.from_sklearn(model, x, y, sample_weight=weights)


@pytest.mark.parametrize("damping", [0.0, 0.1])
@pytest.mark.parametrize("name", _MODELS)
def test_solutions_and_leverages_are_those_of_the_matrix(name: str, damping: float) -> None:
    objective = wide(_MODELS[name])
    flat = objective.flat_directions()
    operator = Hessian(objective) + LowRank(flat, flat.new_ones(flat.shape[1]))
    matrix = objective.dense_hessian() + flat @ flat.T
    matrix.diagonal().add_(damping)
    inverse = dual(objective, operator.damped(damping), damping)
    right = torch.linspace(-1, 2, 3 * len(matrix)).reshape(-1, 3).double()
    found = inverse.solve(right)
    torch.testing.assert_close(found.value, torch.linalg.solve(matrix, right), rtol=1e-6, atol=1e-6)
    assert found.converged
    jacobians = objective.jacobians(objective.train)
    naive = jacobians @ torch.linalg.solve(matrix, jacobians.mT)
    leverages = inverse.of_rows(objective.train.features)
    torch.testing.assert_close(leverages, naive, rtol=1e-6, atol=1e-8 * float(naive.max()))


def test_wide_models_take_it() -> None:
    objective = wide(_MODELS["softmax"], n=130)
    assert by_rows(objective) is objective
    assert "matrices of the products of" in prepare(objective, 3).solver
    assert by_rows(whence.from_sklearn(LogisticRegression().fit(*_tall()), *_tall())) is None


def _tall() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(200, 300)), np.arange(200) % 2
