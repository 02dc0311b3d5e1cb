"""Segmented unrolling, against the exact derivative through the training on quadratics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import whence
from whence.curvature.exact import Hessian
from whence.errors import InvalidInput, UnsupportedModel
from whence.linalg import eigendecompose, materialize
from whence.linalg.spectral import Spectral
from whence.network.objective import ModuleObjective
from whence.objective.robust_losses import Huber
from whence.training.run import Run

_DECAY = 0.1


def exact(objective: ModuleObjective) -> Spectral:
    return eigendecompose(materialize(Hessian(objective)))


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    return x, torch.randn(20, 1, generator=generator, dtype=torch.float64)


def ridge(rate: float, steps: int, *, at_optimum: bool = False, momentum: float = 0.0) -> Run:
    """Full-batch descent on a quadratic: its curvature is constant."""
    torch.manual_seed(1)
    x, y = data()
    model = nn.Linear(3, 1, bias=False).double()
    if at_optimum:
        solution = torch.linalg.solve(x.T @ x / 20 + _DECAY * torch.eye(3), x.T @ y / 20)
        with torch.no_grad():
            model.weight.copy_(solution.T)
    recipe = whence.Recipe(
        learning_rate=rate,
        batch_size=20,
        epochs=steps,
        momentum=momentum,
        weight_decay=_DECAY,
        dtype=torch.float64,
    )
    weights = torch.linspace(0.5, 1.5, 20) if not at_optimum else None
    return whence.train(model, whence.SquaredError(), data(), recipe, weights=weights)


def queries() -> tuple[Tensor, Tensor]:
    x, y = data()
    return x[:4] + 0.3, y[:4] - 0.2


def error(found: Any, expected: Any) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_any_segments_are_exact_where_nothing_moves() -> None:
    """At the optimum gradients stand still: all that is left is (1 − ηλ)ᵏ for exp(−ηλk)."""
    run = ridge(1e-3, 600, at_optimum=True)
    expected = whence.metagradient(run, queries()).values
    for segments in (1, 3):
        found = whence.unrolled(run, queries(), segments=segments, curvature=exact)
        assert error(found.values, expected) < 1e-3
        assert f"unrolled in {segments} segment" in found.method


def test_more_segments_approach_the_exact_derivative() -> None:
    run = ridge(2e-3, 400)
    expected = whence.metagradient(run, queries()).values
    errors = [
        error(whence.unrolled(run, queries(), segments=s, curvature=exact).values, expected)
        for s in (1, 4, 16)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3 < 0.05 < errors[0]


def test_segments_by_definition() -> None:
    x, _ = data()
    data_of_classes = x, torch.arange(20) % 3
    recipe = whence.Recipe(
        learning_rate=0.3,
        batch_size=5,
        epochs=4,
        momentum=0.4,
        weight_decay=0.05,
        dtype=torch.float64,
    )
    weights = torch.linspace(0.5, 1.5, 20)
    torch.manual_seed(0)
    run = whence.train(
        nn.Linear(3, 3), whence.CrossEntropy(), data_of_classes, recipe, weights=weights
    )
    asked = x[:2] + 0.3, torch.tensor([0, 2])
    starts = [start for start, _ in run.segments()]
    groups = [part.tolist() for part in np.array_split(starts, 3)]
    assert len(groups[0]) > 1
    end = run.objective()
    moved = end.gradient_columns(end.examples(asked), end.loss)
    expected, durations = torch.zeros(2, 20).double(), []
    for first, group in zip([16, groups[2][0], groups[1][0]], groups[::-1], strict=True):
        states = [run.checkpoints.read(step)[0][0] for step in group]
        there = end.at(torch.stack(states).mean(0))
        h, tau = there.dense_hessian(), 0.3 * (first - group[0]) / 0.6
        lasting = torch.linalg.matrix_exp(-tau * h)
        acting = (torch.eye(len(h)) - lasting) @ torch.linalg.inv(h)
        gradients = there.gradient_columns(there.train, there.loss) * weights / 20
        expected += (acting @ moved).T @ gradients
        moved = lasting @ moved
        durations.insert(0, f"{tau:.3g}")
    found = whence.unrolled(run, asked, segments=3, curvature=exact)
    np.testing.assert_allclose(found.values, expected, rtol=1e-6, atol=1e-10)
    assert found.method.endswith(f"of 16 steps (Bae et al. 2024), durations {', '.join(durations)}")
    some = whence.unrolled(run, asked, segments=3, curvature=exact, indices=[4, 1])
    np.testing.assert_allclose(some.values, found.values[:, [4, 1]])


def test_momentum_lengthens_the_steps() -> None:
    run = ridge(5e-4, 800, momentum=0.8)
    expected = whence.metagradient(run, queries()).values
    found = whence.unrolled(run, queries(), segments=100, curvature=exact)
    assert error(found.values, expected) < 0.02


def test_a_long_training_is_influence() -> None:
    run = ridge(0.05, 1500, at_optimum=True)
    objective = whence.from_torch(run.model, whence.SquaredError(), data(), l2=_DECAY, convex=True)
    expected = whence.influence(objective, queries()).values
    found = whence.unrolled(run, queries(), segments=2, curvature=exact).values
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_ekfac_is_the_default_and_ranks_as_the_exact_derivative_does() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(60, 5), torch.arange(60) % 3
    net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    recipe = whence.Recipe(learning_rate=0.05, batch_size=20, epochs=40, momentum=0.5)
    run = whence.train(net, whence.CrossEntropy(), (x, y), recipe)
    asked = x[:10] + 0.1, y[:10]
    expected = whence.metagradient(run, asked).values
    found = whence.unrolled(run, asked).values
    correlations = [np.corrcoef(a, b)[0, 1] for a, b in zip(found, expected, strict=True)]
    assert np.mean(correlations) > 0.9


def test_states_on_disk_serve_as_well(tmp_path: Path) -> None:
    x, y = data()
    recipe = whence.Recipe(learning_rate=0.05, batch_size=20, epochs=36, dtype=torch.float64)
    model = nn.Linear(3, 1, bias=False)
    run = whence.train(model, whence.SquaredError(), (x, y), recipe, directory=tmp_path / "run")
    assert whence.unrolled(run, queries(), segments=6).values.shape == (4, 20)
    with pytest.raises(InvalidInput, match=r"1 to 6 segments.*Got 7"):
        whence.unrolled(run, queries(), segments=7)


@pytest.mark.parametrize(
    ("options", "segments", "error", "message"),
    [
        ({"optimizer": "adam"}, 1, UnsupportedModel, "optimizer='adam'"),
        ({"clip_norm": 1.0}, 1, UnsupportedModel, "clip_norm=1.0"),
        ({}, 0, InvalidInput, "Got 0"),
    ],
)
def test_what_cannot_be_unrolled(
    options: dict[str, Any], segments: int, error: type[Exception], message: str
) -> None:
    recipe = whence.Recipe(learning_rate=0.01, batch_size=20, epochs=3, **options)
    run = whence.train(nn.Linear(3, 1), whence.SquaredError(), data(), recipe)
    with pytest.raises(error, match=message):
        whence.unrolled(run, queries(), segments=segments)


def test_where_nothing_curves_a_gradient_acts_as_long_as_the_training() -> None:
    """Residuals beyond a Huber loss's delta: the curvature is exactly 0, and θ moves in a line."""
    x, y = data()
    far = x, y + 100
    recipe = whence.Recipe(learning_rate=1e-3, batch_size=20, epochs=30, dtype=torch.float64)
    torch.manual_seed(1)
    run = whence.train(nn.Linear(3, 1, bias=False).double(), Huber(0.5), far, recipe)
    asked = x[:4] + 0.3, y[:4] + 100
    assert not run.objective().dense_hessian().any()
    expected = whence.metagradient(run, asked).values
    for segments in (1, 3):
        found = whence.unrolled(run, asked, segments=segments, curvature=exact).values
        np.testing.assert_allclose(found, expected, rtol=1e-9)
