"""Rows that are not those of the fit are told from them, whatever is asked later."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.base import is_classifier
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PowerTransformer, QuantileTransformer, StandardScaler
from sklearn.svm import SVC, SVR, NuSVC

import whence
from whence.errors import InvalidInput, NotConvergedWarning

_N = 80


@pytest.mark.parametrize(
    "model",
    [
        SVC(),
        SVC(kernel="linear", C=0.01),
        SVR(),
        make_pipeline(StandardScaler(), SVR()),
        NuSVC(nu=0.2),
        KernelRidge(kernel="rbf", gamma=1e-4),
        GaussianProcessRegressor(alpha=1.0, optimizer=None),
        KNeighborsClassifier(),
    ],
    ids=str,
)
def test_a_model_that_keeps_rows_refuses_others(model: Any) -> None:
    x, y = (load_breast_cancer if is_classifier(model) else load_diabetes)(return_X_y=True)
    x, y = x[: 2 * _N, :6], y[: 2 * _N]
    fitted = model.fit(x[:_N], y[:_N])
    assert len(whence.from_sklearn(fitted, x[:_N], y[:_N]).train) == _N
    for other in (x[_N:], x[:_N][::-1]):
        with pytest.raises(InvalidInput, match="some of which it keeps"):
            whence.from_sklearn(fitted, other, y[:_N])


@pytest.mark.parametrize(
    "transformer",
    [
        StandardScaler(),
        PowerTransformer(),
        PCA(2, svd_solver="full"),
        QuantileTransformer(n_quantiles=20),
    ],
    ids=str,
)
def test_preprocessing_that_was_fitted_on_other_rows_is_told(transformer: Any) -> None:
    x, y = load_diabetes(return_X_y=True)
    fitted = make_pipeline(transformer, Ridge()).fit(x[:_N], y[:_N])
    whence.from_sklearn(fitted, x[:_N], y[:_N])
    with pytest.warns(NotConvergedWarning, match="rows that the preprocessing was fitted on"):
        whence.from_sklearn(fitted, x[_N : 2 * _N], y[_N : 2 * _N])


def test_texts_without_words_of_the_fit_are_told() -> None:
    texts = [f"word{i % 7} other{i % 5}" for i in range(40)]
    fitted = make_pipeline(TfidfVectorizer(), RidgeClassifier()).fit(texts, np.arange(40) % 2)
    whence.from_sklearn(fitted, texts, np.arange(40) % 2)
    with pytest.warns(NotConvergedWarning, match="rows that the preprocessing was fitted on"):
        whence.from_sklearn(fitted, texts[:30] + texts[:10], np.arange(40) % 2)
