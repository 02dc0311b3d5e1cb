"""Every library's models are read exactly, or refused with the option named."""

from __future__ import annotations

import re
import sys
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)
from sklearn.linear_model import Ridge

from tests.trees.models import (
    ACCEPTED,
    BINARY,
    CLASSES,
    NUMBERS,
    REFUSED,
    ROBUST,
    ROUNDS,
    Case,
    hist,
)
from whence.errors import InvalidInput, MissingDependency, UnsupportedModel
from whence.trees.adjoint import adjoint
from whence.trees.leaves import NewtonLeaves
from whence.trees.monotone import MonotoneLeaves
from whence.trees.reading import read_boosting
from whence.trees.side_by_side import side_by_side


@pytest.mark.parametrize("name", [*ACCEPTED, *ROBUST])
def test_raw_predictions_are_recomputed(name: str) -> None:
    case = {**ACCEPTED, **ROBUST}[name]
    model = case.fit()
    trees = read_boosting(model, case.table.x, case.table.y, case.weights)
    theirs = trees.predict(case.table.x)
    ours = trees.replay.predict(trees.leaves_of(case.table.x))
    assert np.abs(theirs - ours).max() <= 1e-6 * np.ptp(theirs)


def test_a_bag_has_a_row_at_least() -> None:
    x, y = NUMBERS.x[:30], NUMBERS.y[:30]
    options = {"n_estimators": 4, "max_depth": 1, "subsample": 0.05, "random_state": 0}
    trees = read_boosting(GradientBoostingRegressor(**options).fit(x, y), x, y)
    ours = trees.replay.predict(trees.leaves_of(x))
    np.testing.assert_allclose(ours, trees.predict(x), rtol=0, atol=1e-9 * np.ptp(y))


@pytest.mark.parametrize("name", REFUSED)
def test_other_options_are_refused_by_name(name: str) -> None:
    case, cause = REFUSED[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libraries warn of these options themselves
        model = case.fit()
    with pytest.raises(UnsupportedModel, match=re.escape(cause)):
        read_boosting(model, case.table.x, case.table.y)


def test_other_rows_than_those_of_the_fit_are_refused() -> None:
    model = hist()().fit(BINARY.x, BINARY.y)
    with pytest.raises(UnsupportedModel, match="X, y or sample_weight are not those"):
        read_boosting(model, BINARY.x, 1 - BINARY.y)


def test_an_unseeded_sample_is_refused() -> None:
    model = GradientBoostingRegressor(n_estimators=3, subsample=0.5).fit(NUMBERS.x, NUMBERS.y)
    with pytest.raises(UnsupportedModel, match=r"subsample=0\.5 without an integer random_state"):
        read_boosting(model, NUMBERS.x, NUMBERS.y)


def test_ranking_is_refused_in_a_sentence() -> None:
    from lightgbm import LGBMRanker

    model = LGBMRanker(n_estimators=2, verbose=-1).fit(
        BINARY.x, BINARY.y, group=[100, 100, len(BINARY.y) - 200]
    )
    with pytest.raises(UnsupportedModel, match="Ranking compares rows of a group"):
        read_boosting(model, BINARY.x, BINARY.y)


def test_a_linear_model_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="Got Ridge"):
        read_boosting(Ridge().fit(NUMBERS.x, NUMBERS.y), NUMBERS.x, NUMBERS.y)


def test_unknown_labels_are_refused() -> None:
    model = hist()().fit(BINARY.x, BINARY.y)
    with pytest.raises(InvalidInput, match="Got 7"):
        read_boosting(model, BINARY.x, np.where(BINARY.y == 1, 7, 0))


