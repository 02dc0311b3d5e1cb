"""Rows of trees replaced and relabeled, against leaf values recomputed and forests refilled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import Ridge

import whence
from tests.trees.models import BINARY, NUMBERS
from whence.errors import InvalidInput, UnsupportedModel
from whence.methods.halves import halves_of
from whence.trees.model import BoostedModel, ForestModel

ALONE = whence.Boosting(ensemble=0)


def _numbers() -> tuple[Any, BoostedModel]:
    from xgboost import XGBRegressor

    model = XGBRegressor(n_estimators=15, max_depth=3, n_jobs=1)
    trained = whence.from_sklearn(
        model.fit(NUMBERS.x[:200], NUMBERS.y[:200]), NUMBERS.x[:200], NUMBERS.y[:200]
    )
    assert isinstance(trained, BoostedModel)
    return model, trained


def _asked() -> tuple[Any, Any]:
    return NUMBERS.x[200:205], NUMBERS.y[200:205]


def test_an_edit_recomputes_the_leaf_values() -> None:
    _, trained = _numbers()
    x_new, y_new = NUMBERS.x[220], 100.0
    found = whence.edit(trained, 7, x_new, y_new, _asked(), measure="prediction", method=ALONE)
    trees = trained.trees
    leaves, targets = trees.leaves.copy(), trees.targets.copy()
    leaves[:, :, 7] = trees.leaves_of(x_new[None])[:, :, 0]
    targets[7] = y_new
    changed = trees.on(leaves, targets, trees.weights).replay
    at = trees.leaves_of(_asked()[0])
    expected = changed.predict(at) - trees.replay.predict(at)
    np.testing.assert_allclose(found, expected[:, 0], atol=1e-9)
    same = whence.edit(trained, 7, NUMBERS.x[7], NUMBERS.y[7], _asked(), method=ALONE)
    np.testing.assert_allclose(same, 0, atol=1e-9)


def test_an_edit_over_halves_is_the_mean_of_edits() -> None:
    _, trained = _numbers()
    new = trained.examples((NUMBERS.x[220:221], [100.0]))
    queries = trained.examples(_asked())
    found = whence.edit(
        trained, 7, NUMBERS.x[220], 100.0, _asked(), method=whence.Boosting(ensemble=4)
    )
    each = []
    for trees in halves_of(trained, 4, 0).whole:
        single = BoostedModel(**{**vars(trained), "trees": trees})
        each.append(ALONE.fit(single).edit_effects(queries, trained.loss, 7, new).numpy())
    np.testing.assert_allclose(found, np.mean(each, axis=0))


def test_an_edit_by_refit_is_the_users_own_fit() -> None:
    model, trained = _numbers()
    x, y = NUMBERS.x[:200].copy(), NUMBERS.y[:200].copy()
    x[7], y[7] = NUMBERS.x[220], 100.0
    own = clone(model).fit(x, y).predict(_asked()[0]) - model.predict(_asked()[0])
    found = whence.edit(trained, 7, x[7], y[7], _asked(), order="refit", measure="prediction")
    np.testing.assert_allclose(found, own)


def test_relabeling_is_the_derivative_of_an_edit() -> None:
    model = HistGradientBoostingClassifier(max_iter=12, class_weight={0: 1.0, 1: 3.0})
    trained = whence.from_sklearn(
        model.fit(BINARY.x[:200], BINARY.y[:200]), BINARY.x[:200], BINARY.y[:200]
    )
    assert isinstance(trained, BoostedModel)
    queries = trained.examples((BINARY.x[200:], BINARY.y[200:]))
    where = np.array([3, 8, 40])
    targets = 1 - trained.train.targets[where]
    found = ALONE.fit(trained).relabel_effects(queries, trained.loss, where, targets)
    trees, at = trained.trees, trained.trees.leaves_of(queries.inputs)

    def mean_loss(share: float, row: int, target: float) -> float:
        """Return the mean loss with a share of the row under the other label."""
        twin = trees.beside(np.array([row]), np.array([target]))
        weights = twin.weights.copy()
        weights[row] *= 1 - share
        weights[-1] = share * (3.0 if target == 1 else 1.0)
        outputs = torch.from_numpy(twin.reweighted(weights).replay.predict(at))
        return float(trained.loss(outputs, queries.targets).mean())

    for k, row in enumerate(where):
        up, down = (mean_loss(sign * 1e-4, int(row), float(targets[k])) for sign in (1, -1))
        assert float(found[k]) == pytest.approx((up - down) / 2e-4, rel=1e-4, abs=1e-9)


def test_corrected_labels_are_expected_to_help() -> None:
    y = BINARY.y.copy()
    wrong = np.arange(0, 200, 20)
    y[wrong] = 1 - y[wrong]
    models = [
        HistGradientBoostingClassifier(max_iter=10),
        RandomForestClassifier(n_estimators=40, random_state=0),
    ]
    for model in models:
        trained = whence.from_sklearn(model.fit(BINARY.x[:200], y[:200]), BINARY.x[:200], y[:200])
        clean = BINARY.x[200:], BINARY.y[200:]
        found = whence.find_label_errors(trained, queries=clean, k=200)
        gain = found.to_frame().set_index("position")["gain"]
        suggested = found.to_frame().set_index("position")["suggested"]
        named = [at for at in wrong if suggested[at] == str(BINARY.y[at])]
        assert gain[named].mean() > 0


@pytest.mark.parametrize("measure", ["loss", "prediction"])
def test_a_forests_edits_refill_its_leaves(measure: str) -> None:
    model = RandomForestRegressor(n_estimators=10, random_state=0, min_samples_leaf=4)
    trained = whence.from_sklearn(
        model.fit(NUMBERS.x[:200], NUMBERS.y[:200]), NUMBERS.x[:200], NUMBERS.y[:200]
    )
    assert isinstance(trained, ForestModel)
    x, y = NUMBERS.x[:200].copy(), NUMBERS.y[:200].copy()
    x[7], y[7] = NUMBERS.x[220], 100.0
    asked = _asked()
    predicted = np.zeros(5)
    for tree, rows in zip(model.estimators_, model.estimators_samples_, strict=True):
        counts = np.bincount(rows, minlength=200)
        inside, at = tree.apply(x.astype(np.float32)), tree.apply(asked[0].astype(np.float32))
        for q in range(5):
            shared = counts * (inside == at[q])
            predicted[q] += shared @ y / shared.sum() / 10
    before = model.predict(asked[0])
    expected = predicted - before
    if measure == "loss":
        expected = ((predicted - asked[1]) ** 2 - (before - asked[1]) ** 2) / 2
    found = whence.edit(trained, 7, x[7], y[7], asked, measure=measure)
    np.testing.assert_allclose(found, expected, atol=1e-8)
    queries = trained.examples(asked)
    relabeled = (
        whence.ForestWeights()
        .fit(trained)
        .relabel_effects(queries, trained.loss, np.array([7, 9]), torch.tensor([100.0, 50.0]))
    )
    for at, (row, target) in enumerate(((7, 100.0), (9, 50.0))):
        alone = whence.edit(trained, row, NUMBERS.x[row], target, asked)
        assert float(relabeled[at]) == pytest.approx(alone.mean())


def test_what_does_not_follow_edits_says_so() -> None:
    _, trained = _numbers()
    with pytest.raises(UnsupportedModel, match="follows edits"):
        whence.edit(trained, 7, NUMBERS.x[9], 1.0, _asked(), method=whence.BoostIn())
    with pytest.raises(InvalidInput, match="order of influence"):
        whence.edit(trained, 7, NUMBERS.x[9], 1.0, _asked(), order="newton")
    with pytest.raises(InvalidInput, match="Expected index as a whole number. Got"):
        whence.edit(trained, [7, 8], NUMBERS.x[9], 1.0, _asked())  # type: ignore[arg-type]
    queries = trained.examples(_asked())
    with pytest.raises(UnsupportedModel, match="follows labels"):
        whence.LeafKernel().fit(trained).relabel_effects(
            queries, trained.loss, np.array([1]), torch.tensor([2.0])
        )
    ridge = whence.from_sklearn(Ridge().fit(NUMBERS.x, NUMBERS.y), NUMBERS.x, NUMBERS.y)
    with pytest.raises(UnsupportedModel, match="scores removals alone"):
        whence.edit(ridge, 7, NUMBERS.x[9], 1.0, _asked(), method=whence.TracIn())
    given = whence.edit(
        ridge, 7, NUMBERS.x[9], 1.0, _asked(), method=whence.Influence(order="newton")
    )
    np.testing.assert_allclose(given, whence.edit(ridge, 7, NUMBERS.x[9], 1.0, _asked()))


def test_a_class_without_weight_has_no_class_weight_to_take() -> None:
    x, y = load_iris(return_X_y=True)
    weights = (y < 2).astype(float)
    model = HistGradientBoostingClassifier(
        max_iter=3, class_weight={0: 1.0, 1: 2.0, 2: 3.0}, early_stopping=False
    ).fit(x, y, sample_weight=weights)
    trained = whence.from_sklearn(model, x, y, sample_weight=weights)
    with pytest.raises(InvalidInput, match=r"has a training row with weight\. Got .*2"):
        whence.edit(trained, 0, x[0], 2, (x[:2], y[:2]), method=ALONE)
