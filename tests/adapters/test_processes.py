"""Gaussian process classifiers without rows are what scikit-learn fits, their kernels held."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_wine
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import RBF
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import whence
from whence.adapters.composed import Composed
from whence.adapters.processes import Process
from whence.errors import InvalidInput
from whence.methods.choose import default_of


def data(classes: int) -> tuple[Any, Any]:
    x, y = load_wine(return_X_y=True)
    there = np.flatnonzero(y < classes)
    there = np.random.default_rng(2).permutation(there)[:50]
    x = x[there, :4]
    return (x - x.mean(0)) / x.std(0), np.array(["red", "rosé", "white"])[y[there]]


@pytest.fixture(scope="module")
def two() -> Process:
    x, y = data(2)
    model = whence.from_sklearn(GaussianProcessClassifier(RBF(2.0)).fit(x, y), x, y)
    assert isinstance(model, Process)
    return model


def test_a_refit_is_the_fit_of_the_library(two: Process) -> None:
    x, y = data(2)
    own = GaussianProcessClassifier(two.fitted.kernel_, optimizer=None)
    for gone in ([], [4], [30], list(range(20, 30))):
        weights = torch.ones(len(x))
        weights[gone] = 0
        kept = weights.numpy() > 0
        expected = clone(own).fit(x[kept], y[kept]).predict_proba(x)
        found = two.loss.probabilities(two.refit(weights).outputs(two.train))
        assert found is not None
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_removals_are_the_default_and_the_kernel_is_said_to_be_held(two: Process) -> None:
    x, y = data(2)
    assert default_of(two)[0] == whence.LeaveOneOut()
    assert any("is held, here and in refits" in note for note in two.notes)
    assert whence.explain(two, (x[:1], y[:1]), k=3).verify(6).r > 0.999


def test_each_of_several_classes_keeps_its_kernel() -> None:
    x, y = data(3)
    fitted = GaussianProcessClassifier(RBF(2.0)).fit(x, y)
    model = whence.from_sklearn(fitted, x, y)
    assert isinstance(model, Composed)
    np.testing.assert_allclose(model.outputs(model.train).exp(), fitted.predict_proba(x))
    where, queries = [0, 17, 31], (x[:4], y[:4])
    found = default_of(model)[0].fit(model).scores(queries, indices=where).values
    own = np.arange(4), np.searchsorted(model.classes, y[:4])
    before = -np.log(fitted.predict_proba(x[:4]))[own]
    for column, row in enumerate(where):
        kept = np.delete(np.arange(len(x)), row)
        shares = np.stack(
            [
                GaussianProcessClassifier(kernel, optimizer=None)
                .fit(x[kept], y[kept] == name)
                .predict_proba(x[:4])[:, 1]
                for name, kernel in zip(model.classes, fitted.kernel_.kernels, strict=True)
            ],
            1,
        )
        shares /= shares.sum(1, keepdims=True)
        after = -np.log(shares)[own]
        np.testing.assert_allclose(found[:, column], after - before, atol=1e-6)
    refitted = model.refit(torch.from_numpy((y != "red").astype(float)))
    assert refitted.outputs(model.train).shape == (len(x), 3)


def test_behind_a_scaler_it_is_fitted_again_with_its_kernel() -> None:
    x, y = data(2)
    pipe = make_pipeline(StandardScaler(), GaussianProcessClassifier(RBF(2.0))).fit(x, y)
    model = whence.from_sklearn(pipe, x, y)
    assert default_of(model)[0] == whence.LeaveOneOut()
    assert "optimizer=None" in repr(model.refit().fitted)  # type: ignore[attr-defined]


def test_what_cannot_be_refitted_is_a_sentence(two: Process) -> None:
    with pytest.raises(InvalidInput, match="Got rows of one"):
        two.refit((two.train.targets == 1).double())
    with pytest.raises(InvalidInput, match="takes no others"):
        two.refit(torch.full((len(two.train),), 0.5))
