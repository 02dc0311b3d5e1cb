"""What a model is said to say is what the user's own model says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_wine
from sklearn.ensemble import (
    AdaBoostClassifier,
    ExtraTreesClassifier,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.tree import DecisionTreeClassifier

import whence
from tests.adapters.test_additive import InContext

MODELS = (
    AdaBoostClassifier(n_estimators=5, random_state=0),
    CalibratedClassifierCV(GaussianNB(), cv=3),
    DecisionTreeClassifier(max_depth=2, random_state=0),
    ExtraTreesClassifier(20, random_state=0),
    GaussianNB(),
    GaussianProcessClassifier(),
    InContext(),
    KNeighborsClassifier(),
    KNeighborsClassifier(weights="distance"),
    MLPClassifier((8,), max_iter=2_000, random_state=0),
    RandomForestClassifier(20, random_state=0),
    VotingClassifier([("a", GaussianNB()), ("b", KNeighborsClassifier())], voting="soft"),
)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("estimator", MODELS, ids=lambda each: type(each).__name__)
def test_probabilities_are_the_models_own(estimator: Any, count: int) -> None:
    x, y = load_wine(return_X_y=True)
    x, y = x[y < count], y[y < count]
    fitted = estimator.fit(x[::2], y[::2])
    trained = whence.from_sklearn(fitted, x[::2], y[::2])
    x, y = x[1::2], y[1::2]
    own = fitted.predict_proba(x)
    examples = trained.examples((x, y))
    outputs = trained.outputs(examples)
    found = trained.loss.probabilities(outputs)
    assert found is not None
    least = 1 / (2 * len(trained.weights))
    known = np.where(own < least, np.clip(found.numpy(), 0, least * (1 + 1e-9)), own)
    np.testing.assert_allclose(found.numpy(), known, atol=1e-6)
    given = trained.loss.probability(outputs, examples.targets).numpy()
    np.testing.assert_allclose(given, found.numpy()[np.arange(len(y)), y], atol=1e-9)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("estimator", [InContext(), KNeighborsClassifier()], ids=["own", "knn"])
def test_losses_above_the_least_probability_are_the_models_own(estimator: Any, count: int) -> None:
    x, y = load_wine(return_X_y=True)
    x, y = x[y < count], y[y < count]
    fitted = estimator.fit(x[::2], y[::2])
    trained = whence.from_sklearn(fitted, x[::2], y[::2])
    examples = trained.examples((x, y))
    own = fitted.predict_proba(x)[np.arange(len(y)), y]
    expected = -np.log(np.maximum(own, 1 / (2 * len(x[::2]))))
    found = trained.loss(trained.outputs(examples), examples.targets).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_page_says_what_the_forest_says() -> None:
    x, y = load_wine(return_X_y=True)
    fitted = RandomForestClassifier(50, random_state=0).fit(x[::2], y[::2])
    trained = whence.from_sklearn(fitted, x[::2], y[::2])
    shares = fitted.predict_proba(x)
    row = int(np.argmin(np.abs(shares.max(1) - 0.62)))
    said = str(whence.explain(trained, (x[[row]], y[[row]])))
    assert f"with probability {shares[row].max():.2f}" in said


def test_a_class_with_all_votes_has_all_of_the_probability() -> None:
    """Else the votes, each a share of its own, round to other sums without another row."""
    x = np.random.default_rng(0).normal(size=(60, 4))
    y = (x[:, 0] > 0).astype(int)
    fitted = KNeighborsClassifier(7, weights="distance").fit(x, y)
    queries = x[np.abs(x[:, 0]) > 1.5] * 2, y[np.abs(x[:, 0]) > 1.5]
    alone = fitted.predict_proba(queries[0]).max(1) == 1
    assert alone.any()
    found = whence.leave_one_out(whence.from_sklearn(fitted, x, y), range(60), queries)
    assert not found[alone].any()
