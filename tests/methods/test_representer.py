"""Representer terms, against a loop over examples and outputs, and against the outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import ElasticNet, LinearRegression, LogisticRegression
from torch import Tensor, nn

import whence
from whence.errors import NotConvergedWarning, UnsupportedModel
from whence.objective.objective import Objective


def naive_terms(
    phi: Tensor, phi_q: Tensor, errors: Tensor, weights: Tensor, l2: float, intercept: bool
) -> Tensor:
    """Return −(wᵢ/n) ∂ℓᵢ/∂f (φᵢᵀφ_q + [intercept])/l2, one number at a time, [q, n, c]."""
    q, n, c = len(phi_q), len(phi), errors.shape[1]
    terms = torch.empty(q, n, c, dtype=torch.float64)
    for a in range(q):
        for i in range(n):
            product = float(phi[i] @ phi_q[a]) + intercept
            for k in range(c):
                terms[a, i, k] = -weights[i] / n * errors[i, k] * product / l2
    return terms


def fitted_module(penalized: bool = True, steps: int = 3000) -> tuple[Objective, nn.Module, Any]:
    """A two-layer network whose top layer is at its own stationary point, in float64."""
    torch.manual_seed(0)
    x, y = torch.randn(30, 4, dtype=torch.float64), torch.arange(30) % 3
    bottom = nn.Sequential(nn.Linear(4, 6), nn.Tanh()).double()
    top = nn.Linear(6, 3).double()
    optimizer = torch.optim.LBFGS(
        top.parameters(), max_iter=steps, tolerance_grad=1e-12, tolerance_change=0.0
    )
    with torch.no_grad():
        phi = bottom(x)

    def closure() -> Tensor:
        optimizer.zero_grad()
        penalty = top.weight.square().sum() + (top.bias.square().sum() if penalized else 0)
        value = nn.functional.cross_entropy(top(phi), y) + 0.05 * penalty / 2
        value.backward()
        return value

    optimizer.step(closure)
    model = nn.Sequential(bottom, top)
    chosen = None if penalized else {"1.weight"}
    objective = whence.from_torch(model, whence.CrossEntropy(), (x, y), l2=0.05, params=chosen)
    return objective, model, (x, y)


@pytest.mark.parametrize("penalized", [True, False])
def test_terms_of_a_network_sum_to_its_outputs(penalized: bool) -> None:
    objective, model, (x, y) = fitted_module(penalized)
    queries = x[:4] + 0.1, y[:4]
    outputs = model(queries[0]).detach()
    if not penalized:
        outputs = outputs - model[1].bias.detach()  # type: ignore[index]
    for k in range(3):
        found = whence.representer(objective, queries, measure=lambda f, _, k=k: f[:, k])
        np.testing.assert_allclose(-found.values.sum(1), outputs[:, k], atol=1e-7)


def test_scores_are_changes_of_the_loss_without_a_term() -> None:
    objective, model, (x, y) = fitted_module()
    queries = x[:4] + 0.1, y[:4]
    found = whence.representer(objective, queries)
    with torch.no_grad():
        phi, phi_q, f = model[0](x), model[0](queries[0]), model(queries[0])  # type: ignore[index]
        errors = torch.softmax(model(x), 1) - nn.functional.one_hot(y, 3)
        terms = naive_terms(phi, phi_q, errors, torch.ones(30).double(), 0.05, True)
        for a in range(4):
            for i in range(30):
                without = nn.functional.cross_entropy(f[a] - terms[a, i], y[a])
                change = float(without - nn.functional.cross_entropy(f[a], y[a]))
                assert abs(float(found.values[a, i]) - change) < 1e-12
    assert found.measure == "loss"
    assert any("sum to the outputs within" in note for note in found.diagnostics.notes)


def test_linear_models_with_free_and_penalized_intercepts() -> None:
    x, y = load_iris(return_X_y=True)
    weights = np.linspace(0.5, 2.0, 150)
    plain = LogisticRegression(tol=1e-12, max_iter=10_000).fit(x, y, sample_weight=weights)
    objective = whence.from_sklearn(plain, x, y, sample_weight=weights).refit()
    outputs = plain.decision_function(x[:5]) - plain.intercept_
    for k in range(3):
        found = whence.representer(objective, (x[:5], y[:5]), measure=lambda f, _, k=k: f[:, k])
        np.testing.assert_allclose(-found.values.sum(1), outputs[:, k], atol=1e-3)
    two = y < 2
    liblinear = LogisticRegression(solver="liblinear", tol=1e-12, max_iter=10_000)
    liblinear.fit(x[two], y[two])
    objective = whence.from_sklearn(liblinear, x[two], y[two])
    found = whence.representer(objective, (x[:5], y[:5]), measure=lambda f, _: f[:, 0])
    np.testing.assert_allclose(-found.values.sum(1), liblinear.decision_function(x[:5]), rtol=1e-4)


def test_frozen_features() -> None:
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images[:100], dtype=torch.float32).unsqueeze(1) / 16
    y = digits.target[:100]
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten()).requires_grad_(False)
    top = LogisticRegression(tol=1e-10, max_iter=5000).fit(network(images), y)
    objective = whence.from_frozen(network, top, images, y)
    found = whence.representer(objective, (images[:3], y[:3]), measure=lambda f, _: f[:, 4])
    expected = top.decision_function(network(images[:3]))[:, 4] - top.intercept_[4]
    np.testing.assert_allclose(-found.values.sum(1), expected, atol=1e-3)


def test_a_top_layer_that_has_not_converged_is_told() -> None:
    objective, _, (x, y) = fitted_module(steps=1)
    with pytest.warns(NotConvergedWarning, match="of the outputs left over"):
        whence.representer(objective, (x[:2], y[:2]))


def refused() -> list[tuple[Objective, str]]:
    torch.manual_seed(0)
    x, y = torch.randn(12, 4), torch.arange(12) % 3
    scaled = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    linear = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    lasso = ElasticNet(alpha=0.1).fit(x, y)
    return [
        (whence.from_torch(scaled, whence.CrossEntropy(), (x, y), l2=0.1), "last linear layer"),
        (whence.from_torch(linear, whence.CrossEntropy(), (x, y)), "Got 0"),
        (
            whence.from_torch(linear, whence.CrossEntropy(), (x, y), 0.1, {"0.weight"}),
            "last linear layer",
        ),
        (whence.from_sklearn(lasso, x.numpy(), y.numpy()), "L1 penalty"),
        (
            whence.from_sklearn(LinearRegression().fit(x, y), x.numpy(), y.numpy()),
            "Expected l2 > 0",
        ),
    ]


@pytest.mark.parametrize("which", range(5))
def test_other_models_are_refused(which: int) -> None:
    objective, message = refused()[which]
    with pytest.raises(UnsupportedModel, match=message):
        whence.representer(objective, objective.train.subset(np.arange(2)))


class TwiceTheSlope(nn.Module):
    """A layer whose outputs are those of a linear one, and whose gradients are twice as large."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.linear(x)
        return 2 * found - found.detach()


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_a_last_layer_is_known_in_any_unit(unit: float) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(12, 4), torch.randn(12, 1) * unit
    for model, known in ((nn.Sequential(nn.Linear(4, 1)), True), (TwiceTheSlope(), False)):
        with torch.no_grad():
            for each in model.parameters():
                each *= unit
        objective = whence.from_torch(model, whence.SquaredError(), (x, y), l2=0.1)
        if known:
            with pytest.warns(NotConvergedWarning):
                assert whence.representer(objective, (x[:2], y[:2])).values.shape == (2, 12)
        else:
            with pytest.raises(UnsupportedModel, match="last linear layer"):
                whence.representer(objective, (x[:2], y[:2]))
