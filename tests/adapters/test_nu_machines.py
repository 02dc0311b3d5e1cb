"""NuSVC, NuSVR and OneClassSVM without rows are what scikit-learn fits from scratch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, NuSVC, NuSVR, OneClassSVM

import whence
from whence.adapters.composed import Composed
from whence.adapters.nu_machines import NuMachine
from whence.errors import InvalidInput
from whence.fitting.active_set import Box, _Walker, empty_face, walk
from whence.fitting.nu import nu_classification
from whence.methods.choose import default_of

_MODELS: dict[str, Any] = {
    "classes, γ of the rows": NuSVC(nu=0.3, tol=1e-10),
    "classes, linear": NuSVC(nu=0.2, kernel="linear", tol=1e-10),
    "classes, poly": NuSVC(nu=0.1, kernel="poly", gamma=0.1, coef0=1.0, degree=2, tol=1e-10),
    "classes, scaled": make_pipeline(StandardScaler(), NuSVC(nu=0.3, tol=1e-10)),
    "numbers": NuSVR(nu=0.4, gamma=0.05, C=2.0, tol=1e-10),
    "numbers, linear": NuSVR(nu=0.6, kernel="linear", C=0.5, tol=1e-10),
    "numbers, scaled": make_pipeline(StandardScaler(), NuSVR(nu=0.4, tol=1e-10)),
    "one class": OneClassSVM(nu=0.2, tol=1e-10),
    "one class, poly": OneClassSVM(nu=0.2, kernel="poly", coef0=1.0, degree=2, tol=1e-10),
}


def data(name: str, n: int = 70) -> tuple[Any, Any]:
    x, y = (load_diabetes if name.startswith("numbers") else load_breast_cancer)(return_X_y=True)
    order = np.random.default_rng(3).permutation(len(x))[:n]
    x, y = x[order, :6], y[order]
    y = (y - y.mean()) / y.std() if name.startswith("numbers") else y
    return (x - x.mean(0)) / x.std(0), y


def said(estimator: Any, x: Any) -> Any:
    """The value that the library gives a row: a score, a decision value or a number."""
    for way in ("score_samples", "decision_function", "predict"):
        if hasattr(estimator, way):
            return getattr(estimator, way)(x)
    raise AssertionError


@pytest.mark.parametrize("name", _MODELS)
def test_a_refit_is_the_fit_of_the_library(name: str) -> None:
    x, y = data(name)
    estimator = clone(_MODELS[name]).fit(x, y)
    model = whence.from_sklearn(estimator, x, y)
    assert isinstance(model, NuMachine)
    assert default_of(model)[0] == whence.LeaveOneOut()
    np.testing.assert_allclose(model.outputs(model.train)[:, 0], said(estimator, x), atol=1e-9)
    sets = [[0], [5], [41], list(range(10, 16))]
    weights = torch.ones(len(sets), len(x), dtype=torch.float64)
    for row, gone in zip(weights, sets, strict=True):
        row[gone] = 0
    for gone, fitted in zip(sets, model.refits(weights), strict=True):
        kept = np.delete(np.arange(len(x)), gone)
        own = said(clone(_MODELS[name]).fit(x[kept], y[kept]), x)
        np.testing.assert_allclose(fitted.outputs(model.train)[:, 0], own, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["classes, linear", "numbers", "one class"])
def test_sample_weights_are_those_of_the_library(name: str) -> None:
    x, y = data(name)
    sample = np.random.default_rng(1).uniform(0.5, 2.0, len(x))
    estimator = clone(_MODELS[name]).fit(x, y, sample_weight=sample)
    model = whence.from_sklearn(estimator, x, y, sample_weight=sample)
    assert isinstance(model, NuMachine)
    weights = model.weights.clone()
    weights[[3, 8]] = 0
    kept = weights.numpy() > 0
    own = clone(estimator).fit(x[kept], y[kept], sample_weight=sample[kept])
    found = model.refit(weights).outputs(model.train)[:, 0]
    np.testing.assert_allclose(found, said(own, x), rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(
        model.refit().outputs(model.train)[:, 0], said(estimator, x), atol=1e-5
    )


@pytest.mark.parametrize(
    "name", ["classes, γ of the rows", "classes, linear", "numbers", "numbers, linear", "one class"]
)
def test_rows_of_weight_zero_are_where_the_library_has_them(name: str) -> None:
    x, y = data(name)
    sample = np.random.default_rng(1).integers(0, 4, len(x)).astype(float)
    sample[:3] = 0, 1, 2
    estimator = clone(_MODELS[name]).fit(x, y, sample_weight=sample)
    model = whence.from_sklearn(estimator, x, y, sample_weight=sample)
    np.testing.assert_allclose(model.outputs(model.train)[:, 0], said(estimator, x), atol=1e-9)
    for gone in ([1], [2, *np.flatnonzero(sample > 0)[-6:]]):
        weights = model.weights.clone()
        weights[gone] = 0
        kept = np.delete(np.arange(len(x)), gone)  # rows of weight 0 count in gamma="scale"
        own = clone(estimator).fit(x[kept], y[kept], sample_weight=sample[kept])
        found = model.refit(weights).outputs(model.train)[:, 0]
        np.testing.assert_allclose(found, said(own, x), rtol=1e-5, atol=2e-5)


def test_support_vectors_are_counted_without_rows_of_weight_zero() -> None:
    x, y = data("classes")
    few = np.concatenate([np.flatnonzero(y == label)[:20] for label in (0, 1)])
    x, y, sample = x[few], y[few], np.tile(np.repeat([2.0, 0.0, 1.0], [6, 4, 10]), 2)
    model = SVC(kernel="linear", C=1e-5, tol=1e-10).fit(x, y, sample_weight=sample)
    notes = " ".join(whence.from_sklearn(model, x, y, sample_weight=sample).notes)
    assert "No support vector is on the margin" in notes  # both classes have one weight in all


def test_removals_of_a_default_fit_correlate_with_refits() -> None:
    x, y = data("classes")
    model = whence.from_sklearn(NuSVC(nu=0.3).fit(x[5:], y[5:]), x[5:], y[5:])
    found = whence.explain(model, (x[:1], y[:1]), k=5)
    assert "refits are so quick" in str(found)
    assert found.verify(10).r > 0.999


def test_a_machine_of_several_classes_is_made_of_pairs() -> None:
    x, y = data("classes")
    labels = y + (x[:, 0] < -0.8)
    estimator = NuSVC(nu=0.2, gamma=0.1, tol=1e-10).fit(x, labels)
    assert isinstance(whence.from_sklearn(estimator, x, labels), Composed)


def test_pairs_of_classes_are_read_class_by_class() -> None:
    x, y = data("classes")
    labels = y + (x[:, 0] < -0.8)
    options = {"gamma": 0.1, "tol": 1e-10}
    pairs = SVC(decision_function_shape="ovo", **options).fit(x, labels)
    model = whence.from_sklearn(pairs, x, labels)
    own = SVC(**options).fit(x, labels)
    np.testing.assert_allclose(model.outputs(model.train), own.decision_function(x))


def test_too_few_rows_of_a_class_is_a_sentence() -> None:
    x, y = data("classes")
    model = whence.from_sklearn(NuSVC(nu=0.5, gamma=0.1).fit(x, y), x, y)
    weights = torch.ones(len(x))
    weights[torch.from_numpy(np.flatnonzero(y == 0)[3:])] = 0
    with pytest.raises(InvalidInput, match="smaller nu"):
        model.refit(weights)


@pytest.mark.parametrize("name", ["classes, γ of the rows", "numbers", "one class"])
def test_a_walk_starts_where_the_library_ended(name: str) -> None:
    x, y = data(name)
    model = whence.from_sklearn(clone(_MODELS[name]).fit(x, y), x, y)
    assert isinstance(model, NuMachine)
    np.testing.assert_allclose(model.beta, model.refit().beta, rtol=0, atol=1e-4)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_a_nu_that_all_rows_of_a_class_just_fulfill_is_one_in_any_unit_of_the_weights(
    unit: float,
) -> None:
    signs = np.repeat([1.0, -1.0], [3, 5])
    program = nu_classification(signs, 2 * 3 / 8)
    start = program.from_coefficients(np.eye(8), 0.5 * signs * unit)
    face = program.minimum(np.eye(8), np.full(8, unit), start)
    np.testing.assert_allclose(face.beta, np.repeat([1.0, -0.6], [3, 5]) * unit)
    with pytest.raises(InvalidInput, match="smaller nu"):
        program.minimum(np.eye(8), np.repeat([0.0, unit], [1, 7]), start)


@pytest.mark.parametrize("twin", [False, True])
def test_an_inverse_made_anew_is_that_of_the_free_coordinates(twin: bool) -> None:
    """A column that has come to be another's twin is free no longer."""
    half = np.random.default_rng(0).normal(size=(8, 8))
    half[6] = half[0] if twin else half[6]
    gram, group, free = half @ half.T, np.arange(8) % 2, [4, 0, 3, 2, 7, *([] if twin else [6])]
    box = Box(low=np.zeros(8), high=np.ones(8), totals=np.ones(2), group=group)
    walker = _Walker(gram, box, empty_face(np.full(8, 0.25), -np.ones(8)))
    for index in free:
        walker.release(index)
    order, inverse = walker.order, walker.inverse
    assert set(order) == {-1, -2, *free}
    walker.inverse = np.zeros_like(inverse)
    if twin:
        walker.free, walker.order = np.append(walker.free, 6), np.append(order, 6)
    walker.refactor()
    np.testing.assert_array_equal(walker.order, order)
    np.testing.assert_array_equal(walker.free, free)
    np.testing.assert_allclose(walker.inverse, inverse, atol=1e-9)


def test_a_walk_with_several_sums_ends_at_the_minimum() -> None:
    rng = np.random.default_rng(0)
    for m, rank in ((12, 12), (30, 6), (40, 40)):
        half = rng.normal(size=(m, rank))
        gram, target = half @ half.T, rng.normal(size=m)
        group = rng.integers(0, 3, m)
        high = rng.uniform(0.2, 1.0, m)
        totals = np.array([0.4 * high[group == each].sum() for each in range(3)])
        box = Box(low=np.zeros(m), high=high, totals=totals, group=group)
        face = walk(gram, box, empty_face(np.zeros(m), -target), tolerance=1e-11)
        assert face.violation <= 1e-9
        slope = gram @ face.beta - target + face.multipliers[group]
        assert (np.abs(face.beta.clip(0, high) - face.beta) == 0).all()
        np.testing.assert_allclose(np.bincount(group, face.beta, 3), totals, atol=1e-10)
        assert (slope[face.beta < high] > -1e-8).all()
        assert (slope[face.beta > 0] < 1e-8).all()
