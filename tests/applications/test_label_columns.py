"""Binary labels in one column, [n, 1], as torch's own losses take them, beside the same, [n]."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import whence
from whence.network.objective import ModuleObjective

_X = torch.randn(80, 4, generator=torch.Generator().manual_seed(0))
_Y = _X[:, 0] + 0.7 * _X[:, 1].square() > 0.5


def _binary(outputs: Tensor, targets: Tensor) -> Tensor:
    loss = nn.functional.binary_cross_entropy_with_logits
    return loss(outputs.flatten(), targets.flatten().to(outputs.dtype), reduction="none")


@cache
def _model() -> nn.Module:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
    recipe = whence.Recipe(learning_rate=1.0, batch_size=80, epochs=200, weight_decay=1e-2)
    return whence.train(model, whence.Logistic(), (_X, _Y), recipe).model


def _objective(y: Tensor, loss: Any) -> ModuleObjective:
    return whence.from_torch(_model(), loss, (_X, y), l2=1e-2)


@pytest.mark.parametrize("loss", [whence.Logistic(), _binary], ids=["Logistic", "function"])
@pytest.mark.parametrize("kind", [torch.float32, torch.int64, torch.bool])
@pytest.mark.parametrize("positive", [False, True])
def test_an_explanation_says_the_same_of_labels_in_a_column(
    loss: Any, kind: torch.dtype, positive: bool
) -> None:
    at = int((_Y if positive else ~_Y).nonzero()[0])
    said = []
    for y in (_Y.to(kind), _Y.to(kind).unsqueeze(1)):
        objective = _objective(y, loss)
        labeled = whence.explain(objective, (_X[at : at + 1], y[at : at + 1]), k=3)
        alone = (whence.explain(objective, x, k=3) for x in (_X[at : at + 1], _X[at]))
        said.append([str(labeled), *map(str, alone)])
    assert said[0] == said[1]
    assert f"the label in the data is {int(positive)}" in said[0][0]


@pytest.mark.parametrize("kind", [torch.float32, torch.int64])
def test_labels_in_a_column_are_judged_and_voted_for_as_others(
    kind: torch.dtype, tmp_path: Path
) -> None:
    found, votes = [], []
    for y in (_Y.to(kind), _Y.to(kind).unsqueeze(1)):
        objective = _objective(y, whence.Logistic())
        errors = whence.find_label_errors(objective, k=80)
        errors.report(tmp_path / "labels.html")
        found.append((errors.ranking, errors.suggested.flatten().numpy(), errors.agrees))
        neighbors = whence.KNNShapley().fit(objective)
        votes.append(neighbors.scores((_X[:7], y[:7]), measure="probability").values)
    for flat, column in zip(*found, strict=True):
        np.testing.assert_array_equal(flat, column)
    np.testing.assert_allclose(*votes)
