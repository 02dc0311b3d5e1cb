"""Trees as models: encoded, measured and fitted again by the user's own library."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, TargetEncoder
from sklearn.tree import DecisionTreeClassifier

import whence
from tests.trees.models import ACCEPTED, BINARY, CLASSES, NUMBERS, ROUNDS, hist
from whence.errors import InvalidInput
from whence.objective.losses import CrossEntropy, Logistic, SquaredError
from whence.objective.removed import weights_without
from whence.trees.model import BoostedModel, ForestModel

PICKLED = ["hist classes", "gb binary", "lgb binary", "xgb poisson", "cat classes"]
REFITTED = [
    "hist binary, class weights",
    "hist early stopping",
    "hist monotone",
    "gb squared, sampled",
    "lgb classes, class weights",
    "lgb squared, sampled",
    "lgb monotone, sampled",
    "xgb monotone, pruned",
    "xgb classes, sampled",
    "xgb positive weight",
    "cat binary, class weights",
    "cat squared",
]


@pytest.mark.parametrize("name", REFITTED)
def test_a_refit_is_the_users_own_fit_on_the_rows_that_stay(name: str) -> None:
    case = ACCEPTED[name]
    x, y = case.table.x, case.table.y
    model = case.make()
    if "random_state" in model.get_params() and "hist" in name:
        model.set_params(random_state=0)
    weights = {"sample_weight": case.table.w} if case.weighted else {}
    trained = whence.from_sklearn(model.fit(x, y, **weights), x, y, sample_weight=case.weights)
    assert isinstance(trained, BoostedModel)
    removed = np.array([0, 5, 9, 77])
    kept = np.setdiff1d(np.arange(len(y)), removed)
    changed = trained.weights.clone()
    changed[removed] = 0
    refitted = trained.refit(changed)
    some = {"sample_weight": case.table.w[kept]} if case.weighted else {}
    own = clone(model).fit(x[kept], y[kept], **some)
    theirs = whence.from_sklearn(
        own, x[kept], y[kept], sample_weight=some.get("sample_weight")
    ).outputs(trained.train)
    torch.testing.assert_close(refitted.outputs(trained.train), theirs, rtol=0, atol=0)
    assert isinstance(refitted, BoostedModel)
    replayed = torch.from_numpy(refitted.trees.replay.outputs)
    torch.testing.assert_close(replayed, theirs, rtol=1e-5, atol=1e-5 * float(theirs.std()))
    same = trained.refit()
    torch.testing.assert_close(same.outputs(trained.train), trained.outputs(trained.train))


def test_losses_classes_and_targets_follow_the_estimator() -> None:
    words = np.array(["a", "b", "c"])[CLASSES.y]
    few = hist(max_leaf_nodes=5)()
    several = whence.from_sklearn(few.fit(CLASSES.x, words), CLASSES.x, words)
    assert several.loss == CrossEntropy()
    assert several.classes == ("a", "b", "c")
    assert several.train.targets.dtype == torch.long
    two = whence.from_sklearn(hist()().fit(BINARY.x, BINARY.y), BINARY.x, BINARY.y)
    assert two.loss == Logistic()
    assert two.train.targets.dtype == torch.double
    model = HistGradientBoostingRegressor(max_iter=3).fit(NUMBERS.x, NUMBERS.y)
    numbers = whence.from_sklearn(model, NUMBERS.x, NUMBERS.y)
    assert numbers.loss == SquaredError()
    assert numbers.classes == ()
    expected = torch.from_numpy(model.predict(NUMBERS.x[:5]))[:, None]
    asked = numbers.examples((NUMBERS.x[:5], NUMBERS.y[:5]))
    torch.testing.assert_close(numbers.outputs(asked), expected)
    assert repr(numbers) == "<HistGradientBoostingRegressor on 250 rows>"


@pytest.mark.parametrize("name", ["hist binary", "gb binary", "lgb binary", "cat binary"])
def test_rows_that_trees_cannot_read_are_told_of(name: str) -> None:
    case = ACCEPTED[name]
    words = np.full(case.table.x.shape, "a", dtype=object)
    with pytest.raises(InvalidInput, match="Expected X as the trees were fitted on. Got: "):
        whence.from_sklearn(case.fit(), words, case.table.y, sample_weight=case.weights)


def test_a_pipeline_is_read_and_fitted_again_as_a_whole() -> None:
    model = make_pipeline(StandardScaler(), hist(random_state=0)())
    frame = pd.DataFrame(BINARY.x, index=np.arange(1000, 1250)).add_prefix("c")
    model.fit(frame, BINARY.y)
    trained = whence.from_sklearn(model, frame, BINARY.y)
    assert trained.train.ids[0] == 1000
    weights = trained.weights.clone()
    weights[:20] = 0
    own = clone(model).fit(frame.iloc[20:], BINARY.y[20:])
    expected = own.decision_function(frame)
    outputs = trained.refit(weights).outputs(trained.train)[:, 0]
    np.testing.assert_allclose(outputs.numpy(), expected)
    asked = trained.examples((frame.iloc[3], BINARY.y[3]))
    np.testing.assert_allclose(
        trained.outputs(asked)[0, 0], model.decision_function(frame.iloc[3:4])
    )


def test_boosters_are_fitted_again_with_their_settings() -> None:
    import lightgbm
    import xgboost

    x, y = BINARY.x, BINARY.y
    given = {"objective": "binary", "verbose": -1, "num_threads": 1, "num_leaves": 7}
    eta = {"objective": "binary:logistic", "eta": 0.2, "max_depth": 2, "nthread": 1}

    def light(x: Any, y: Any) -> Any:
        return lightgbm.train(given, lightgbm.Dataset(x, y), ROUNDS)

    def extreme(x: Any, y: Any) -> Any:
        return xgboost.train(eta, xgboost.DMatrix(x, y), ROUNDS)

    for fit in (light, extreme):
        trained = whence.from_sklearn(fit(x, y), x, y)
        assert trained.classes == (0, 1)
        weights = trained.weights.clone()
        weights[:30] = 0
        own = whence.from_sklearn(fit(x[30:], y[30:]), x[30:], y[30:])
        torch.testing.assert_close(
            trained.refit(weights).outputs(trained.train), own.outputs(trained.train)
        )


def test_a_fit_that_stopped_early_keeps_its_rounds_and_says_so() -> None:
    import lightgbm
    import xgboost
    from catboost import CatBoostClassifier

    x, y = BINARY.x[:200], BINARY.y[:200]
    later = [(BINARY.x[200:], BINARY.y[200:])]
    light = lightgbm.LGBMClassifier(n_estimators=99, learning_rate=0.5, verbose=-1, n_jobs=1)
    stop = [lightgbm.early_stopping(3, verbose=False)]
    light.fit(x, y, eval_X=later[0][0], eval_y=later[0][1], callbacks=stop)
    extreme = xgboost.XGBClassifier(n_estimators=99, early_stopping_rounds=3, n_jobs=1)
    extreme.fit(x, y, eval_set=later, verbose=False)
    options: dict[str, Any] = {"depth": 3, "verbose": 0, "allow_writing_files": False}
    cat = CatBoostClassifier(iterations=99, early_stopping_rounds=3, **options, thread_count=1)
    cat.fit(x, y, eval_set=later)
    own = of_own_class(light)
    own.fit(x, y, eval_X=later[0][0], eval_y=later[0][1], callbacks=stop)
    for model in (light, extreme, cat, own):
        trained = whence.from_sklearn(model, x, y)
        again = trained.refit()
        torch.testing.assert_close(
            again.outputs(trained.train), trained.outputs(trained.train), rtol=1e-5, atol=1e-5
        )
        assert any("stopped early: refits keep" in note for note in trained.notes)


def test_a_class_derived_from_a_library_draws_and_copies_as_the_library_does() -> None:
    from catboost import CatBoostRegressor
    from lightgbm import LGBMRegressor

    few = list(range(3))  # a list, which `sklearn.base.clone` refuses
    cat = of_own_class(CatBoostRegressor(iterations=3, verbose=0, ignored_features=few))
    cat.set_params(allow_writing_files=False, thread_count=1)
    light = of_own_class(LGBMRegressor(n_estimators=3, verbose=-1, n_jobs=1))
    for model in (cat, light):
        trained = whence.from_sklearn(model.fit(NUMBERS.x, NUMBERS.y), NUMBERS.x, NUMBERS.y)
        assert not any("without a seed" in note for note in trained.notes)
        torch.testing.assert_close(
            trained.refit().outputs(trained.train), trained.outputs(trained.train)
        )


def of_own_class(model: Any) -> Any:
    """Return the same model, not fitted, as an object of a class of the user's."""
    return type("Own", (type(model),), {"__module__": __name__})(**model.get_params())


