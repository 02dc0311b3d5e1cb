"""Dot products of gradients, against a loop over examples and checkpoints in float64."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import whence
from whence.errors import InvalidInput
from whence.linalg.structured import Dense
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


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
def test_checkpoints_scales_and_features_by_definition(
    case: tuple[Objective, tuple[Tensor, Tensor], list[Tensor]], scaled: bool, cosine: bool
) -> None:
    objective, queries, points = case
    generator, rates = torch.Generator().manual_seed(0), [0.5, 2.0]
    roots = [torch.randn(31, 31, generator=generator, dtype=torch.float64) for _ in rates]
    matrices = [root @ root.T if scaled else torch.eye(31).double() for root in roots]
    options: Any = {"checkpoints": points[:2], "learning_rates": rates, "cosine": cosine}
    if scaled:
        options["scales"] = [Dense(matrix) for matrix in matrices]
    train = objective.train.inputs, objective.train.targets  # type: ignore[attr-defined]
    expected = own = torch.zeros(())
    for point, rate, matrix in zip(points, rates, matrices, strict=False):
        q, g = (gradients(objective, point, data) for data in (queries, train))
        moved = g @ matrix
        products, squares = q @ moved.T, (g * moved).sum(1)
        if cosine:
            products = products / q.norm(dim=1, keepdim=True) / moved.norm(dim=1) / 2
            squares = squares / g.norm(dim=1) / moved.norm(dim=1) / 2
        else:
            products, squares = (
                rate * each * objective.weights / 20 for each in (products, squares)
            )
        expected, own = expected + products, own + squares
    method = whence.TracIn(**options)
    found = method.fit(objective)
    np.testing.assert_allclose(found.scores(queries).values, expected, atol=1e-12)
    np.testing.assert_allclose(
        found.scores(queries, indices=[7, 2]).values, expected[:, [7, 2]], atol=1e-12
    )
    np.testing.assert_allclose(found.self_scores([9, 4]), own[[9, 4]], atol=1e-12)
    assert ("scaled as by the optimizer" in found.words) == scaled
    assert (found.unit == ", as the cosine of two gradients") == cosine
    features = method.feature_map(objective)
    rows, columns = (
        features.rows(objective.train),
        features.queries(objective.examples(queries), objective.loss),
    )
    shares = 1 if cosine else objective.weights / 20
    np.testing.assert_allclose(columns @ rows.T * shares, expected, atol=1e-12)
    projected = whence.TracIn(**options, size=10_000).fit(objective)  # nothing projected away
    np.testing.assert_allclose(projected.scores(queries).values, expected, atol=1e-12)
    assert "projected to 10000 x 10000 per layer" in projected.words


def test_a_gradient_of_zero_has_no_direction() -> None:
    x, y = torch.randn(6, 3, dtype=torch.float64), torch.arange(6) % 2
    x[2] = 0
    model = nn.Linear(3, 2, bias=False).double()
    objective = whence.from_torch(model, whence.CrossEntropy(), (x, y))
    for size in (None, 5):
        found = whence.TracIn(cosine=True, size=size).fit(objective)
        values = found.scores((x, y)).values
        assert (values[2] == 0).all()
        assert (values[:, 2] == 0).all()
        np.testing.assert_allclose(found.self_scores(), [1, 1, 0, 1, 1, 1])


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
        ({"learning_rates": [np.inf]}, "finite number"),
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


def test_a_recorded_training_gives_checkpoints_rates_and_scales() -> None:
    points, scales = (torch.zeros(2), torch.ones(2)), (Dense(torch.eye(2)), Dense(torch.eye(2)))
    path = SimpleNamespace(points=points, rates=(0.1, 0.2), scales=scales)
    run: Any = SimpleNamespace(path=lambda: path)
    along = whence.TracIn().along(run)
    assert (along.checkpoints, along.learning_rates, along.scales) == (points, (0.1, 0.2), None)
    assert whence.TracIn(optimizer=True).along(run).scales == scales
    assert whence.TracIn(optimizer=True, learning_rates=[3.0]).rates == (3.0,)
    given = whence.TracIn(checkpoints=points, learning_rates=[1.0, 3.0])
    assert given.along(run) is given
    nothing: Any = SimpleNamespace(path=lambda: None)
    assert whence.TracIn().along(nothing) == whence.TracIn()
    path.scales = None
    for trained in (run, nothing):
        with pytest.raises(InvalidInput, match="second moments of its optimizer"):
            whence.TracIn(optimizer=True).along(trained)


def test_options_that_cannot_be_used() -> None:
    with pytest.raises(InvalidInput, match="size >= 1"):
        whence.TracIn(size=0)
    assert whence.TracIn(size=1).size == 1
    with pytest.raises(InvalidInput, match="one operator of scales for each of 1 checkpoints"):
        whence.TracIn(scales=[Dense(torch.eye(2)), Dense(torch.eye(2))])
    assert whence.TracIn(learning_rates=[0.0]).rates == (0.0,)
