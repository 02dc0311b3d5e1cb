"""Losses, starts and leaf rules: each derivative equals a finite difference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from whence.trees.leaves import LeafRule, NewtonLeaves, VectorLeaves
from whence.trees.losses import (
    Binary,
    BoostingLoss,
    Clipped,
    LogLink,
    PseudoHuberSlopes,
    Softmax,
    Squared,
    UnitCurvature,
)
from whence.trees.starts import Fixed, LogPrior, Mean, NewtonStep, Start

Floats = NDArray[np.float64]
STEP = 1e-6
SINGLE = [
    Squared(),
    Binary(),
    LogLink(power=1.0, scale=2.0),
    LogLink(power=1.5),
    LogLink(power=2.0),
    Clipped(delta=0.7),
    PseudoHuberSlopes(delta=0.5),
    UnitCurvature(Binary()),
]


def _data(c: int, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    """Return outputs [n, c], targets that suit every loss, and weights [n, 1]."""
    generator = np.random.default_rng(seed)
    outputs = generator.normal(size=(30, c))
    targets = generator.integers(0, max(c, 2), 30).astype(float)
    return outputs, targets, generator.uniform(0.5, 2.0, (30, 1))


@pytest.mark.parametrize("loss", [*SINGLE, Softmax(scale=1.5)], ids=repr)
@given(seed=st.integers(0, 2**32 - 1))
def test_slopes_are_derivatives(loss: BoostingLoss, seed: int) -> None:
    c = 3 if isinstance(loss, Softmax) else 1
    outputs, targets, _ = _data(c, seed)
    at = loss.slopes(outputs, targets)
    for j in range(c):
        step = STEP * np.eye(c)[j]
        up, down = loss.slopes(outputs + step, targets), loss.slopes(outputs - step, targets)
        smooth = np.abs(np.abs(outputs[:, 0] - targets) - 0.7) > 1e-5  # where `Clipped` bends
        for whole, change in ((at.dg, up.g - down.g), (at.dh, up.h - down.h)):
            expected = change / (2 * STEP)
            np.testing.assert_allclose(
                whole[smooth, :, j], expected[smooth], atol=1e-6 * max(1, np.abs(expected).max())
            )


@pytest.mark.parametrize(
    "start",
    [
        Fixed((0.5,)),
        Mean("identity"),
        Mean("log"),
        Mean("logit"),
        LogPrior(2, centered=True),
        LogPrior(2, centered=False),
        NewtonStep(Binary()),
    ],
    ids=repr,
)
def test_starts_move_as_their_gradients_say(start: Start) -> None:
    _, targets, weights = _data(1)
    gradient = start.gradient(targets, weights[:, 0])
    assert gradient.shape == (30, len(start.value(targets, weights[:, 0])))
    for i in range(30):
        step = STEP * np.eye(30)[i]
        up, down = (start.value(targets, weights[:, 0] + sign * step) for sign in (1, -1))
        np.testing.assert_allclose(gradient[i], (up - down) / (2 * STEP), atol=1e-8)


@pytest.mark.parametrize("mean", [0.0, 1.0])
def test_a_mean_without_a_link_may_be_anything(mean: float) -> None:
    targets = mean + np.array([-2.0, -1.0, 1.0, 2.0])  # where log and logit have no derivative
    gradient = Mean().gradient(targets, np.ones(4))
    np.testing.assert_array_equal(gradient[:, 0], (targets - mean) / 4)


_RATES = np.array([0.3])
RULES = {
    "newton": NewtonLeaves(Binary(), _RATES, 4, np.array(0.5)),
    "penalty per leaf": NewtonLeaves(Binary(), _RATES, 4, np.array([[[0.1, 5.0, np.inf, 1.0]]])),
    "l1": NewtonLeaves(Squared(), _RATES, 4, np.array(0.5), l1=1.0),
    "largest step": NewtonLeaves(Squared(), _RATES, 4, np.array(0.0), max_step=0.4),
    "curvature too small": NewtonLeaves(
        Binary(), _RATES, 4, np.array(0.5), min_curvature=np.array([[[2.5]]])
    ),
    "three steps": NewtonLeaves(Binary(), _RATES, 4, np.array(0.5), steps=3),
    "classes": NewtonLeaves(Softmax(2.0), _RATES, 4, np.array(0.5)),
    "one tree for all classes": VectorLeaves(Softmax(), _RATES, 4, 0.5),
}


@pytest.mark.parametrize("name", RULES)
def test_leaf_values_move_as_their_derivatives_say(name: str) -> None:
    rule: LeafRule = RULES[name]
    c = 3 if "classes" in name else 1
    outputs, targets, weights = _data(c)
    generator = np.random.default_rng(1)
    leaf = generator.integers(0, 3, (c, 30))
    if isinstance(rule, VectorLeaves):
        leaf = np.repeat(leaf[:1], c, axis=0)
    moved = rule.round(0, leaf, outputs, targets, weights)

    def own(outputs: Floats, weights: Floats, i: int) -> Floats:
        values = rule.values(0, leaf, outputs, targets, weights)
        return values[np.arange(c), leaf[:, i]]

    for i in range(30):
        row = np.zeros((30, 1))
        row[i] = STEP
        change = own(outputs, weights + row, i) - own(outputs, weights - row, i)
        np.testing.assert_allclose(moved.by_weight[i], change / (2 * STEP), atol=1e-8)
        for j in range(c):
            shift = row * np.eye(c)[j]
            change = own(outputs + shift, weights, i) - own(outputs - shift, weights, i)
            np.testing.assert_allclose(moved.by_output[i, :, j], change / (2 * STEP), atol=1e-8)
    assert np.abs(moved.by_weight).max() > 0


def test_three_steps_are_three_rounds_within_a_leaf() -> None:
    outputs, targets, weights = _data(1)
    leaf = np.zeros((1, 30), dtype=int)
    once = NewtonLeaves(Binary(), np.array([1.0]), 2, np.array(0.5))
    total = 0.0
    for _ in range(3):
        total += once.values(0, leaf, outputs + total, targets, weights)[0, 0]
    thrice = NewtonLeaves(Binary(), np.array([1.0]), 2, np.array(0.5), steps=3)
    np.testing.assert_allclose(thrice.values(0, leaf, outputs, targets, weights)[0, 0], total)


def test_leaves_without_rows_stay_at_zero() -> None:
    outputs, targets, weights = _data(3)
    leaf = np.zeros((3, 30), dtype=int)
    for name in ("classes", "one tree for all classes"):
        values = RULES[name].values(0, leaf, outputs, targets, weights)
        assert (values[:, 1:] == 0).all()
        assert (values[:, 0] != 0).all()
