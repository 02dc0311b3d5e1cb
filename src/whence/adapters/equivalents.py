"""Estimators that hold another: what is fitted in the end, and the choices that are held.

A search, a threshold or a `*CV` model chooses settings by fits of its own and then fits once more:
that last fit is a plain estimator's. Its settings are held as they were chosen, which is said.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, final

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.linear_model import (
    BayesianRidge,
    ElasticNet,
    ElasticNetCV,
    Lasso,
    LassoCV,
    LassoLars,
    LassoLarsCV,
    LassoLarsIC,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    MultiTaskElasticNet,
    MultiTaskElasticNetCV,
    MultiTaskLasso,
    MultiTaskLassoCV,
    OrthogonalMatchingPursuit,
    OrthogonalMatchingPursuitCV,
    Ridge,
    RidgeClassifier,
    RidgeClassifierCV,
    RidgeCV,
)
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC, NuSVC

from whence.adapters.held_kernels import held
from whence.errors import UnsupportedModel
from whence.preprocessing.containers import holds_frozen, is_frozen

HELD = "held, here and in refits"  # what notes say of what a fit chose


@final
@dataclass(frozen=True, eq=False)
class Plain:
    """A fitted estimator without what was wrapped around it.

    Args:
        estimator: What was fitted in the end.
        notes: What is held as it was chosen, a sentence each.
    """

    estimator: Any
    notes: tuple[str, ...] = ()


@singledispatch
def plain(estimator: Any) -> Plain:
    """Return what an estimator fitted in the end.

    Args:
        estimator: Fitted; a Pipeline is looked at where it ends.

    Returns:
        The plain estimator; the estimator itself where nothing is known of it.

    Raises:
        UnsupportedModel: If a search kept no fitted model.
    """
    found = _wrapped(estimator) or _chosen(estimator)
    if found is None:
        return Plain(estimator)
    inner = plain(found.estimator)
    return Plain(inner.estimator, (*found.notes, *inner.notes))


@plain.register
def _at_the_end(estimator: Pipeline) -> Plain:
    name, last = estimator.steps[-1]
    if holds_frozen(last):  # refits fit only the steps before it
        return Plain(estimator)
    found = plain(last)
    if found.estimator is last:
        return Plain(estimator, found.notes)
    steps = [*estimator.steps[:-1], *_steps(found.estimator, name)]
    return Plain(Pipeline(steps), found.notes)


@plain.register
def _held_kernel(estimator: GaussianProcessRegressor) -> Plain:
    held = copy(estimator).set_params(kernel=estimator.kernel_, optimizer=None)
    return Plain(held, (f"The kernel {estimator.kernel_} is {HELD}.",))


@plain.register
def _held_kernels(estimator: GaussianProcessClassifier) -> Plain:
    if estimator.n_classes_ > 2 and estimator.multi_class == "one_vs_one":
        return Plain(estimator)
    return Plain(held(estimator), (f"The kernel {estimator.kernel_} is {HELD}.",))


@plain.register(SVC)
@plain.register(NuSVC)
def _class_by_class(estimator: Any) -> Plain:
    if len(estimator.classes_) < 3 or estimator.decision_function_shape != "ovo":
        return Plain(estimator)
    note = "Decision values are those of classes, which those of their pairs amount to."
    return Plain(copy(estimator).set_params(decision_function_shape="ovr"), (note,))


@singledispatch
def _steps(estimator: Any, name: str) -> list[tuple[str, Any]]:
    """Return an estimator as steps of a pipeline; those of an inner one under names of its own."""
    return [(name, estimator)]


@_steps.register
def _steps_of_inner(estimator: Pipeline, name: str) -> list[tuple[str, Any]]:
    return [(f"inner_{inner}", step) for inner, step in estimator.steps]


def _wrapped(estimator: Any) -> Plain | None:
    """Return what a search, a threshold or a freezer holds."""
    name = type(estimator).__name__
    if hasattr(estimator, "best_params_") or hasattr(estimator, "best_index_"):
        if not hasattr(estimator, "best_estimator_"):
            best = getattr(estimator, "best_params_", None)
            raise UnsupportedModel(
                f"Expected a search that fitted its winner. Got {name}(refit=False). Fit it: "
                f"clone(search.estimator).set_params(**{best or 'params'!r}).fit(X, y)."
            )
        best = ", ".join(f"{key}={value!r}" for key, value in estimator.best_params_.items())
        return Plain(
            estimator.best_estimator_,
            (f"Settings chosen by {name} are {HELD}: {best}.",),
        )
    if is_frozen(estimator):
        note = "Effects are on what FrozenEstimator holds: refits fit it again, to these rows."
        return Plain(estimator.estimator, (note,))
    if name in ("FixedThresholdClassifier", "TunedThresholdClassifierCV"):
        threshold = getattr(estimator, "best_threshold_", getattr(estimator, "threshold", "auto"))
        return Plain(
            estimator.estimator_,
            (
                f"Effects are on probabilities, which the threshold of {name} ({threshold}) does "
                "not change.",
            ),
        )
    return None


def _chosen(estimator: Any) -> Plain | None:
    """Return the plain estimator that minimizes the same, with the same coefficients."""
    make = None if holds_frozen(estimator) else _SAME.get(type(estimator))
    found = None if make is None else make(estimator)
    if found is None:
        return None
    target, notes = found
    for name in ("tol", "max_iter"):
        if name in target.get_params() and hasattr(estimator, name):
            target.set_params(**{name: getattr(estimator, name)})
    for name in ("coef_", "intercept_", "classes_", "n_features_in_", "feature_names_in_"):
        if hasattr(estimator, name) and not hasattr(target, name):
            setattr(target, name, getattr(estimator, name))
    return Plain(target, notes)


Made = tuple[Any, tuple[str, ...]] | None


def _held(estimator: Any, **values: Any) -> tuple[str, ...]:
    """Return that settings are held as they were chosen."""
    said = ", ".join(f"{name} = {float(np.ravel(v)[0]):.4g}" for name, v in values.items())
    return (f"{type(estimator).__name__} chose {said}: {HELD}.",)


def _ridge_cv(estimator: Any) -> Made:
    """RidgeCV: a ridge with the alpha that was chosen."""
    made = Ridge(alpha=estimator.alpha_, fit_intercept=estimator.fit_intercept)
    return made, _held(estimator, alpha=estimator.alpha_)


def _ridge_classifier_cv(estimator: Any) -> Made:
    """RidgeClassifierCV: the same of a classifier."""
    options = {"fit_intercept": estimator.fit_intercept, "class_weight": estimator.class_weight}
    made = RidgeClassifier(alpha=estimator.alpha_, **options)
    return made, _held(estimator, alpha=estimator.alpha_)


def _lasso_path(estimator: Any) -> Made:
    """LassoCV and LassoLars, with or without a choice of alpha: a lasso."""
    given = type(estimator) is LassoLars
    alpha = float(estimator.alpha if given else estimator.alpha_)
    if estimator.positive or np.ndim(estimator.coef_) != 1 or alpha == 0:
        return None
    notes = () if given else _held(estimator, alpha=alpha)
    return Lasso(alpha=alpha, fit_intercept=estimator.fit_intercept), notes


def _elastic_net_cv(estimator: Any) -> Made:
    """ElasticNetCV: an elastic net with what was chosen."""
    if estimator.positive:
        return None
    alpha, share = float(estimator.alpha_), float(estimator.l1_ratio_)
    made = ElasticNet(alpha=alpha, l1_ratio=share, fit_intercept=estimator.fit_intercept)
    return made, _held(estimator, alpha=alpha, l1_ratio=share)


def _several_targets_cv(estimator: Any) -> Made:
    """MultiTaskLassoCV and MultiTaskElasticNetCV: the same with what was chosen."""
    options = {"alpha": float(estimator.alpha_), "fit_intercept": estimator.fit_intercept}
    if type(estimator) is MultiTaskLassoCV:
        return MultiTaskLasso(**options), _held(estimator, alpha=estimator.alpha_)
    share = float(estimator.l1_ratio_)
    notes = _held(estimator, alpha=estimator.alpha_, l1_ratio=share)
    return MultiTaskElasticNet(l1_ratio=share, **options), notes


def _pursuit_cv(estimator: Any) -> Made:
    """OrthogonalMatchingPursuitCV: a pursuit of as many columns as were chosen."""
    count = int(estimator.n_nonzero_coefs_)
    options = {"n_nonzero_coefs": count, "fit_intercept": estimator.fit_intercept}
    return OrthogonalMatchingPursuit(**options), _held(estimator, n_nonzero_coefs=count)


def _logistic_cv(estimator: Any) -> Made:
    """LogisticRegressionCV: a logistic regression with the C that was chosen."""
    strengths = np.unique(np.ravel(estimator.C_))
    if not estimator.refit or len(strengths) != 1:
        return None
    own, wanted = estimator.get_params(), LogisticRegression().get_params()
    shared = {name: own[name] for name in wanted if name in own and name != "l1_ratio"}
    shared["C"] = float(strengths[0])
    ratio = np.asarray(getattr(estimator, "l1_ratio_", None)).reshape(-1)[0]
    if ratio is not None:
        shared["l1_ratio"] = float(ratio)
    return LogisticRegression(**shared), _held(estimator, C=strengths)


def _bayesian(estimator: Any) -> Made:
    """BayesianRidge: a ridge with the penalty that its two precisions amount to."""
    alpha = float(estimator.lambda_ / estimator.alpha_)
    made = Ridge(alpha=alpha, fit_intercept=estimator.fit_intercept)
    return made, _held(estimator, alpha_=estimator.alpha_, lambda_=estimator.lambda_)


def _each_output(estimator: Any) -> Made:
    """MultiOutputRegressor of a ridge or least squares: one of several outputs."""
    inner = [plain(each) for each in estimator.estimators_]
    parts = [each.estimator for each in inner]
    if {type(part) for part in parts} not in ({Ridge}, {LinearRegression}):
        return None
    if any(part.positive for part in parts):
        return None
    alpha = np.array([getattr(part, "alpha", 0.0) for part in parts])
    made: Any = Ridge(alpha=alpha, fit_intercept=parts[0].fit_intercept)
    made.coef_ = np.stack([np.ravel(part.coef_) for part in parts])
    made.intercept_ = np.array([float(np.ravel(part.intercept_)[0]) for part in parts])
    return made, tuple(dict.fromkeys(note for each in inner for note in each.notes))


_SAME: dict[type[BaseEstimator], Callable[[Any], Made]] = {
    BayesianRidge: _bayesian,
    ElasticNetCV: _elastic_net_cv,
    LassoCV: _lasso_path,
    LassoLars: _lasso_path,
    LassoLarsCV: _lasso_path,
    LassoLarsIC: _lasso_path,
    LogisticRegressionCV: _logistic_cv,
    MultiOutputRegressor: _each_output,
    MultiTaskElasticNetCV: _several_targets_cv,
    MultiTaskLassoCV: _several_targets_cv,
    OrthogonalMatchingPursuitCV: _pursuit_cv,
    RidgeCV: _ridge_cv,
    RidgeClassifierCV: _ridge_classifier_cv,
}
