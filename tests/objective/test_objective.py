"""The risk, its gradient and its parts, by sums over examples and by differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Lasso

import whence
from tests.fitted import Fitted
from tests.network.zoo import objective_of
from whence.objective import objective as rule
from whence.objective.objective import Objective, risk, risk_gradient


@pytest.fixture(scope="module")
def lasso() -> Objective:
    x, y = load_diabetes(return_X_y=True)
    return whence.from_sklearn(Lasso(alpha=0.5).fit(x[:60], y[:60]), x[:60], y[:60])


def _moved(objective: Objective) -> Objective:
    """The same objective off its minimum, where no part of its gradient cancels."""
    return objective.at(objective.params + torch.linspace(-0.1, 0.2, len(objective.params)))


def test_the_risk_of_ridge_is_its_sum(ridge: Fitted) -> None:
    objective = _moved(ridge.objective)
    theta, w = objective.params.numpy(), ridge.weights
    residuals = ridge.x @ theta[:-1] + theta[-1] - ridge.y
    alpha = ridge.estimator.alpha / w.sum()
    assert float(objective.l2[0]) == pytest.approx(alpha * w.sum() / len(w), rel=1e-6)
    penalty = float(objective.l2[0]) * (theta[:-1] ** 2).sum() / 2
    assert risk(objective) == pytest.approx((w * residuals**2).sum() / len(w) / 2 + penalty)


def test_the_risk_of_a_lasso_has_its_slope(lasso: Objective) -> None:
    objective = _moved(lasso)
    assert objective.slope is not None
    losses = objective.loss(objective.outputs(objective.train), objective.train.targets)
    slope = float(objective.slope @ objective.params)
    assert abs(slope) > 1
    assert risk(objective) == pytest.approx(float(losses.mean()) + slope)


@pytest.mark.parametrize("name", ["binary", "ridge", "lasso"])
def test_the_gradient_is_that_of_the_risk(name: str, request: pytest.FixtureRequest) -> None:
    found = request.getfixturevalue(name)
    objective = _moved(found if name == "lasso" else found.objective)
    gradient = risk_gradient(objective).tolist()
    step = 1e-5
    for j in (0, 1, len(objective.params) - 1):
        ahead, behind = objective.params.clone(), objective.params.clone()
        ahead[j] += step
        behind[j] -= step
        slope = (risk(objective.at(ahead)) - risk(objective.at(behind))) / (2 * step)
        assert gradient[j] == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_columns_of_gradients(binary: Fitted) -> None:
    objective = binary.objective
    few = objective.train.subset(np.arange(7))
    each = torch.cat(
        [
            objective.gradient_sum(
                few.subset(np.array([i])), objective.loss, torch.ones(1, 1).double()
            )
            for i in range(7)
        ],
        1,
    )
    torch.testing.assert_close(objective.gradient_columns(few, objective.loss), each)


def test_what_a_network_does_not_offer() -> None:
    objective = objective_of("mlp")
    assert (objective.intercepts, objective.dependent_columns, objective.together) == (0, 0, 1)
    assert objective.slope is None
    assert objective.in_float32() is None
    assert objective.path() is None
    assert not objective.hinged
    assert not objective.linear


def test_an_objective_is_its_own_differentiable_view(binary: Fitted) -> None:
    objective = binary.objective
    assert rule.objective_of(objective) is objective
    kind, *numbers = objective.identity()
    assert kind == "Logistic"
    assert torch.equal(torch.as_tensor(numbers[0]), objective.l2)