def test_what_draws_without_a_seed_is_seeded_and_says_so() -> None:
    model = RandomForestRegressor(n_estimators=5).fit(NUMBERS.x, NUMBERS.y)
    trained = whence.from_sklearn(model, NUMBERS.x, NUMBERS.y)
    assert any("without a seed" in note for note in trained.notes)
    one, two = (trained.refit().outputs(trained.train) for _ in range(2))
    torch.testing.assert_close(one, two, rtol=0, atol=0)
    quiet = whence.from_sklearn(hist()().fit(BINARY.x, BINARY.y), BINARY.x, BINARY.y)
    assert quiet.notes == ()


@pytest.mark.parametrize(
    ("cv", "drawn"),
    [
        (3, True),
        (KFold(3, shuffle=True), True),
        (KFold(3, shuffle=True, random_state=0), False),
        (KFold(3), False),
        (list(KFold(3).split(BINARY.y)), False),
    ],
)
def test_an_encoder_draws_its_folds_or_is_given_them(cv: Any, drawn: bool) -> None:
    encoded = make_pipeline(TargetEncoder(cv=cv), RandomForestClassifier(3, random_state=0))
    rows = np.round(BINARY.x[:, :2])
    trained = whence.from_sklearn(encoded.fit(rows, BINARY.y), rows, BINARY.y)
    assert any("without a seed" in note for note in trained.notes) == drawn


