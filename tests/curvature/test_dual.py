"""The inverse Hessian of wide models by matrices of rows, against the dense matrix."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, RidgeClassifier

import whence
from whence.curvature import dual as rule
from whence.curvature.dual import by_rows, dual
from whence.curvature.exact import Hessian
from whence.curvature.prepare import prepare
from whence.errors import InvalidInput, NotPositiveDefinite
from whence.linalg.spectral import LowRank
from whence.linear.objective import LinearObjective
from whence.objective.derived_losses import CallableLoss, OneVersusRest

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
    if damping:  # each output with a penalty of its own
        factors = torch.ones_like(objective.l2)
        coefficients = len(factors) - 4 * (objective.constant is not None)
        factors[:coefficients] = torch.linspace(1, 2, 4).repeat_interleave(coefficients // 4)
        objective = replace(objective, l2=factors * objective.l2)
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


def test_who_is_solved_by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = wide(_MODELS["softmax-no-intercept"], n=130)
    p = len(objective.params)
    assert (objective.c, p) == (4, 520)
    uneven, none = objective.l2.clone(), objective.l2.clone()
    uneven[7] *= 2
    none[:130] = 0
    apart = objective.l2.reshape(4, -1) * torch.tensor([[1.0], [2.0], [1.0], [1.0]])
    coupled = CallableLoss(lambda f, y: f.sum(1).square() + f.square().sum(1))
    for change, taken in (
        ({"l2": uneven}, False),
        ({"l2": none}, False),
        ({"l2": apart.flatten()}, True),
        ({"free": torch.arange(p)}, False),
        ({"loss": OneVersusRest(whence.SquaredHinge())}, True),
        ({"loss": coupled}, False),
    ):
        assert (by_rows(replace(objective, **change)) is not None) == taken
    for name, allowed, refused in (
        ("_LEAST", p, p + 1),
        ("_PER_ROW", 3, 4),
        ("_BYTES", 8 * 5 * 130**2, 8 * 5 * 130**2 - 1),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(rule, name, allowed)
            assert by_rows(objective) is objective
            patched.setattr(rule, name, refused)
            assert by_rows(objective) is None


def test_what_no_row_tells_is_refused() -> None:
    objective = wide(_MODELS["softmax"])
    certain = objective.at(1e6 * objective.params)
    with pytest.raises(NotPositiveDefinite, match="tell every intercept"):
        dual(certain, Hessian(certain), 0.0)
    coupled = CallableLoss(lambda f, y: f.sum(1).square() + f.square().sum(1))
    with pytest.raises(InvalidInput, match="curve alone"):
        dual(replace(objective, loss=coupled), Hessian(objective), 0.0)
