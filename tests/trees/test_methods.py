"""Methods for trees: derivatives, ensembles of halves, kernels, forests and out-of-bag errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import Ridge
from sklearn.tree import DecisionTreeRegressor

import whence
from tests.trees.models import BINARY, CLASSES, NUMBERS
from whence.errors import InvalidInput, UnsupportedModel
from whence.methods.choose import chosen, default_label_method, default_method
from whence.methods.expected_removal import expected_removals
from whence.methods.halves import folds_of, halves_of
from whence.methods.mean_derivative import held_out_lds, held_out_note
from whence.methods.response import response_of
from whence.objective.losses import measure_of
from whence.trees.model import BoostedModel, ForestModel

QUERIES = slice(200, 206)


def _numbers(**options: Any) -> BoostedModel:
    """Return a small model of numbers; the last rows of the table are left for queries."""
    from xgboost import XGBRegressor

    settings = {"n_estimators": 15, "max_depth": 3, "n_jobs": 1, **options}
    model = XGBRegressor(**settings)
    trained = whence.from_sklearn(
        model.fit(NUMBERS.x[:200], NUMBERS.y[:200]), NUMBERS.x[:200], NUMBERS.y[:200]
    )
    assert isinstance(trained, BoostedModel)
    return trained


def _classes() -> BoostedModel:
    model = GradientBoostingClassifier(n_estimators=6, max_depth=2, random_state=0)
    trained = whence.from_sklearn(model.fit(CLASSES.x, CLASSES.y), CLASSES.x, CLASSES.y)
    assert isinstance(trained, BoostedModel)
    return trained


def _asked() -> tuple[Any, Any]:
    return NUMBERS.x[QUERIES], NUMBERS.y[QUERIES]


def test_one_models_scores_are_its_derivative() -> None:
    trained = _numbers()
    scores = whence.Boosting(ensemble=0).fit(trained).scores(_asked(), indices=[3, 50])
    trees = trained.trees
    queries = trained.examples(_asked())
    leaves = trees.leaves_of(queries.inputs)
    for at, row in enumerate((3, 50)):
        step = np.zeros(200)
        step[row] = 1e-5
        up, down = (
            trained.loss(
                torch.from_numpy(
                    trees.reweighted(trees.weights + sign * step).replay.predict(leaves)
                ),
                queries.targets,
            )
            for sign in (1, -1)
        )
        expected = -(up - down).numpy() / 2e-5
        np.testing.assert_allclose(scores.values[:, at], expected, rtol=1e-4, atol=1e-5)
    assert "splits are those of one model" in str(scores.diagnostics)


def test_scores_of_halves_do_not_depend_on_how_they_are_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained = _numbers()
    found = whence.Boosting(ensemble=4).fit(trained)
    whole = found.scores(_asked()).values
    few = found.scores(_asked(), indices=[7, 2]).values
    np.testing.assert_allclose(few, whole[:, [7, 2]])
    one = found.scores((NUMBERS.x[203], NUMBERS.y[203])).values
    np.testing.assert_allclose(one[0], whole[3])
    monkeypatch.setattr("whence.methods.boosting._NUMBERS", 1)
    np.testing.assert_allclose(found.scores(_asked()).values, whole)
    again = whence.Boosting(ensemble=4).fit(_numbers()).scores(_asked()).values
    np.testing.assert_allclose(again, whole)
    other = whence.Boosting(ensemble=4, seed=1).fit(trained).scores(_asked()).values
    assert not np.allclose(other, whole)


def test_scores_of_halves_are_derivatives_and_a_ridge_regression_of_what_they_leave_over() -> None:
    trained = _numbers()
    halves = halves_of(trained, 6, 0)
    response = response_of(trained, halves, trained.loss)
    assert response is not None
    queries, inside = trained.examples(_asked()), halves.inside
    parts, actual = [], []
    for model, kept in zip(halves.models, inside, strict=True):
        assert (model.trees.weights > 0).tolist() == kept.tolist()
        # The trees of a half with the leaf values of all rows.
        whole = model.trees.reweighted(np.ones(200))
        single = BoostedModel(**{**vars(trained), "trees": whole})
        parts.append(-whence.Boosting(ensemble=0).fit(single).scores(_asked()).values)
        actual.append(trained.loss(model.outputs(queries), queries.targets).numpy())
    stacked, outcomes = np.stack(parts), np.stack(actual)
    sizes = np.sqrt((stacked**2).mean(axis=2, keepdims=True))
    scaled, scale = stacked / sizes, np.median(sizes, axis=0)
    own = -whence.Boosting(ensemble=0).fit(trained).scores(_asked()).values

    def derivative(among: Any) -> Any:
        """The weighted sum of means over some halves, [q, n]."""
        within, beyond = (
            np.nan_to_num(np.nanmean(np.where(kept, scaled[among].swapaxes(0, 1), np.nan), 1))
            for kept in (inside[among], ~inside[among])
        )
        return np.stack([within * scale, beyond * scale, own]).T @ response.weights

    everyone = np.arange(6)
    left = [outcomes[b] - inside[b] @ derivative(np.delete(everyone, b)) for b in everyone]
    residuals = np.stack(left) - np.mean(left, 0)
    rows = inside - inside.mean(0)
    expected, predicted = derivative(everyone).T.copy(), outcomes - residuals
    for q in range(len(queries)):
        variances = np.square(scaled[:, q]).mean(0) + response.spread
        noise = 6 * np.square(rows) @ variances
        for out in (*everyone, None):
            kept = everyone if out is None else np.delete(everyone, out)
            precision = rows[kept].T @ rows[kept] / noise.mean() + np.diag(1 / variances)
            ridge = np.linalg.solve(precision, rows[kept].T @ residuals[kept, q] / noise.mean())
            if out is None:
                expected[q] += ridge
            else:
                predicted[out, q] += rows[out] @ ridge
    scores = whence.Boosting(ensemble=6).fit(trained).scores(_asked())
    np.testing.assert_allclose(scores.values, -expected / 2**response.decay, atol=1e-4)
    lds = held_out_lds(predicted, outcomes)
    assert scores.diagnostics.notes[-1] == held_out_note(lds, *outcomes.shape)


def test_halves_come_in_pairs_that_hold_every_row_of_every_class_once() -> None:
    trained = _classes()
    halves = halves_of(trained, 4, 0)
    assert halves.inside.sum(axis=0).tolist() == [2] * len(CLASSES.y)
    for inside in halves.inside:
        counts = np.bincount(CLASSES.y[inside]) / np.bincount(CLASSES.y)
        assert np.abs(counts - 0.5).max() < 0.02
    assert halves_of(trained, 4, 0) is halves


def test_a_class_of_one_row_is_refused() -> None:
    y = np.array([0] * 30 + [1] * 29 + [2])
    model = GradientBoostingClassifier(n_estimators=2, random_state=0).fit(CLASSES.x[:60], y)
    trained = whence.from_sklearn(model, CLASSES.x[:60], y)
    with pytest.raises(InvalidInput, match="Expected at least 2 rows of every class"):
        whence.Boosting().fit(trained)


def test_rows_without_weight_do_nothing() -> None:
    model = GradientBoostingRegressor(n_estimators=10, random_state=0)
    weights = np.ones(200)
    weights[:20] = 0
    model.fit(NUMBERS.x[:200], NUMBERS.y[:200], sample_weight=weights)
    trained = whence.from_sklearn(model, NUMBERS.x[:200], NUMBERS.y[:200], sample_weight=weights)
    for method in (whence.Boosting(ensemble=2), whence.Boosting(ensemble=0), whence.BoostIn()):
        found = method.fit(trained)
        assert (found.scores(_asked()).values[:, :20] == 0).all()
    assert (whence.Boosting(ensemble=2).fit(trained).self_scores()[:20] == 0).all()


def test_the_ensemble_predicts_refits_better_than_one_models_kernels(tmp_path: Path) -> None:
    trained = _numbers(n_estimators=40, max_depth=2, learning_rate=0.2)
    asked = NUMBERS.x[200:], NUMBERS.y[200:]
    found = {
        name: whence.evaluate(
            trained, asked, subsets=20, measure="prediction", method=method, directory=tmp_path
        ).mean
        for name, method in {
            "halves": whence.Boosting(ensemble=10),
            "BoostIn": whence.BoostIn(),
            "leaf kernel": whence.LeafKernel(),
        }.items()
    }
    assert found["halves"] > 0.5
    assert found["halves"] > 1.4 * found["BoostIn"]
    assert min(found.values()) > 0.1
    scores = whence.Boosting(ensemble=10).fit(trained).scores(asked, measure="prediction")
    assert scores.diagnostics is not None
    said = float(scores.diagnostics.notes[-1].split("estimated at ")[1].split(" ±")[0])
    assert abs(said - found["halves"]) < 0.2


def test_the_estimate_is_a_mean_rank_correlation_with_a_jackknife_error() -> None:
    generator = np.random.default_rng(0)
    predicted = generator.normal(size=(12, 5))
    actual = predicted + generator.normal(size=(12, 5))
    from scipy.stats import spearmanr

    def mean(rows: Any) -> float:
        return float(np.mean([spearmanr(predicted[rows, q], actual[rows, q])[0] for q in range(5)]))

    value, error = held_out_lds(predicted, actual)
    assert value == pytest.approx(mean(slice(None)))
    without = np.array([mean(np.delete(np.arange(12), at)) for at in range(12)])
    assert error == pytest.approx(np.sqrt(11 * without.var()))
    assert np.isnan(held_out_lds(predicted, np.ones((12, 5)))[0])


def test_own_effects_are_losses_without_less_losses_with() -> None:
    trained = _classes()
    halves = halves_of(trained, 4, 0)
    outputs = [model.outputs(trained.train) for model in halves.models]
    losses = torch.stack([trained.loss(each, trained.train.targets) for each in outputs]).numpy()
    for row in (0, 9, 100):
        inside = halves.inside[:, row]
        expected = losses[~inside, row].mean() - losses[inside, row].mean()
        own = whence.Boosting(ensemble=4).fit(trained).self_scores([row])
        assert own[0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("classifies", [True, False])
def test_trees_value_rows_by_outputs_of_halves_and_folds_without_them(classifies: bool) -> None:
    trained, ensemble = (_classes(), 20) if classifies else (_numbers(), 40)
    train = trained.train
    parts = halves_of(trained, ensemble, 0), folds_of(trained, ensemble, 0)
    splits = np.split(parts[1].inside, ensemble // 20)
    for split in splits:
        assert split.shape == (5, len(train))
        assert ((~split).sum(axis=0) == 1).all()
        for label in range(3) if classifies else []:
            counts = (~split[:, train.targets.numpy() == label]).sum(axis=1)
            assert np.ptp(counts) <= 1
    means = []
    for part in parts:
        outputs = [model.outputs(train).numpy() for model in part.models]
        out = ~part.inside
        rows = [
            np.mean([o[i] for o, w in zip(outputs, out, strict=True) if w[i]], axis=0)
            for i in range(len(train))
        ]
        means.append(np.stack(rows))
    tried = [torch.from_numpy(a * means[0] + (1 - a) * means[1]) for a in (0, 0.25, 0.5, 0.75, 1)]
    best = min((trained.loss(each, train.targets) for each in tried), key=lambda loss: loss.sum())
    found = whence.DataOOB(ensemble=ensemble).fit(trained).self_scores()
    np.testing.assert_allclose(found, best.numpy(), rtol=1e-4)  # XGBoost predicts in float32


def test_wrong_labels_come_first() -> None:
    y = BINARY.y.copy()
    wrong = np.arange(0, 250, 25)
    y[wrong] = 1 - y[wrong]
    models = [
        RandomForestClassifier(n_estimators=50, random_state=0),
        HistGradientBoostingClassifier(max_iter=20),
    ]
    for model in models:
        found = whence.find_label_errors(whence.from_sklearn(model.fit(BINARY.x, y), BINARY.x, y))
        assert found.method == whence.DataOOB()
        assert len(set(found.ranking[:20]) & set(wrong)) >= 8
        suggested = found.to_frame().set_index("position")["suggested"][wrong]
        assert (suggested == BINARY.y[wrong].astype(str)).sum() >= 8


def _without(forest: Any, weights: Any, row: int) -> Any:
    """Return predictions from all weights but one, the others grown in proportion."""
    rest = weights.copy()
    rest[:, row] = 0
    return rest @ forest.targets / rest.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("measure", ["loss", "prediction"])
def test_a_forest_without_a_row_is_the_mean_of_the_others(measure: str) -> None:
    model = RandomForestRegressor(n_estimators=20, random_state=0)
    trained = whence.from_sklearn(
        model.fit(NUMBERS.x[:200], NUMBERS.y[:200]), NUMBERS.x[:200], NUMBERS.y[:200]
    )
    assert isinstance(trained, ForestModel)
    scores = whence.ForestWeights().fit(trained).scores(_asked(), measure=measure)
    forest = trained.forest
    weights = forest.weights(forest.leaves_of(NUMBERS.x[QUERIES]))
    for row in (0, 17, 120):
        change = _without(forest, weights, row)[:, 0] - model.predict(NUMBERS.x[QUERIES])
        if measure == "loss":
            y, f = NUMBERS.y[QUERIES], model.predict(NUMBERS.x[QUERIES])
            change = ((f + change - y) ** 2 - (f - y) ** 2) / 2
        np.testing.assert_allclose(scores.values[:, row], change, atol=1e-8)


def test_a_forest_of_classes_is_measured_by_its_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    model = RandomForestClassifier(n_estimators=20, random_state=0).fit(CLASSES.x, CLASSES.y)
    trained = whence.from_sklearn(model, CLASSES.x, CLASSES.y)
    assert isinstance(trained, ForestModel)
    asked = CLASSES.x[:5] * 1.02, CLASSES.y[:5]
    found = whence.ForestWeights().fit(trained)
    values = found.scores(asked).values
    forest = trained.forest
    weights = forest.weights(forest.leaves_of(asked[0]))
    floor, which = 1 / (2 * len(CLASSES.y)), np.arange(5)
    before = model.predict_proba(asked[0]) + floor
    for row in (0, 3, 60):
        after = (np.delete(weights, row, 1) @ np.delete(forest.targets, row, 0)) + floor
        losses = [-np.log(s[which, asked[1]] / s.sum(axis=1)) for s in (before, after)]
        np.testing.assert_allclose(values[:, row], losses[1] - losses[0], atol=1e-8)
    monkeypatch.setattr("whence.methods.forest._NUMBERS", 1)
    np.testing.assert_allclose(found.scores(asked).values, values)


def test_a_row_that_alone_makes_a_prediction_leaves_the_mean() -> None:
    model = DecisionTreeRegressor().fit(NUMBERS.x[:200], NUMBERS.y[:200])
    trained = whence.from_sklearn(model, NUMBERS.x[:200], NUMBERS.y[:200])
    found = whence.ForestWeights().fit(trained)
    scores = found.scores((NUMBERS.x[:3], NUMBERS.y[:3]), measure="prediction")
    change = NUMBERS.y[:200].mean() - NUMBERS.y[:3]
    np.testing.assert_allclose(scores.values[np.arange(3), np.arange(3)], change)
    assert (scores.values != 0).sum() == 3
    assert "jackknife" not in str(scores.diagnostics)  # one tree has nothing to vary


def test_a_forest_states_the_error_of_its_predictions() -> None:
    model = RandomForestRegressor(n_estimators=100, random_state=0)
    trained = whence.from_sklearn(
        model.fit(NUMBERS.x[:200], NUMBERS.y[:200]), NUMBERS.x[:200], NUMBERS.y[:200]
    )
    found = whence.ForestWeights().fit(trained)
    errors = found.standard_error(_asked())  # type: ignore[attr-defined]
    assert errors.shape == (6, 1)
    stated = f"{np.median(errors):.2g}"
    assert stated in str(found.scores(_asked()).diagnostics)


def test_each_kind_of_model_has_its_method() -> None:
    forest = whence.from_sklearn(
        RandomForestRegressor(n_estimators=3, random_state=0).fit(NUMBERS.x, NUMBERS.y),
        NUMBERS.x,
        NUMBERS.y,
    )
    ridge = whence.from_sklearn(Ridge().fit(NUMBERS.x, NUMBERS.y), NUMBERS.x, NUMBERS.y)
    boosted = _numbers()
    assert default_method(forest) == whence.ForestWeights()
    assert default_method(boosted) == whence.Boosting()
    assert default_method(ridge) == whence.Influence()
    assert default_label_method(ridge) is None
    assert chosen(boosted, whence.BoostIn()) == whence.BoostIn()
    assert chosen(ridge, None, damping=0.1) == whence.Influence(damping=0.1)
    for method, model in (
        (whence.Boosting(), forest),
        (whence.BoostIn(), ridge),
        (whence.LeafKernel(), forest),
        (whence.ForestWeights(), boosted),
        (whence.Influence(), boosted),
    ):
        with pytest.raises(UnsupportedModel, match=r"Expected .* Got <"):
            method.fit(model)


def test_data_oob_needs_unseen_rows_and_scores_no_queries() -> None:
    model = ExtraTreesRegressor(n_estimators=3, random_state=0).fit(NUMBERS.x, NUMBERS.y)
    trained = whence.from_sklearn(model, NUMBERS.x, NUMBERS.y)
    with pytest.raises(UnsupportedModel, match="every tree has seen every row"):
        whence.DataOOB().fit(trained).self_scores()
    with pytest.raises(UnsupportedModel, match="values rows alone"):
        whence.DataOOB().fit(trained).scores(_asked())


@pytest.mark.parametrize("classifies", [True, False])
def test_a_row_in_every_bag_has_the_mean_error_of_the_others(classifies: bool) -> None:
    kind: Any = RandomForestClassifier if classifies else RandomForestRegressor
    x, y = (CLASSES.x, CLASSES.y) if classifies else (NUMBERS.x, NUMBERS.y)
    model = kind(n_estimators=3, random_state=0).fit(x, y)
    trained = whence.from_sklearn(model, x, y)
    found = whence.DataOOB().fit(trained)
    values, notes = (
        found.self_values(np.arange(len(y)))[0].numpy(),
        found.self_values(np.arange(3))[1].notes,
    )
    errors: list[list[float]] = [[] for _ in y]
    for tree, bag in zip(model.estimators_, model.estimators_samples_, strict=True):
        for row in np.setdiff1d(np.arange(len(y)), bag).tolist():
            said = tree.predict(x[row : row + 1])[0]
            errors[row].append(float(said != y[row]) if classifies else (said - y[row]) ** 2)
    expected = np.array([np.mean(each) if each else np.nan for each in errors])
    seen = np.isnan(expected)
    expected[seen] = expected[~seen].mean()
    np.testing.assert_allclose(values, expected)
    assert notes[-1] == f"{seen.sum()} rows are in every bag and have the mean value."
    np.testing.assert_array_equal(found.self_scores([9, 2]), values[[9, 2]])


@pytest.mark.parametrize("ensemble", [-2, 3])
def test_halves_come_in_pairs(ensemble: int) -> None:
    with pytest.raises(InvalidInput, match="halves come in pairs"):
        whence.Boosting(ensemble=ensemble)


def test_where_no_change_differs_no_correlation_is_printed() -> None:
    model = DecisionTreeRegressor(max_depth=1).fit(
        [[0.0], [0.0], [1.0], [1.0]] * 5, [0, 0, 9, 9] * 5
    )
    trained = whence.from_sklearn(model, [[0.0], [0.0], [1.0], [1.0]] * 5, [0, 0, 9, 9] * 5)
    found = whence.explain(trained, ([[0.0]], [0.0]), k=2).verify(3, subsets=3)
    assert found.expected is not None
    assert not found.expected.mean.any()
    assert "parts of the data: no correlation, because all mean changes are equal;" in str(found)
    assert "nan" not in str(found)


def test_verify_tells_this_refit_and_the_expectation() -> None:
    trained = _numbers()
    explanation = whence.explain(
        trained, (NUMBERS.x[200], NUMBERS.y[200]), k=2, method=whence.Boosting(ensemble=4)
    )
    found = explanation.verify(3, subsets=3)
    assert found.expected is not None
    assert found.expected.mean.shape == (1, 3)
    assert found.expected.spread > 0
    first, second = str(found).splitlines()
    assert first.startswith("predicted vs retrained on 3 removals")
    assert second.startswith("predicted vs the mean over 3 random parts of the data")
    actual = trained.refit(
        torch.where(torch.arange(200) == int(found.positions[0]), 0.0, trained.weights)
    )
    change = actual.outputs(explanation.query) - trained.outputs(explanation.query)
    assert found.actual[0, 0] == pytest.approx(float(change[0, 0]))
    assert explanation.verify(2, subsets=0).expected is None
    ridge = whence.from_sklearn(Ridge().fit(NUMBERS.x, NUMBERS.y), NUMBERS.x, NUMBERS.y)
    assert whence.explain(ridge, (NUMBERS.x[0], NUMBERS.y[0]), k=2).verify(3).expected is None


def test_expected_removals_are_means_of_paired_refits() -> None:
    ridge = whence.from_sklearn(Ridge().fit(NUMBERS.x, NUMBERS.y), NUMBERS.x, NUMBERS.y)
    query = ridge.examples((NUMBERS.x[:2], NUMBERS.y[:2]))
    found = expected_removals(ridge, np.array([4, 9]), query, ridge.loss, subsets=6)
    n, draw, changes = len(NUMBERS.y), np.random.default_rng(0), []
    others = np.delete(np.arange(n), [4, 9])

    def losses(kept: Any) -> Any:
        said = Ridge().fit(NUMBERS.x[kept], NUMBERS.y[kept]).predict(NUMBERS.x[:2])
        return (said - NUMBERS.y[:2]) ** 2 / 2

    for _ in range(6):
        part = [4, 9, *draw.choice(others, round(0.9 * n) - 2, False)]
        changes.append([losses([i for i in part if i != gone]) - losses(part) for gone in (4, 9)])
    each = np.array(changes).swapaxes(1, 2)
    np.testing.assert_allclose(found.mean, each.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.error, each.std(0, ddof=1) / np.sqrt(6), rtol=1e-6)
    assert found.spread == pytest.approx(np.sqrt((each.std(0, ddof=1) ** 2).mean()))
    with pytest.raises(InvalidInput, match="subsets >= 2"):
        expected_removals(ridge, np.array([4]), query, ridge.loss, subsets=1)


def test_groups_are_sums_or_refits() -> None:
    trained = _numbers()
    group, method = [1, 2, 3], whence.Boosting(ensemble=2)
    summed = whence.group_effect(trained, group, _asked(), method=method)
    scores = method.fit(trained).scores(_asked(), indices=group)
    np.testing.assert_allclose(summed, scores.values.sum(axis=1))
    weights = trained.weights.clone()
    weights[group] = 0
    asked = trained.examples(_asked())
    after, before = (
        trained.loss(model.outputs(asked), asked.targets)
        for model in (trained.refit(weights), trained)
    )
    refit = whence.group_effect(trained, group, _asked(), order="refit")
    np.testing.assert_allclose(refit, (after - before).numpy())


def test_scores_have_the_size_of_what_retrainings_do() -> None:
    """Other halves, which no score was learned from, move as far as scores of rows left out say."""
    trained = _numbers(max_depth=2)
    method = whence.Boosting(ensemble=12)
    scores = method.fit(trained).scores(_asked(), measure="prediction")
    response = response_of(
        trained, halves_of(trained, 12, 0), measure_of(trained.loss, "prediction")
    )
    assert response is not None
    assert response.note in scores.diagnostics.notes
    assert method.fit(trained).calibrated
    assert 0 < response.decay < 1
    other = halves_of(trained, 12, 1)
    queries = trained.examples(_asked())
    actual = np.stack([model.outputs(queries)[:, 0].numpy() for model in other.models])
    predicted = ~other.inside @ scores.values.T * 2**response.decay
    actual, predicted = actual - actual.mean(0), predicted - predicted.mean(0)
    slope = (actual * predicted).sum() / np.square(predicted).sum()
    assert 0.7 < slope < 1.4  # 3 and more before


def test_a_row_of_a_mean_counts_twice_as_much_among_half_the_rows() -> None:
    trained = _numbers(min_child_weight=150)  # no split: predictions are means of all rows
    measure = measure_of(trained.loss, "prediction")
    response = response_of(trained, halves_of(trained, 4, 0), measure)
    assert response is not None
    assert 0.95 < response.decay <= 1


def test_too_few_rows_give_no_size() -> None:
    trained = _numbers()
    few = trained.refit(trained.weights * (torch.arange(200) < 15))
    assert not whence.Boosting(ensemble=4).fit(few).calibrated
    queries = few.examples(_asked())
    values, diagnostics = (
        whence.Boosting(ensemble=4).fit(few).values(queries, few.loss, np.arange(15))
    )
    assert np.isfinite(values.numpy()).all()
    assert not any("multiplied" in note for note in diagnostics.notes)


def test_what_no_row_changes_has_scores_of_zero() -> None:
    def nothing(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return 0 * outputs[:, 0]

    queries = NUMBERS.x[QUERIES], NUMBERS.y[QUERIES]
    scores = whence.Boosting(ensemble=2).fit(_numbers()).scores(queries, measure=nothing)
    assert (scores.values == 0).all()


@pytest.mark.parametrize(("rows", "rounds", "fits"), [(150, 2, 240), (150, 150, 160), (201, 2, 60)])
def test_small_tables_take_as_many_retrainings_as_are_quick(
    rows: int, rounds: int, fits: int
) -> None:
    x, y = NUMBERS.x[:rows, :2], NUMBERS.y[:rows]
    import lightgbm

    options = {"n_estimators": rounds, "num_leaves": 2, "verbose": -1, "n_jobs": 1}
    model = lightgbm.LGBMRegressor(**options).fit(x, y)
    trained = whence.from_sklearn(model, x, y)
    assert len(halves_of(trained, None, 0)) == fits