def _frame(categories: str) -> tuple[pd.DataFrame, Any]:
    """Return rows with categories and missing values, and targets that depend on them."""
    generator = np.random.default_rng(1)
    codes = generator.integers(0, 12, len(NUMBERS.y))
    frame = pd.DataFrame(NUMBERS.x, columns=[f"x{i}" for i in range(10)])
    frame.iloc[::7, 2] = np.nan
    kind = pd.Series(codes.astype(str))
    few = pd.Series((codes % 2).astype(str))
    dtype = object if categories == "object" else "category"
    return frame.assign(kind=kind.astype(dtype), few=few.astype(dtype)), NUMBERS.y + 30 * (
        codes % 5
    )


def test_categories_and_missing_values() -> None:
    from lightgbm import LGBMRegressor
    from xgboost import XGBRegressor

    frame, y = _frame("category")
    options: dict[str, Any] = {"n_estimators": ROUNDS, "n_jobs": 1}
    models = [
        HistGradientBoostingRegressor(max_iter=ROUNDS, categorical_features="from_dtype"),
        LGBMRegressor(**options, verbose=-1, min_data_per_group=5, cat_smooth=1.0),
        XGBRegressor(**options, enable_categorical=True),
    ]
    for model in models:
        trees = read_boosting(model.fit(frame, y), frame, y)
        np.testing.assert_array_equal(trees.leaves_of(frame.iloc[:9]), trees.leaves[:, :, :9])


def test_constraints_beside_categories() -> None:
    from lightgbm import LGBMRegressor
    from xgboost import XGBRegressor

    frame, y = _frame("category")
    frame = frame[["kind", *frame.columns.drop("kind")]]
    signs = [0, 1, 1, -1, 1, -1, 1, 1, -1, 1, 1, 0]
    options: dict[str, Any] = {"n_estimators": ROUNDS, "n_jobs": 1}
    named = dict(zip(frame.columns, signs, strict=True))
    models = [
        HistGradientBoostingRegressor(
            max_iter=ROUNDS, categorical_features="from_dtype", monotonic_cst=named
        ),
        LGBMRegressor(
            **options, verbose=-1, min_data_per_group=5, cat_smooth=1.0, monotone_constraints=signs
        ),
        XGBRegressor(**options, enable_categorical=True, monotone_constraints=named),
    ]
    for model in models:
        trees = read_boosting(model.fit(frame, y), frame, y)
        assert isinstance(trees.rule, MonotoneLeaves)
        free = replace(trees, rule=trees.rule.newton)
        assert np.abs(free.replay.outputs - trees.replay.outputs).max() > 1e-3 * np.ptp(y)


def test_catboost_reads_one_hot_categories_and_refuses_statistics() -> None:
    from catboost import CatBoostRegressor

    frame, y = _frame("object")
    options: dict[str, Any] = {"iterations": 5, "verbose": 0, "allow_writing_files": False}
    options |= {"cat_features": ["kind", "few"], "thread_count": 1}
    few = CatBoostRegressor(**options, one_hot_max_size=20).fit(frame, y)
    assert read_boosting(few, frame, y).leaves.shape == (5, 1, len(y))
    with pytest.raises(UnsupportedModel, match="cat_features"):
        read_boosting(CatBoostRegressor(**options).fit(frame, y), frame, y)


