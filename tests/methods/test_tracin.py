"""Dot products of gradients, against a loop over examples and checkpoints in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import whence
from whence.errors import InvalidInput
from whence.objective.objective import Objective


@pytest.fixture(scope="module")
def case() -> tuple[Objective, tuple[Tensor, Tensor], list[Tensor]]:
    torch.manual_seed(0)
    x, y = torch.randn(20, 3, dtype=torch.float64), torch.arange(20) % 3
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    weights = torch.rand(20, dtype=torch.float64)
    objective = whence.from_torch(model, whence.CrossEntropy(), (x, y), weights=weights, l2=0.1)
    points = [objective.params + 0.3 * torch.randn_like(objective.params) for _ in range(3)]
    return objective, (x[:5] + 0.1, y[:5]), points


def gradients(objective: Objective, params: Tensor, data: tuple[Tensor, Tensor]) -> Tensor:
    rows = []
    for x, y in zip(*data, strict=True):
        theta = params.clone().requires_grad_()
        weight, bias = theta[:12].reshape(4, 3), theta[12:16]
        top, shift = theta[16:28].reshape(3, 4), theta[28:]
        loss = nn.functional.cross_entropy(top @ torch.tanh(weight @ x + bias) + shift, y)
        rows.append(torch.autograd.grad(loss, theta)[0])
    return torch.stack(rows)


def test_sum_over_checkpoints(
    case: tuple[Objective, tuple[Tensor, Tensor], list[Tensor]],
) -> None:
    objective, queries, points = case
    rates = [0.5, 0.0, 2.0]
    found = whence.tracin(objective, queries, checkpoints=points, learning_rates=rates)
    train = objective.train.inputs, objective.train.targets  # type: ignore[attr-defined]
    expected = sum(
        rate * gradients(objective, p, queries) @ gradients(objective, p, train).T
        for rate, p in zip(rates, points, strict=True)
    )
    np.testing.assert_allclose(found.values, expected * objective.weights / 20, atol=1e-13)
    assert "3 checkpoints" in found.method


def test_cosine(case: tuple[Objective, tuple[Tensor, Tensor], list[Tensor]]) -> None:
    objective, queries, _ = case
    found = whence.tracin(objective, queries, cosine=True)
    train = objective.train.inputs, objective.train.targets  # type: ignore[attr-defined]
    q, g = (gradients(objective, objective.params, data) for data in (queries, train))
    expected = nn.functional.cosine_similarity(q.unsqueeze(1), g.unsqueeze(0), dim=2)
    np.testing.assert_allclose(found.values, expected, atol=1e-12)


def test_one_step_of_gradient_descent_is_predicted() -> None:
    """The last oracle: a small full-batch step, taken again without each example."""
    torch.manual_seed(1)
    data = torch.randn(12, 2, dtype=torch.float64), torch.randn(12, 1, dtype=torch.float64)
    query = torch.randn(1, 2, dtype=torch.float64), torch.randn(1, 1, dtype=torch.float64)
    model, rate = nn.Linear(2, 1).double(), 1e-5
    objective = whence.from_torch(model, whence.SquaredError(), data)
    found = whence.tracin(objective, query, learning_rates=[rate]).values[0]
    recipe = whence.Recipe(learning_rate=rate, batch_size=12, epochs=1, dtype=torch.float64)
    ends = []
    for i in (None, *range(12)):
        weights = torch.ones(12, dtype=torch.float64)
        if i is not None:
            weights[i] = 0
        run = whence.train(model, whence.SquaredError(), data, recipe, weights=weights)
        ends.append(float(run.program.losses(run.params, *query)[0]))
    np.testing.assert_allclose(found, np.array(ends[1:]) - ends[0], rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoints": []}, "Got 0 checkpoints"),
        ({"checkpoints": [torch.zeros(2)]}, r"Got shape \[2\]"),
        ({"learning_rates": [-1.0]}, "rates"),
        ({"learning_rates": [1.0, 1.0]}, "Got 1 checkpoints"),
    ],
)
def test_bad_input(
    case: tuple[Objective, tuple[Tensor, Tensor], list[Tensor]],
    options: dict[str, list[Tensor]],
    message: str,
) -> None:
    objective, queries, _ = case
    with pytest.raises(InvalidInput, match=message):
        whence.tracin(objective, queries, **options)  # type: ignore[arg-type]
