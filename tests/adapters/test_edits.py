"""An edit is the user's own refit on the edited data, whatever the kind of model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from lifelines import CoxPHFitter
from lifelines.datasets import load_rossi
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris
from sklearn.decomposition import TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import ExtraTreesClassifier, GradientBoostingClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.linear_model import (
    HuberRegressor,
    LogisticRegression,
    Perceptron,
    QuantileRegressor,
    Ridge,
)
from sklearn.model_selection import StratifiedKFold
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import NuSVC, NuSVR, OneClassSVM
from sklearn.tree import DecisionTreeRegressor

import whence
from whence.errors import InvalidInput, UnsupportedModel

_N = 60
_LOGISTIC = LogisticRegression(solver="newton-cholesky", tol=1e-12, max_iter=1000)


def numbers(classes: int) -> tuple[Any, Any]:
    x, y = load_iris(return_X_y=True)
    x, y = x[y < 2] if classes == 2 else x, y[y < 2] if classes == 2 else y
    rng = np.random.default_rng(4)
    order = rng.permutation(len(x))[: _N + 6]
    x = x[order] + rng.normal(size=(len(order), 4))  # classes that overlap
    return (x, y[order]) if classes else (x[:, :3], x[:, 3])


def texts(binary: bool) -> tuple[Any, Any]:
    rng = np.random.default_rng(5)
    words = np.array([f"word{i}" for i in range(12)])
    y = rng.integers(0, 2, _N + 6)
    common = rng.choice(words, (len(y), 6))
    documents = [f"{' '.join(row)} {'yes' * v}" for row, v in zip(common, y, strict=True)]
    return np.array(documents, dtype=object), y if binary else y + 0.1 * np.arange(len(y))


def two() -> tuple[Any, Any]:
    return numbers(2)


def three() -> tuple[Any, Any]:
    return numbers(3)


def real() -> tuple[Any, Any]:
    return numbers(0)


def documents() -> tuple[Any, Any]:
    return texts(binary=True)


def rated() -> tuple[Any, Any]:
    return texts(binary=False)


CASES: dict[str, tuple[Any, Callable[[], tuple[Any, Any]]]] = {
    "neighbors": (KNeighborsClassifier(5), three),
    "neighbors-regression": (KNeighborsRegressor(4), real),
    "neighbors-selected": (make_pipeline(SelectKBest(k=2), KNeighborsClassifier(5)), two),
    "naive-bayes": (GaussianNB(), three),
    "discriminant": (LinearDiscriminantAnalysis(), three),
    "process": (GaussianProcessClassifier(optimizer=None), two),
    "quantile": (QuantileRegressor(alpha=0.01), real),
    "nu-svc": (make_pipeline(StandardScaler(), NuSVC(nu=0.4, tol=1e-10)), two),
    "nu-svr": (NuSVR(tol=1e-10), real),
    "calibrated": (CalibratedClassifierCV(_LOGISTIC, cv=StratifiedKFold(3)), two),
    "huber-scaled": (make_pipeline(StandardScaler(), HuberRegressor(tol=1e-10)), real),
    "perceptron": (Perceptron(random_state=0), two),
    "texts-naive-bayes": (make_pipeline(CountVectorizer(), MultinomialNB()), documents),
    "texts-trees": (
        make_pipeline(TfidfVectorizer(), ExtraTreesClassifier(5, random_state=0)),
        documents,
    ),
    "texts-boosting": (
        make_pipeline(TfidfVectorizer(), GradientBoostingClassifier(n_estimators=5)),
        documents,
    ),
    "texts-tree": (make_pipeline(CountVectorizer(), DecisionTreeRegressor(max_depth=3)), rated),
    "texts-logistic": (make_pipeline(TfidfVectorizer(), _LOGISTIC), documents),
    "texts-svd": (
        make_pipeline(
            TfidfVectorizer(), TruncatedSVD(4, algorithm="arpack", random_state=0), Ridge()
        ),
        rated,
    ),
}


def answers(model: Any, rows: Any, classify: bool) -> Any:
    """Return what is compared: of two classes the second, as probability or decision."""
    if not classify:
        return np.asarray(model.predict(rows)).ravel()
    if hasattr(model, "predict_proba"):
        return np.clip(model.predict_proba(rows)[:, 1], 1 / (2 * _N), 1)
    return model.decision_function(rows)


def asked(model: Any) -> Callable[[Any, Any], Any]:
    """Return the same of outputs as a measure."""
    if not model.classes:
        return lambda outputs, targets: outputs[:, 0]

    def measure(outputs: Any, targets: Any) -> Any:
        shares = None if "decision" in str(model.notes) else model.loss.probabilities(outputs)
        if shares is None or model.loss.hinged:
            return outputs[:, 0]
        return shares[:, 1].clamp(1 / (2 * _N), 1)

    return measure


@pytest.mark.parametrize("case", CASES)
def test_edit_is_clone_fitted_on_edited_data(case: str) -> None:
    estimator, data = CASES[case]
    x, y = data()
    rows, labels, queries = x[:_N], y[:_N], x[_N:]
    fitted = clone(estimator).fit(rows, labels)
    model = whence.from_sklearn(fitted, rows, labels)
    classify = bool(model.classes)
    measure = asked(model)
    moved = 0.0
    for i in (3, 20, 33):
        edited, other = rows.copy(), labels.copy()
        edited[i] = rows[i + 1] + (" unheard" if edited.ndim == 1 else 0.3)
        other[i] = next(c for c in model.classes if c != labels[i]) if classify else labels[i] + 2.0
        again = clone(estimator).fit(edited, other)
        truth = answers(again, queries, classify) - answers(fitted, queries, classify)
        found = whence.edit(
            model,
            i,
            edited[i : i + 1],
            other[i],
            (queries, y[_N:]),
            order="refit",
            measure=measure,
        )
        floor = 1.01 / (2 * _N) if "trees" in case or "boosting" in case else 1e-6
        np.testing.assert_allclose(found, truth, atol=max(floor, 1e-5 * abs(truth).max()))
        moved = max(moved, abs(truth).max())
    assert moved > 1e-3


def test_default_of_models_that_refit_at_once_is_the_refit() -> None:
    x, y = three()
    model = whence.from_sklearn(KNeighborsClassifier(5).fit(x[:_N], y[:_N]), x[:_N], y[:_N])
    change = 3, x[10], 2, (x[_N:], y[_N:])
    found = whence.edit(model, *change)
    np.testing.assert_array_equal(found, whence.edit(model, *change, order="refit"))
    assert abs(found).max() > 0.01


def test_edit_of_an_outlier_detector_needs_no_target() -> None:
    x, _ = real()
    machine = OneClassSVM(nu=0.3, tol=1e-10)
    model = whence.from_sklearn(clone(machine).fit(x[:_N]), x[:_N], None)
    edited = x[:_N].copy()
    edited[7] += 2.0
    queries = x[_N:], np.zeros(6)
    found = whence.edit(model, 7, edited[7], 0.0, queries, order="refit", measure="prediction")
    again, before = (clone(machine).fit(rows).score_samples(x[_N:]) for rows in (edited, x[:_N]))
    np.testing.assert_allclose(found, again - before, atol=1e-6)


def test_edit_of_a_survival_time() -> None:
    rossi = load_rossi()[:150].drop(columns=["mar", "wexp"]).astype(float)
    edited = rossi.copy()
    edited.loc[5, ["week", "age"]] = [3.0, 40.0]
    queries = rossi[150 - 4 :], rossi[["week", "arrest"]][150 - 4 :]
    fit = {"duration_col": "week", "event_col": "arrest"}
    fitted = CoxPHFitter().fit(rossi, **fit)
    row = edited.drop(columns=["week", "arrest"])[5:6]
    found = whence.edit(
        whence.from_lifelines(fitted, rossi), 5, row, (3.0, edited.arrest[5]),
        (queries[0].drop(columns=["week", "arrest"]), queries[1]), order="refit",
        measure=lambda outputs, targets: outputs[:, 0],
    )  # fmt: skip
    means = rossi.drop(columns=["week", "arrest"])[-4:].to_numpy()
    again = CoxPHFitter().fit(edited, **fit)
    np.testing.assert_allclose(found, means @ (again.params_ - fitted.params_), atol=1e-5)


def test_edit_that_takes_the_last_of_a_class_is_refused() -> None:
    x, y = numbers(2)
    y = np.where(np.arange(len(y)) == 3, 1, 0)
    model = whence.from_sklearn(GaussianNB().fit(x[:_N], y[:_N]), x[:_N], y[:_N])
    with pytest.raises(InvalidInput, match="leaves a training row to each class"):
        whence.edit(model, 3, x[3], 0, (x[_N:], y[_N:]), order="refit")


def test_method_that_cannot_follow_edits_names_the_refit() -> None:
    x, y = two()
    fitted = make_pipeline(StandardScaler(), Perceptron(random_state=0)).fit(x[:_N], y[:_N])
    model = whence.from_sklearn(fitted, x[:_N], y[:_N])
    with pytest.raises(UnsupportedModel, match="order='refit'"):
        whence.edit(model, 3, x[3], 0, (x[_N:], y[_N:]), method=whence.Retrained(fits=20))


def test_tree_pipelines_read_texts_as_their_library_does() -> None:
    x, y = documents()
    pipeline = make_pipeline(TfidfVectorizer(), ExtraTreesClassifier(5, random_state=0))
    fitted = clone(pipeline).fit(x[:_N], y[:_N])
    for rows in (x[:_N].tolist(), x[:_N]):
        model = whence.from_sklearn(fitted, rows, y[:_N])
        found = whence.leave_one_out(model, [4], (x[_N:], y[_N:]), measure="probability")
        rest = np.delete(np.arange(_N), 4)
        again = clone(pipeline).fit(x[rest], y[rest])
        given = np.arange(6), y[_N:]
        truth = again.predict_proba(x[_N:])[given] - fitted.predict_proba(x[_N:])[given]
        np.testing.assert_allclose(found[:, 0], truth, atol=1.01 / (2 * _N))
        assert abs(truth).max() > 0.1
