"""A training run as a model: its objective, and refits that repeat the training."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import whence
from whence.errors import UnsupportedModel
from whence.training.checkpoints import InMemory
from whence.training.run import Run

_N = 14


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(_N, 3, generator=generator, dtype=torch.float64), torch.arange(_N) % 2


def queries() -> tuple[Tensor, Tensor]:
    x, y = data()
    return x[:3] + 0.1, y[:3]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def trained(weights: Tensor | None = None, **options: Any) -> Run:
    given: dict[str, Any] = {"learning_rate": 0.1, "batch_size": 5, "epochs": 6}
    recipe = whence.Recipe(**{**given, **options})
    return whence.train(network(), whence.CrossEntropy(), data(), recipe, weights=weights)


def without(*positions: int) -> Tensor:
    weights = torch.ones(_N, dtype=torch.float64)
    weights[list(positions)] = 0
    return weights


def test_the_objective_is_that_of_the_trained_module() -> None:
    run = trained(weight_decay=0.02)
    objective = run.objective()
    assert objective is run.differentiable() is run.objective()
    twin = whence.from_torch(run.model, whence.CrossEntropy(), data(), l2=0.02)
    torch.testing.assert_close(objective.params, twin.params)
    v = torch.randn(len(twin.params), 2, dtype=torch.float64)
    torch.testing.assert_close(objective.hvp(v), twin.hvp(v))
    torch.testing.assert_close(run.outputs(run.examples(queries())), run.model(queries()[0]))


@pytest.mark.parametrize("options", [{}, {"optimizer": "adamw", "weight_decay": 0.1}])
def test_a_refit_repeats_the_training(options: dict[str, Any]) -> None:
    run = trained(**options)
    rows = torch.stack([without(2), without(0, 5)])
    expected = [trained(row, **options).params for row in rows]
    for fitted, params in zip(run.refits(rows), expected, strict=True):
        torch.testing.assert_close(fitted.params, params, rtol=0, atol=1e-12)
    again = run.objective().refit(rows[0])
    torch.testing.assert_close(again.params, expected[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(again.weights, rows[0])
    torch.testing.assert_close(run.refit().params, run.params, rtol=0, atol=1e-12)


def test_retrainings_through_the_objective_are_those_of_the_run() -> None:
    run = trained()
    before = run.outputs(run.examples(queries()))
    after = trained(without(3)).outputs(run.examples(queries()))
    loss = whence.CrossEntropy()
    truth = (loss(after, queries()[1]) - loss(before, queries()[1])).numpy()
    for model in (run, run.objective()):
        found = whence.leave_one_out(model, [3], queries())
        np.testing.assert_allclose(found[:, 0], truth, rtol=0, atol=1e-12)
        group = whence.group_effect(model, [3], queries(), order="refit")
        np.testing.assert_allclose(group, truth, rtol=0, atol=1e-12)


def test_a_network_without_its_training_is_not_refitted() -> None:
    objective = whence.from_torch(network(), whence.CrossEntropy(), data())
    with pytest.raises(UnsupportedModel, match=r"whence\.train"):
        objective.refit()
    with pytest.raises(UnsupportedModel, match=r"whence\.train"):
        whence.leave_one_out(objective, [0], queries())


def test_what_a_reader_must_know() -> None:
    assert trained().notes == ()
    decoupled = trained(optimizer="adamw", weight_decay=0.1)
    assert "AdamW" in " ".join(decoupled.objective().notes)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_copies_are_trained_alike(duplicate: Any) -> None:
    run = trained()
    found = duplicate(run).refit(without(1)).params
    torch.testing.assert_close(found, run.refit(without(1)).params, rtol=0, atol=0)


def test_a_pickled_run_is_a_model() -> None:
    run = dataclasses.replace(trained(), checkpoints=InMemory())
    _ = run.objective()
    again = pickle.loads(pickle.dumps(run))
    torch.testing.assert_close(again.refit(without(1)).params, run.refit(without(1)).params)


def test_a_directory_belongs_to_its_inputs_by_name(tmp_path: Path) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Linear(3, 2)

        def forward(self, one: Tensor, two: Tensor) -> Tensor:
            return self.layer(one - 2 * two)

    x, y = data()
    recipe = whence.Recipe(learning_rate=0.1, batch_size=5, epochs=2, dtype=torch.float64)
    whence.train(
        Named(), whence.CrossEntropy(), ({"one": x, "two": -x}, y), recipe, directory=tmp_path
    )
    with pytest.raises(whence.errors.InvalidInput, match="Got another data"):
        whence.train(
            Named(), whence.CrossEntropy(), ({"two": x, "one": -x}, y), recipe, directory=tmp_path
        )
