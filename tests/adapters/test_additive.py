"""An estimator that nobody has judged: fitted again for each removal where removals add up."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import whence
from tests.adapters.test_anything import wine
from whence.adapters.additive import removals_add_up
from whence.errors import InvalidInput
from whence.methods.choose import default_of

Floats = NDArray[np.float64]


class InContext(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A model that keeps its rows and attends to those near a query, as TabPFN does."""

    def fit(self, X: Any, y: Any) -> InContext:
        self.rows_, self.labels_ = np.asarray(X, float), np.asarray(y)
        self.classes_ = np.unique(self.labels_)
        return self

    def predict_proba(self, X: Any) -> Floats:
        distances = ((np.asarray(X, float)[:, None] - self.rows_) ** 2).sum(-1)
        attention = np.exp(distances.min(1, keepdims=True) - distances)
        of_class = self.labels_ == self.classes_[:, None]
        shares = attention @ of_class.T + 1e-6
        return np.asarray(shares / shares.sum(1, keepdims=True))

    def predict(self, X: Any) -> NDArray[Any]:
        return np.asarray(self.classes_[self.predict_proba(X).argmax(1)])


class OwnForest(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A forest that nobody knows to be one."""

    def fit(self, X: Any, y: Any) -> OwnForest:
        self.inner_ = ExtraTreesRegressor(20, random_state=0).fit(X, y)
        return self

    def predict(self, X: Any) -> Floats:
        return np.asarray(self.inner_.predict(X))


def test_removals_from_an_in_context_model_are_all_made() -> None:
    x, y = wine()
    pipeline = make_pipeline(StandardScaler(), InContext()).fit(x, y)
    trained = whence.from_sklearn(pipeline, x, y)
    assert default_of(trained)[0] == whence.LeaveOneOut()
    query = x[5:6], y[5:6]
    explained = whence.explain(trained, query)
    removed = [effect.position for effect in (*explained.helpful, *explained.harmful)]
    fits = [clone(pipeline).fit(np.delete(x, i, 0), np.delete(y, i)) for i in removed]

    def loss(fit: Any) -> float:
        return -float(np.log(fit.predict_proba(query[0])[0, list(fit.classes_).index(query[1][0])]))

    actual = [loss(fit) - loss(pipeline) for fit in fits]
    found = whence.LeaveOneOut().fit(trained).scores(query, indices=removed).values[0]
    np.testing.assert_allclose(found, actual, rtol=1e-10, atol=1e-13)
    check = explained.verify()
    assert check.pearson > 0.9999


def test_a_forest_that_nobody_knows_is_scored_by_an_ensemble() -> None:
    x, _ = wine()
    found = whence.from_sklearn(OwnForest().fit(x[:, 3:], x[:, 0]), x[:, 3:], x[:, 0])
    assert default_of(found)[0] == whence.Retrained()


@pytest.mark.parametrize("seed", range(3))
def test_changes_of_a_smooth_fit_add_up_and_chance_does_not(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(60, 3))
    y = x @ [1.0, 2, 3] + rng.normal(size=60)

    def ridge(rows: Any) -> Floats:
        fit = Ridge().fit(np.delete(x, rows, 0), np.delete(y, rows))
        return np.asarray(fit.predict(x))[:, None]

    assert removals_add_up(ridge, 60)
    assert not removals_add_up(lambda rows: ridge(rows) + 0.1 * rng.normal(size=(60, 1)), 60)
    assert not removals_add_up(lambda _: y[:, None], 60)  # nothing moves, so nothing is known
    assert not removals_add_up(ridge, 12)


def test_a_fit_that_fails_or_is_slow_is_not_made_for_each_row() -> None:
    def failing(rows: Any) -> Floats:
        raise InvalidInput("Expected to fit. Got an error.")

    assert not removals_add_up(failing, 60)
    fits: list[Any] = []

    def slow(rows: Any) -> Floats:
        fits.append(rows)
        start = time.process_time()
        while time.process_time() < start + 0.01:
            pass
        return np.zeros((1, 1))

    assert not removals_add_up(slow, 10_000)
    assert fits == [[]]