@pytest.mark.parametrize("trees", [hist()(), RandomForestClassifier(5, random_state=0)])
def test_trees_are_read_on_the_columns_they_were_fitted_on(trees: Any) -> None:
    encoder = TargetEncoder(cv=KFold(3, shuffle=True, random_state=0))
    pipeline = make_pipeline(encoder, trees)
    rows, y = np.round(3 * BINARY.x[:, :2]), BINARY.y
    fitted = clone(pipeline).fit(rows, y)
    trained = whence.from_sklearn(fitted, rows, y)
    assert not any("predictions alone" in note for note in trained.notes)
    weights = weights_without(trained.weights, np.array([4]))
    again = clone(pipeline).fit(np.delete(rows, 4, 0), np.delete(y, 4))
    for model, own in ((trained, fitted), (trained.refit(weights), again)):
        shares = model.loss.probabilities(model.outputs(trained.train))
        assert shares is not None
        np.testing.assert_allclose(shares[:, 1], own.predict_proba(rows)[:, 1], atol=0.01)


def test_a_forests_outputs_are_log_odds_of_its_shares() -> None:
    model = RandomForestClassifier(n_estimators=7, random_state=0)
    trained = whence.from_sklearn(model.fit(CLASSES.x, CLASSES.y), CLASSES.x, CLASSES.y)
    assert isinstance(trained, ForestModel)
    shares = model.predict_proba(CLASSES.x)
    floor = 1 / (2 * len(CLASSES.y))
    np.testing.assert_allclose(
        torch.softmax(trained.outputs(trained.train), 1),
        (shares + floor) / (shares + floor).sum(axis=1, keepdims=True),
    )
    two = whence.from_sklearn(model.fit(BINARY.x, BINARY.y), BINARY.x, BINARY.y)
    said = two.loss.probabilities(two.outputs(two.train))
    assert said is not None
    np.testing.assert_allclose(said, model.predict_proba(BINARY.x), atol=1e-15)


def test_a_forest_is_fitted_again_and_keeps_all_rows() -> None:
    model = RandomForestRegressor(n_estimators=8, random_state=0).fit(NUMBERS.x, NUMBERS.y)
    trained = whence.from_sklearn(model, NUMBERS.x, NUMBERS.y)
    weights = trained.weights.clone()
    weights[:100] = 0
    refitted = trained.refit(weights)
    assert isinstance(refitted, ForestModel)
    own = clone(model).fit(NUMBERS.x[100:], NUMBERS.y[100:])
    np.testing.assert_allclose(refitted.outputs(trained.train)[:, 0], own.predict(NUMBERS.x))
    inside = refitted.forest.outputs(refitted.forest.leaves)[:, 0]
    np.testing.assert_allclose(inside, own.predict(NUMBERS.x))
    assert (refitted.forest.weights(refitted.forest.leaves)[:, :100] == 0).all()


