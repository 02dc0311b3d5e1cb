"""The estimators and wrappers of scikit-learn used most: what whence makes of each.

`python -m tests.models_table` writes the table of docs/how-to/models.md; a test holds them equal.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import TransformedTargetRegressor
from sklearn.cross_decomposition import PLSRegression
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.discriminant_analysis import (
    LinearDiscriminantAnalysis,
    QuadraticDiscriminantAnalysis,
)
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingRegressor,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingRegressor,
    VotingClassifier,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import (
    ARDRegression,
    BayesianRidge,
    ElasticNet,
    HuberRegressor,
    Lasso,
    LassoCV,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    PoissonRegressor,
    QuantileRegressor,
    Ridge,
    RidgeCV,
    SGDClassifier,
)
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import MultiOutputRegressor, RegressorChain
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, NearestCentroid
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR, NuSVC, NuSVR, OneClassSVM
from sklearn.tree import DecisionTreeClassifier

import whence
from benchmarks.between import between
from whence.adapters.anything import Estimator
from whence.adapters.equivalents import plain
from whence.errors import WhenceError
from whence.methods.choose import default_of
from whence.objective.objective import Objective
from whence.objective.trained import Trained
from whence.trees.model import TreeModel

Floats = NDArray[np.float64]

PAGE = Path(__file__).parent.parent / "docs" / "how-to" / "models.md"
_START, _END = "<!-- table: python -m tests.models_table -->\n", "<!-- end of table -->\n"

_TIGHT = {"tol": 1e-11, "max_iter": 100_000}
_FOREST = {"n_estimators": 8, "max_depth": 4, "random_state": 0}
_NET = {"hidden_layer_sizes": (5,), "max_iter": 40, "random_state": 0}

# Estimator, data, and what an estimator of this kind is fitted with here.
CASES: dict[str, tuple[str, Any]] = {
    "LinearRegression": ("numbers", LinearRegression()),
    "Ridge": ("numbers", Ridge()),
    "RidgeCV": ("numbers", RidgeCV()),
    "Lasso": ("numbers", Lasso(alpha=0.05, **_TIGHT)),
    "LassoCV": ("numbers", LassoCV(cv=3, **_TIGHT)),
    "ElasticNet": ("numbers", ElasticNet(alpha=0.05, **_TIGHT)),
    "BayesianRidge": ("numbers", BayesianRidge()),
    "ARDRegression": ("numbers", ARDRegression()),
    "HuberRegressor": ("numbers", HuberRegressor(alpha=0.1, tol=1e-9, max_iter=1000)),
    "QuantileRegressor": ("numbers", QuantileRegressor(quantile=0.8, alpha=0.01)),
    "PLSRegression": ("numbers", PLSRegression(2)),
    "PoissonRegressor": (
        "counts",
        PoissonRegressor(alpha=0.1, solver="newton-cholesky", tol=1e-12),
    ),
    "LogisticRegression": ("binary", LogisticRegression(solver="newton-cholesky", **_TIGHT)),
    "LogisticRegressionCV": (
        "binary",
        LogisticRegressionCV(
            Cs=(0.1, 1.0),
            l1_ratios=(0.0,),
            cv=3,
            solver="newton-cholesky",
            scoring="neg_log_loss",
            use_legacy_attributes=False,
            **_TIGHT,
        ),
    ),
    "SGDClassifier": (
        "binary",
        SGDClassifier(loss="log_loss", alpha=0.1, random_state=0, **_TIGHT),
    ),
    "LinearSVC": ("binary", LinearSVC(**_TIGHT)),
    "SVC": ("binary", SVC(tol=1e-10)),
    "SVR": ("numbers", SVR(tol=1e-10)),
    "SVC, three classes": ("classes", SVC(tol=1e-10)),
    "LinearSVR": ("numbers", LinearSVR(epsilon=0.1, random_state=0, **_TIGHT)),
    "NuSVC": ("binary", NuSVC(nu=0.3, tol=1e-10)),
    "NuSVR": ("numbers", NuSVR(tol=1e-10)),
    "OneClassSVM": ("binary", OneClassSVM(nu=0.2, tol=1e-10)),
    "KernelRidge": ("numbers", KernelRidge(kernel="rbf", alpha=0.5)),
    "GaussianProcessRegressor": (
        "numbers",
        GaussianProcessRegressor(RBF(3.0) + WhiteKernel(0.5)),
    ),
    "GaussianProcessClassifier": ("binary", GaussianProcessClassifier(RBF(3.0))),
    "LinearDiscriminantAnalysis": ("classes", LinearDiscriminantAnalysis()),
    "QuadraticDiscriminantAnalysis": ("classes", QuadraticDiscriminantAnalysis()),
    "GaussianNB": ("classes", GaussianNB()),
    "MultinomialNB": ("shares", MultinomialNB()),
    "NearestCentroid": ("classes", NearestCentroid()),
    "StandardScaler, KNeighborsClassifier": (
        "classes",
        make_pipeline(StandardScaler(), KNeighborsClassifier()),
    ),
    "KNeighborsClassifier": ("classes", KNeighborsClassifier()),
    "KNeighborsRegressor": ("numbers", KNeighborsRegressor()),
    "MLPClassifier": ("classes", MLPClassifier(**_NET)),
    "MLPRegressor": ("numbers", MLPRegressor(**_NET)),
    "DecisionTreeClassifier": ("binary", DecisionTreeClassifier(max_depth=3, random_state=0)),
    "RandomForestClassifier": ("binary", RandomForestClassifier(**_FOREST)),
    "RandomForestRegressor": ("numbers", RandomForestRegressor(**_FOREST)),
    "ExtraTreesClassifier": ("binary", ExtraTreesClassifier(**_FOREST)),
    "GradientBoostingClassifier": (
        "binary",
        GradientBoostingClassifier(n_estimators=8, random_state=0),
    ),
    "GradientBoostingRegressor": (
        "numbers",
        GradientBoostingRegressor(n_estimators=8, random_state=0),
    ),
    "HistGradientBoostingClassifier": (
        "binary",
        HistGradientBoostingClassifier(max_iter=8, random_state=0),
    ),
    "AdaBoostClassifier": ("binary", AdaBoostClassifier(n_estimators=5, random_state=0)),
    "BaggingRegressor": ("numbers", BaggingRegressor(Ridge(), n_estimators=4, random_state=0)),
    "VotingClassifier": (
        "binary",
        VotingClassifier(
            [("a", LogisticRegression(random_state=0)), ("b", GaussianNB())], voting="soft"
        ),
    ),
    "StackingRegressor": (
        "numbers",
        StackingRegressor([("a", Ridge(random_state=0)), ("b", KNeighborsRegressor())], cv=3),
    ),
    "CalibratedClassifierCV": (
        "binary",
        CalibratedClassifierCV(LinearSVC(random_state=0), cv=3),
    ),
    "GridSearchCV": (
        "binary",
        GridSearchCV(
            LogisticRegression(solver="newton-cholesky", **_TIGHT), {"C": [0.1, 1.0]}, cv=3
        ),
    ),
    "RandomizedSearchCV": (
        "numbers",
        RandomizedSearchCV(
            make_pipeline(StandardScaler(), Ridge()),
            {"ridge__alpha": [0.1, 1.0]},
            n_iter=2,
            cv=3,
            random_state=0,
        ),
    ),
    "OneVsRestClassifier": (
        "classes",
        OneVsRestClassifier(LogisticRegression(solver="newton-cholesky", **_TIGHT)),
    ),
    "OneVsOneClassifier": (
        "classes",
        OneVsOneClassifier(LogisticRegression(solver="newton-cholesky", **_TIGHT)),
    ),
    "RegressorChain": ("several numbers", RegressorChain(Ridge())),
    "MultiOutputRegressor": ("several numbers", MultiOutputRegressor(Ridge())),
    "TransformedTargetRegressor": (
        "counts",
        TransformedTargetRegressor(Ridge(random_state=0), func=np.log1p, inverse_func=np.expm1),
    ),
    "KMeans": ("classes", KMeans(3, random_state=0)),
    "IsolationForest": ("binary", IsolationForest(n_estimators=8, random_state=0)),
}


@cache
def data(kind: str, n: int = 90) -> tuple[Floats, NDArray[Any]]:
    """Return real rows with targets of a kind."""
    load = {"binary": load_breast_cancer, "classes": load_wine, "shares": load_wine}
    x, y = load.get(kind, load_diabetes)(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))[:n]
    x, y = x[order, :8], y[order]
    if kind == "shares":
        return x / x.max(0), y
    x = (x - x.mean(0)) / x.std(0)
    if kind in ("binary", "classes"):
        return x, y
    if kind == "counts":
        return x, np.round(y / 50)
    y = (y - y.mean()) / y.std()
    return x, np.stack([y, y**2], 1) if kind == "several numbers" else y


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted estimator with its rows, and six rows it has not seen."""

    estimator: Any
    x: Floats
    y: NDArray[Any]
    queries: tuple[Floats, NDArray[Any]]


