"""Every product of a linear objective against dense differentiation in float64."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import Tensor

import whence
from whence.fitting.refit import refit
from whence.linear.features import DenseFeatures, SparseFeatures
from whence.linear.objective import InputMap, LinearExamples, LinearObjective
from whence.objective.derived_losses import OneVersusRest
from whence.objective.losses import Loss

_N, _D = 40, 5
_EXACT = {"rtol": 1e-10, "atol": 1e-12}


@dataclass(frozen=True)
class Plain(InputMap):
    """Rows are features as they are."""

    def encode(self, data: Any) -> LinearExamples:
        x, y = data
        return examples(x, y)

    def features_of(self, inputs: Tensor) -> DenseFeatures:
        return DenseFeatures(inputs)

    def vjp(self, examples: LinearExamples, *terms: tuple[Tensor, Tensor]) -> Tensor:
        parts = [w @ params[: w.shape[1] * _D].reshape(w.shape[1], _D) for params, w in terms]
        return torch.stack(parts).sum(0)

    def lift(self, v: Tensor) -> Tensor:
        return v


def examples(x: Tensor, y: Tensor) -> LinearExamples:
    return LinearExamples(features=DenseFeatures(x), targets=y, ids=np.arange(len(y)), inputs=x)


def build(
    loss: Loss, c: int, y: Tensor, *, constant: float | None = 1.0, l2: float = 0.1
) -> LinearObjective:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(_N, _D, generator=generator, dtype=torch.float64)
    p = c * (_D + (constant is not None))
    penalty = torch.full((p,), l2, dtype=torch.float64)
    if constant is not None:
        penalty[c * _D :] = 0
    return LinearObjective(
        loss=loss,
        trained_loss=loss,
        train=examples(x, y),
        weights=torch.linspace(0.5, 2, _N, dtype=torch.float64),
        params=0.3 * torch.randn(p, generator=generator, dtype=torch.float64),
        l2=penalty,
        constant=constant,
        inputs=Plain(),
        refit_with=refit,
    )


_INDICES = torch.arange(_N) % 3
_SIGNS = (torch.arange(_N) % 2).double()
CASES = {
    "softmax": lambda: build(whence.CrossEntropy(), 3, _INDICES),
    "softmax without intercept": lambda: build(whence.CrossEntropy(), 3, _INDICES, constant=None),
    "softmax, unpenalized": lambda: build(whence.CrossEntropy(), 3, _INDICES, l2=0.0),
    "logistic": lambda: build(whence.Logistic(), 1, _SIGNS),
    "scaled intercept": lambda: build(whence.Logistic(), 1, _SIGNS, constant=3.0),
    "one versus rest": lambda: build(OneVersusRest(whence.Logistic()), 3, _INDICES),
    "squared": lambda: build(whence.SquaredError(), 1, _SIGNS - 0.3, constant=None),
}


@pytest.fixture(params=[*CASES, "sparse"])
def objective(request: pytest.FixtureRequest) -> LinearObjective:
    if request.param != "sparse":
        return CASES[request.param]()
    dense = CASES["softmax"]()
    matrix = sparse.csr_array(dense.train.features.dense().numpy())
    return replace(dense, train=replace(dense.train, features=SparseFeatures(matrix)))


def outputs(objective: LinearObjective, params: Tensor) -> Tensor:
    x = objective.train.features.dense()
    c = objective.c
    f = x @ params[: c * _D].reshape(c, _D).T
    return f if objective.constant is None else f + objective.constant * params[c * _D :]


def gradients(objective: LinearObjective, params: Tensor) -> Tensor:
    leaf = params.clone().requires_grad_()
    losses = objective.loss(outputs(objective, leaf), objective.train.targets)
    return torch.stack([torch.autograd.grad(x, leaf, retain_graph=True)[0] for x in losses])


def hessian(objective: LinearObjective) -> Tensor:
    def risk(params: Tensor) -> Tensor:
        losses = objective.loss(outputs(objective, params), objective.train.targets)
        return (objective.weights * losses).mean() + (objective.l2 * params**2).sum() / 2

    return torch.autograd.functional.hessian(risk, objective.params)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def test_gradients(objective: LinearObjective) -> None:
    G = gradients(objective, objective.params)
    v, w = random(len(objective.params), 3), random(_N, 3)
    train, loss = objective.train, objective.loss
    torch.testing.assert_close(objective.gradient_dot(train, loss, v), G @ v, **_EXACT)
    torch.testing.assert_close(objective.gradient_sum(train, loss, w), G.T @ w, **_EXACT)


def test_displaced_gradients(objective: LinearObjective) -> None:
    deltas, w = random(len(objective.params), 2), random(_N, 2)
    summed = objective.gradient_at(objective.train, w, deltas)
    for k in range(2):
        G = gradients(objective, objective.params + deltas[:, k])
        torch.testing.assert_close(summed[:, k], G.T @ w[:, k], **_EXACT)
        there = outputs(objective, objective.params + deltas[:, k])
        torch.testing.assert_close(
            objective.outputs_at(objective.train, deltas)[..., k], there, **_EXACT
        )


def test_hessian(objective: LinearObjective) -> None:
    truth = hessian(objective)
    torch.testing.assert_close(objective.dense_hessian(), truth, **_EXACT)
    v = random(len(truth), 3)
    torch.testing.assert_close(objective.hvp(v), truth @ v, **_EXACT)
    torch.testing.assert_close(objective.ggnvp(v), truth @ v, **_EXACT)


def test_jacobian_products(objective: LinearObjective) -> None:
    p, c = len(objective.params), objective.c
    J = torch.autograd.functional.jacobian(lambda t: outputs(objective, t), objective.params)
    v, w = random(p, 2), random(_N, c, 2)
    torch.testing.assert_close(objective.jvp(objective.train, v), J @ v, **_EXACT)
    back = torch.einsum("bcp,bck->pk", J, w)
    torch.testing.assert_close(objective.vjp(objective.train, w), back, **_EXACT)


def test_flat_directions_are_flat_and_complete(objective: LinearObjective) -> None:
    flat = objective.flat_directions()
    truth = hessian(objective)
    torch.testing.assert_close(truth @ flat, torch.zeros_like(flat), **_EXACT)
    null = int((torch.linalg.eigvalsh(truth) < 1e-10).sum())
    assert flat.shape[1] == null
    torch.testing.assert_close(flat.T @ flat, torch.eye(null, dtype=torch.float64), **_EXACT)


def test_restricted_objectives_average_to_the_whole(objective: LinearObjective) -> None:
    v = random(len(objective.params), 1)
    parts = [objective.restricted(np.array([i])).hvp(v) for i in range(_N)]
    torch.testing.assert_close(torch.stack(parts).mean(0), objective.hvp(v), **_EXACT)


@pytest.mark.parametrize("name", CASES)
def test_float32_twin_has_the_same_products(name: str) -> None:
    objective = CASES[name]()
    x = objective.train.features.dense().clone()
    x[:, 2] = 0
    objective = replace(objective, train=examples(x, objective.train.targets))
    twin = objective.in_float32()
    assert twin is not None
    assert twin is objective.in_float32()
    close = {"rtol": 1e-4, "atol": 1e-5}
    v, w = random(len(objective.params), 3), random(_N, 3)
    loss, exact, train = objective.loss, objective.train, twin.train
    for narrow, wide in (
        (twin.dense_hessian(), hessian(objective)),
        (twin.hvp(v.float()), objective.hvp(v)),
        (twin.gradient_dot(train, loss, v.float()), objective.gradient_dot(exact, loss, v)),
        (
            twin.gradient_at(train, w.float(), v.float()),
            objective.gradient_at(exact, w, v),
        ),
    ):
        assert narrow.dtype == torch.float32
        torch.testing.assert_close(narrow.double(), wide, **close)
