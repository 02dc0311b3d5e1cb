"""A curvature in a file of its own: the same scores in a later process, and refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import whence
import whence.curvature.kronecker as kronecker
from tests.damage import assert_noticed
from whence.curvature.kronecker import KroneckerSolver
from whence.errors import InvalidInput
from whence.network.objective import ModuleObjective

pytestmark = pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")


def made(*, n: int = 20, sequences: bool = False, shift: float = 0.0) -> ModuleObjective:
    """A small network: with a layer of its own kind, so that not all blocks are of layers."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    if sequences:
        x = torch.randint(6, (n, 5), generator=generator)
        model = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 5), nn.LayerNorm(5), nn.Flatten())
        model.append(nn.Linear(25, 3))
    else:
        x = torch.randn(n, 4, generator=generator) + shift
        model = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 3))
    objective = whence.from_torch(model, whence.CrossEntropy(), (x, torch.arange(n) % 3), l2=0.01)
    assert isinstance(objective, ModuleObjective)
    return objective


def queries(objective: ModuleObjective) -> Any:
    return objective.train.inputs[:3], objective.train.targets[:3]


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("inner", [whence.EKFAC(), whence.KFAC(fisher="empirical")], ids=str)
def test_scores_are_the_same_and_no_factor_is_computed_again(
    sequences: bool, inner: KroneckerSolver, tmp_path: Path, monkeypatch: Any
) -> None:
    solver = whence.SavedCurvature(tmp_path / "c.safetensors", inner)
    own = made(sequences=sequences)
    exact = [
        whence.influence(own, queries(own), solver=inner, damping=damping).values
        for damping in (None, 0.3)
    ]
    (tmp_path / ".whence-0123.tmp").write_bytes(b"half")  # of a process that was killed
    for attempt in range(2):
        objective = made(sequences=sequences)
        if attempt:
            monkeypatch.setattr(kronecker, "approximation", None)
        for damping, values in zip((None, 0.3), exact, strict=True):
            found = whence.influence(objective, queries(objective), solver=solver, damping=damping)
            gap = np.abs(found.values - values).max()
            assert gap <= 1e-5 * np.abs(values).max()
        own_scores = whence.self_influence(objective, solver=solver)
        assert np.isfinite(own_scores).all()
    assert [path.name for path in tmp_path.iterdir()] == ["c.safetensors"]


def test_what_it_does_not_belong_to_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    solver, objective = whence.SavedCurvature(path), made()
    whence.influence(objective, queries(objective), solver=solver)
    for other, named in (
        (made(n=21), "training data"),
        (made(shift=1.0), "training data"),
        (objective.at(objective.params + 1), "parameters"),
        (replace(objective, l2=objective.l2 + 1), "loss or penalty"),
    ):
        with pytest.raises(InvalidInput, match=f"another digest of its {named}.*another path"):
            whence.influence(other, queries(objective), solver=solver)
    for refused, words in (
        (whence.SavedCurvature(path, whence.KFAC()), "digest of its solver"),
        (whence.SavedCurvature(tmp_path / "no" / "c.safetensors"), "folder that exists"),
    ):
        with pytest.raises(InvalidInput, match=words):
            whence.influence(objective, queries(objective), solver=refused)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path, objective = tmp_path / "c.safetensors", made()
    solver = whence.SavedCurvature(path)
    solver.made(objective)
    assert_noticed(path, lambda: solver.made(objective), flips=60, cuts=[0, 1, 99])
