"""Which estimators draw random numbers in their fits, and which are steady without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from sklearn.compose import TransformedTargetRegressor
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.discriminant_analysis import (
    LinearDiscriminantAnalysis,
    QuadraticDiscriminantAnalysis,
)
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import (
    ARDRegression,
    BayesianRidge,
    ElasticNet,
    ElasticNetCV,
    GammaRegressor,
    HuberRegressor,
    Lars,
    Lasso,
    LassoCV,
    LassoLars,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    MultiTaskElasticNet,
    MultiTaskElasticNetCV,
    MultiTaskLasso,
    MultiTaskLassoCV,
    OrthogonalMatchingPursuit,
    PoissonRegressor,
    QuantileRegressor,
    RANSACRegressor,
    Ridge,
    RidgeClassifier,
    TweedieRegressor,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import (
    ClassifierChain,
    MultiOutputClassifier,
    MultiOutputRegressor,
    RegressorChain,
)
from sklearn.naive_bayes import (
    BernoulliNB,
    CategoricalNB,
    ComplementNB,
    GaussianNB,
    MultinomialNB,
)
from sklearn.neighbors import (
    KNeighborsClassifier,
    KNeighborsRegressor,
    NearestCentroid,
    RadiusNeighborsClassifier,
    RadiusNeighborsRegressor,
)
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import KBinsDiscretizer, QuantileTransformer, TargetEncoder
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR, NuSVC, NuSVR, OneClassSVM

from whence.adapters.held_kernels import ProcessPerClass
from whence.preprocessing.containers import is_frozen, parts, settings
from whence.trees.libraries import OUTSIDE, library_of

Uses = Callable[[Any, int], bool]  # of the estimator and the number of rows


def draws(estimator: Any, n: int) -> dict[str, int | None]:
    """Return the seeds that the fit of an estimator uses, by their names in `get_params`.

    Args:
        estimator: Fitted or not.
        n: The number of rows.
    """
    params = settings(estimator)
    found = {}
    for name, value in params.items():
        owner, _, last = name.rpartition("__")
        if last != "random_state":
            continue
        holder = params.get(owner.rpartition("__")[0], estimator) if owner else None
        drawing = _as_fitted(params[owner], estimator) if owner else estimator
        if type(holder) not in _SEED_PARTS and _uses(drawing, n):
            found[name] = value
    return found


def is_steady(estimator: Any, n: int) -> bool:
    """Return whether a fit draws nothing, and without a row moves as little as the row does.

    Args:
        estimator: Fitted or not.
        n: The number of rows.
    """
    if not hasattr(estimator, "get_params"):
        return False
    models = _models(estimator)
    known = all(type(part) in _STEADY or is_frozen(part) for part in models)
    hard = any(getattr(part, "voting", "") == "hard" for part in models)
    return known and not hard and not draws(estimator, n)


def is_unknown(estimator: Any) -> bool:
    """Return whether an estimator, or one inside of it, is none of scikit-learn's own.

    Args:
        estimator: Fitted or not.
    """
    return any(not type(part).__module__.startswith("sklearn.") for part in _models(estimator))


def _models(estimator: Any) -> list[Any]:
    """Return an estimator and those inside of it that predict."""
    every = parts(estimator)
    return [part for part in every if hasattr(part, "fit") and hasattr(part, "predict")]


def _as_fitted(part: Any, whole: Any) -> Any:
    """Return the copy of a part that was fitted, as ensembles and folds fit copies, or the part."""
    if type(part) is not PCA or hasattr(part, "n_features_in_"):
        return part
    copies = (one for one in _held(whole, set()) if repr(one) == repr(part))
    return next(copies, part)


def _held(holder: Any, seen: set[int]) -> Iterator[Any]:
    """Yield the fitted decompositions inside of an estimator."""
    if type(holder) is PCA and hasattr(holder, "n_features_in_"):
        yield holder
    if id(holder) in seen or not type(holder).__module__.startswith(("sklearn.", "builtins")):
        return
    seen.add(id(holder))
    inside = holder if type(holder) in (list, tuple) else getattr(holder, "__dict__", {}).values()
    for each in inside:
        yield from _held(each, seen)


def _uses(estimator: Any, n: int) -> bool:
    """Return whether a fit uses the seed of an estimator; where it is not known, it does."""
    if library_of(estimator) in OUTSIDE:
        # Without a seed they draw with one of their own, always the same.
        return estimator.get_params().get("random_state") is not None
    uses = _USES.get(type(estimator))
    return uses is None or uses(estimator, n)


def _holds_out(estimator: Any, n: int) -> bool:
    """Return whether trees are grown on samples, or on rows and columns drawn at random."""
    stops = n > 10_000 if estimator.early_stopping == "auto" else estimator.early_stopping
    judged = stops and (estimator.validation_fraction is not None or n > 10_000)
    return bool(judged or estimator.max_features < 1 or n > 200_000)


def _at_random(estimator: Any, n: int) -> bool:
    """Return whether coordinates are chosen at random."""
    return bool(estimator.selection == "random")


def _in_dual(estimator: Any, n: int) -> bool:
    """Return whether liblinear goes through the rows in a random order."""
    if estimator.dual != "auto" or getattr(estimator, "multi_class", "") == "crammer_singer":
        return estimator.dual is not False
    return "squared" not in estimator.loss or n < getattr(estimator, "n_features_in_", n + 1)


def _by_rows(estimator: Any, n: int) -> bool:
    """Return whether the solver goes through the rows in a random order."""
    return estimator.solver in ("liblinear", "sag", "saga")


def _restarts(estimator: Any, n: int) -> bool:
    """Return whether hyperparameters are looked for from random starts."""
    return estimator.optimizer is not None and estimator.n_restarts_optimizer > 0


def _jitters(estimator: Any, n: int) -> bool:
    """Return whether targets are jittered."""
    return estimator.jitter is not None


def _shares(estimator: Any, n: int) -> bool:
    """Return whether probabilities come of folds."""
    return estimator.probability is True


def _in_random_order(estimator: Any, n: int) -> bool:
    """Return whether a chain's order is random."""
    return estimator.order is not None and np.ndim(estimator.order) == 0


