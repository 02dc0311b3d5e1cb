"""Fitted models on bundled data, each with queries it has not seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge
from sklearn.preprocessing import StandardScaler

import whence
from whence.linear.objective import LinearObjective


@dataclass(frozen=True, eq=False)
class Fitted:
    """A fitted model with its training data and five queries."""

    estimator: Any
    x: NDArray[np.float64]
    y: NDArray[Any]
    queries: tuple[NDArray[np.float64], NDArray[Any]]
    weights: NDArray[np.float64]

    @property
    def objective(self) -> LinearObjective:
        return whence.from_sklearn(self.estimator, self.x, self.y, sample_weight=self.weights)

    def refit_without(self, *indices: int) -> Any:
        """Refit with scikit-learn on the rows that are left."""
        keep = np.setdiff1d(np.arange(len(self.x)), indices)
        return clone(self.estimator).fit(
            self.x[keep], self.y[keep], sample_weight=self.weights[keep]
        )

    def losses(self, estimator: Any) -> NDArray[np.float64]:
        """The queries' losses under an estimator, straight from its predictions."""
        x, y = self.queries
        if isinstance(estimator, LogisticRegression):
            p = estimator.predict_proba(x)
            return -np.log(p[np.arange(len(y)), np.searchsorted(estimator.classes_, y)])
        mean = estimator.predict(x)
        if isinstance(estimator, PoissonRegressor):
            return mean - y * np.log(mean)
        return (mean - y) ** 2 / 2


def _fitted(name: str) -> Fitted:
    load, estimator = {
        "binary": (
            load_breast_cancer,
            LogisticRegression(tol=1e-12, max_iter=10_000, solver="newton-cholesky"),
        ),
        "multinomial": (
            load_wine,
            LogisticRegression(tol=1e-10, max_iter=100_000, solver="newton-cg"),
        ),
        "ridge": (load_diabetes, Ridge(alpha=0.5)),
        "poisson": (
            load_diabetes,
            PoissonRegressor(alpha=0.1, tol=1e-12, max_iter=10_000, solver="newton-cholesky"),
        ),
    }[name]
    x, y = load(return_X_y=True)
    x = StandardScaler().fit_transform(x)
    order = np.random.default_rng(1).permutation(len(x))
    x, y = x[order], y[order]
    if name == "poisson":
        y = np.round(y / 50)
    half = min(120, len(x) // 2)
    weights = np.random.default_rng(2).uniform(0.5, 2.0, half)
    estimator.fit(x[:half], y[:half], sample_weight=weights)
    return Fitted(estimator, x[:half], y[:half], (x[half : half + 5], y[half : half + 5]), weights)


@pytest.fixture(params=["binary", "multinomial", "ridge", "poisson"], scope="module")
def fitted(request: pytest.FixtureRequest) -> Fitted:
    return _fitted(request.param)


@pytest.fixture(scope="module")
def ridge() -> Fitted:
    return _fitted("ridge")


@pytest.fixture(scope="module")
def multinomial() -> Fitted:
    return _fitted("multinomial")


@pytest.fixture(scope="module")
def binary() -> Fitted:
    return _fitted("binary")
