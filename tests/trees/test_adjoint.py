"""The adjoint equals finite differences of a refit of the leaf values, for every accepted model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.trees.models import ACCEPTED, CLASSES, NUMBERS, ROBUST, hist, hist_r, lgb_r
from whence.trees import adjoint as module
from whence.trees.adjoint import adjoint
from whence.trees.form import BoostedTrees
from whence.trees.kernels import boostin, leaf_kernel
from whence.trees.leaves import Integers
from whence.trees.monotone import MonotoneLeaves
from whence.trees.reading import read_boosting
from whence.trees.side_by_side import side_by_side

Floats = NDArray[np.float64]
QUERIES = np.arange(4)
ROWS = np.array([0, 1, 2, 17, 100, 150])


def _read(name: str) -> BoostedTrees:
    case = ACCEPTED[name]
    return read_boosting(case.fit(), case.table.x, case.table.y, case.weights)


def _differences(trees: BoostedTrees, leaves: Integers, rows: NDArray[np.intp]) -> Floats:
    """Return the change of the outputs per weight of each row, [k, q, c], numerically."""
    changes = []
    for row in rows:
        step = np.zeros(len(trees.targets))
        step[row] = 1e-5
        up = trees.reweighted(trees.weights + step).replay.predict(leaves)
        down = trees.reweighted(trees.weights - step).replay.predict(leaves)
        changes.append((up - down) / 2e-5)
    return np.stack(changes)


@pytest.mark.parametrize("name", ACCEPTED)
def test_adjoint_equals_finite_differences(name: str) -> None:
    trees = _read(name)
    leaves = trees.leaves[:, :, QUERIES]
    gradients = np.random.default_rng(0).normal(size=(len(QUERIES), trees.outputs))
    expected = np.einsum("kqc,qc->qk", _differences(trees, leaves, ROWS), gradients)
    actual = adjoint(trees, leaves, gradients)[:, ROWS]
    np.testing.assert_allclose(actual, expected, atol=1e-6 * np.abs(expected).max())


def test_a_row_of_weight_zero_has_a_derivative() -> None:
    trees = _read("hist squared")
    weights = trees.weights.copy()
    weights[:50] = 0
    half = trees.on(trees.leaves, trees.targets, weights)
    leaves = half.leaves[:, :, QUERIES]
    actual = adjoint(half, leaves, np.ones((4, 1)))[:, :5]
    step = np.zeros(len(weights))
    for row in range(5):
        step[:] = 0
        step[row] = 1e-6
        change = half.reweighted(weights + step).replay.predict(leaves)
        change -= half.replay.predict(leaves)
        np.testing.assert_allclose(actual[:, row], change[:, 0] / 1e-6, rtol=1e-3, atol=1e-6)
    assert np.abs(actual).max() > 1e-3


def _naive(trees: BoostedTrees, leaves: Integers, gradients: Floats) -> Floats:
    """Transcribe the recursion, one row, output and query at a time."""
    q, n, c = leaves.shape[2], len(trees.targets), trees.outputs
    derivative, by_output = np.zeros((q, n)), np.zeros((q, n, c))
    queries = [*leaves[::-1], np.zeros((c, q), dtype=int)]
    for at, moved in enumerate(trees.backward()):
        values = np.zeros((q, c, trees.table.size))
        for a in range(q):
            for k in range(c):
                values[a, k, queries[at][k, a]] += gradients[a, k]
                for i in range(n):
                    values[a, k, moved.leaf[k, i]] += by_output[a, i, k]
        for a in range(q):
            for i in range(n):
                for k in range(c):
                    value = values[a, k, moved.leaf[k, i]]
                    derivative[a, i] += value * moved.by_weight[i, k]
                    by_output[a, i] += value * moved.by_output[i, k]
    return derivative


@pytest.mark.parametrize("at_once", [1, 2, 5, 100])
def test_blocks_equal_the_naive_recursion(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = CLASSES.x[:60], CLASSES.y[:60]
    model = hist(max_leaf_nodes=4, min_samples_leaf=5)().fit(x, y)
    trees = read_boosting(model, x, y)
    leaves, gradients = trees.leaves[:, :, :3], np.random.default_rng(0).normal(size=(3, 3))
    monkeypatch.setattr(module, "_rounds_at_once", lambda *sizes: at_once)
    expected = _naive(trees, leaves, gradients)
    np.testing.assert_allclose(adjoint(trees, leaves, gradients), expected, atol=1e-12)


def test_queries_and_rows_may_come_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    trees = _read("hist classes")
    gradients = np.random.default_rng(0).normal(size=(9, 3))
    whole = adjoint(trees, trees.leaves[:, :, :9], gradients)
    monkeypatch.setattr(module, "_NUMBERS", 1_000)
    parts = adjoint(trees, trees.leaves[:, :, :9], gradients, rows=ROWS)
    np.testing.assert_allclose(parts, whole[:, ROWS], atol=1e-12)


@pytest.mark.parametrize("name", ["hist classes", "lgb binary", "cat squared"])
def test_float32_products_are_near_float64(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trees = _read(name)
    leaves = trees.leaves[:, :, QUERIES]
    gradients = np.random.default_rng(0).normal(size=(len(QUERIES), trees.outputs))
    exact = adjoint(trees, leaves, gradients)
    monkeypatch.setattr(module, "_SINGLE", 1)
    found = adjoint(trees, leaves, gradients)
    assert 0 < np.abs(found - exact).max() < 1e-5 * np.abs(exact).max()


def test_boostin_equals_its_equation() -> None:
    trees = _read("hist classes")
    leaves = trees.leaves[:, :, QUERIES]
    outputs = trees.replay.predict(leaves)
    expected = np.zeros((4, len(trees.targets)))
    for t, moved in zip(range(len(leaves) - 1, -1, -1), trees.backward(), strict=False):
        outputs = outputs - trees.replay.added(t, leaves)
        for a in range(4):
            for k in range(3):
                shared = moved.leaf[k] == leaves[t, k, a]
                expected[a] += np.sin(outputs[a, k]) * shared * moved.by_weight[:, k]
    actual = boostin(trees, leaves, np.sin)
    np.testing.assert_allclose(actual, expected, atol=1e-12)
    np.testing.assert_allclose(boostin(trees, leaves, np.sin, rows=ROWS), expected[:, ROWS])


@pytest.mark.parametrize("name", [name for name in ACCEPTED if "monotone" in name])
def test_constraints_bind_in_these_models(name: str) -> None:
    case, trees = ACCEPTED[name], _read(name)
    rule = trees.rule
    assert isinstance(rule, MonotoneLeaves)
    free = replace(trees, rule=rule.newton)
    theirs = trees.predict(case.table.x)
    assert np.abs(free.replay.outputs - theirs).max() > 1e-3 * np.ptp(theirs)


def test_under_constraints_one_round_from_a_fixed_start_is_boostin() -> None:
    model = lgb_r(monotone_constraints=[1, -1] * 5, boost_from_average=False)()
    trees = read_boosting(
        model.set_params(n_estimators=1).fit(NUMBERS.x, NUMBERS.y), NUMBERS.x, NUMBERS.y
    )
    leaf, ones = trees.leaves[0, 0], np.ones((len(NUMBERS.y), 1))
    found = boostin(trees, trees.leaves, np.ones_like)
    np.testing.assert_allclose(found, adjoint(trees, trees.leaves, ones), atol=1e-12)
    assert np.abs(found[leaf[:, None] != leaf]).max() > 1e-3  # a clipped leaf follows others' rows


def test_with_one_round_from_a_fixed_start_all_three_agree() -> None:
    model = hist_r(l2_regularization=1.0)().set_params(max_iter=1).fit(NUMBERS.x, NUMBERS.y)
    trees = read_boosting(model, NUMBERS.x, NUMBERS.y)
    leaves, ones = trees.leaves[:, :, QUERIES], np.ones((4, 1))
    start = trees.start.gradient(trees.targets, trees.weights)[:, 0]
    by_leaf = boostin(trees, leaves, np.ones_like)
    # The start moves every gradient, and with it the values of all leaves.
    shift = 1 - np.array(
        [
            0.1 * (trees.leaves[0, 0] == leaf).sum() / ((trees.leaves[0, 0] == leaf).sum() + 1)
            for leaf in leaves[0, 0]
        ]
    )
    np.testing.assert_allclose(adjoint(trees, leaves, ones), by_leaf + np.outer(shift, start))


def test_the_leaf_kernel_of_squared_error_is_shared_leaves_times_residuals() -> None:
    trees = _read("hist squared")
    leaves = trees.leaves[:, :, QUERIES]
    residual = trees.replay.outputs[:, 0] - trees.targets
    expected = np.zeros((4, len(residual)))
    for t in range(len(leaves)):
        for a in range(4):
            shared = trees.leaves[t, 0] == leaves[t, 0, a]
            total = (trees.weights * shared).sum()
            step = -(trees.weights * shared * residual).sum() / total
            expected[a] += -0.1 * shared * (residual + step) / total
    actual = leaf_kernel(trees, leaves, np.ones_like)
    np.testing.assert_allclose(actual, expected, atol=1e-10)


def _of_parts(name: str) -> list[BoostedTrees]:
    """Return models of parts of the rows, with leaf values of all of them."""
    case, whole = ACCEPTED[name], _read(name)
    models = []
    for gone in (np.arange(50), np.arange(50, 100)):
        x, y = np.delete(case.table.x, gone, 0), np.delete(case.table.y, gone)
        trees = read_boosting(case.make().fit(x, y), x, y)
        weights = whole.weights + gone[0]
        models.append(trees.on(trees.leaves_of(case.table.x), whole.targets, weights))
    return models


SIDE_BY_SIDE = (
    "hist classes",
    "gb squared, sampled",
    "lgb l1",
    "xgb binary",
    "xgb classes",
    "cat binary",
    "cat squared",
)


@pytest.mark.parametrize("name", SIDE_BY_SIDE)
def test_models_side_by_side_are_each_as_alone(name: str) -> None:
    models, x = _of_parts(name), ACCEPTED[name].table.x[:4]
    both = side_by_side(models)
    assert both is not None
    assert both.rule.size >= sum(each.rule.size for each in models)
    outputs = np.concatenate([each.replay.predict(each.leaves_of(x)) for each in models])
    leaves, (first, second) = both.leaves_of(x), np.split(outputs, 2)
    np.testing.assert_allclose(both.replay.predict(leaves), outputs, atol=1e-12)
    np.testing.assert_allclose(both.predict(x)[: len(x)], models[0].predict(x))
    found = adjoint(both, leaves, np.sin(outputs)).reshape(len(x), 2, -1)
    for at, (each, own) in enumerate(zip(models, (first, second), strict=True)):
        expected = adjoint(each, each.leaves_of(x), np.sin(own))
        np.testing.assert_allclose(found[:, at], expected, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize(
    "names",
    [
        ("hist squared",),
        ("hist squared", "hist poisson"),
        ("hist early stopping", "hist early stopping"),
        ("lgb unbalanced", "lgb unbalanced"),
    ],
)
def test_models_that_differ_are_not_put_side_by_side(names: tuple[str, ...]) -> None:
    assert side_by_side([_read(name) for name in names]) is None


def test_quantiles_are_not_put_side_by_side() -> None:
    case = ROBUST["hist quantile"]
    trees = read_boosting(case.fit(), case.table.x, case.table.y)
    assert side_by_side([trees, trees]) is None
