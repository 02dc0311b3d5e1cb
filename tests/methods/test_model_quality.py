"""How good a model is: what a user's own cross-validation would say."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import whence
from whence.methods.model_quality import ModelQuality, model_quality


def test_a_wide_model_is_judged_on_fifths_that_it_has_not_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where leaving out each row would take long, five fits do, preprocessing included."""
    monkeypatch.setattr(sys.modules["whence.methods.model_quality"], "_OPERATIONS", 0)
    x, y = load_wine(return_X_y=True)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, tol=1e-8)).fit(x, y)
    quality = model_quality(whence.from_sklearn(model, x, y))
    assert quality is not None
    order = np.random.default_rng(0).permutation(len(y))
    order = order[np.argsort(y[order], kind="stable")]
    right = 0
    for fold in (order[start::5] for start in range(5)):
        rest = np.setdiff1d(np.arange(len(y)), fold)
        refit = clone(model).fit(x[rest], y[rest])
        right += int((refit.predict(x[fold]) == y[fold]).sum())
    assert quality.n == len(y)
    assert quality.accuracy == pytest.approx(right / len(y))
    assert "four fifths" in quality.how


def test_what_is_too_large_to_fit_again_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["whence.methods.model_quality"]
    monkeypatch.setattr(module, "_OPERATIONS", 0)
    monkeypatch.setattr(module, "_FITTED", 0)
    monkeypatch.setattr(module, "_FITTED_ONCE", 0)
    x, y = load_wine(return_X_y=True)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, tol=1e-8)).fit(x, y)
    assert model_quality(whence.from_sklearn(model, x, y)) is None


@pytest.mark.parametrize(
    ("accuracy", "better"), [(0.5, False), (0.65, None), (0.75, None), (0.81, True)]
)
def test_a_gain_within_two_standard_errors_may_be_chance(
    accuracy: float, better: bool | None
) -> None:
    """Of 100 rows at 0.8 right that is 0.08."""
    assert ModelQuality(n=100, how="", accuracy=accuracy, majority=0.7).better is better


def test_a_smaller_error_is_better() -> None:
    for error, better in ((1.0, True), (2.0, False), (3.0, False)):
        assert ModelQuality(n=9, how="", error=error, error_of_mean=2.0).better is better
