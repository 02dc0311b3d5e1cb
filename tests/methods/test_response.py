"""What retrainings of boosted trees say of their derivatives, by definition."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import nnls

import whence
from tests.trees.models import NUMBERS
from whence.methods.halves import Halves, boosted, halves_of
from whence.methods.mean_derivative import mean_derivative
from whence.methods.response import Response, _weights, effects_of, response_of
from whence.trees.form import BoostedTrees
from whence.trees.model import BoostedModel


@cache
def model() -> tuple[BoostedModel, Halves]:
    from xgboost import XGBRegressor

    x, y = NUMBERS.x[:120], NUMBERS.y[:120]
    fitted = XGBRegressor(n_estimators=8, max_depth=3, n_jobs=1).fit(x, y)
    trained = boosted(whence.from_sklearn(fitted, x, y))
    return trained, halves_of(trained, 6, 0)


def drawn_to_equal(predicted: Any, actual: Any, out: Any) -> Any:
    """Weights >= 0 of predictions, each query of the same size, as one regression."""
    q = actual.shape[1]
    rows, outcomes = [], []
    for query in range(q):
        counts = out[:, query]
        y = actual[counts, query] - actual[counts, query].mean()
        x = predicted[:, counts, query] - predicted[:, counts, query].mean(1, keepdims=True)
        size = np.sqrt(np.mean(y**2))
        rows.append(x.T / size)
        outcomes.append(y / size)
    x, y = np.concatenate(rows), np.concatenate(outcomes)
    equal = x[:, :2].mean(1)
    slope = (equal @ y) / (equal @ equal)
    pull = np.sqrt(0.3 * np.square(x).sum(0))
    toward = np.diag(pull) @ [slope / 2, slope / 2, 0.0]
    return nnls(np.vstack([x, np.diag(pull)]), np.concatenate([y, toward]))[0]


def test_weights_are_a_regression_drawn_to_equal_ones() -> None:
    g = np.random.default_rng(0)
    actual = g.normal(size=(10, 4)) * [1, 10, 100, 1]
    predicted = np.stack([g.normal(size=(10, 4)) + share * actual for share in (0.9, 0.2, 0.05)])
    out = g.random((10, 4)) < 0.6
    found = _weights(predicted, actual, out)
    weights = drawn_to_equal(predicted, actual, out)
    assert found is not None
    np.testing.assert_allclose(found / found.sum(), weights / weights.sum(), rtol=1e-6)
    centered = [
        (each - (each * out).sum(0) / out.sum(0)) * out
        for each in (np.tensordot(found, predicted, 1), actual)
    ]
    slope = (centered[0] * centered[1]).sum() / np.square(centered[0]).sum()
    assert slope == pytest.approx(1)
    assert _weights(-predicted, actual, out) is None
    assert _weights(0 * predicted, actual, out) is None


def test_a_response_is_learned_from_rows_that_are_left_out() -> None:
    trained, halves = model()
    found = response_of(trained, halves, trained.loss)
    assert found is not None
    asked = np.sort(np.random.default_rng(0).choice(np.arange(120), 12, replace=False))
    queries, ones = trained.train.subset(asked), np.ones(120)

    def without(trees: BoostedTrees) -> BoostedTrees:
        return trees.reweighted(np.where(np.isin(np.arange(120), asked), 0.0, trees.weights))

    def effects(one: BoostedModel) -> Any:
        return effects_of(without(one.trees), queries, trained.loss, one.trees.weights)

    sizes = [
        np.square(np.delete(effects(one), asked, 1)).sum() for one in (trained, *halves.models[:4])
    ]
    assert found.decay == pytest.approx(np.log2(np.mean(sizes[1:]) / sizes[0]))
    assert 0 < found.decay < 1
    whole = [without(trees) for trees in halves.whole]
    squares = []
    for trees in whole:
        each = effects_of(trees, queries, trained.loss, ones)
        each = each / np.sqrt(np.square(each).mean(1, keepdims=True))
        each[np.arange(12), asked] = 0
        squares.append(each**2)
    np.testing.assert_allclose(found.spread, np.mean(squares, (0, 1)), rtol=1e-4, atol=1e-8)
    mean = mean_derivative(halves, whole, queries, trained.loss)
    own = halves.inside @ effects(trained).T
    out = ~halves.inside[:, asked]
    expected = _weights(np.stack([mean.from_inside, mean.from_outside, own]), mean.actual, out)
    np.testing.assert_allclose(found.weights, expected, rtol=1e-6)


def test_what_other_halves_predict_is_a_sum_of_means_over_them() -> None:
    trained, halves = model()
    queries = trained.train.subset(np.arange(3))
    found = mean_derivative(halves, halves.whole, queries, trained.loss)
    parts = np.stack(
        [effects_of(trees, queries, trained.loss, np.ones(120)) for trees in halves.whole]
    )
    sizes = np.sqrt(np.square(parts).mean(2))
    scaled, scale = parts / sizes[:, :, None], np.median(sizes, axis=0)
    for half in range(6):
        for predicted, among in (
            (found.from_inside, halves.inside),
            (found.from_outside, ~halves.inside),
        ):
            total = np.zeros(3)
            for row in np.flatnonzero(halves.inside[half]):
                others = [b for b in range(6) if b != half and among[b, row]]
                total += scaled[others, :, row].mean(0)
            np.testing.assert_allclose(predicted[half], total * scale, rtol=1e-4, atol=1e-4)
        outputs = halves.models[half].outputs(queries)
        actual = trained.loss(outputs, queries.targets)
        np.testing.assert_allclose(found.actual[half], actual, rtol=1e-5)  # of a float32 library
    assert (halves.inside.sum(0) == 3).all()
    np.testing.assert_allclose(found.spread, np.square(scaled).mean(0), rtol=1e-4, atol=1e-6)
    for mean, among in ((found.inside, halves.inside), (found.outside, ~halves.inside)):
        expected = (scaled * among[:, None]).sum(0) / 3 * scale[:, None]
        np.testing.assert_allclose(mean, expected, rtol=1e-4, atol=1e-6)


def test_a_response_says_its_numbers() -> None:
    found = Response(weights=np.array([0.5, 0.25, 0.125]), spread=np.zeros(3), decay=0.5)
    assert found.factor == pytest.approx(0.875 / np.sqrt(2))
    assert "multiplied by 0.62," in found.note
    assert "0.5 for those of halves with the row, 0.25 for those without it, 0.12" in found.note
    assert "on a half is 1.4 times" in found.note


def test_rows_enough_to_learn_from() -> None:
    trained, _ = model()
    for rows, enough in ((19, False), (20, True)):
        few = boosted(trained.refit(trained.weights * (torch.arange(120) < rows)))
        assert whence.Boosting(ensemble=2).fit(few).calibrated == enough


def test_models_that_are_differentiated_together_are_counted_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first of a group would look as slow as the group: minutes were announced for seconds."""
    counts: list[int] = []

    @contextmanager
    def counting(**options: Any) -> Iterator[Any]:
        assert options["total"] == 6
        yield SimpleNamespace(update=counts.append)

    monkeypatch.setattr("whence.methods.mean_derivative.progress", counting)
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)
    trained, halves = model()
    mean_derivative(halves, halves.whole, trained.train.subset(np.arange(3)), trained.loss)
    assert counts == [6]


def test_predictions_that_are_far_too_small_are_scaled_up() -> None:
    actual = np.array([[1.0], [-1.0]])
    out = np.ones((2, 1), dtype=bool)
    weights = _weights(np.stack([0.1 * actual] * 3), actual, out)
    assert weights is not None
    np.testing.assert_allclose(weights.sum() * 0.1, 1)