def test_steps_that_catboost_undoes_are_read_off_its_leaf_values() -> None:
    from catboost import CatBoostClassifier
    from statsmodels.datasets import fair

    frame = fair.load_pandas().data
    rows = np.random.default_rng(0).permutation(len(frame))[:1500]
    rows = rows[np.random.default_rng(3).choice(1500, 400, replace=False)]
    x = frame.drop(columns="affairs").to_numpy()[rows]
    y = (frame["affairs"].to_numpy()[rows] > 0).astype(int)
    options = {"verbose": 0, "allow_writing_files": False, "thread_count": 1, "random_state": 0}
    model = CatBoostClassifier(iterations=200, depth=4, **options).fit(x, y)
    trees = read_boosting(model, x, y)
    rule = trees.rule
    assert isinstance(rule, NewtonLeaves)
    assert rule.factors is not None
    undone = np.flatnonzero((rule.factors == 0).any(axis=1))
    assert 0 < len(undone) < 20
    whole = replace(trees, rule=replace(rule, factors=None))
    theirs = trees.predict(x)
    assert np.abs(theirs - trees.replay.outputs).max() <= 1e-9 * np.ptp(theirs)
    assert np.abs(theirs - whole.replay.outputs).max() > 1e-5 * np.ptp(theirs)

    leaves, row, step = trees.leaves[:, :, :5], 7, np.eye(len(y))[7] * 1e-4
    up = trees.reweighted(trees.weights + step).replay.predict(leaves)
    down = trees.reweighted(trees.weights - step).replay.predict(leaves)
    found = adjoint(trees, leaves, np.ones((5, 1)))[:, row]
    np.testing.assert_allclose(found, (up - down)[:, 0] / 2e-4, rtol=1e-5)
    both = side_by_side([trees, whole])
    assert both is not None
    np.testing.assert_allclose(both.replay.outputs[: len(y)], trees.replay.outputs, atol=1e-12)
    np.testing.assert_allclose(both.replay.outputs[len(y) :], whole.replay.outputs, atol=1e-12)


def test_boosters_and_early_stopping() -> None:
    import lightgbm
    import xgboost

    x, y = BINARY.x, BINARY.y
    native = {"objective": "binary", "verbose": -1, "num_threads": 1}
    stopped = lightgbm.LGBMClassifier(n_estimators=200, learning_rate=0.5, verbose=-1, n_jobs=1)
    stopped.fit(
        x[:200],
        y[:200],
        eval_X=x[200:],
        eval_y=y[200:],
        callbacks=[lightgbm.early_stopping(3, verbose=False)],
    )
    also = xgboost.XGBClassifier(n_estimators=200, early_stopping_rounds=3, n_jobs=1)
    also.fit(x[:200], y[:200], eval_set=[(x[200:], y[200:])], verbose=False)
    for model in (
        lightgbm.train(native, lightgbm.Dataset(x[:200], y[:200]), 8),
        xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(x[:200], y[:200]), 8),
        stopped,
        also,
    ):
        trees = read_boosting(model, x[:200], y[:200])
        assert 1 < len(trees.leaves) < 200


def test_names_of_classes_may_be_words() -> None:
    words = np.array(["first", "second", "third"])[CLASSES.y]
    for name in ("hist classes", "lgb classes, class weights", "cat classes"):
        case = Case(ACCEPTED[name].make, CLASSES)
        model = case.make().fit(CLASSES.x, words)
        trees = read_boosting(model, CLASSES.x, words)
        np.testing.assert_array_equal(trees.targets, CLASSES.y)


def test_a_missing_library_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ACCEPTED["xgb given start"].fit()
    monkeypatch.setitem(sys.modules, "xgboost", None)
    with pytest.raises(MissingDependency, match=r"pip install 'whence-attribution\[trees\]'"):
        read_boosting(model, BINARY.x, BINARY.y)


@pytest.mark.parametrize("name", ["HistGradientBoosting", "GradientBoosting", "LightGBM"])
def test_a_class_none_of_whose_rows_has_weight(name: str) -> None:
    from lightgbm import LGBMClassifier

    x, y = load_iris(return_X_y=True)
    weights = (y < 2).astype(float)
    model = {
        "HistGradientBoosting": HistGradientBoostingClassifier(max_iter=3),
        "GradientBoosting": GradientBoostingClassifier(n_estimators=3),
        "LightGBM": LGBMClassifier(n_estimators=3, verbose=-1),
    }[name].fit(x, y, sample_weight=weights)
    trees = read_boosting(model, x, y.astype(float), weights)
    np.testing.assert_allclose(trees.replay.outputs, trees.predict(x), rtol=1e-5)
    assert np.isfinite(trees.start.gradient(trees.targets, trees.weights)).all()
