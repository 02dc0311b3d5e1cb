"""A tree ensemble is fitted again as the user's own clone is, whatever its options."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    BaggingRegressor,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)

import whence
from tests.trees.models import BINARY, NUMBERS
from whence.adapters.unfitted import for_rows
from whence.errors import NotConvergedWarning, UnsupportedModel
from whence.trees.model import BoostedModel, TreeModel

GONE = np.array([3, 50, 77])
STAY = np.setdiff1d(np.arange(len(NUMBERS.y)), GONE)


def lgb(name: str, **options: Any) -> Any:
    import lightgbm

    return getattr(lightgbm, name)(n_estimators=6, verbose=-1, n_jobs=1, **options)


def xgb(name: str, **options: Any) -> Any:
    import xgboost

    return getattr(xgboost, name)(n_estimators=6, max_depth=3, n_jobs=1, **options)


def cat(name: str, **options: Any) -> Any:
    import catboost

    options |= {"iterations": 6, "depth": 3, "verbose": 0, "allow_writing_files": False}
    return getattr(catboost, name)(**options, thread_count=1)


def assert_refit(trained: whence.Trained, own: Any, x: Any) -> None:
    """Hold a refit without some rows to the predictions of the user's own fit."""
    weights = trained.weights.clone()
    weights[torch.from_numpy(GONE)] = 0
    again = trained.refit(weights)
    outputs = again.outputs(again.train)
    chances = again.loss.probabilities(outputs)
    theirs = own.predict(x) if chances is None else own.predict_proba(x)
    ours = outputs[:, 0] if chances is None else chances
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 * (np.ptp(theirs) or 1))


@pytest.mark.parametrize(
    "model",
    [
        HistGradientBoostingClassifier(max_iter=6, class_weight="balanced"),
        lgb("LGBMClassifier"),
        xgb("XGBClassifier"),
        cat("CatBoostClassifier"),
        RandomForestClassifier(n_estimators=5, random_state=0),
        ExtraTreesClassifier(n_estimators=5, random_state=0, bootstrap=True),
    ],
    ids=lambda model: type(model).__name__,
)
def test_rows_that_had_no_weight_stay_in_a_fit(model: Any) -> None:
    x, y, w = BINARY.x, BINARY.y, BINARY.w.copy()
    w[::9] = 0  # libraries count these rows: in bins, in leaves and in bags
    model.fit(x, y, sample_weight=w)
    trained = whence.from_sklearn(model, x, y, sample_weight=w)
    assert isinstance(trained, TreeModel)
    torch.testing.assert_close(
        trained.refit().outputs(trained.train), trained.outputs(trained.train), rtol=0, atol=1e-6
    )
    own = type(model)(**model.get_params()).fit(x[STAY], y[STAY], sample_weight=w[STAY])
    assert_refit(trained, own, x)
    rest = np.delete(np.arange(len(y)), 9)
    without = type(model)(**model.get_params()).fit(x[rest], y[rest], sample_weight=w[rest])
    effects = whence.leave_one_out(trained, [9], (x[:2], y[:2]))
    after, before = (-np.log(each.predict_proba(x[:2])[[0, 1], y[:2]]) for each in (without, model))
    np.testing.assert_allclose(effects.ravel(), after - before, rtol=0, atol=1e-5)


def test_rows_without_weight_stay_where_only_predictions_are_known() -> None:
    x, y, w = NUMBERS.x, NUMBERS.y, NUMBERS.w.copy()
    w[::9] = 0
    model = BaggingRegressor(n_estimators=5, random_state=0).fit(x, y, sample_weight=w)
    tree = RandomForestRegressor(n_estimators=5, random_state=0, criterion="absolute_error")
    for each in (model, tree.fit(x, y, sample_weight=w)):
        trained = whence.from_sklearn(each, x, y, sample_weight=w)
        own = clone(each).fit(x[STAY], y[STAY], sample_weight=w[STAY])
        assert_refit(trained, own, x)


