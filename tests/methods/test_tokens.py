"""Scores of tokens against the gradient of each token's own loss, one by one, in float64."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.func import functional_call
from torch.nn import functional

import whence
from tests.network.zoo import SIZE, model_of, objective_of
from whence.curvature.exact import GGN
from whence.errors import InvalidInput, UnsupportedModel, WhenceError
from whence.linalg import CG, materialize
from whence.network.objective import ModuleObjective

pytestmark = pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")

_DAMPING = 0.3
_QUERIES = 2
_INFLUENCE = whence.Influence(solver=whence.EKFAC(), damping=_DAMPING)


@functools.cache
def sequences() -> ModuleObjective:
    """A small transformer whose last targets are ignored."""
    objective = objective_of("gpt2")
    targets = objective.train.targets.clone()
    targets[1, 3:] = targets[4, 0] = -100
    data = (objective.train.inputs, targets)
    return whence.from_torch(
        model_of("gpt2")[0],
        whence.CrossEntropy(),
        data,
        l2=0.1,
        weights=objective.weights,
    )


def token_gradient(objective: ModuleObjective, i: int, t: int) -> torch.Tensor:
    """The gradient of one token's loss, by differentiating it alone."""
    target = objective.train.targets[i, t]
    if target == -100:
        return torch.zeros_like(objective.params)
    named = {name: objective.params[at].view(objective.shapes[name]) for name, at in
             objective.slices.items()}  # fmt: skip
    leaves = {name: value.clone().requires_grad_() for name, value in named.items()}
    tokens = {"input_ids": objective.train.inputs["input_ids"][i : i + 1]}
    logits = functional_call(objective.model, leaves, (), tokens)
    loss = functional.cross_entropy(logits[0, t], target)
    gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in gradients])


@pytest.fixture(scope="module")
def inverse() -> torch.Tensor:
    """(G + λ I)⁻¹ as a matrix."""
    matrix = materialize(GGN(sequences()))
    return torch.linalg.inv(matrix + _DAMPING * torch.eye(len(matrix)).double())


def test_each_part_is_the_influence_of_one_tokens_loss(inverse: torch.Tensor) -> None:
    objective = sequences()
    queries = objective.train.subset(np.arange(_QUERIES))
    found = whence.influence_by_token(
        objective, queries, solver=CG(rtol=1e-12), damping=_DAMPING, indices=[1, 4, 6]
    )
    tokens = objective.train.targets.shape[1]
    whole = [sum(token_gradient(objective, q, s) for s in range(tokens)) for q in range(_QUERIES)]
    for row, i in enumerate([1, 4, 6]):
        for t in range(tokens):
            g = token_gradient(objective, i, t)
            for q, m in enumerate(whole):
                expected = float(m @ inverse @ g * objective.weights[i] / SIZE)
                assert found.values[q, row, t] == pytest.approx(expected, rel=1e-7, abs=1e-12)
    assert found.targets.tolist() == objective.train.targets[[1, 4, 6]].tolist()


def test_parts_add_up_and_ignored_tokens_have_none() -> None:
    objective = sequences()
    queries = objective.train.subset(np.arange(_QUERIES))
    options = {"solver": whence.EKFAC(), "damping": _DAMPING, "measure": "margin"}
    found = whence.influence_by_token(objective, queries, **options)
    whole = whence.influence(objective, queries, **options)
    np.testing.assert_allclose(found.values.sum(2), whole.values, rtol=1e-9, atol=1e-12)
    ignored = np.broadcast_to(found.targets == -100, found.values.shape)
    assert ignored.any()
    assert (found.values[ignored] == 0).all()
    assert (found.values[~ignored] != 0).any()


def test_each_part_is_the_influence_on_one_token_of_the_answer(inverse: torch.Tensor) -> None:
    objective = sequences()
    queries = objective.train.subset(np.array([1, 4]))
    options = {"solver": CG(rtol=1e-12), "damping": _DAMPING, "indices": [0, 6]}
    found = whence.influence_by_token(objective, queries, side="query", **options)
    tokens = objective.train.targets.shape[1]
    for row, i in enumerate([0, 6]):
        g = sum(token_gradient(objective, i, s) for s in range(tokens))
        for q, query in enumerate([1, 4]):
            for t in range(tokens):
                m = token_gradient(objective, query, t)
                expected = float(m @ inverse @ g * objective.weights[i] / SIZE)
                assert found.values[q, row, t] == pytest.approx(expected, rel=1e-7, abs=1e-12)
    assert found.targets.tolist() == objective.train.targets[[1, 4]].tolist()
    whole = whence.influence(objective, queries, **options)
    np.testing.assert_allclose(found.values.sum(2), whole.values, rtol=1e-7)


@pytest.mark.parametrize("side", ["training", "query"])
@pytest.mark.parametrize(
    "method",
    [
        whence.Projected(size=3),
        whence.Projected(size=3, moment="layers", damping=0.1),
        whence.Projected(projection="dense", size=50, moment="none"),
        whence.Projected(solver=whence.EKFAC(), size=3),
        _INFLUENCE,
        "index",
    ],
    ids=str,
)
def test_parts_of_a_method_add_up_to_its_scores(method: Any, side: Any, tmp_path: Path) -> None:
    objective = sequences()
    queries = objective.train.subset(np.array([1, 4]))
    if method == "index":
        index = whence.Index.build(objective, tmp_path / "index", rows="float32")
        method = whence.Stored(index)
    options = {"method": method, "side": side, "indices": [0, 4, 6]}
    if side == "query" and getattr(method, "solver", None) and method != _INFLUENCE:
        with pytest.raises(UnsupportedModel, match="side='training'"):
            whence.influence_by_token(objective, queries, **options)
        return
    found = whence.influence_by_token(objective, queries, **options)
    whole = method.fit(objective).scores(queries, indices=[0, 4, 6])
    np.testing.assert_allclose(found.values.sum(2), whole.values, rtol=2e-4, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": whence.Projected(), "damping": 1.0}, "without method="),
        ({"method": whence.BM25()}, "products of gradients"),
        ({"method": whence.TracIn()}, "products of gradients"),
        ({"method": whence.Influence(normalize="loss")}, "products of gradients"),
    ],
)
def test_methods_without_parts_are_refused(options: Any, message: str) -> None:
    objective = sequences()
    with pytest.raises(WhenceError, match=message):
        whence.influence_by_token(objective, objective.train.subset(np.arange(1)), **options)


@pytest.mark.parametrize("side", ["training", "query"])
def test_frame_has_a_row_per_token(side: Any) -> None:
    objective = sequences()
    queries = objective.train.subset(np.arange(2))
    found = whence.influence_by_token(
        objective, queries, side=side, solver=whence.EKFAC(), damping=_DAMPING
    )
    frame = found.to_frame()
    assert frame.shape == ((SIZE * 5, 2) if side == "training" else (2 * 5, SIZE))
    cell = ((3, 2), 1) if side == "training" else ((1, 2), 3)
    assert frame.loc[cell] == found.values[1, 3, 2]


def test_models_of_single_outputs_are_refused() -> None:
    objective = objective_of("mlp")
    with pytest.raises(InvalidInput, match=r"outputs \[b, 3\].*whence.influence"):
        whence.influence_by_token(objective, objective.train, damping=_DAMPING)