def _samples(estimator: Any, n: int) -> bool:
    """Return whether quantiles are those of a part of the rows."""
    return estimator.subsample is not None and n > estimator.subsample


def _puts_in_folds(estimator: Any, n: int) -> bool:
    """Return whether rows are put into folds by chance: the encoder's, or a splitter's own."""
    cv = estimator.cv
    if hasattr(cv, "split"):
        return getattr(cv, "shuffle", False) and cv.random_state is None
    return not hasattr(cv, "__iter__") and estimator.shuffle is not False


def _randomized(estimator: Any, n: int) -> bool:
    """Return whether the decomposition is randomized; where it is not known, it is."""
    solver = getattr(estimator, "_fit_svd_solver", estimator.svd_solver)
    return solver not in ("full", "covariance_eigh")


_USES: dict[type, Uses] = {
    HistGradientBoostingClassifier: _holds_out,
    HistGradientBoostingRegressor: _holds_out,
    ClassifierChain: _in_random_order,
    ElasticNet: _at_random,
    ElasticNetCV: _at_random,
    GaussianProcessClassifier: _restarts,
    GaussianProcessRegressor: _restarts,
    KBinsDiscretizer: _samples,
    Lars: _jitters,
    Lasso: _at_random,
    LassoCV: _at_random,
    LassoLars: _jitters,
    LinearSVC: _in_dual,
    LinearSVR: _in_dual,
    LogisticRegression: _by_rows,
    LogisticRegressionCV: _by_rows,
    MultiTaskElasticNet: _at_random,
    MultiTaskElasticNetCV: _at_random,
    MultiTaskLasso: _at_random,
    MultiTaskLassoCV: _at_random,
    NuSVC: _shares,
    PCA: _randomized,
    QuantileTransformer: _samples,
    RegressorChain: _in_random_order,
    Ridge: _by_rows,
    RidgeClassifier: _by_rows,
    SVC: _shares,
    TargetEncoder: _puts_in_folds,
    TruncatedSVD: lambda estimator, _: estimator.algorithm == "randomized",
}

# Those that give their parts seeds of their own.
_SEED_PARTS = (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    RANSACRegressor,
)

# Made of others, or smooth in the weights of rows, or the means of near ones.
_STEADY = {
    ARDRegression,
    BayesianRidge,
    BernoulliNB,
    CategoricalNB,
    ClassifierChain,
    ComplementNB,
    ElasticNet,
    GammaRegressor,
    GaussianNB,
    GaussianProcessClassifier,
    GaussianProcessRegressor,
    HuberRegressor,
    KNeighborsClassifier,
    KNeighborsRegressor,
    KernelRidge,
    Lars,
    Lasso,
    LassoLars,
    LinearDiscriminantAnalysis,
    LinearRegression,
    LinearSVC,
    LinearSVR,
    LogisticRegression,
    MultiOutputClassifier,
    MultiOutputRegressor,
    MultiTaskElasticNet,
    MultiTaskLasso,
    MultinomialNB,
    NearestCentroid,
    NuSVC,
    NuSVR,
    OneClassSVM,
    OneVsOneClassifier,
    OneVsRestClassifier,
    OrthogonalMatchingPursuit,
    PLSRegression,
    Pipeline,
    PoissonRegressor,
    ProcessPerClass,
    QuadraticDiscriminantAnalysis,
    QuantileRegressor,
    RadiusNeighborsClassifier,
    RadiusNeighborsRegressor,
    RegressorChain,
    Ridge,
    RidgeClassifier,
    SVC,
    SVR,
    TransformedTargetRegressor,
    TweedieRegressor,
    VotingClassifier,
    VotingRegressor,
}
