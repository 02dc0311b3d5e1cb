"""How good a model is: what a user's own cross-validation would say."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_wine
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import accuracy_score
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import whence
from whence.methods.model_quality import ModelQuality, model_quality
from whence.views.statuses import quality_sentence


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


def test_a_regression_is_judged_by_leave_one_out_beside_the_mean(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y = load_diabetes(return_X_y=True)
    x, y, rest = x[:60, :4] * 20, y[:60], (x[60:90, :4] * 20, y[60:90])
    model = LinearRegression().fit(x, y)
    quality = model_quality(whence.from_sklearn(model, x, y))
    assert quality is not None
    said = cross_val_predict(LinearRegression(), x, y, cv=LeaveOneOut())
    assert quality.error == pytest.approx(np.sqrt(np.mean((said - y) ** 2)))
    assert quality.error_of_mean == pytest.approx(y.std())
    assert (quality.n, quality.accuracy, quality.better) == (60, None, True)
    asked = model_quality(whence.from_sklearn(model, x, y), rest)
    assert asked is not None
    assert asked.error == pytest.approx(np.sqrt(np.mean((model.predict(rest[0]) - rest[1]) ** 2)))
    assert asked.error_of_mean == pytest.approx(np.sqrt(np.mean((y.mean() - rest[1]) ** 2)))
    monkeypatch.setattr(sys.modules["whence.methods.model_quality"], "_ROWS", 4)
    few = model_quality(whence.from_sklearn(model, x, y))
    assert few is not None
    at = [0, 20, 39, 59]
    assert few.error == pytest.approx(np.sqrt(np.mean((said - y)[at] ** 2)))
    two = np.stack([y, -y], 1)
    assert model_quality(whence.from_sklearn(Ridge().fit(x, two), x, two)) is None


def test_trees_of_a_class_of_one_row_are_not_judged() -> None:
    x, y = load_wine(return_X_y=True)
    rows = np.r_[:60, 150]
    model = GradientBoostingClassifier(n_estimators=2, random_state=0).fit(x[rows], y[rows])
    assert model_quality(whence.from_sklearn(model, x[rows], y[rows])) is None
    model.fit(x[::3], y[::3])
    quality = model_quality(whence.from_sklearn(model, x[::3], y[::3]))
    assert quality is not None
    assert quality.n == 60


@pytest.mark.parametrize("classes", [2, 3])
def test_a_classifier_is_judged_beside_the_commonest_class(classes: int) -> None:
    x, y = load_wine(return_X_y=True)
    x, y = x[y < classes][:, :2], y[y < classes]
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x[::2], y[::2])
    quality = model_quality(whence.from_sklearn(model, x[::2], y[::2]), (x[1::2], y[1::2]))
    assert quality is not None
    assert quality.accuracy == model.score(x[1::2], y[1::2]) < 1
    assert quality.commonest == 1
    assert quality.majority == pytest.approx((y[1::2] == 1).mean())
    assert quality.how == "held-out examples"


def test_how_a_model_is_judged_follows_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["whence.methods.model_quality"]
    x, y = load_wine(return_X_y=True)
    x, y = StandardScaler().fit_transform(x)[:100, :3], y[:100] > 0
    model = LogisticRegression(tol=1e-8).fit(x, y)

    def judged(**limits: float) -> tuple[int, str] | None:
        with monkeypatch.context() as patch:
            for name, limit in limits.items():
                patch.setattr(module, name, limit)
            quality = model_quality(whence.from_sklearn(model, x, y))
        return None if quality is None else (quality.n, quality.how)

    n, p = 100, 4
    work = n * p**2 + p**3 + 2 * p**2 * n
    each = (n, "training examples, each predicted by the model without it")
    fits = "training examples, each predicted by a fit to four fifths of the data without it"
    assert judged(_OPERATIONS=work) == each
    assert judged(_OPERATIONS=work - 1) == (n, fits)
    assert judged(_OPERATIONS=0, _FITTED=n * p) == (n, fits)
    assert judged(_OPERATIONS=0, _FITTED=n * p - 1, _FITTED_ONCE=n * p) == (n // 5, fits)
    assert judged(_OPERATIONS=0, _FITTED=0, _FITTED_ONCE=n * p - 1) is None


def test_a_fit_with_weighted_classes_is_judged_with_these_weights() -> None:
    """A balanced fit to a rare class is right less often than the common class, by intent."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(800, 3))
    y = np.where(x[:, 0] + 1.5 * rng.normal(size=800) > 3, "rare", "common")
    train, test = slice(0, 500), slice(500, None)
    model = LogisticRegression(class_weight="balanced", tol=1e-8).fit(x[train], y[train])
    objective = whence.from_sklearn(model, x[train], y[train])
    quality = model_quality(objective, (x[test], y[test]))
    assert quality is not None
    assert quality.weighted is not None
    assert quality.accuracy == pytest.approx(model.score(x[test], y[test]))
    assert quality.accuracy < quality.majority  # type: ignore[operator]
    counts = {name: float((y[train] == name).sum()) for name in np.unique(y)}
    each = np.array([1 / counts[name] for name in y[test]])
    assert quality.weighted.accuracy == pytest.approx(
        accuracy_score(y[test], model.predict(x[test]), sample_weight=each)
    )
    assert quality.weighted.majority == pytest.approx(
        accuracy_score(y[test], np.full(300, "common"), sample_weight=each)
    )
    assert quality.better is True
    words = quality_sentence(quality, ("common", "rare"), 0)
    assert words.startswith("With the classes weighted as in its fit, the model is right on ")
    assert "always saying “common”" in words
    plain = clone(model).set_params(class_weight=None).fit(x[train], y[train])
    unweighted = model_quality(whence.from_sklearn(plain, x[train], y[train]), (x[test], y[test]))
    assert unweighted is not None
    assert unweighted.weighted is None


def test_the_commonest_class_is_that_of_the_weights() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [120, 80])
    x = rng.normal(size=(200, 2)) + y[:, None]
    model = LogisticRegression(class_weight={0: 1.0, 1: 5.0}, tol=1e-8).fit(x, y)
    quality = model_quality(whence.from_sklearn(model, x, y), (x, y))
    assert quality is not None
    assert quality.weighted is not None
    assert quality.weighted.commonest == 1
    assert quality.weighted.majority == pytest.approx(5 * 80 / (5 * 80 + 120))
