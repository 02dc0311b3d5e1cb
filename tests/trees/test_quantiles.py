"""Leaf values that are quantiles: smoothed derivatives, and what they predict."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

import whence
from tests.trees.models import NUMBERS, ROBUST, hist_r
from whence.trees.quantiles import (
    HuberLeaves,
    QuantileLeaves,
    QuantileStart,
    of_lightgbm,
    of_numpy,
    of_sklearn,
    of_xgboost,
    smoothed,
)
from whence.trees.reading import read_boosting

LIBRARIES = [of_numpy, of_sklearn, of_lightgbm, of_xgboost]


@pytest.mark.parametrize("quantile", LIBRARIES, ids=lambda each: each.__name__)
@given(seed=st.integers(0, 2**32 - 1), level=st.floats(0.05, 0.95))
def test_quantiles_lie_where_their_weights_say(quantile: object, seed: int, level: float) -> None:
    generator = np.random.default_rng(seed)
    values, weights = generator.normal(size=40), generator.uniform(0.5, 2.0, 40)
    for given_weights in (weights, np.ones(40)):
        at = quantile(values, given_weights, level)  # type: ignore[operator]
        below = given_weights[values < at].sum() / given_weights.sum()
        upto = given_weights[values <= at].sum() / given_weights.sum()
        assert below - 0.06 <= level <= upto + 0.06
    assert quantile(values[:1], np.ones(1), level) == values[0]  # type: ignore[operator]


def test_smoothed_derivatives_are_those_of_a_density() -> None:
    values = norm.ppf((np.arange(4000) + 0.5) / 4000)
    for level in (0.5, 0.8):
        at = norm.ppf(level)
        by_weight, by_shift = smoothed(values, np.ones(4000), at, level)
        expected = (level - (values < at)) / (norm.pdf(at) * 4000)
        np.testing.assert_allclose(by_weight, expected, rtol=0.05)
        assert by_shift.sum() == pytest.approx(-1)
        # A tenth of the weight less on the upper half moves the quantile as predicted.
        change = np.where(values > 0, -0.1, 0.0)
        moved = np.interp(level, np.cumsum(1 + change) / (1 + change).sum(), values) - at
        assert by_weight @ change == pytest.approx(moved, rel=0.15)


def test_leaf_values_shift_with_their_rows() -> None:
    generator = np.random.default_rng(0)
    outputs, targets = generator.normal(size=(200, 1)), generator.normal(size=200)
    weights, leaf = generator.uniform(0.5, 2.0, (200, 1)), generator.integers(0, 3, (1, 200))
    weights[:10] = 0
    rates = np.array([0.3])
    for rule in (
        QuantileLeaves(0.7, of_numpy, rates, 4),
        HuberLeaves(0.5, of_sklearn, rates, 4, 0.8),
    ):
        values = rule.values(0, leaf, outputs, targets, weights)
        moved = rule.round(0, leaf, outputs, targets, weights)
        shifted = rule.values(0, leaf, outputs + 1, targets, weights)
        if type(rule) is QuantileLeaves:  # Huber's clip moves with the outputs too
            np.testing.assert_allclose(shifted[0, :3], values[0, :3] - 0.3)
        assert values[0, 3] == 0
        for at in range(3):
            rows = leaf[0] == at
            assert moved.by_output[rows].sum() == pytest.approx(-0.3)
            # Equal growth of all weights changes nothing but the step of a row.
            growth = (weights[rows] * moved.by_weight[rows]).sum()
            assert abs(growth) < 3 * np.abs(weights * moved.by_weight)[rows].max()
    start = QuantileStart(0.7, of_numpy)
    assert start.gradient(targets, weights[:, 0]).shape == (200, 1)


@pytest.mark.parametrize("name", ROBUST)
def test_robust_models_are_scored(name: str) -> None:
    case = ROBUST[name]
    trained = whence.from_sklearn(
        case.fit(), case.table.x, case.table.y, sample_weight=case.weights
    )
    queries = case.table.x[:3], case.table.y[:3]
    for method in (whence.Boosting(ensemble=0), whence.BoostIn(), whence.LeafKernel()):
        values = method.fit(trained).scores(queries, measure="prediction").values
        assert np.isfinite(values).all()
        # A row with a large target holds predictions up: without it they are lower.
        high, low = case.table.y > np.quantile(case.table.y, 0.9), case.table.y < 60
        assert values[:, high].mean() < values[:, low].mean()


def test_halves_of_a_median_model_predict_its_refits() -> None:
    model = hist_r(loss="absolute_error")().set_params(max_iter=30)
    trained = whence.from_sklearn(
        model.fit(NUMBERS.x[:200], NUMBERS.y[:200]), NUMBERS.x[:200], NUMBERS.y[:200]
    )
    asked = NUMBERS.x[200:], NUMBERS.y[200:]
    found = whence.evaluate(
        trained, asked, subsets=20, measure="prediction", method=whence.Boosting(ensemble=8)
    )
    assert found.mean > 0.5


def test_the_derivative_is_the_same_in_parts() -> None:
    case = ROBUST["hist absolute"]
    trees = read_boosting(case.fit(), case.table.x, case.table.y, case.weights)
    total = trees.replay.outputs - trees.replay.start
    added = sum(trees.replay.added(t, trees.leaves) for t in range(len(trees.leaves)))
    np.testing.assert_allclose(added, total)