@cache
def fitted(name: str) -> Fit:
    """Return one of them, fitted."""
    kind, estimator = CASES[name]
    x, y = data(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of networks, stopped on purpose
        estimator = clone(estimator).fit(x[6:], y[6:])
    return Fit(estimator, x[6:], y[6:], (x[:6], y[:6]))


@cache
def accepted(name: str) -> Trained | WhenceError:
    """Return one of them as whence takes it, or why it does not."""
    fit = fitted(name)
    try:
        return whence.from_sklearn(fit.estimator, fit.x, fit.y)
    except WhenceError as error:
        return error


def held(estimator: Any) -> Any:
    """Return the estimator that a refit fits, its chosen settings held, not fitted."""
    inner = plain(estimator).estimator
    if isinstance(inner, GaussianProcessRegressor):
        return clone(inner).set_params(kernel=inner.kernel_, optimizer=None)
    if isinstance(inner, SGDClassifier):  # its fit ends near the minimum of 81 rows
        return LogisticRegression(C=1 / (inner.alpha * 81), solver="newton-cholesky", **_TIGHT)
    return clone(inner)


def row(name: str) -> tuple[str, str, str, str]:
    """Return what the table says of one."""
    model = accepted(name)
    if isinstance(model, WhenceError):
        out = str(model).split(". ", 2)
        return name, "refused", "", out[2] if len(out) > 2 else str(model)
    method = type(default_of(model)[0]).__name__
    if isinstance(model, Objective):
        way = f"{'exactly' if model.convex else 'as a network'}, with derivatives"
    elif isinstance(model, TreeModel):
        way = "exactly, splits held"
    elif isinstance(model, Estimator) and not model.instant:
        way = "by ensemble"
    elif isinstance(model, Estimator):
        way = "exactly, by its own fit for each removal"
    else:
        way = "exactly, by removal"
    chosen = any("held, here and in refits" in note for note in model.notes)
    refit = "its own fit, what was chosen held" if chosen else "its own fit"
    return name, way, f"`{method}`", refit


def table() -> str:
    """Return the table as Markdown."""
    lines = ["| estimator | accepted | default method | a refit is, or the way out |"]
    lines.append("|---|---|---|---|")
    lines += [f"| `{name}` | {' | '.join(rest)} |" for name, *rest in map(row, CASES)]
    return "\n".join(lines) + "\n"


def written(page: str) -> str:
    """Return a page with the table in its place."""
    return between(page, _START, _END, table())


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
