"""Regression diagnostics against statsmodels, or refits without a row where it has none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import (
    GammaRegressor,
    Lasso,
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
)
from sklearn.svm import SVR, LinearSVC, LinearSVR

import whence
from whence.errors import InvalidInput, UnsupportedModel

sm = pytest.importorskip("statsmodels.api", reason="statsmodels is not installed")


@pytest.fixture(scope="module")
def diabetes() -> tuple[pd.DataFrame, pd.Series]:
    x, y = load_diabetes(return_X_y=True, as_frame=True)
    return 10 * x[["age", "bmi", "bp", "s3", "s5"]], y


def frame_of(model: Any, x: Any, y: Any, weights: Any = None) -> pd.DataFrame:
    model.fit(x, y, sample_weight=weights)
    return whence.regression_diagnostics(whence.from_sklearn(model, x, y, sample_weight=weights))


def betas(frame: pd.DataFrame) -> Any:
    return frame.filter(like="dfbetas ").to_numpy()


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("weighted", [False, True])
def test_least_squares_equals_statsmodels(
    diabetes: tuple[pd.DataFrame, pd.Series], weighted: bool
) -> None:
    x, y = diabetes
    x, y = x[:120], y[:120]
    weights = np.random.default_rng(0).uniform(0.2, 3, len(x)) if weighted else None
    frame = frame_of(LinearRegression(), x, y, weights)
    whole = sm.add_constant(x, prepend=False)
    fitted = sm.WLS(y, whole, weights=1.0 if weights is None else weights).fit()
    root = 1.0 if weights is None else np.sqrt(weights)
    # statsmodels' loop leaves rows out of the whitened data where there are weights.
    whitened = sm.OLS(root * y, whole.mul(root, axis=0)).fit()
    expected = whitened.get_influence()
    close(frame["fitted"], fitted.fittedvalues)
    close(frame["leverage"], expected.hat_matrix_diag)
    close(frame["studentized"], expected.resid_studentized_internal)
    close(frame["studentized_external"], expected.resid_studentized_external)
    close(frame["cooks_distance"], expected.cooks_distance[0])
    close(frame["dffits"], expected.dffits[0])
    close(frame["covratio"], expected.cov_ratio)
    close(betas(frame), expected.dfbetas)
    assert list(frame.columns[-2:]) == ["dfbetas s5", "dfbetas intercept"]
    assert frame.attrs["dispersion"] == pytest.approx(fitted.scale)
    assert frame.attrs["df_resid"] == pytest.approx(fitted.df_resid)


def glm_cases() -> dict[str, tuple[Any, Any]]:
    families = sm.families
    newton = {"alpha": 0.0, "solver": "newton-cholesky", "tol": 1e-10, "max_iter": 1000}
    logistic = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12)
    return {
        "logistic": (logistic, families.Binomial()),
        "poisson": (PoissonRegressor(**newton), families.Poisson()),
        "gamma": (GammaRegressor(**newton), families.Gamma(families.links.Log())),
    }


@pytest.mark.parametrize("name", glm_cases())
def test_generalized_linear_models(name: str, diabetes: tuple[pd.DataFrame, pd.Series]) -> None:
    model, family = glm_cases()[name]
    x, y = diabetes
    if name == "logistic":
        x, y = load_breast_cancer(return_X_y=True, as_frame=True)
        x = (x - x.mean()) / x.std()
        x = x[["mean texture", "mean smoothness", "symmetry error"]]
    elif name == "poisson":
        y = (y / 20).round()
    frame = frame_of(model, x, y)
    fitted = sm.GLM(y, sm.add_constant(x, prepend=False), family=family).fit(tol=1e-14)
    expected = fitted.get_influence(observed=False)
    close(frame["fitted"], fitted.fittedvalues)
    close(frame["leverage"], expected.hat_matrix_diag)
    close(frame["studentized"], expected.resid_studentized)
    close(frame["cooks_distance"], expected.cooks_distance[0])
    if name != "gamma":  # its DFBETAS divide by the dispersion once more
        close(betas(frame), expected.dfbetas)

    # What statsmodels has not, against refits of 50 rows: one step is nearly there.
    rows = np.random.default_rng(0).choice(len(x), 50, replace=False)
    refits = [refit_without(fitted, x, y, family, i) for i in rows]
    shown = frame.iloc[rows]
    for column in ("studentized_external", "dffits", "cooks_distance", "covratio"):
        actual = np.array([refit[column] for refit in refits])
        assert np.corrcoef(shown[column], actual)[0, 1] >= 0.99, column
        np.testing.assert_allclose(shown[column], actual, atol=0.1 * abs(actual).max())
    changes = np.array([refit["dfbetas"] for refit in refits])
    assert np.corrcoef(betas(shown).ravel(), changes.ravel())[0, 1] >= 0.99


def refit_without(fitted: Any, x: Any, y: Any, family: Any, i: int) -> dict[str, Any]:
    """The definitions, by a fit without row i."""
    kept = np.delete(np.arange(len(x)), i)
    design = sm.add_constant(x.iloc[kept], prepend=False)
    without = sm.GLM(y.iloc[kept], design, family=family).fit(start_params=fitted.params, tol=1e-12)
    s, mean = np.sqrt(without.scale), fitted.fittedvalues.iloc[i]
    change = (fitted.params - without.params).to_numpy()
    inverse = fitted.cov_params() / fitted.scale
    row = np.append(x.iloc[i], 1.0)
    linear_error = np.sqrt(row @ inverse @ row)
    leverage = fitted.get_hat_matrix_diag(observed=False)[i]
    pearson = (y.iloc[i] - mean) / np.sqrt(family.variance(mean))
    return {
        "studentized_external": pearson / (s * np.sqrt(1 - leverage)),
        "dffits": row @ change / (s * linear_error),
        "cooks_distance": change @ np.linalg.inv(inverse) @ change / (len(row) * fitted.scale),
        "covratio": np.linalg.det(without.cov_params()) / np.linalg.det(fitted.cov_params()),
        "dfbetas": change / (s * np.sqrt(np.diag(inverse))),
    }


def test_a_ridge_equals_refits(diabetes: tuple[pd.DataFrame, pd.Series]) -> None:
    x, y = diabetes
    model = Ridge(alpha=20.0)
    frame = frame_of(model, x, y)
    n, p = x.shape
    design = np.hstack([x, np.ones((n, 1))])
    penalty = np.diag([20.0] * p + [0.0])

    def fit(rows: Any) -> tuple[Any, float, Any, float]:
        part = design[rows]
        gram = part.T @ part
        inverse = np.linalg.inv(gram + penalty)
        fitted = clone(model).fit(x.iloc[rows], y.iloc[rows])
        params = np.append(fitted.coef_, fitted.intercept_)
        degrees = np.trace(inverse @ gram)
        s2 = ((y.iloc[rows] - part @ params) ** 2).sum() / (len(rows) - degrees)
        return params, s2, inverse @ gram @ inverse, degrees

    params, s2, covariance, degrees = fit(np.arange(n))
    assert frame.attrs["df_model"] == pytest.approx(degrees)
    assert frame.attrs["dispersion"] == pytest.approx(s2)
    for i in np.random.default_rng(1).choice(n, 50, replace=False):
        without, s2_i, covariance_i, _ = fit(np.delete(np.arange(n), i))
        row, change = frame.iloc[i], params - without
        close(betas(frame)[i], change / np.sqrt(s2_i * np.diag(covariance)))
        h = row["leverage"]
        e = y.iloc[i] - design[i] @ params
        close(row["studentized_external"], e / np.sqrt(s2_i * (1 - h)))
        close(row["dffits"], design[i] @ change / np.sqrt(s2_i * h))
        close(row["cooks_distance"], ((design @ change) ** 2).sum() / (degrees * s2))
        ratio = (s2_i / s2) ** (p + 1) * np.linalg.det(covariance_i) / np.linalg.det(covariance)
        close(row["covratio"], ratio)


def test_a_row_alone_and_dependent_columns(diabetes: tuple[pd.DataFrame, pd.Series]) -> None:
    x, y = diabetes
    alone = x.assign(only=0.0)
    alone.iloc[7, -1] = 1.0
    frame = frame_of(LinearRegression(), alone, y)
    assert frame["leverage"].iloc[7] == pytest.approx(1)
    assert frame.iloc[7][["studentized", "cooks_distance", "covratio"]].isna().all()
    assert frame.drop(index=7).notna().all(axis=None)
    twice = frame_of(LinearRegression(), x.assign(again=x["bmi"]), y)
    once = frame_of(LinearRegression(), x, y)
    for name in ("leverage", "studentized_external", "cooks_distance", "dffits", "covratio"):
        close(twice[name], once[name])


def test_what_has_no_diagnostics(diabetes: tuple[pd.DataFrame, pd.Series]) -> None:
    x, y = diabetes
    high = y > y.median()
    for model, target in (
        (Lasso(0.1), y),
        (LinearSVC(), high),
        (LogisticRegression(), pd.qcut(y, 3, labels=False)),
    ):
        objective = whence.from_sklearn(model.fit(x, target), x, target)
        with pytest.raises(UnsupportedModel, match="Expected"):
            whence.regression_diagnostics(objective)
    for model in (SVR(), LinearSVR(loss="squared_epsilon_insensitive", dual=False)):
        objective = whence.from_sklearn(model.fit(x, y), x, y)
        with pytest.raises(UnsupportedModel, match="no variance function"):
            whence.regression_diagnostics(objective)
    with pytest.raises(InvalidInput, match="more rows than parameters"):
        frame_of(LinearRegression(), x[:6], y[:6])


def test_plots(diabetes: tuple[pd.DataFrame, pd.Series]) -> None:
    frame = frame_of(LinearRegression(), *diabetes)
    ax = whence.plot.leverage_and_residuals(frame, k=3)
    named = {text.get_text() for text in ax.texts}
    assert named == {str(name) for name in frame["cooks_distance"].nlargest(3).index}
    points = ax.collections[0].get_offsets()
    np.testing.assert_allclose(points, frame[["leverage", "studentized_external"]])
    ax = whence.plot.by_row(frame, "dffits", k=2)
    assert len(ax.texts) == 2
    with pytest.raises(InvalidInput, match="'cook'"):
        whence.plot.by_row(frame, "cook")
    with pytest.raises(InvalidInput, match=r"Got 'dfits'\. Did you mean 'dffits'\?"):
        whence.plot.by_row(frame, "dfits")


def test_columns_that_depend_on_each_other_count_once(
    diabetes: tuple[pd.DataFrame, pd.Series],
) -> None:
    x, y = diabetes
    x, y = x[:60].assign(both=x["age"] + x["bmi"]), y[:60]
    frame = frame_of(LinearRegression(), x, y)
    whole = sm.add_constant(x, prepend=False).to_numpy()
    close(frame["leverage"], np.diag(whole @ np.linalg.pinv(whole)))
    assert frame["leverage"].sum() == pytest.approx(6)


def test_the_unit_of_a_column_changes_nothing(diabetes: tuple[pd.DataFrame, pd.Series]) -> None:
    x, y = diabetes
    x, y = x[:120], y[:120]
    expected = frame_of(LinearRegression(), x, y)
    found = frame_of(LinearRegression(), 1e-9 * x, y)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    columns = sm.add_constant(x * [1e-8, 1.0, 1e3, 1e-3, 1e4], prepend=False)
    found = whence.regression_diagnostics(whence.from_statsmodels(sm.OLS(y, columns).fit()))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_weights_that_count_rows_are_refused_and_variances_are_not() -> None:
    rng = np.random.default_rng(0)
    x, y, counts = (
        sm.add_constant(rng.normal(size=(40, 2))),
        rng.poisson(2, 40),
        rng.integers(1, 4, 40),
    )
    options = {"family": sm.families.Poisson()}
    counted = whence.from_statsmodels(sm.GLM(y, x, freq_weights=counts, **options).fit())
    with pytest.raises(UnsupportedModel, match="Got freq_weights, numbers of rows"):
        whence.regression_diagnostics(counted)
    repeated = sm.GLM(np.repeat(y, counts), np.repeat(x, counts, axis=0), **options)
    for model in (repeated, sm.GLM(y, x, var_weights=counts, **options)):
        results = model.fit(tol=1e-12)
        found = whence.regression_diagnostics(whence.from_statsmodels(results))
        theirs = results.get_influence(observed=False)
        np.testing.assert_allclose(found["cooks_distance"], theirs.cooks_distance[0], atol=1e-8)
        np.testing.assert_allclose(found["studentized"], theirs.resid_studentized, atol=1e-8)
