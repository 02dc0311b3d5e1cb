"""Projected gradients, against dense influence in float64 where nothing is projected away."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import whence
from tests.network.zoo import ZOO, objective_of
from whence.errors import InvalidInput, NotPositiveDefinite, UnsupportedModel
from whence.methods import projections
from whence.methods.subspace import Plan
from whence.network.objective import ModuleObjective

_LARGE = 10_000


def gradients(objective: ModuleObjective, examples: Any, function: Any) -> Tensor:
    """Return ∇f of each example, differentiated alone, [b, p]."""
    rows = []
    for b in range(len(examples)):
        one = examples.subset(np.array([b]))
        named = {
            name: objective.params[at].reshape(objective.shapes[name]).clone().requires_grad_()
            for name, at in objective.slices.items()
        }
        inputs = one.inputs
        arguments, words = ((), inputs) if isinstance(inputs, dict) else ((inputs,), {})
        outputs = functional_call(objective.model, named, arguments, words)
        parts = torch.autograd.grad(function(outputs, one.targets).sum(), list(named.values()))
        rows.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(rows)


def dense_scores(objective: ModuleObjective, asked: Any, output: Any, damping: float) -> Tensor:
    loss, n = objective.loss, len(objective.train)
    w = objective.weights / n
    phi = gradients(objective, objective.train, output)
    curvature = (phi.T * w) @ phi + (damping + 0.1) * torch.eye(phi.shape[1]).double()
    of_queries = gradients(objective, asked, loss)
    return of_queries @ torch.linalg.solve(
        curvature, gradients(objective, objective.train, loss).T * w
    )


@pytest.mark.parametrize("name", sorted(ZOO))
def test_nothing_projected_away_is_influence_with_the_empirical_fisher(name: str) -> None:
    objective = objective_of(name)
    asked = objective.train.subset(np.arange(3))
    expected = dense_scores(objective, asked, objective.loss, 0.05)
    for size in (_LARGE, None) if name == "mlp" else (_LARGE,):
        found = whence.projected(objective, asked, size=size, damping=0.05)
        np.testing.assert_allclose(found.values, expected, atol=1e-10)


def test_the_margin_gives_trak() -> None:
    objective = objective_of("mlp")
    asked = objective.train.subset(np.arange(3))
    expected = dense_scores(objective, asked, objective.loss.margin, 0.05)
    found = whence.projected(
        objective, asked, output="margin", projection="dense", size=_LARGE, damping=0.05
    )
    np.testing.assert_allclose(found.values, expected, atol=1e-10)
    assert "of the margin, damping 0.05 (as asked)" in found.method
    # TRAK's own number is the change of the margin: −(1 − p) is what turns it into the loss.
    margins = whence.projected(
        objective, asked, output="margin", measure="margin", size=_LARGE, damping=0.05
    )
    p = objective.loss.probability(objective.outputs(asked), asked.targets)
    np.testing.assert_allclose(found.values, margins.values * -(1 - p).unsqueeze(1).numpy())


@pytest.mark.parametrize("damping", [None, 0.3])
@pytest.mark.parametrize("moment", ["joint", "layers", "none"])
@pytest.mark.parametrize("output", ["loss", "margin"])
def test_moments_by_definition(output: str, moment: Any, damping: float | None) -> None:
    objective = objective_of("mlp")
    asked, n = objective.train.subset(np.arange(3)), len(objective.train)
    method = whence.Projected(output=output, moment=moment, size=2, damping=damping)
    space = Plan(output, "factored", 2, 0, 2e-2).project(objective)
    rows, shares = space.rows, objective.weights / n
    sizes = [block.size for block in space.project.blocks]
    d = sum(sizes)
    sizes = {"joint": [d], "layers": sizes, "none": []}[moment]
    ends = np.cumsum([0, *sizes]).tolist()
    groups = tuple(slice(a, b) for a, b in pairwise(ends))
    inverse, l2 = torch.eye(d).double(), float(objective.l2.mean())
    for at in groups:
        k = (rows[:, at].T * shares) @ rows[:, at]
        amount = float(k.trace()) / len(k) if damping is None else damping
        inverse[at, at] = torch.linalg.inv(k + (amount + l2) * torch.eye(len(k)))
    products = space.project(asked, objective.loss)
    expected = products @ inverse @ (rows * (space.slopes * shares).unsqueeze(1)).T
    found = method.fit(objective)
    np.testing.assert_allclose(found.scores(asked).values, expected, atol=1e-12)
    some = found.scores(asked, indices=[5, 1]).values
    np.testing.assert_allclose(some, expected[:, [5, 1]], atol=1e-12)
    named = {
        "joint": f"influence in {d} projected dimensions (2 x 2 per layer, seed 0), second moment "
        f"of the gradients of the {output}, damping ",
        "layers": f"second moment of the gradients of the {output}, layer by layer, damping ",
        "none": f"inner products of the gradients of the {output} in {d} projected dimensions",
    }
    assert named[moment] in found.words
    assert ("the mean eigenvalue" in found.words) == (damping is None and moment != "none")
    features = method.feature_map(objective)
    assert features.groups == groups
    assert features.penalty == l2
    torch.testing.assert_close(features.rows(objective.train), rows)
    torch.testing.assert_close(features.slopes(objective.train), space.slopes.unsqueeze(1))
    torch.testing.assert_close(features.queries(asked, objective.loss), products)
    twice = whence.Projected(moment=moment, size=2, checkpoints=[objective.params] * 2)
    features = twice.feature_map(objective)
    assert features.groups == (*groups, *(slice(g.start + d, g.stop + d) for g in groups))
    halves = features.queries(asked, objective.loss)
    torch.testing.assert_close(halves, torch.cat([products, products], 1) / 2)


@pytest.mark.parametrize("projection", ["factored", "dense"])
def test_scores_approach_the_exact_ones_as_dimensions_grow(projection: Any) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(40, 12, dtype=torch.float64), torch.arange(40) % 4
    model = nn.Sequential(nn.Linear(12, 20), nn.Tanh(), nn.Linear(20, 4)).double()
    objective = whence.from_torch(model, whence.CrossEntropy(), (x, y), l2=0.1)
    asked = objective.train.subset(np.arange(5))
    exact = dense_scores(objective, asked, objective.loss, 0.05).numpy()
    errors = []
    for size in (3, 8, 16) if projection == "factored" else (9, 64, 256):
        found = [
            whence.projected(
                objective, asked, projection=projection, size=size, damping=0.05, seed=seed
            ).values
            for seed in range(8)
        ]
        errors.append(np.mean([np.linalg.norm(f - exact) for f in found]) / np.linalg.norm(exact))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.35 * errors[0]


def test_both_grams_and_all_blocks_give_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(60, 5, dtype=torch.float64), torch.arange(60) % 3
    model = nn.Linear(5, 3).double()
    objective = whence.from_torch(model, whence.CrossEntropy(), (x, y))
    few = objective.restricted(np.arange(10))
    for case, shape in ((objective, "d <= n"), (few, "n < d")):
        scores = [
            whence.projected(case, (x[:4], y[:4]), projection="dense", size=12).values,
        ]
        monkeypatch.setattr(projections, "_BUDGET", 40)  # two columns of 18 at once
        again = case.reweighted(case.weights)
        scores.append(whence.projected(again, (x[:4], y[:4]), projection="dense", size=12).values)
        monkeypatch.undo()
        np.testing.assert_allclose(scores[1], scores[0], atol=1e-12, err_msg=shape)
        rows = Plan("loss", "dense", 12, 0, 1e-2).project(case).rows
        assert rows.shape == (len(case.train), 12)
        n, weights = len(rows), case.weights
        gram = rows.T @ rows / n
        damped = gram + gram.trace() / 12 * torch.eye(12).double()
        asked = projections.Whole(case, 12, 0)(case.examples((x[:4], y[:4])), case.loss)
        expected = asked @ torch.linalg.solve(damped, (rows * weights.unsqueeze(1) / n).T)
        np.testing.assert_allclose(scores[0], expected, atol=1e-12, err_msg=shape)


def test_batches_and_company_change_nothing() -> None:
    objective = objective_of("gpt2")
    asked = objective.train.subset(np.arange(4))
    scores = whence.projected(objective, asked, size=3).values
    other = whence.projected(objective_of("gpt2", batch_size=2), asked, size=3).values
    np.testing.assert_allclose(other, scores, atol=1e-12)
    alone = whence.projected(objective, asked.subset(np.array([2])), size=3).values
    np.testing.assert_allclose(alone[0], scores[2], atol=1e-12)


def test_a_model_without_layers_is_projected_whole() -> None:
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    x, y = load_iris(return_X_y=True)
    model = LogisticRegression(tol=1e-8, max_iter=1000).fit(x, y)
    objective = whence.from_sklearn(model, x, y)
    scores = whence.projected(objective, (x[:3], y[:3]), output="margin")
    exact = whence.influence(objective, (x[:3], y[:3])).values
    assert np.corrcoef(scores.values[0], exact[0])[0, 1] > 0.5
    assert "15 projected dimensions" in scores.method


def test_checkpoints_are_averaged() -> None:
    objective = objective_of("mlp")
    asked = objective.train.subset(np.arange(2))
    points = [objective.params, objective.params + 0.1]
    found = whence.projected(objective, asked, checkpoints=points)
    parts = [whence.projected(objective.at(point), asked).values for point in points]
    np.testing.assert_allclose(found.values, np.mean(parts, axis=0))
    assert found.method.startswith("mean of 2")


def test_training_data_are_projected_once(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = objective_of("mlp")
    asked = objective.train.subset(np.arange(2))
    first = whence.projected(objective, asked)

    def refuse(*_: Any) -> Any:
        raise AssertionError("projected again")

    monkeypatch.setattr(Plan, "project", refuse)
    np.testing.assert_array_equal(whence.projected(objective, asked).values, first.values)
    whence.projected(objective, asked, damping=3.0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rtol": 1.0}, InvalidInput, "0 < rtol < 1"),
        ({"rtol": 0.0}, InvalidInput, "0 < rtol < 1"),
        ({"projection": "sparse"}, InvalidInput, "'sparse'"),
        ({"size": 0}, InvalidInput, "size=0"),
        ({"damping": -1.0}, InvalidInput, "Got -1.0"),
        ({"checkpoints": []}, InvalidInput, "Got 0 checkpoints"),
        ({"checkpoints": [torch.zeros(2)]}, InvalidInput, r"Got shape \[2\]"),
        ({"output": lambda f, y: f[:, 0]}, UnsupportedModel, "decides the loss"),
    ],
)
def test_bad_input(options: dict[str, Any], error: type[Exception], message: str) -> None:
    objective = objective_of("mlp")
    with pytest.raises(error, match=message):
        whence.projected(objective, objective.train.subset(np.arange(2)), **options)


def test_a_singular_second_moment_asks_for_damping() -> None:
    x, y = torch.randn(5, 4), torch.arange(5) % 3
    objective = whence.from_torch(nn.Linear(4, 3), whence.CrossEntropy(), (x, y))
    with pytest.raises(NotPositiveDefinite, match="5 examples in 15 dimensions"):
        whence.projected(objective, (x, y), damping=0.0)


@pytest.mark.parametrize("n", [60, 12])
def test_float32_and_unequal_weights_are_float64_but_for_rounding(n: int) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(n, 4), torch.arange(n) % 3
    weights, exact = torch.rand(n) + 0.5, nn.Linear(4, 3, dtype=torch.float64)
    scores = []
    for dtype in (torch.float32, torch.float64):
        model = nn.Linear(4, 3, dtype=dtype)
        model.load_state_dict(exact.state_dict())
        objective = whence.from_torch(
            model, whence.CrossEntropy(), (x.to(dtype), y), l2=0.1, weights=weights
        )
        scores.append(whence.projected(objective, (x[:2].to(dtype), y[:2]), rtol=1e-3).values)
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-3, atol=1e-5 * abs(scores[1]).max())


@pytest.mark.parametrize(("rtol", "rounded"), [(2e-2, True), (1.9e-2, False)])
def test_half_of_the_error_is_for_rounded_passes(
    rtol: float, rounded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients of the training data have one half, those of the queries the other."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    data = torch.randn(6, 3), torch.arange(6) % 2
    objective = whence.from_torch(nn.Linear(3, 2), whence.CrossEntropy(), data)
    plan = Plan(output="loss", projection="dense", size=2, seed=0, rtol=rtol)
    features = plan.features(objective)
    assert isinstance(features.objective, ModuleObjective)
    assert features.objective.bf16 == rounded