@pytest.mark.parametrize("kind", ["alone", "calibrated", "booster"])
def test_small_refits_of_lightgbm_have_one_thread(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its estimators ask for a thread of each core, each waited for: 70 times as long if busy."""
    import lightgbm

    x, y = BINARY.x, BINARY.y
    model: Any = lightgbm.LGBMClassifier(n_estimators=6, verbose=-1, n_jobs=2)
    if kind == "calibrated":
        model = CalibratedClassifierCV(model, cv=2)
    own = clone(model).fit(x[STAY], y[STAY])
    model.fit(x, y)
    if kind == "booster":
        model, own = model.booster_, own.booster_
    trained = whence.from_sklearn(model, x, y)
    asked, real = [], lightgbm.train

    def train(params: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        asked.append(params["num_threads"])
        return real(params, *args, **kwargs)

    monkeypatch.setattr("lightgbm.sklearn.train", train)
    monkeypatch.setattr("lightgbm.train", train)
    weights = trained.weights.clone()
    weights[torch.from_numpy(GONE)] = 0
    again = trained.refit(weights)
    chances = again.loss.probabilities(again.outputs(again.train))
    assert chances is not None
    theirs = own.predict(x) if kind == "booster" else own.predict_proba(x)[:, 1]
    np.testing.assert_allclose(chances[:, 1], theirs, rtol=0, atol=1e-6)
    assert set(asked) == {1}
    shared = lightgbm.LGBMRegressor(n_jobs=3)
    assert (for_rows(shared, 1e6).n_jobs, for_rows(shared, 1e3).n_jobs) == (3, 1)


@pytest.mark.parametrize(
    "model",
    [
        lgb("LGBMClassifier", class_weight={"no": 1.0, "yes": 3.0}),
        RandomForestClassifier(5, random_state=0, class_weight={"no": 1.0, "yes": 3.0}),
        ExtraTreesClassifier(5, random_state=0, class_weight={"no": 1.0, "yes": 3.0}),
    ],
    ids=lambda model: type(model).__name__,
)
def test_weights_of_classes_go_by_their_names(model: Any) -> None:
    x, y = BINARY.x, np.where(BINARY.y == 1, "yes", "no")
    trained = whence.from_sklearn(model.fit(x, y), x, y)
    assert isinstance(trained, TreeModel)
    assert_refit(trained, clone(model).fit(x[STAY], y[STAY]), x)


def test_columns_that_a_fit_calls_categories_stay_so() -> None:
    codes = np.random.default_rng(4).integers(0, 9, len(NUMBERS.y))
    x, y = np.c_[NUMBERS.x, codes], NUMBERS.y + 90 * (codes % 5)
    frame = pd.DataFrame(x, columns=[f"x{i}" for i in range(11)]).astype({"x10": int})
    options = {"min_data_per_group": 5, "cat_smooth": 1.0}
    for rows, named in ((x, [10]), (frame, ["x10"])):
        model = lgb("LGBMRegressor", **options).fit(rows, y, categorical_feature=named)
        trained = whence.from_sklearn(model, rows, y)
        some = rows[STAY] if rows is x else rows.iloc[STAY]
        own = clone(model).fit(some, y[STAY], categorical_feature=named)
        assert_refit(trained, own, rows)
        plain = clone(model).fit(some, y[STAY])
        assert np.abs(own.predict(rows) - plain.predict(rows)).max() > 1


def test_boosters_of_lightgbm_keep_categories_and_rounds() -> None:
    import lightgbm

    codes = np.random.default_rng(4).integers(0, 9, len(NUMBERS.y))
    x, y = np.c_[NUMBERS.x, codes], NUMBERS.y + 90 * (codes % 5)
    settings = {"objective": "regression", "verbose": -1, "num_threads": 1, "cat_smooth": 1.0}
    settings |= {"min_data_per_group": 5, "early_stopping_round": 3, "num_iterations": 50}
    settings["learning_rate"] = 0.8
    rows = lightgbm.Dataset(x, y, categorical_feature=[10], free_raw_data=False)
    judge = lightgbm.Dataset(x[:60], y[::-1][:60], reference=rows, free_raw_data=False)
    booster = lightgbm.train(settings, rows, valid_sets=[judge])
    assert 0 < booster.best_iteration < 40
    trained = whence.from_sklearn(booster, x, y)
    torch.testing.assert_close(
        trained.refit().outputs(trained.train), trained.outputs(trained.train), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("option", ["early_stopping_round", "n_iter_no_change"])
def test_stopping_early_by_an_option_is_kept_as_rounds(option: str) -> None:
    x, y = BINARY.x, BINARY.y
    plain = {"learning_rate": 0.5, option: 3}
    followed = lgb("LGBMClassifier", **plain).set_params(n_estimators=60)
    unknown = lgb("LGBMClassifier", **plain, path_smooth=3.0).set_params(n_estimators=60)
    for model in (followed, unknown):
        model.fit(x, y, eval_X=x[:50], eval_y=1 - y[:50])
        trained = whence.from_sklearn(model, x, y)
        assert any("stopped early: refits keep n_estimators=" in each for each in trained.notes)
        torch.testing.assert_close(
            trained.refit().outputs(trained.train),
            trained.outputs(trained.train),
            rtol=0,
            atol=1e-9,
        )


def test_libraries_that_seed_themselves_are_fitted_with_their_own_seeds() -> None:
    x, y = BINARY.x, BINARY.y
    for model in (
        lgb("LGBMClassifier", data_sample_strategy="goss", learning_rate=0.5),
        lgb("LGBMClassifier", boosting_type="rf", subsample=0.6, subsample_freq=1),
        xgb("XGBClassifier", sampling_method="gradient_based", subsample=0.5),
    ):
        trained = whence.from_sklearn(model.fit(x, y), x, y)
        assert not isinstance(trained, TreeModel)
        assert not any("without a seed" in note for note in trained.notes)
        assert_refit(trained, clone(model).fit(x[STAY], y[STAY]), x)


def test_a_generator_as_seed_is_said_to_be_none() -> None:
    x, y = BINARY.x, BINARY.y
    options: dict[str, Any] = {"random_state": np.random.RandomState(3)}
    for model in (
        GradientBoostingClassifier(n_estimators=5, max_features=3, **options),
        RandomForestClassifier(n_estimators=5, **options),
        lgb("LGBMClassifier", subsample=0.5, subsample_freq=1, **options),
    ):
        trained = whence.from_sklearn(model.fit(x, y), x, y)
        assert any("without a seed" in note for note in trained.notes), model
    still = HistGradientBoostingClassifier(
        max_iter=3, early_stopping=True, validation_fraction=None
    )
    assert whence.from_sklearn(still.fit(x, y), x, y).notes == ()


def test_several_targets_are_known_by_predictions() -> None:
    x, y = NUMBERS.x, np.c_[NUMBERS.y, NUMBERS.x[:, 2] * 100]
    for model in (xgb("XGBRegressor"), RandomForestRegressor(n_estimators=3, random_state=0)):
        trained = whence.from_sklearn(model.fit(x, y), x, y)
        assert any("Expected one target per row. Got 2" in note for note in trained.notes)
        assert trained.outputs(trained.train).shape == (len(x), 2)
    labels = np.c_[BINARY.y, 1 - BINARY.y]
    several = xgb("XGBClassifier").fit(BINARY.x, labels)
    assert not isinstance(whence.from_sklearn(several, BINARY.x, labels), TreeModel)


def test_shares_as_targets_are_known_by_predictions() -> None:
    y = (NUMBERS.y - NUMBERS.y.min()) / np.ptp(NUMBERS.y)
    model = xgb("XGBRegressor", objective="reg:logistic").fit(NUMBERS.x, y)
    trained = whence.from_sklearn(model, NUMBERS.x, y)
    assert any("Got shares between them" in note for note in trained.notes)
    np.testing.assert_allclose(trained.outputs(trained.train)[:, 0], model.predict(NUMBERS.x))


def test_targets_in_a_column_are_targets() -> None:
    for model, table in (
        (HistGradientBoostingClassifier(max_iter=3), BINARY),
        (HistGradientBoostingRegressor(max_iter=3), NUMBERS),
    ):
        column = table.y[:, None]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn warns of the shape itself
            model.fit(table.x, column)
        trained = whence.from_sklearn(model, table.x, column)
        assert isinstance(trained, BoostedModel)
        assert_refit(trained, clone(model).fit(table.x[STAY], table.y[STAY]), table.x)


def test_a_booster_that_is_not_read_is_refused_in_a_sentence() -> None:
    import lightgbm
    import xgboost

    x, y = BINARY.x, BINARY.y
    dart = xgboost.train({"booster": "dart", "rate_drop": 0.5}, xgboost.DMatrix(x, y), 5)
    options = {"objective": "binary", "path_smooth": 3.0, "verbose": -1, "num_threads": 1}
    for booster in (dart, lightgbm.train(options, lightgbm.Dataset(x, y), 5)):
        with pytest.raises(UnsupportedModel, match=r"library's scikit-learn interface"):
            whence.from_sklearn(booster, x, y)


def test_catboosts_own_class_is_fitted_again() -> None:
    from catboost import CatBoost

    options = {"iterations": 5, "verbose": 0, "allow_writing_files": False, "thread_count": 1}
    model = CatBoost({**options, "loss_function": "RMSE"}).fit(NUMBERS.x, NUMBERS.y)
    trained = whence.from_sklearn(model, NUMBERS.x, NUMBERS.y)
    own = CatBoost({**options, "loss_function": "RMSE"}).fit(NUMBERS.x[STAY], NUMBERS.y[STAY])
    assert_refit(trained, own, NUMBERS.x)


def test_a_model_whose_settings_are_lost_is_said_to_be_another(tmp_path: Path) -> None:
    from xgboost import XGBClassifier

    x, y = BINARY.x, BINARY.y
    model = xgb("XGBClassifier").fit(x, y)
    model.save_model(tmp_path / "model.json")
    loaded = XGBClassifier()
    loaded.load_model(tmp_path / "model.json")
    trained = whence.from_sklearn(loaded, x, y)
    with pytest.warns(NotConvergedWarning, match="A model from a file may have lost its settings"):
        whence.leave_one_out(trained, [3], (x[:1], y[:1]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whence.leave_one_out(trained, [4], (x[:1], y[:1]))  # said once
        whence.leave_one_out(whence.from_sklearn(model, x, y), [3], (x[:1], y[:1]))
