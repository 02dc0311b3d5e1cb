"""Small boosted models of every library on bundled data, and the one list of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)

ROUNDS = 12


@dataclass(frozen=True)
class Table:
    """Rows, targets and positive weights."""

    x: Any
    y: Any
    w: Any


def _table(loaded: tuple[Any, Any], rows: int) -> Table:
    """Return some rows of a data set, with weights that are not 1."""
    generator = np.random.default_rng(0)
    at = generator.permutation(len(loaded[1]))[:rows]
    return Table(loaded[0][at], loaded[1][at], generator.uniform(0.5, 2.0, len(at)))


BINARY = _table(load_breast_cancer(return_X_y=True), 250)
CLASSES = _table(load_wine(return_X_y=True), 178)
NUMBERS = _table(load_diabetes(return_X_y=True), 250)


@dataclass(frozen=True)
class Case:
    """A model to fit: its data, how, and whether with the weights of the table."""

    make: Callable[[], Any]
    table: Table
    weighted: bool = False

    def fit(self) -> Any:
        """Return the model, fitted."""
        options = {"sample_weight": self.table.w} if self.weighted else {}
        return self.make().fit(self.table.x, self.table.y, **options)

    @property
    def weights(self) -> Any:
        """The weights it is fitted with, or `None`."""
        return self.table.w if self.weighted else None


def hist(**options: Any) -> Callable[[], Any]:
    return lambda: HistGradientBoostingClassifier(max_iter=ROUNDS, **options)


def hist_r(**options: Any) -> Callable[[], Any]:
    return lambda: HistGradientBoostingRegressor(max_iter=ROUNDS, **options)


def gb(**options: Any) -> Callable[[], Any]:
    return lambda: GradientBoostingClassifier(n_estimators=ROUNDS, random_state=0, **options)


def gb_r(**options: Any) -> Callable[[], Any]:
    return lambda: GradientBoostingRegressor(n_estimators=ROUNDS, random_state=0, **options)


def lgb(**options: Any) -> Callable[[], Any]:
    def make() -> Any:
        from lightgbm import LGBMClassifier

        return LGBMClassifier(n_estimators=ROUNDS, verbose=-1, n_jobs=1, **options)

    return make


def lgb_r(**options: Any) -> Callable[[], Any]:
    def make() -> Any:
        from lightgbm import LGBMRegressor

        return LGBMRegressor(n_estimators=ROUNDS, verbose=-1, n_jobs=1, **options)

    return make


def xgb(**options: Any) -> Callable[[], Any]:
    def make() -> Any:
        from xgboost import XGBClassifier

        return XGBClassifier(n_estimators=ROUNDS, max_depth=3, n_jobs=1, **options)

    return make


def xgb_r(**options: Any) -> Callable[[], Any]:
    def make() -> Any:
        from xgboost import XGBRegressor

        return XGBRegressor(n_estimators=ROUNDS, max_depth=3, n_jobs=1, **options)

    return make


_CAT = {"iterations": ROUNDS, "depth": 4, "verbose": 0, "allow_writing_files": False}
_CAT |= {"thread_count": 1}


def cat(**options: Any) -> Callable[[], Any]:
    def make() -> Any:
        from catboost import CatBoostClassifier

        return CatBoostClassifier(**_CAT, **options)

    return make


def cat_r(**options: Any) -> Callable[[], Any]:
    def make() -> Any:
        from catboost import CatBoostRegressor

        return CatBoostRegressor(**_CAT, **options)

    return make


_SIGNS = [1, -1] * 15

ACCEPTED = {
    "hist binary": Case(hist(l2_regularization=1.0), BINARY),
    "hist binary, class weights": Case(hist(class_weight="balanced"), BINARY, weighted=True),
    "hist classes": Case(hist(max_leaf_nodes=6), CLASSES, weighted=True),
    "hist squared": Case(hist_r(max_features=0.5), NUMBERS, weighted=True),
    "hist poisson": Case(hist_r(loss="poisson"), NUMBERS),
    "hist gamma": Case(hist_r(loss="gamma"), NUMBERS, weighted=True),
    "hist early stopping": Case(hist(early_stopping=True, n_iter_no_change=3), BINARY),
    "hist monotone": Case(
        hist_r(monotonic_cst=_SIGNS[:10], l2_regularization=2.0), NUMBERS, weighted=True
    ),
    "hist monotone, binary, early stopping": Case(
        hist(monotonic_cst=_SIGNS, early_stopping=True), BINARY
    ),
    "gb binary": Case(gb(), BINARY, weighted=True),
    "gb classes": Case(gb(max_depth=2), CLASSES),
    "gb squared, sampled": Case(gb_r(subsample=0.6, max_features=0.5), NUMBERS, weighted=True),
    "gb classes, sampled": Case(gb(subsample=0.6, max_depth=2), CLASSES),
    "gb early stopping": Case(gb_r(n_iter_no_change=3, subsample=0.8), NUMBERS),
    "gb from zero": Case(gb(init="zero"), BINARY),
    "lgb binary": Case(lgb(reg_lambda=1.0), BINARY, weighted=True),
    "lgb classes, class weights": Case(lgb(class_weight="balanced"), CLASSES),
    "lgb squared, sampled": Case(
        lgb_r(subsample=0.6, subsample_freq=2, random_state=3, colsample_bytree=0.5), NUMBERS
    ),
    "lgb squared, bags without a split": Case(
        lgb_r(subsample=0.5, subsample_freq=1, min_child_samples=62), NUMBERS
    ),
    "lgb l1": Case(lgb_r(reg_alpha=30.0), NUMBERS, weighted=True),
    "lgb largest step": Case(lgb_r(max_delta_step=20.0), NUMBERS),
    "lgb unbalanced": Case(lgb(is_unbalance=True), BINARY, weighted=True),
    "lgb positive weight": Case(lgb(scale_pos_weight=3.0), BINARY),
    "lgb from zero": Case(lgb(boost_from_average=False), BINARY),
    "lgb huber": Case(lgb_r(objective="huber", alpha=40.0), NUMBERS),
    "lgb poisson": Case(lgb_r(objective="poisson"), NUMBERS),
    "lgb gamma": Case(lgb_r(objective="gamma"), NUMBERS),
    "lgb tweedie": Case(lgb_r(objective="tweedie", tweedie_variance_power=1.3), NUMBERS),
    "lgb monotone, sampled": Case(
        lgb_r(monotone_constraints=_SIGNS[:10], reg_alpha=1.0, subsample=0.6, subsample_freq=1),
        NUMBERS,
        weighted=True,
    ),
    "lgb monotone, classes": Case(
        lgb(monotone_constraints=_SIGNS[:13], max_delta_step=0.7), CLASSES, weighted=True
    ),
    "lgb extra trees": Case(lgb_r(extra_trees=True), NUMBERS),
    "xgb binary": Case(xgb(), BINARY, weighted=True),
    "xgb classes": Case(xgb(), CLASSES, weighted=True),
    "xgb classes, sampled": Case(xgb(subsample=0.6, colsample_bynode=0.6), CLASSES),
    "xgb squared, sampled": Case(
        xgb_r(subsample=0.6, colsample_bytree=0.5, random_state=3), NUMBERS, weighted=True
    ),
    "xgb l1": Case(xgb_r(reg_alpha=100.0, tree_method="exact"), NUMBERS),
    "xgb largest step": Case(xgb_r(max_delta_step=50.0), NUMBERS),
    "xgb positive weight": Case(xgb(scale_pos_weight=3.0), BINARY),
    "xgb given start": Case(xgb(base_score=0.3), BINARY),
    "xgb monotone, pruned": Case(
        xgb_r(monotone_constraints=tuple(_SIGNS[:10]), gamma=3000.0, reg_alpha=0.5),
        NUMBERS,
        weighted=True,
    ),
    "xgb monotone, classes, sampled": Case(
        xgb(monotone_constraints="(1,-1,1,-1,1,-1,1)", subsample=0.6), CLASSES
    ),
    "xgb poisson": Case(xgb_r(objective="count:poisson"), NUMBERS),
    "xgb gamma": Case(xgb_r(objective="reg:gamma"), NUMBERS),
    "xgb tweedie": Case(xgb_r(objective="reg:tweedie"), NUMBERS),
    "xgb pseudo-huber": Case(xgb_r(objective="reg:pseudohubererror", huber_slope=100.0), NUMBERS),
    "cat binary": Case(cat(), BINARY, weighted=True),
    "cat binary, class weights": Case(cat(auto_class_weights="Balanced"), BINARY),
    "cat binary, gradients": Case(cat(leaf_estimation_method="Gradient"), BINARY),
    "cat classes": Case(cat(), CLASSES, weighted=True),
    "cat classes, gradients": Case(cat(leaf_estimation_method="Gradient"), CLASSES),
    "cat squared": Case(cat_r(l2_leaf_reg=7), NUMBERS, weighted=True),
    "cat lossguide": Case(cat_r(grow_policy="Lossguide", boosting_type="Plain"), NUMBERS),
    "cat ordered": Case(cat_r(boosting_type="Ordered"), NUMBERS),
    "cat poisson": Case(cat_r(loss_function="Poisson"), NUMBERS),
    "cat tweedie": Case(cat_r(loss_function="Tweedie:variance_power=1.5"), NUMBERS),
}

# Leaf values that are quantiles: read exactly, with derivatives that are smoothed.
ROBUST = {
    "hist absolute": Case(hist_r(loss="absolute_error"), NUMBERS, weighted=True),
    "hist quantile": Case(hist_r(loss="quantile", quantile=0.8), NUMBERS),
    "gb absolute": Case(gb_r(loss="absolute_error", subsample=0.6), NUMBERS),
    "gb quantile": Case(gb_r(loss="quantile", alpha=0.3), NUMBERS, weighted=True),
    "gb huber": Case(gb_r(loss="huber", alpha=0.7), NUMBERS, weighted=True),
    "lgb absolute": Case(lgb_r(objective="l1", subsample=0.6, subsample_freq=1), NUMBERS),
    "lgb quantile": Case(lgb_r(objective="quantile", alpha=0.3), NUMBERS, weighted=True),
    "xgb absolute": Case(xgb_r(objective="reg:absoluteerror", subsample=0.6), NUMBERS),
    "xgb quantile": Case(
        xgb_r(objective="reg:quantileerror", quantile_alpha=0.3), NUMBERS, weighted=True
    ),
}

REFUSED = {
    "lgb monotone, looser": (
        Case(lgb_r(monotone_constraints=[1] * 10, monotone_constraints_method="advanced"), NUMBERS),
        "monotone_constraints_method=advanced",
    ),
    "lgb smoothed": (Case(lgb_r(path_smooth=3.0), NUMBERS), "path_smooth=3"),
    "lgb goss": (Case(lgb_r(data_sample_strategy="goss", learning_rate=0.5), NUMBERS), "goss"),
    "lgb dart": (Case(lgb_r(boosting_type="dart", drop_rate=0.5), NUMBERS), "boosting=dart"),
    "lgb linear": (Case(lgb_r(linear_tree=True), NUMBERS), "linear_tree=1"),
    "lgb one against all": (Case(lgb(objective="multiclassova"), CLASSES), "multiclassova"),
    "xgb dart": (Case(xgb_r(booster="dart", rate_drop=0.5), NUMBERS), "booster='dart'"),
    "xgb linear": (Case(xgb_r(booster="gblinear"), NUMBERS), "gblinear"),
    "xgb forest": (Case(xgb_r(num_parallel_tree=3, subsample=0.5), NUMBERS), "num_parallel_tree=3"),
    "xgb exact, sampled": (Case(xgb_r(subsample=0.5, tree_method="exact"), NUMBERS), "subsample"),
    "cat monotone": (Case(cat_r(monotone_constraints=[1] * 10), NUMBERS), "monotone_constraints"),
    "cat absolute": (Case(cat_r(loss_function="MAE"), NUMBERS), "MAE"),
    "cat classes, steps": (Case(cat(leaf_estimation_iterations=3), CLASSES), "iterations=3"),
    "cat langevin": (Case(cat_r(langevin=True), NUMBERS), "langevin=True"),
}
