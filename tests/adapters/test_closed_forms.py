"""Models made of sums, and neighbors: each refit against the own fit of scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import (
    LinearDiscriminantAnalysis,
    QuadraticDiscriminantAnalysis,
)
from sklearn.impute import SimpleImputer
from sklearn.naive_bayes import BernoulliNB, ComplementNB, GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    MinMaxScaler,
    QuantileTransformer,
    StandardScaler,
    TargetEncoder,
)

import whence
from whence.adapters.anything import Estimator
from whence.adapters.closed_form import ClosedForm
from whence.adapters.neighbors import Neighbors
from whence.errors import InvalidInput

Floats = NDArray[np.float64]

SUMS: dict[str, Any] = {
    "gaussian": GaussianNB(),
    "gaussian, smoothed": GaussianNB(var_smoothing=1e-2),
    "gaussian, priors": GaussianNB(priors=[0.5, 0.3, 0.2]),
    "multinomial": MultinomialNB(alpha=0.5),
    "multinomial, uniform": MultinomialNB(fit_prior=False),
    "complement": ComplementNB(),
    "complement, norm": ComplementNB(norm=True),
    "bernoulli": BernoulliNB(binarize=1.0),
    "linear": LinearDiscriminantAnalysis(),
    "linear, priors": LinearDiscriminantAnalysis(priors=[0.5, 0.3, 0.2]),
    "linear, lsqr": LinearDiscriminantAnalysis(solver="lsqr"),
    "quadratic": QuadraticDiscriminantAnalysis(),
    "quadratic, mixed": QuadraticDiscriminantAnalysis(reg_param=0.2),
    "centroid": NearestCentroid(),
    "centroid, priors": NearestCentroid(priors="empirical"),
}


def rows(load: Any = load_wine, n: int = 90) -> tuple[Floats, NDArray[Any]]:
    x, y = load(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))[:n]
    x = x / x.std(0)
    return x[order, :6] - x[order, :6].min(0), y[order]


@pytest.mark.parametrize("name", SUMS)
@given(removed=st.sets(st.integers(0, 89), min_size=1, max_size=70))
@settings(max_examples=8, deadline=None)
def test_sums_with_other_weights_are_the_own_fit(name: str, removed: set[int]) -> None:
    x, y = rows()
    estimator = clone(SUMS[name]).fit(x, y)
    model = whence.from_sklearn(estimator, x, y)
    assert isinstance(model, ClosedForm)
    kept = np.setdiff1d(np.arange(90), list(removed))
    if min(np.sum(y[kept] == c) for c in range(3)) < 8:
        return  # too few rows of a class for a covariance
    weights = torch.zeros(90).index_fill(0, torch.from_numpy(kept), 1)
    again = clone(estimator).fit(x[kept], y[kept])
    fitted = model.refit(weights)
    shares = fitted.loss.probabilities(fitted.outputs(model.train))
    assert shares is not None
    assert np.allclose(shares, again.predict_proba(x), atol=1e-7)


def test_sample_weights_and_two_classes() -> None:
    x, y = rows(load_breast_cancer)
    sample = np.random.default_rng(0).uniform(0.5, 2, 90)
    estimator = GaussianNB().fit(x, y, sample_weight=sample)
    model = whence.from_sklearn(estimator, x, y, sample_weight=sample)
    assert isinstance(model, ClosedForm)
    weights = model.weights.clone()
    weights[3] = 0
    kept = np.arange(90) != 3
    again = GaussianNB().fit(x[kept], y[kept], sample_weight=sample[kept])
    odds = model.refit(weights).outputs(model.train)[:, 0]
    assert np.allclose(torch.sigmoid(odds), again.predict_proba(x)[:, 1], atol=1e-9)


def test_a_class_without_rows_has_the_least_probability() -> None:
    x, y = rows(load_iris)
    model = whence.from_sklearn(GaussianNB().fit(x, y), x, y)
    gone = model.refit(torch.from_numpy((y != 1).astype(float)))
    assert torch.allclose(gone.outputs(model.train)[:, 1].exp(), torch.tensor(1 / 180).double())
    with pytest.raises(InvalidInput, match="at least one training row"):
        model.refit(torch.zeros(90))


def test_options_that_no_sum_gives_are_left_to_the_library() -> None:
    x, y = rows()
    for estimator in (
        LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.5),
        NearestCentroid(shrink_threshold=0.1),
        NearestCentroid(metric="manhattan"),
    ):
        assert isinstance(whence.from_sklearn(estimator.fit(x, y), x, y), Estimator)


def test_each_removal_is_made_for_real() -> None:
    x, y = rows()
    model = whence.from_sklearn(GaussianNB().fit(x[5:], y[5:]), x[5:], y[5:])
    scores = whence.explain(model, (x[:1], y[:1]), measure="loss").scores
    assert scores.method.startswith("leave-one-out")
    for at in (0, 40):
        kept = np.setdiff1d(np.arange(5, 90), [5 + at])
        before = GaussianNB().fit(x[5:], y[5:]).predict_log_proba(x[:1])[0, y[0]]
        after = GaussianNB().fit(x[kept], y[kept]).predict_log_proba(x[:1])[0, y[0]]
        assert scores.values[0, at] == pytest.approx(before - after, abs=1e-12)


NEIGHBORS: dict[str, Any] = {
    "classes": KNeighborsClassifier(5),
    "classes, distance": KNeighborsClassifier(4, weights="distance"),
    "classes, manhattan": KNeighborsClassifier(7, p=1),
    "classes, chosen": KNeighborsClassifier(3, weights=lambda d: 1 / (1 + d)),
    "numbers": KNeighborsRegressor(6),
    "numbers, distance": KNeighborsRegressor(6, weights="distance", metric="chebyshev"),
    "classes, scaled": make_pipeline(StandardScaler(), KNeighborsClassifier(5)),
    "classes, quantiles": make_pipeline(
        QuantileTransformer(n_quantiles=20), MinMaxScaler(), KNeighborsClassifier(3)
    ),
    "numbers, components": make_pipeline(
        SimpleImputer(), StandardScaler(), PCA(4), KNeighborsRegressor(6, weights="distance")
    ),
}


@pytest.mark.parametrize("name", NEIGHBORS)
@given(removed=st.sets(st.integers(0, 79), min_size=1, max_size=70))
@settings(max_examples=8, deadline=None)
def test_neighbors_that_are_left_out(name: str, removed: set[int]) -> None:
    x, y = rows(load_diabetes if "numbers" in name else load_wine)
    x = x + 1e-3 * np.random.default_rng(1).normal(size=x.shape)  # no two distances are the same
    estimator = clone(NEIGHBORS[name]).fit(x[10:], y[10:])
    model = whence.from_sklearn(estimator, x[10:], y[10:])
    assert isinstance(model, Neighbors)
    queries = model.examples((x[:10], y[:10]))
    kept = np.setdiff1d(np.arange(80), list(removed))
    fitted = model.refit(torch.zeros(80).index_fill(0, torch.from_numpy(kept), 1))
    again = clone(estimator).fit(x[10:][kept], y[10:][kept])
    assert torch.equal(model.outputs(queries), model.refit(torch.ones(80)).outputs(queries))
    if "numbers" in name:
        assert np.allclose(fitted.outputs(queries)[:, 0], again.predict(x[:10]))
        return
    shares = np.zeros((10, 3))
    shares[:, again.classes_] = again.predict_proba(x[:10])
    assert np.allclose(fitted.outputs(queries).exp(), np.maximum(shares, 1 / 160))


def test_neighbors_behind_transformers_have_their_shares() -> None:
    x, y = rows()
    model = make_pipeline(StandardScaler(), KNeighborsClassifier(5)).fit(x[5:], y[5:])
    trained = whence.from_sklearn(model, x[5:], y[5:])
    found = whence.explain(trained, (x[:1], y[:1]))
    shares = found.scores.values
    scaled = model[0].transform(x)
    plain = whence.from_sklearn(KNeighborsClassifier(5).fit(scaled[5:], y[5:]), scaled[5:], y[5:])
    expected = whence.explain(plain, (scaled[:1], y[:1])).scores
    np.testing.assert_allclose(shares, expected.values, atol=1e-12)
    assert any("hold the transformers before them" in note for note in trained.notes)
    actual = whence.LeaveOneOut().fit(trained).scores((x[:3], y[:3])).values
    assert isinstance(trained, Neighbors)
    without = clone(model).fit(x[6:], y[6:]).predict_proba(x[:3])[np.arange(3), y[:3]]
    with_all = model.predict_proba(x[:3])[np.arange(3), y[:3]]
    floor = 1 / 170
    np.testing.assert_allclose(
        actual[:, 0], -np.log(np.maximum(without, floor) / np.maximum(with_all, floor)), atol=1e-12
    )


def test_neighbors_that_agree_are_listed_by_their_shares() -> None:
    x, y = load_wine(return_X_y=True)
    model = make_pipeline(StandardScaler(), KNeighborsClassifier()).fit(x[30:], y[30:])
    found = whence.explain(whence.from_sklearn(model, x[30:], y[30:]), (x[:1], y[:1]), k=2)
    assert "it is the same, whichever is gone. In order of score:\n  push to “0”, the" in str(found)
    assert (found.to_frame()["effect"] == 0).all()


def test_transformers_that_treat_training_rows_otherwise_are_left_to_the_library() -> None:
    x, y = rows()
    codes = np.round(x[:, :1])
    model = make_pipeline(TargetEncoder(), KNeighborsClassifier()).fit(codes, y)
    assert isinstance(whence.from_sklearn(model, codes, y), Estimator)


def test_too_few_neighbors() -> None:
    x, y = rows()
    model = whence.from_sklearn(KNeighborsClassifier(5).fit(x, y), x, y)
    with pytest.raises(InvalidInput, match="at least n_neighbors = 5"):
        model.refit(torch.cat([torch.ones(4), torch.zeros(86)]))
    with pytest.raises(InvalidInput, match="weights of 0 or 1"):
        model.refit(torch.full((90,), 0.5))


def test_ties_among_neighbors_that_the_library_breaks_otherwise_are_said() -> None:
    x, y = load_diabetes(return_X_y=True)
    tied = np.round(x[:140] * 20)
    model = KNeighborsRegressor(algorithm="kd_tree").fit(tied, y[:140])
    trained = whence.from_sklearn(model, tied, y[:140])
    ours = trained.outputs(trained.train).numpy()[:, 0]
    few = np.linspace(0, 139, 100).astype(int)
    apart = int((np.abs(ours - model.predict(tied))[few] > 1e-6).sum())
    assert apart > 10
    assert any(f"at {apart} of 100 training rows" in note for note in trained.notes)
    plain = KNeighborsRegressor().fit(x, y)
    assert whence.from_sklearn(plain, x, y).notes == ()
