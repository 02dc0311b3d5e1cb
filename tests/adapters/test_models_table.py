"""The estimators used most: each is accepted, and a refit is what its own library's fit gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import whence
from tests.models_table import CASES, PAGE, accepted, fitted, held, row, written
from whence.adapters.anything import Estimator
from whence.adapters.composed import Composed
from whence.adapters.neighbors import Neighbors
from whence.errors import UnsupportedModel
from whence.objective.objective import Objective
from whence.objective.trained import Trained

pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning", "ignore::whence.errors.NotConvergedWarning"
)

_REFUSED = ("KMeans",)
_ACCEPTED = [name for name in CASES if name not in _REFUSED]
_CONVEX = [
    "LinearRegression",
    "Ridge",
    "RidgeCV",
    "Lasso",
    "LassoCV",
    "ElasticNet",
    "BayesianRidge",
    "HuberRegressor",
    "PoissonRegressor",
    "LogisticRegression",
    "LogisticRegressionCV",
    "SGDClassifier",
    "LinearSVC",
    "SVC",
    "SVR",
    "LinearSVR",
    "KernelRidge",
    "GaussianProcessRegressor",
    "GridSearchCV",
    "RandomizedSearchCV",
    "OneVsRestClassifier",
    "MultiOutputRegressor",
]
_ENSEMBLES = ["AdaBoostClassifier", "BaggingRegressor", "IsolationForest"]
# Its own fit ends before the minimum, or gives back an answer that is rounded.
_LOOSE = {
    "SGDClassifier": 1e-4,
    "HuberRegressor": 1e-3,
    "SVC": 1e-4,
    "SVR": 1e-4,
    "LinearSVR": 1e-4,
    "NuSVC": 1e-5,
    "NuSVR": 1e-5,
    "OneClassSVM": 1e-5,
    "LogisticRegressionCV": 1e-5,
}


def own_answer(estimator: Any, x: NDArray[np.float64], least: float) -> NDArray[np.float64]:
    """What the user's own library says of rows: probabilities, decision values or numbers."""
    if hasattr(estimator, "score_samples"):
        return np.asarray(estimator.score_samples(x)).reshape(-1, 1)
    if hasattr(estimator, "predict_proba"):
        return np.maximum(estimator.predict_proba(x), least)
    if hasattr(estimator, "decision_function"):
        return np.asarray(estimator.decision_function(x)).reshape(len(x), -1)
    return np.asarray(estimator.predict(x)).reshape(len(x), -1)


def answer(model: Trained, estimator: Any, queries: Any) -> NDArray[np.float64]:
    """What whence's model says of the same rows, in the same terms."""
    outputs = model.outputs(queries)
    if hasattr(estimator, "predict_proba"):
        shares = model.loss.probabilities(outputs)
        assert shares is not None
        return np.asarray(shares)
    if model.loss.regresses and queries.targets.ndim == 1:
        return np.asarray(model.loss.prediction(outputs, queries.targets)).reshape(-1, 1)
    return np.asarray(outputs)


@pytest.mark.parametrize("name", _ACCEPTED)
def test_a_refit_is_the_own_fit_of_the_library(name: str) -> None:
    fit, model = fitted(name), accepted(name)
    assert isinstance(model, Trained)
    queries = model.examples(fit.queries)
    weights = model.weights.clone()
    weights[[3, 7, 20]] = 0
    kept = weights.numpy() > 0
    own = held(fit.estimator)
    if isinstance(model, Composed):  # rows keep their fold
        own = model.composition.held(own, np.flatnonzero(kept))
    again = own.fit(fit.x[kept], fit.y[kept])
    least = 1 / (2 * len(fit.x)) if isinstance(model, Composed | Estimator | Neighbors) else 0
    expected = own_answer(again, fit.queries[0], least)
    found = answer(model.refit(weights), again, queries)
    assert np.abs(found - expected).max() < _LOOSE.get(name, 1e-6)


@pytest.mark.parametrize("name", _CONVEX)
def test_the_refined_order_is_removal(name: str) -> None:
    fit, model = fitted(name), accepted(name)
    assert isinstance(model, Objective)
    assert model.convex
    where = np.arange(0, 80, 9)
    predicted = whence.influence(model, fit.queries, order="refined", indices=where).values
    actual = whence.leave_one_out(model, where, fit.queries)
    assert np.corrcoef(predicted.ravel(), actual.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("name", _ENSEMBLES)
def test_an_ensemble_says_how_well_it_predicts_refits(name: str) -> None:
    fit, model = fitted(name), accepted(name)
    assert isinstance(model, Trained)
    method = whence.Retrained(fits=60)
    scores = method.fit(model).scores(fit.queries)
    assert scores.diagnostics is not None
    said = next(note for note in scores.diagnostics.notes if "LDS" in note)
    estimate, spread = (float(each) for each in said.split(" of ")[1].split(",")[0].split(" ± "))
    measured = whence.evaluate(model, fit.queries, method=method, subsets=20)
    own = float(np.std(measured.per_query.numpy()) / np.sqrt(len(measured.per_query)))
    assert abs(measured.mean - estimate) < 2 * np.hypot(spread, own) + 0.1


@pytest.mark.parametrize("name", _REFUSED)
def test_what_is_refused_has_a_way_out(name: str) -> None:
    error = accepted(name)
    assert isinstance(error, UnsupportedModel)
    assert "Fit a " in str(error)


def test_those_that_are_known_by_an_ensemble_are_compared_as_such() -> None:
    known = [name for name in _ACCEPTED if row(name)[1] == "by ensemble"]
    assert known == _ENSEMBLES
    assert len(CASES) - len(_REFUSED) >= 36


def test_the_documentation_has_the_table() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert written(page) == page, "run python -m tests.models_table"
