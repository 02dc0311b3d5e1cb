"""Answers do not depend on the unit of the data: against the user's own library in each unit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    HuberRegressor,
    Lasso,
    LinearRegression,
    LogisticRegression,
    QuantileRegressor,
    Ridge,
)
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR, LinearSVR, NuSVR

import whence
from whence.errors import NotConvergedWarning

Floats = NDArray[np.float64]

_N = 70
_REMOVED = [0, 5, 7, 20, 33, 60]
_TIGHT = {"tol": 1e-12, "max_iter": 100_000}

# What is fitted to targets of a unit s; a penalty or a corridor is in that unit too.
_MODELS: dict[str, Callable[[float], Any]] = {
    "LinearRegression": lambda s: LinearRegression(),
    "Ridge": lambda s: Ridge(),
    "Lasso": lambda s: Lasso(alpha=0.05 * s, **_TIGHT),
    "SVR": lambda s: SVR(C=s, epsilon=0.1 * s, tol=1e-11 * s),
    "NuSVR": lambda s: NuSVR(C=s, tol=1e-11 * s),
    "LinearSVR": lambda s: LinearSVR(
        C=s, epsilon=0.1 * s, dual=False, loss="squared_epsilon_insensitive", **_TIGHT
    ),
    "scaled, LinearRegression": lambda s: make_pipeline(StandardScaler(), LinearRegression()),
    "scaled, Ridge": lambda s: make_pipeline(StandardScaler(), Ridge()),
    "scaled, Lasso": lambda s: make_pipeline(StandardScaler(), Lasso(alpha=0.05 * s, **_TIGHT)),
}


def numbers() -> tuple[Floats, Floats]:
    """Rows and targets of mean 0 and size 1."""
    x, y = load_diabetes(return_X_y=True)
    order = np.random.default_rng(3).permutation(len(x))[: _N + 4]
    x, y = x[order, :6], y[order]
    return (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std()


def changes(model: Any, x: Floats, y: NDArray[Any], answer: Callable[[Any], Floats]) -> Floats:
    """What own fits without each of some rows say less what the fit of all says, [q, k]."""
    before = answer(clone(model).fit(x, y))
    fits = (clone(model).fit(np.delete(x, i, 0), np.delete(y, i)) for i in _REMOVED)
    return np.stack([answer(fit) - before for fit in fits], 1)


@pytest.mark.parametrize("unit", [1e-12, 1e-9, 1e-3, 1e6, 1e12])
@pytest.mark.parametrize("name", list(_MODELS))
def test_targets_of_any_unit(name: str, unit: float) -> None:
    x, y = numbers()
    y = y * unit
    model = _MODELS[name](unit)
    x, y, query = x[:_N], y[:_N], (x[_N:], y[_N:])
    actual = changes(model, x, y, lambda fit: fit.predict(query[0]))
    size = np.abs(actual).max()
    trained = whence.from_sklearn(clone(model).fit(x, y), x, y)
    by_refit = whence.leave_one_out(trained, _REMOVED, query, measure="prediction")
    assert np.abs(by_refit - actual).max() < (1e-5 if "SVR" in name else 1e-7) * size
    if name == "NuSVR":  # each removal is made
        return
    refined = whence.influence(
        trained, query, order="refined", indices=_REMOVED, measure="prediction"
    ).values
    assert np.abs(refined - actual).max() < 1e-3 * size


_NEWTON = {"solver": "newton-cholesky", **_TIGHT}
_ON_COLUMNS: dict[str, Any] = {
    "LinearRegression": LinearRegression(),
    "Ridge": Ridge(),
    "Lasso": Lasso(alpha=0.05, **_TIGHT),
    "QuantileRegressor": QuantileRegressor(quantile=0.8, alpha=0.01),
    "imputed, Ridge": make_pipeline(SimpleImputer(), Ridge()),
}


def moved(x: Floats, how: str) -> Floats:
    """Rows with columns far from 0: all of them, or one of Unix timestamps."""
    if how == "shifted":
        return x + 1e6
    x = x.copy()
    x[:, 1] = 1.7e9 + 1e3 * x[:, 1]
    return x


@pytest.mark.parametrize("how", ["shifted", "timestamps"])
@pytest.mark.parametrize("name", list(_ON_COLUMNS))
def test_columns_far_from_zero(name: str, how: str) -> None:
    x, y = numbers()
    x = moved(x, how)
    model = _ON_COLUMNS[name]
    x, y, query = x[:_N], y[:_N], (x[_N:], y[_N:])
    actual = changes(model, x, y, lambda fit: fit.predict(query[0]))
    size = np.abs(actual).max()
    trained = whence.from_sklearn(clone(model).fit(x, y), x, y)
    by_refit = whence.leave_one_out(trained, _REMOVED, query, measure="prediction")
    assert np.abs(by_refit - actual).max() < 1e-6 * size
    if name == "QuantileRegressor":
        return
    given: dict[str, Any] = {"indices": _REMOVED, "measure": "prediction"}
    refined = whence.influence(trained, query, order="refined", **given).values
    assert np.abs(refined - actual).max() < 1e-3 * size
    first = whence.influence(trained, query, order="first", **given).values
    assert np.corrcoef(first.ravel(), actual.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e8])
def test_neighbors_far_from_zero_and_at_their_own_rows(offset: float) -> None:
    x, y = numbers()
    x = x + offset
    model = KNeighborsRegressor(weights="distance")
    query = np.r_[x[:3], x[_N:]], np.r_[y[:3], y[_N:]]
    x, y = x[:_N], y[:_N]
    fit = clone(model).fit(x, y)
    trained = whence.from_sklearn(fit, x, y)
    said = trained.outputs(trained.examples(query)).numpy()[:, 0]
    np.testing.assert_allclose(said, fit.predict(query[0]), rtol=0, atol=1e-12)
    actual = changes(model, x, y, lambda fit: fit.predict(query[0]))
    found = whence.leave_one_out(trained, _REMOVED, query, measure="prediction")
    np.testing.assert_allclose(found, actual, rtol=0, atol=1e-12)


@pytest.mark.parametrize("how", ["shifted", "timestamps"])
def test_columns_far_from_zero_of_a_classifier(how: str) -> None:
    x, y = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(3).permutation(len(x))[: _N + 4]
    x, y = StandardScaler().fit_transform(x)[order, :5], y[order]
    # The library's own steps on columns near 0, which the intercept makes the same model.
    model, near = LogisticRegression(**_NEWTON), x.copy()
    x = moved(x, how)
    if how == "timestamps":
        near[:, 1] *= 1e3
    fit = clone(model).fit(near[:_N], y[:_N])
    signs = 2 * y[_N:] - 1
    actual = changes(model, near[:_N], y[:_N], lambda one: signs * one.decision_function(near[_N:]))
    fit.intercept_ = fit.intercept_ - (x - near)[:1].mean(0) @ fit.coef_.T
    trained = whence.from_sklearn(fit, x[:_N], y[:_N])
    query = x[_N:], y[_N:]
    found = whence.leave_one_out(trained, _REMOVED, query, measure="margin")
    assert np.abs(found - actual).max() < 1e-6 * np.abs(actual).max()
    given: dict[str, Any] = {"indices": _REMOVED, "measure": "margin"}
    refined = whence.influence(trained, query, order="refined", **given).values
    assert np.corrcoef(refined.ravel(), actual.ravel())[0, 1] > 0.999


@pytest.mark.parametrize("how", ["shifted", "timestamps"])
def test_columns_far_from_zero_of_huber(how: str) -> None:
    x, y = numbers()
    # The library's own steps end at once on far columns: its fit near 0 is the same model.
    model, far = HuberRegressor(alpha=0.1, tol=1e-10, max_iter=10_000), moved(x, how)
    near = (x * [1, 1e3, 1, 1, 1, 1]) if how == "timestamps" else x
    model.set_params(alpha=1e-8)  # which no unit of a column matters to
    fit = clone(model).fit(x[:_N], y[:_N])
    scale = np.abs((near[1] - near[0]) / (x[1] - x[0]))
    fit.coef_ = fit.coef_ / scale
    whole = whence.from_sklearn(fit, near[:_N], y[:_N])
    fit.intercept_ = fit.intercept_ - (far - near)[:1].mean(0) @ fit.coef_
    trained = whence.from_sklearn(fit, far[:_N], y[:_N])
    actual = changes(model, x[:_N], y[:_N], lambda one: one.predict(x[_N:]))
    given: dict[str, Any] = {"measure": "prediction"}
    query, size = (far[_N:], y[_N:]), np.abs(actual).max()
    found = whence.leave_one_out(trained, _REMOVED, query, **given)
    assert np.abs(found - actual).max() < 0.01 * size  # what the library's own steps leave
    for order in ("first", "newton", "refined"):
        one, other = (
            whence.influence(of, (rows, y[_N:]), order=order, indices=_REMOVED, **given).values
            for of, rows in ((trained, far[_N:]), (whole, near[_N:]))
        )
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * size)
    moved_by, same = (whence.influence_on_parameters(each, [5, 7]) for each in (trained, whole))
    np.testing.assert_allclose(moved_by[:, :7], same[:, :7], rtol=1e-4, atol=1e-9)
    shift = (far - near)[0]
    at_zero = same[:, 7] - same[:, 1:7] @ shift
    np.testing.assert_allclose(moved_by[:, 7], at_zero, rtol=1e-4)


@pytest.mark.parametrize("model", [SVC(tol=1e-10), SVR(tol=1e-10)], ids=["SVC", "SVR"])
def test_columns_far_from_zero_of_a_gaussian_kernel(model: Any) -> None:
    x, y = numbers()
    x, y = x + 1e5, y if isinstance(model, SVR) else (y > 0).astype(int)
    ask = "predict" if isinstance(model, SVR) else "decision_function"
    x, y, query = x[:_N], y[:_N], (x[_N:], y[_N:])
    actual = changes(model, x, y, lambda fit: getattr(fit, ask)(query[0]))
    trained = whence.from_sklearn(clone(model).fit(x, y), x, y)
    found = whence.influence(
        trained, query, order="refined", measure=lambda f, _: f[:, 0], indices=_REMOVED
    ).values
    assert np.abs(found - actual).max() < 1e-3 * np.abs(actual).max()


@pytest.mark.filterwarnings("ignore::scipy.linalg.LinAlgWarning")  # of scikit-learn's own solve
@pytest.mark.parametrize("unit", [1e-9, 1e-6, 1e6, 1e9])
@pytest.mark.parametrize("model", [Ridge(), LinearRegression(tol=1e-15)], ids=["l2", "free"])
def test_one_column_of_any_unit_beside_a_copy_of_another(model: Any, unit: float) -> None:
    x, y = numbers()
    x = np.c_[x, x[:, 0]]
    x[:, 1] *= unit
    x, y, query = x[:_N], y[:_N], (x[_N:], y[_N:])
    actual = changes(model, x, y, lambda fit: fit.predict(query[0]))
    trained = whence.from_sklearn(clone(model).fit(x, y), x, y)
    found = whence.leave_one_out(trained, _REMOVED, query, measure="prediction")
    assert np.abs(found - actual).max() < 1e-5 * np.abs(actual).max()
    refined = whence.influence(
        trained, query, order="refined", indices=_REMOVED, measure="prediction"
    ).values
    assert np.abs(refined - actual).max() < 1e-5 * np.abs(actual).max()


@pytest.mark.parametrize("unit", [1e-7, 1e7])
def test_least_squares_that_dropped_directions_is_fitted_again_by_its_library(unit: float) -> None:
    """At tol=1e-6 scikit-learn drops what a column of another unit has to say."""
    x, y = numbers()
    x[:, 1] *= unit
    model = LinearRegression(tol=1e-6)
    x, y, query = x[:_N], y[:_N], (x[_N:], y[_N:])
    actual = changes(model, x, y, lambda fit: fit.predict(query[0]))
    trained = whence.from_sklearn(clone(model).fit(x, y), x, y)
    assert "below tol=1e-06" in trained.notes[0]
    found = whence.leave_one_out(trained, _REMOVED, query, measure="prediction")
    np.testing.assert_allclose(found, actual, rtol=0, atol=1e-12)
    rng = np.random.default_rng(0)  # no such thing is said of the mean that is taken off
    x, y = rng.normal(size=(20, 40)) + 1e6, rng.normal(size=20)
    assert "tol" not in "".join(whence.from_sklearn(model.fit(x, y), x, y).notes)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_an_unfinished_fit_is_said_in_any_unit(unit: float) -> None:
    x, y = numbers()
    y = y * unit
    model = Ridge(solver="sag", max_iter=2, random_state=0).fit(x[:_N], y[:_N])
    trained = whence.from_sklearn(model, x[:_N], y[:_N])
    with pytest.warns(NotConvergedWarning, match="finishing the fit would change"):
        scores = whence.influence(trained, (x[_N:], y[_N:]))
    assert scores.diagnostics is not None
    assert scores.diagnostics.unfinished == pytest.approx(1.77, rel=0.01)


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_a_fit_of_every_row_is_finished_in_any_unit(unit: float) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 40)), 14 * unit * rng.normal(size=20)
    trained = whence.from_sklearn(LinearRegression().fit(x, y), x, y)
    scores = whence.influence(trained, (rng.normal(size=(3, 40)), y[:3]))  # without a warning
    assert scores.diagnostics is not None
    assert scores.diagnostics.gradient_in_examples is not None
    assert scores.diagnostics.gradient_in_examples < 0.1


def test_a_penalized_intercept_stays_where_it_is_penalized() -> None:
    """A column far from 0 beside an intercept with an L1 penalty: its mean is not taken off."""
    x, y = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(3).permutation(len(x))[: _N + 4]
    x, y = moved(StandardScaler().fit_transform(x)[order, :6], "timestamps"), y[order]
    model = LogisticRegression(solver="liblinear", l1_ratio=1.0, C=0.5, random_state=0, **_TIGHT)
    x, y, query = x[:_N], y[:_N], (x[_N:], y[_N:])
    signs = 2 * query[1] - 1
    actual = changes(model, x, y, lambda fit: signs * fit.decision_function(query[0]))
    trained = whence.from_sklearn(clone(model).fit(x, y), x, y)
    found = whence.leave_one_out(trained, _REMOVED, query, measure="margin")
    # liblinear itself ends 1e-7 above the minimum, and the effects are what is left of it.
    assert np.abs(found - actual).max() < 0.05 * np.abs(actual).max()
