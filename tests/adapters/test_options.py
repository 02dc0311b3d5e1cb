"""Every option of an estimator: a refit is its own library's fit, or the option is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.discriminant_analysis import (
    LinearDiscriminantAnalysis,
    QuadraticDiscriminantAnalysis,
)
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, Matern, WhiteKernel
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import (
    BayesianRidge,
    ElasticNet,
    ElasticNetCV,
    Lasso,
    LassoLars,
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    QuantileRegressor,
    Ridge,
    RidgeClassifier,
    RidgeCV,
    SGDRegressor,
    TweedieRegressor,
)
from sklearn.naive_bayes import BernoulliNB, ComplementNB, GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR

import whence
from tests.adapters.test_models_table import answer, own_answer
from tests.models_table import data, held
from whence.adapters.anything import Estimator
from whence.adapters.composed import Composed
from whence.adapters.neighbors import Neighbors

pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning",
    "ignore::whence.errors.NotConvergedWarning",
    "ignore:Singular matrix",
)

_TIGHT = {"tol": 1e-11, "max_iter": 100_000}
_NEWTON = LogisticRegression(solver="newton-cholesky", **_TIGHT)
_NET = {"hidden_layer_sizes": (3,), "max_iter": 8, "random_state": 0}
_TWEEDIE = TweedieRegressor(alpha=0.1, solver="newton-cholesky", **_TIGHT)


def options(**values: Any) -> list[dict[str, Any]]:
    """Return each value of each option alone."""
    return [{name: value} for name, several in values.items() for value in several]


# What an estimator is fitted to, the estimator, and options that are set one at a time.
EXACT: list[tuple[str, Any, list[dict[str, Any]]]] = [
    ("numbers", LinearRegression(), options(fit_intercept=[False], copy_X=[False])),
    (
        "numbers",
        Ridge(),
        options(alpha=[[3.0], 0.0], fit_intercept=[False], solver=["svd", "cholesky"]),
    ),
    ("several numbers", Ridge(), options(alpha=[[1.0, 3.0]])),
    (
        "numbers",
        RidgeCV(),
        options(alphas=[[0.1, 1.0]], fit_intercept=[False], cv=[3], gcv_mode=["svd"]),
    ),
    (
        "numbers",
        Lasso(alpha=0.05, **_TIGHT),
        options(fit_intercept=[False], selection=["random"], precompute=[True], warm_start=[True]),
    ),
    (
        "numbers",
        ElasticNet(alpha=0.05, **_TIGHT),
        options(l1_ratio=[0.0, 0.1, 1.0], fit_intercept=[False]),
    ),
    ("numbers", ElasticNetCV(cv=3, **_TIGHT), options(l1_ratio=[[0.2, 0.8]])),
    ("numbers", BayesianRidge(), options(fit_intercept=[False], alpha_1=[1e-3])),
    (
        "numbers",
        QuantileRegressor(alpha=0.01),
        options(quantile=[0.1, 0.8], alpha=[0.0, 0.2], fit_intercept=[False]),
    ),
    (
        "counts",
        PoissonRegressor(alpha=0.1, solver="newton-cholesky", **_TIGHT),
        options(fit_intercept=[False], alpha=[0.0]),
    ),
    ("positive", _TWEEDIE, options(power=[0, 1, 1.5, 2, 3])),
    ("positive", clone(_TWEEDIE).set_params(power=0), options(link=["log"])),
    (
        "binary",
        _NEWTON,
        options(
            C=[0.1, np.inf],
            fit_intercept=[False],
            class_weight=["balanced", {0: 3.0}],
            solver=["lbfgs", "liblinear", "sag"],
        ),
    ),
    (
        "binary",
        LogisticRegression(solver="liblinear", **_TIGHT),
        options(intercept_scaling=[3.0], l1_ratio=[1.0], dual=[True]),
    ),
    (
        "classes",
        _NEWTON,
        options(class_weight=["balanced", {0: 3.0}], fit_intercept=[False]),
    ),
    ("binary", RidgeClassifier(), options(class_weight=["balanced"], fit_intercept=[False])),
    (
        "binary",
        LinearSVC(**_TIGHT),
        options(
            loss=["hinge"],
            fit_intercept=[False],
            intercept_scaling=[3.0],
            class_weight=["balanced"],
            C=[0.1],
        ),
    ),
    ("binary", LinearSVC(dual=False, **_TIGHT), options(penalty=["l1"])),
    ("classes", LinearSVC(**_TIGHT), options(class_weight=[{0: 2.0}], loss=["hinge"])),
    (
        "binary",
        SVC(tol=1e-10),
        options(
            kernel=["linear", "poly"],
            C=[10.0],
            gamma=[0.1, "auto"],
            class_weight=["balanced"],
            coef0=[1.0],
            shrinking=[False],
        ),
    ),
    ("classes", SVC(gamma=0.1, tol=1e-10), options(kernel=["linear", "poly"])),
    (
        "numbers",
        SVR(tol=1e-10),
        options(epsilon=[0.0, 0.5], C=[10.0], kernel=["poly"], gamma=[0.1]),
    ),
    (
        "numbers",
        LinearSVR(**_TIGHT),
        options(
            epsilon=[0.3], fit_intercept=[False], intercept_scaling=[3.0], C=[0.1], dual=[True]
        ),
    ),
    (
        "numbers",
        KernelRidge(alpha=0.5, kernel="rbf"),
        options(kernel=["linear", "poly", "laplacian", "cosine"], gamma=[0.1]),
    ),
    (
        "numbers",
        GaussianProcessRegressor(RBF(3.0) + WhiteKernel(0.5)),
        options(kernel=[Matern(2.0) + WhiteKernel(0.3)]),
    ),
    ("numbers", GaussianProcessRegressor(RBF(3.0), optimizer=None), options(alpha=[0.3])),
    (
        "classes",
        LinearDiscriminantAnalysis(),
        options(solver=["lsqr", "eigen"], priors=[[0.2, 0.3, 0.5]], n_components=[1]),
    ),
    (
        "classes",
        QuadraticDiscriminantAnalysis(),
        options(reg_param=[0.3], priors=[[0.2, 0.3, 0.5]]),
    ),
    ("classes", GaussianNB(), options(var_smoothing=[1e-2], priors=[[0.2, 0.3, 0.5]])),
    ("shares", MultinomialNB(), options(alpha=[0.1], fit_prior=[False])),
    ("shares", ComplementNB(), options(alpha=[0.1], norm=[True])),
    ("shares", BernoulliNB(binarize=0.5), options(alpha=[0.1], fit_prior=[False])),
    (
        "classes",
        KNeighborsClassifier(),
        options(weights=["distance"], metric=["cosine"], p=[1, 3], n_neighbors=[1]),
    ),
    (
        "classes",
        MLPClassifier(**_NET),
        options(
            activation=["tanh", "logistic", "identity"],
            solver=["lbfgs", "sgd"],
            alpha=[0.1],
            batch_size=[20],
            hidden_layer_sizes=[(), (3, 2)],
            shuffle=[False],
        ),
    ),
    ("counts", MLPRegressor(**_NET), options(loss=["poisson"])),
]

# Options without an exact treatment: refits are the library's own, and a note names the option.
NAMED: list[tuple[str, Any, list[dict[str, Any]]]] = [
    ("numbers", LinearRegression(), options(positive=[True])),
    ("numbers", Ridge(), options(positive=[True])),
    ("numbers", Lasso(alpha=0.05, **_TIGHT), options(positive=[True])),
    ("numbers", LassoLars(alpha=0.05), options(positive=[True])),
    ("positive", TweedieRegressor(alpha=0.1), options(power=[-1])),
    (
        "numbers",
        SGDRegressor(random_state=0),
        options(loss=["huber"], average=[True], early_stopping=[True]),
    ),
    (
        "classes",
        LinearSVC(random_state=0),
        options(multi_class=["crammer_singer"], class_weight=["balanced"]),
    ),
    ("binary", SVC(), options(kernel=["sigmoid"])),
    ("classes", SVC(gamma=0.1), options(gamma=["scale"], class_weight=["balanced"])),
    ("numbers", SVR(), options(kernel=["sigmoid"])),
    ("numbers", KernelRidge(), options(kernel=["sigmoid"])),
    ("numbers", GaussianProcessRegressor(RBF(3.0) + WhiteKernel(0.5)), options(normalize_y=[True])),
    ("classes", LinearDiscriminantAnalysis(solver="lsqr"), options(shrinkage=["auto", 0.3])),
    ("classes", NearestCentroid(), options(shrink_threshold=[0.2])),
]


def cases(table: list[tuple[str, Any, list[dict[str, Any]]]]) -> list[Any]:
    """Return the data, the estimator and the option of each test, under a name."""
    return [
        pytest.param(
            kind,
            estimator,
            option,
            id=f"{type(estimator).__name__}, {kind}: {next(iter(option.items()))}",
        )
        for kind, estimator, each in table
        for option in each
    ]


def check_refit(kind: str, estimator: Any) -> whence.Trained:
    """Compare answers, and those of a refit without three rows, with the library's own."""
    x, y = data("counts" if kind == "positive" else kind)
    y = y + 1 if kind == "positive" else y
    queries, x, y = (x[:6], y[:6]), x[6:], y[6:]
    fitted = clone(estimator).fit(x.copy(), y.copy())
    model = whence.from_sklearn(fitted, x, y)
    floored = isinstance(model, Composed | Estimator | Neighbors)
    least = 1 / (2 * len(x)) if floored else 0
    weights = model.weights.clone()
    weights[[3, 7, 20]] = 0
    kept = weights.numpy() > 0
    own = held(fitted).fit(x[kept], y[kept])
    asked = model.examples(queries)
    for ours, theirs in ((model, fitted), (model.refit(weights), own)):
        expected = own_answer(theirs, queries[0], least)
        np.testing.assert_allclose(answer(ours, theirs, asked), expected, atol=2e-6)
    return model


@pytest.mark.parametrize(("kind", "estimator", "option"), cases(EXACT))
def test_an_option_is_treated_exactly(kind: str, estimator: Any, option: dict[str, Any]) -> None:
    model = check_refit(kind, clone(estimator).set_params(**option))
    assert not isinstance(model, Estimator)


@pytest.mark.parametrize(("kind", "estimator", "option"), cases(NAMED))
def test_an_option_without_an_exact_treatment_is_named(
    kind: str, estimator: Any, option: dict[str, Any]
) -> None:
    model = check_refit(kind, clone(estimator).set_params(**option))
    assert isinstance(model, Estimator)
    reason = next(note for note in model.notes if note.startswith("Known by its predictions alone"))
    ((name, value),) = option.items()
    assert name in reason or str(value) in reason
