"""Votes, stacks, calibrations, transformed targets: removals through members are the own refits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sklearn
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.ensemble import (
    RandomForestClassifier,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectFromModel
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import (
    Lasso,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    RidgeCV,
    SGDRegressor,
)
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

import whence
from whence.adapters.anything import Estimator
from whence.adapters.composed import Composed
from whence.errors import NotConvergedWarning, UnsupportedModel
from whence.methods.choose import default_of

Floats = NDArray[np.float64]

_TIGHT = {"solver": "newton-cholesky", "tol": 1e-11, "max_iter": 1000}
LOGISTIC = LogisticRegression(**_TIGHT)
LINEAR = LinearSVC(tol=1e-10, max_iter=200_000, random_state=0)
POISSON = PoissonRegressor(alpha=0.1, solver="newton-cholesky", tol=1e-12)

MACHINE = SVC(gamma=0.1, tol=1e-10)
FITTED = GaussianNB().fit([[0.0] * 5, [1.0] * 5], ["no", "yes"])
BEFORE = LogisticRegression().fit(np.eye(6)[:, :5], [0, 1, 0, 1, 0, 1])
NAMED = LogisticRegression().fit(np.eye(6)[:, :5], ["no", "yes"] * 3)


def two_targets(return_X_y: bool) -> tuple[Floats, Floats]:
    x, y = load_diabetes(return_X_y=return_X_y)
    y = (y - y.mean()) / y.std()
    return x, np.stack([y, y**2], 1)


CASES: dict[str, tuple[Any, Any]] = {
    "vote of classes": (
        VotingClassifier([("a", LOGISTIC), ("b", GaussianNB())], voting="soft", weights=[2, 1]),
        load_wine,
    ),
    "vote of pipelines": (
        VotingClassifier(
            [("a", make_pipeline(StandardScaler(), LOGISTIC)), ("b", GaussianNB())], voting="soft"
        ),
        load_breast_cancer,
    ),
    "vote of numbers": (
        VotingRegressor([("a", Ridge()), ("out", "drop"), ("b", POISSON)]),
        load_diabetes,
    ),
    "stack of numbers": (
        StackingRegressor([("a", Ridge()), ("b", KNeighborsRegressor())], cv=3),
        load_diabetes,
    ),
    "stack of two classes": (
        StackingClassifier([("a", LOGISTIC), ("b", GaussianNB())], final_estimator=LOGISTIC, cv=3),
        load_breast_cancer,
    ),
    "stack of three classes": (
        StackingClassifier(
            [("a", LOGISTIC), ("b", GaussianNB())],
            final_estimator=LOGISTIC,
            cv=KFold(3, shuffle=True, random_state=0),
        ),
        load_wine,
    ),
    "calibrated, two classes": (CalibratedClassifierCV(LINEAR, cv=3), load_breast_cancer),
    "calibrated, probabilities": (CalibratedClassifierCV(GaussianNB(), cv=3), load_wine),
    "calibrated, three classes": (
        CalibratedClassifierCV(LOGISTIC, cv=3, method="isotonic"),
        load_wine,
    ),
    "calibrated, one for all folds": (
        CalibratedClassifierCV(LINEAR, cv=3, ensemble=False),
        load_breast_cancer,
    ),
    "calibrated, temperature of two": (
        CalibratedClassifierCV(GaussianNB(), cv=3, method="temperature"),
        load_breast_cancer,
    ),
    "calibrated, one temperature": (
        CalibratedClassifierCV(LOGISTIC, cv=3, method="temperature", ensemble=False),
        load_wine,
    ),
    "a machine for each class": (OneVsRestClassifier(MACHINE), load_wine),
    "a model for each pair": (OneVsOneClassifier(LOGISTIC), load_wine),
    "a machine for each pair": (MACHINE, load_wine),
    "a lasso for each target": (
        MultiOutputRegressor(Lasso(alpha=0.05, tol=1e-13, max_iter=100_000)),
        two_targets,
    ),
    "logarithm of targets": (
        TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1),
        load_diabetes,
    ),
}


def rows(load: Any) -> tuple[Floats, NDArray[Any]]:
    x, y = load(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))[:100]
    x = x[order, :5]
    y = y[order]
    binary = load is load_breast_cancer
    return (x - x.mean(0)) / x.std(0), np.asarray(["no", "yes"])[y] if binary else y


@pytest.mark.parametrize("name", CASES)
def test_removals_through_members_are_the_own_refits(name: str) -> None:
    estimator, load = CASES[name]
    x, y = rows(load)
    model = whence.from_sklearn(clone(estimator).fit(x[8:], y[8:]), x[8:], y[8:])
    assert isinstance(model, Composed)
    assert isinstance(default_of(model)[0], whence.Composition)
    queries = (x[:8], y[:8])
    where = np.array([0, 5, 17, 40, 88])
    found = whence.Composition().fit(model).scores(queries, indices=where).values
    actual = whence.leave_one_out(model, where, queries)
    loose = "isotonic" in repr(estimator)  # whose steps change by one row's least difference
    np.testing.assert_allclose(found, actual, atol=(1e-3 if loose else 2e-5) * np.abs(actual).max())


def test_a_refit_is_the_own_fit_with_folds_held() -> None:
    x, y = rows(load_breast_cancer)
    estimator = CalibratedClassifierCV(LINEAR, cv=3)
    model = whence.from_sklearn(clone(estimator).fit(x, y), x, y)
    assert isinstance(model, Composed)
    weights = model.weights.clone()
    weights[[3, 50]] = 0
    kept = np.flatnonzero(weights.numpy())
    folds = estimator.set_params(cv=None) and [
        (np.setdiff1d(np.arange(100), held), held)
        for held in (part.passed for part in model.members)
    ]
    splits = [tuple(np.flatnonzero(np.isin(kept, part)) for part in fold) for fold in folds]
    own = CalibratedClassifierCV(LINEAR, cv=splits).fit(x[kept], y[kept])
    examples = model.examples((x[:9], y[:9]))
    shares = model.loss.probabilities(model.refit(weights).outputs(examples))
    assert shares is not None
    np.testing.assert_allclose(shares.numpy(), own.predict_proba(x[:9]), atol=1e-8)


@pytest.mark.parametrize(
    "estimator",
    [
        CalibratedClassifierCV(LINEAR, cv=3),
        StackingClassifier([("a", LOGISTIC), ("b", GaussianNB())], final_estimator=LOGISTIC, cv=3),
    ],
    ids=["calibrated", "stacked"],
)
def test_a_group_goes_from_the_folds_that_are_held(estimator: Any) -> None:
    x, y = rows(load_breast_cancer)
    fitted = clone(estimator).fit(x, y)
    model = whence.from_sklearn(fitted, x, y)
    group, queries = np.arange(30, 45), (x[:9], y[:9])
    kept = np.delete(np.arange(100), group)
    folds = StratifiedKFold(3).split(x, y)
    splits = [tuple(np.flatnonzero(np.isin(kept, part)) for part in fold) for fold in folds]
    own = clone(estimator).set_params(cv=splits).fit(x[kept], y[kept])
    actual = np.log(own.predict_proba(x[:9])) - np.log(fitted.predict_proba(x[:9]))
    found = whence.group_effect(model, group, queries, order="refit", measure=lambda f, _: f[:, 1])
    np.testing.assert_allclose(found, actual[:, 1], atol=1e-8)


def test_a_model_for_each_class_of_texts() -> None:
    rng = np.random.default_rng(0)
    words, y = np.array([f"word{i}" for i in range(30)]), rng.integers(0, 3, 60)
    texts = [" ".join(rng.choice(words, 8)) for _ in y]
    estimator = OneVsRestClassifier(make_pipeline(TfidfVectorizer(), LOGISTIC)).fit(texts, y)
    model = whence.from_sklearn(estimator, texts, y)
    assert isinstance(model, Composed)
    found = whence.leave_one_out(model, [5], (texts[:3], y[:3]))[:, 0]
    fits = (estimator, clone(estimator).fit(texts[:5] + texts[6:], np.delete(y, 5)))
    before, after = (-np.log(fit.predict_proba(texts[:3])[np.arange(3), y[:3]]) for fit in fits)
    np.testing.assert_allclose(found, after - before, atol=1e-8)


@pytest.mark.parametrize(
    ("estimator", "said"),
    [
        (VotingClassifier([("a", LOGISTIC), ("b", GaussianNB())]), "voting='soft'"),
        (
            VotingClassifier(
                [("a", LOGISTIC), ("b", RandomForestClassifier(5, random_state=0))], voting="soft"
            ),
            "members whose removals are exact",
        ),
        (StackingClassifier([("a", GaussianNB())], passthrough=True), "passthrough=True"),
        (
            StackingClassifier([("a", GaussianNB())], cv=KFold(3, shuffle=True)),
            "Give it random_state=0",
        ),
        (CalibratedClassifierCV(FrozenEstimator(FITTED), cv=3), "Got FrozenEstimator"),
    ],
)
def test_what_is_not_exact_is_known_by_its_predictions(estimator: Any, said: str) -> None:
    x, y = rows(load_breast_cancer)
    model = whence.from_sklearn(clone(estimator).fit(x, y), x, y)
    assert isinstance(model, Estimator)
    assert any(said in note for note in model.notes)


@pytest.mark.parametrize(
    "estimator",
    [
        VotingClassifier([("a", FrozenEstimator(BEFORE)), ("b", GaussianNB())], voting="soft"),
        StackingClassifier([("a", FrozenEstimator(BEFORE)), ("b", GaussianNB())], cv=KFold(3)),
        OneVsRestClassifier(FrozenEstimator(BEFORE)),
        make_pipeline(StandardScaler(), FrozenEstimator(NAMED)),
        make_pipeline(StandardScaler(), make_pipeline(MinMaxScaler(), FrozenEstimator(NAMED))),
        GridSearchCV(
            make_pipeline(StandardScaler(), FrozenEstimator(NAMED)),
            {"standardscaler__with_std": [True]},
        ),
    ],
)
def test_what_is_frozen_inside_keeps_its_fit(estimator: Any) -> None:
    """A removal moves what is fitted to the rows, not what was fitted before."""
    x, y = rows(load_breast_cancer)
    fitted = clone(estimator).fit(x, y)
    model = whence.from_sklearn(fitted, x, y)
    assert any("Got FrozenEstimator" in note for note in model.notes)
    where, queries = [4, 17], (x[:8], y[:8])
    found = whence.LeaveOneOut().fit(model).scores(queries, indices=where).values
    for column, row in enumerate(where):
        there = np.delete(np.arange(len(y)), row)
        again = clone(estimator).fit(x[there], y[there])
        at = np.arange(8), (y[:8] == "yes").astype(int)
        floor = 0.5 / len(y)
        change = np.log(fitted.predict_proba(x[:8])[at].clip(floor)) - np.log(
            again.predict_proba(x[:8])[at].clip(floor)
        )
        np.testing.assert_allclose(found[:, column], change, atol=1e-6)


def test_outputs_of_a_frozen_ridge_keep_its_fit() -> None:
    x, y = rows(load_diabetes)
    both = np.stack([y, y**2], 1)
    fitted = MultiOutputRegressor(FrozenEstimator(Ridge().fit(x[:40], y[:40]))).fit(x, both)
    model = whence.from_sklearn(fitted, x, both)
    assert any("Got FrozenEstimator" in note for note in model.notes)
    assert not whence.leave_one_out(model, [3], (x[:5], both[:5])).any()


def test_probabilities_of_labels_have_a_least_one_and_it_is_said() -> None:
    x, y = rows(load_breast_cancer)
    both = np.stack([y == "yes", x[:, 0] > x[:, 0].mean()], 1).astype(int)
    fitted = MultiOutputClassifier(GaussianNB()).fit(x, both)
    model = whence.from_sklearn(fitted, x, both)
    least = 1 / (2 * len(y))
    smallest = min(np.min(each) for each in fitted.predict_proba(x))
    assert smallest < least
    assert any(f"probability of a label is {least:.2g}" in note for note in model.notes)
    ends = np.log(least / (1 - smallest))
    assert float(model.outputs(model.train).min()) == pytest.approx(ends)


def test_what_was_fitted_before_and_refits_would_lose() -> None:
    x, y = rows(load_breast_cancer)
    stack = StackingClassifier([("a", FITTED)], cv="prefit").fit(x, y)
    chosen = make_pipeline(SelectFromModel(BEFORE, prefit=True), LOGISTIC).fit(x, y)
    for fitted, said in ((stack, "cv='prefit'"), (chosen, "prefit=True")):
        with pytest.raises(UnsupportedModel, match=rf"as FrozenEstimator.*{said}"):
            whence.from_sklearn(fitted, x, y)


@pytest.mark.parametrize(
    "estimator",
    [
        VotingClassifier([("a", LOGISTIC), ("b", GaussianNB())], voting="soft"),
        StackingClassifier([("a", LOGISTIC), ("b", GaussianNB())], final_estimator=LOGISTIC, cv=3),
    ],
)
def test_weights_of_votes_and_stacks_go_to_their_members(estimator: Any) -> None:
    x, y = rows(load_breast_cancer)
    sample = 1.0 + np.arange(len(y)) % 3
    model = whence.from_sklearn(
        clone(estimator).fit(x, y, sample_weight=sample), x, y, sample_weight=sample
    )
    weights = model.weights.clone()
    weights[[3, 9]] = 0
    there = np.delete(np.arange(len(y)), [3, 9])
    again = clone(estimator).fit(x[there], y[there], sample_weight=sample[there])
    refit = model.refit(weights)
    assert isinstance(refit, Estimator)
    np.testing.assert_allclose(refit.fitted.predict_proba(x), again.predict_proba(x), atol=1e-9)


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("last", [LOGISTIC, DecisionTreeClassifier(max_depth=3, random_state=0)])
def test_weights_go_to_the_steps_that_ask_for_them(scaled: bool, last: Any) -> None:
    x, y = rows(load_breast_cancer)
    sample = 1.0 + np.arange(len(y)) % 3
    with sklearn.config_context(enable_metadata_routing=True):
        steps = (
            StandardScaler().set_fit_request(sample_weight=scaled),
            clone(last).set_fit_request(sample_weight=True),
        )
        fitted = make_pipeline(*steps).fit(x, y, sample_weight=sample)
        model = whence.from_sklearn(fitted, x, y, sample_weight=sample)
        weights = model.weights.clone()
        weights[[3, 9]] = 0
        there = np.delete(np.arange(len(y)), [3, 9])
        again = clone(fitted).fit(x[there], y[there], sample_weight=sample[there])
        refit = model.refit(weights)
        found = refit.loss.probabilities(refit.outputs(refit.examples((x[:8], y[:8]))))
        np.testing.assert_allclose(found, again.predict_proba(x[:8]), atol=1e-6)


def test_what_members_chose_is_said_to_be_held() -> None:
    x, y = rows(load_diabetes)
    search = GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, cv=3)
    for inside, said in ((Ridge(), False), (RidgeCV(), True), (search, True)):
        whole = TransformedTargetRegressor(inside, func=np.log1p, inverse_func=np.expm1)
        model = whence.from_sklearn(whole.fit(x, y), x, y)
        assert isinstance(model, Composed)
        assert any("that members chose" in note for note in model.notes) == said


def test_members_that_stopped_early_are_told_of() -> None:
    """How far they are from their minimum is what finished members would predict otherwise."""
    x, y = rows(load_diabetes)
    early, finished = (
        VotingRegressor([("a", Lasso(alpha=0.01, max_iter=steps, tol=tol)), ("b", Ridge())])
        for steps, tol in ((1, 1e-13), (100_000, 1e-13))
    )
    y = (y - y.mean()) / y.std()
    with pytest.warns(ConvergenceWarning):
        early.fit(x, y)
    queries = x[:6], y[:6]
    model = whence.from_sklearn(early, x, y)
    with pytest.warns(NotConvergedWarning, match="fits that stopped early"):
        scores = whence.Composition().fit(model).scores(queries)
    changes = (finished.fit(x, y).predict(x[:6]) - y[:6]) ** 2 / 2
    changes -= (early.predict(x[:6]) - y[:6]) ** 2 / 2
    largest = np.linalg.norm(scores.values, axis=0).max()
    found = scores.diagnostics.unfinished
    np.testing.assert_allclose(found, np.linalg.norm(changes) / largest, rtol=1e-6)
    assert any("stopped before their minimum" in note for note in scores.diagnostics.notes)
    model = whence.from_sklearn(finished, x, y)
    scores = whence.Composition().fit(model).scores(queries)
    assert scores.diagnostics.fit == "converged"
    assert not any("minimum" in note for note in scores.diagnostics.notes)


def test_the_chance_of_a_vote_is_that_of_its_own_fits_in_other_orders() -> None:
    x, y = rows(load_diabetes)
    vote = VotingRegressor([("a", SGDRegressor(random_state=0)), ("b", Ridge())]).fit(x, y)
    model = whence.from_sklearn(vote, x, y)
    assert isinstance(model, Composed)
    other = model.reordered(3)
    assert other is not None
    order = np.random.default_rng(3).permutation(len(y))
    again = clone(vote).fit(x[order], y[order])
    np.testing.assert_allclose(other.outputs(other.train)[:, 0], again.predict(x), rtol=1e-12)
    steady = whence.from_sklearn(clone(vote).set_params(a=Ridge(2.0)).fit(x, y), x, y)
    assert steady.reordered(3) is None


def test_several_outputs_may_be_one() -> None:
    x, y = load_diabetes(return_X_y=True)
    several = MultiOutputRegressor(Ridge(alpha=0.5)).fit(x, y[:, None])
    found = whence.influence(whence.from_sklearn(several, x, y[:, None]), (x[:2], y[:2, None]))
    alone = whence.from_sklearn(Ridge(alpha=0.5).fit(x, y), x, y)
    expected = whence.influence(alone, (x[:2], y[:2]))
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-8)