def test_a_row_that_catboost_cannot_read_is_a_sentence() -> None:
    from catboost import CatBoostClassifier

    options: dict[str, Any] = {"verbose": 0, "allow_writing_files": False, "thread_count": 1}
    frame = pd.DataFrame(BINARY.x)
    model = CatBoostClassifier(iterations=3, **options).fit(frame, BINARY.y)
    trained = whence.from_sklearn(model, frame, BINARY.y)
    row = frame.iloc[[0]].astype(object)
    row.iloc[0, 2] = "abc"
    with pytest.raises(InvalidInput, match=r"rows that the trees can read.*abc"):
        trained.outputs(trained.examples((row, BINARY.y[:1])))


def test_rows_of_every_class_must_stay() -> None:
    trained = whence.from_sklearn(hist()().fit(BINARY.x, BINARY.y), BINARY.x, BINARY.y)
    with pytest.raises(
        InvalidInput, match="Expected rows of all 2 classes to fit on. Got rows of 1"
    ):
        trained.refit(trained.train.targets)


def test_what_cannot_be_used_is_refused() -> None:
    model = hist()().fit(BINARY.x, BINARY.y)
    trained = whence.from_sklearn(model, BINARY.x, BINARY.y)
    with pytest.raises(InvalidInput, match="Pass queries as"):
        trained.examples(BINARY.x)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="2 rows and 1 targets"):
        trained.examples((BINARY.x[:2], BINARY.y[:1]))
    with pytest.raises(InvalidInput, match="Got shape"):
        whence.from_sklearn(model, BINARY.x, BINARY.y[:-1])
    with pytest.raises(InvalidInput, match="Got 9"):
        trained.examples((BINARY.x[:1], [9]))


@pytest.mark.parametrize(
    "model",
    [
        HistGradientBoostingClassifier(),
        GradientBoostingClassifier(),
        RandomForestClassifier(),
        DecisionTreeClassifier(),
    ],
)
def test_an_unfitted_model_is_refused(model: Any) -> None:
    with pytest.raises(whence.errors.NotFitted, match=r"before \.fit"):
        whence.from_sklearn(model, BINARY.x, BINARY.y)


@pytest.mark.parametrize("name", PICKLED)
def test_a_model_is_the_same_after_pickling(name: str) -> None:
    case = ACCEPTED[name]
    trained = whence.from_sklearn(
        case.fit(), case.table.x, case.table.y, sample_weight=case.weights
    )
    again = pickle.loads(pickle.dumps(trained))
    queries = (case.table.x[:3], case.table.y[:3])
    method = whence.Boosting(ensemble=0)
    for model in (again, again.refit(), copy.deepcopy(trained)):
        found = method.fit(model).scores(queries).values
        np.testing.assert_array_equal(found, method.fit(trained).scores(queries).values)


def test_several_workers_refit_as_one_does() -> None:
    case = ACCEPTED["lgb binary"]
    fitted = case.fit()
    one, two = (
        whence.from_sklearn(
            fitted, case.table.x, case.table.y, sample_weight=case.weights, workers=workers
        )
        for workers in (1, 2)
    )
    queries = (case.table.x[:3], case.table.y[:3])
    where = [0, 5, 9]
    expected = whence.leave_one_out(one, where, queries)
    np.testing.assert_array_equal(whence.leave_one_out(two, where, queries), expected)
    assert two.together > one.together


def test_catboost_with_lists_among_its_settings_is_fitted_again() -> None:
    settings = {"iterations": 4, "depth": 2, "verbose": 0, "allow_writing_files": False}
    settings |= {"thread_count": 1, "class_weights": [1, 3]}
    from catboost import CatBoostClassifier

    x, y = BINARY.x[:60], BINARY.y[:60]
    alone = CatBoostClassifier(**settings)
    piped = make_pipeline(StandardScaler(), CatBoostClassifier(**settings))
    weights = np.ones(60)
    weights[:20] = 0
    for model in (alone, piped):
        trained = whence.from_sklearn(model.fit(x, y), x, y)
        assert isinstance(trained, BoostedModel)
        before = trained.outputs(trained.train)
        again = trained.refit(torch.from_numpy(weights)).outputs(trained.train)[:, 0]
        own = make_pipeline(StandardScaler(), alone.copy()) if model is piped else alone.copy()
        own.fit(x[20:], y[20:])
        shares = own.predict_proba(x)
        np.testing.assert_allclose(again, np.log(shares[:, 1] / shares[:, 0]), atol=1e-9)
        np.testing.assert_array_equal(trained.outputs(trained.train), before)
