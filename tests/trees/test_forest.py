"""Forests in closed form: predictions, weights, error bars and out-of-bag values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.ensemble import (
    BaggingClassifier,
    BaggingRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import Ridge
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from tests.trees.models import CLASSES, NUMBERS, Case
from whence.errors import UnsupportedModel
from whence.trees.bagging import is_forest, read_forest
from whence.trees.forest import data_oob

SEEDED = {"n_estimators": 12, "random_state": 0}


def _case(model: Any, *, weighted: bool = False) -> Case:
    table = CLASSES if hasattr(model, "predict_proba") else NUMBERS
    return Case(lambda: clone(model), table, weighted)


FORESTS = {
    "forest": _case(RandomForestClassifier(**SEEDED), weighted=True),
    "forest, class weights": _case(RandomForestClassifier(**SEEDED, class_weight="balanced")),
    "forest, weights per bag": _case(
        RandomForestClassifier(**SEEDED, class_weight="balanced_subsample")
    ),
    "forest of numbers": _case(RandomForestRegressor(**SEEDED, max_samples=0.4), weighted=True),
    "unseeded forest": _case(RandomForestRegressor(n_estimators=5, min_samples_leaf=3)),
    "extra trees": _case(ExtraTreesClassifier(**SEEDED), weighted=True),
    "bootstrapped extra trees": _case(ExtraTreesRegressor(**SEEDED, bootstrap=True)),
    "tree": _case(DecisionTreeClassifier(max_depth=3), weighted=True),
    "pruned tree": _case(DecisionTreeRegressor(ccp_alpha=50.0)),
    "monotone tree": _case(DecisionTreeRegressor(monotonic_cst=[1] * 10)),
    "bagging, some columns": _case(
        BaggingRegressor(DecisionTreeRegressor(), **SEEDED, max_features=0.5)
    ),
    "bagging without replacement": _case(
        BaggingClassifier(
            DecisionTreeClassifier(min_samples_leaf=4), **SEEDED, bootstrap=False, max_samples=0.5
        )
    ),
}


@pytest.mark.parametrize("name", FORESTS)
def test_predictions_are_weighted_means_of_targets(name: str) -> None:
    case = FORESTS[name]
    x, y = case.table.x, case.table.y
    model = case.fit()
    assert is_forest(model)
    forest = read_forest(model, x, y, case.weights)
    queries = x[:40] + 0.05 * x.std(axis=0)
    weights = forest.weights(forest.leaves_of(queries))
    theirs = forest.predict(queries)
    np.testing.assert_allclose(weights @ forest.targets, theirs, atol=1e-9 * np.ptp(theirs))
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)
    leaves = forest.leaves_of(queries)
    np.testing.assert_allclose(forest.outputs(leaves), theirs, atol=1e-9 * np.ptp(theirs))
    np.testing.assert_allclose(forest.by_tree(leaves).mean(axis=0), forest.outputs(leaves))


def test_leaf_values_that_are_medians_are_refused() -> None:
    model = RandomForestRegressor(**SEEDED, criterion="absolute_error", min_samples_leaf=4)
    model.fit(NUMBERS.x, NUMBERS.y)
    with pytest.raises(UnsupportedModel, match="criterion='absolute_error'"):
        read_forest(model, NUMBERS.x, NUMBERS.y)


def test_several_targets_are_refused() -> None:
    y = np.stack([NUMBERS.y, NUMBERS.y], axis=1)
    with pytest.raises(UnsupportedModel, match="Got 2"):
        read_forest(RandomForestRegressor(**SEEDED).fit(NUMBERS.x, y), NUMBERS.x, y)


def test_what_is_a_forest() -> None:
    bagged = BaggingRegressor(Ridge(), n_estimators=2).fit(NUMBERS.x, NUMBERS.y)
    assert not is_forest(bagged)
    assert not is_forest(Ridge())


def test_the_standard_error_is_the_infinitesimal_jackknife() -> None:
    model = RandomForestRegressor(n_estimators=60, random_state=0).fit(NUMBERS.x, NUMBERS.y)
    forest = read_forest(model, NUMBERS.x, NUMBERS.y)
    queries = NUMBERS.x[:3]
    predictions = np.stack([tree.predict(queries) for tree in model.estimators_])
    counts = forest.counts
    trees, n = counts.shape
    for q in range(3):
        apart = predictions[:, q] - predictions[:, q].mean()
        spread = sum(((counts[:, i] - counts[:, i].mean()) * apart).mean() ** 2 for i in range(n))
        expected = np.sqrt(max(0.0, spread - n / trees**2 * (apart**2).sum()))
        actual = forest.standard_error(forest.leaves_of(queries))[q, 0]
        assert actual == pytest.approx(expected)
    assert forest.standard_error(forest.leaves).max() > 0


def test_data_oob_is_the_mean_over_trees_that_have_not_seen_a_row() -> None:
    model = RandomForestClassifier(**SEEDED).fit(CLASSES.x, CLASSES.y)
    values, trees = data_oob(read_forest(model, CLASSES.x, CLASSES.y), classes=True)
    unseen = [np.setdiff1d(np.arange(len(values)), at) for at in model.estimators_samples_]
    for i in np.flatnonzero(trees)[:20]:
        right = [
            tree.predict(CLASSES.x[i : i + 1])[0] == CLASSES.y[i]
            for tree, rows in zip(model.estimators_, unseen, strict=True)
            if i in rows
        ]
        assert trees[i] == len(right)
        assert values[i] == pytest.approx(np.mean(right))


def test_data_oob_of_numbers_is_minus_the_squared_error() -> None:
    model = RandomForestRegressor(n_estimators=40, random_state=0, oob_score=True).fit(
        NUMBERS.x, NUMBERS.y
    )
    values, trees = data_oob(read_forest(model, NUMBERS.x, NUMBERS.y), classes=False)
    assert trees.min() > 0
    spread = values + np.square(model.oob_prediction_ - NUMBERS.y)  # of the trees about their mean
    assert spread.max() <= 1e-8
    assert spread.min() < 0


def test_leaves_are_numbered_beyond_the_integers_of_32_bits() -> None:
    model = RandomForestRegressor(**SEEDED).fit(NUMBERS.x, NUMBERS.y)
    forest = read_forest(model, NUMBERS.x, NUMBERS.y)
    wide = replace(forest, table=replace(forest.table, size=2**30))
    leaves = forest.leaves_of(NUMBERS.x[:2])
    members = wide._members(leaves).tocoo()
    expected = leaves.T + 2**30 * np.arange(len(forest), dtype=np.int64)
    np.testing.assert_array_equal(members.col.reshape(2, -1), expected)
