"""Steps against scikit-learn: the same features, and derivatives that refits without a row show."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.model_selection import KFold
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)
from torch import Tensor

from whence.preprocessing.counting import counting
from whence.preprocessing.derivative import Adjoints, jacobian, pulled_back
from whence.preprocessing.order import extremes, quantile
from whence.preprocessing.pipeline import Differentiable, differentiable
from whence.preprocessing.refit import fit_again, is_cross_fitted, training_matrix
from whence.preprocessing.table import Plain

_N, _OTHERS = 500, 30
_RNG = np.random.default_rng(0)
_X = _RNG.gamma(2.0, size=(_N + _OTHERS, 5)) @ _RNG.normal(size=(5, 5)) + [5, 0, 0, 0, 40]
_Y = (_X[:_N, 0] + _RNG.normal(size=_N) > 5).astype(int)
_HOLES = np.where(_RNG.random(_X.shape) < 0.1, np.nan, _X)
_SPARSE = sparse.csr_array(np.where(_RNG.random(_X.shape) < 0.5, np.abs(_X), 0.0))
_FRAME = pd.DataFrame(_HOLES[:, :3], columns=["a", "b", "c"]).assign(
    city=_RNG.choice(["Oslo", "Rome", "Lima", "Bonn"], _N + _OTHERS),
    size=_RNG.choice(["S", "M"], _N + _OTHERS),
)
_WORDS = np.array([f"word{i}" for i in range(40)])
_TOPICS = _RNG.dirichlet(np.full(40, 0.1), 3)[_RNG.choice(3, _N + _OTHERS, p=[0.5, 0.3, 0.2])]
_SHARES = 0.6 * _TOPICS + 0.4 / 40
_TEXTS = np.array([" ".join(_RNG.choice(_WORDS, 12, p=p)) for p in _SHARES], dtype=object)
_FOLDS = KFold(4, shuffle=True, random_state=0)

SMOOTH: dict[str, tuple[Any, Any]] = {
    "mean and scale": (StandardScaler(), _X),
    "mean and scale of what is there": (StandardScaler(), _HOLES),
    "scale of sparse": (StandardScaler(with_mean=False), _SPARSE),
    "range": (MinMaxScaler((-1, 2)), _X),
    "largest": (MaxAbsScaler(), _X),
    "largest of sparse": (MaxAbsScaler(), _SPARSE),
    "quartiles": (RobustScaler(unit_variance=True), _HOLES),
    "mean imputed": (make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()), _HOLES),
    "median imputed": (SimpleImputer(strategy="median"), _HOLES),
    "Yeo-Johnson": (PowerTransformer(), _X),
    "Box-Cox": (PowerTransformer("box-cox", standardize=False), np.abs(_X) + 0.1),
    "components": (PCA(2), _X),
    "scaled components": (make_pipeline(StandardScaler(), PCA(3, whiten=True)), _X),
    "singular vectors": (TruncatedSVD(2, algorithm="arpack", random_state=0), _SPARSE),
    "norms": (make_pipeline(StandardScaler(), Normalizer()), _X),
    "products": (make_pipeline(StandardScaler(), PolynomialFeatures(3)), _X),
    "beside": (FeatureUnion([("one", StandardScaler()), ("two", PCA(2))]), _X),
    "columns": (
        ColumnTransformer(
            [
                ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["c", "a"]),
                ("text", OneHotEncoder(), ["city"]),
            ],
            remainder="drop",
        ),
        _FRAME,
    ),
    "targets": (TargetEncoder(cv=_FOLDS), _FRAME[["city", "size"]]),
    "shrunk targets": (TargetEncoder(cv=_FOLDS, smooth=3.0), _FRAME[["city", "size"]]),
    "rare words": (TfidfVectorizer(), _TEXTS),
    "rare words, otherwise": (
        make_pipeline(CountVectorizer(), TfidfTransformer(sublinear_tf=True, norm="l1")),
        _TEXTS,
    ),
    "topics": (
        make_pipeline(TfidfVectorizer(), TruncatedSVD(3, algorithm="arpack", random_state=0)),
        _TEXTS,
    ),
}


def take(rows: Any, where: Any) -> Any:
    return rows.iloc[where] if isinstance(rows, pd.DataFrame) else rows[where]


def fitted(transform: Any, rows: Any) -> tuple[Any, Any, Any]:
    train, others = take(rows, np.arange(_N)), take(rows, np.arange(_N, _N + _OTHERS))
    return clone(transform).fit(train, _Y), train, others


def written_out(transform: Any, rows: Any, y: Any) -> Differentiable:
    kept = torch.ones(len(y), dtype=torch.float64)
    return differentiable(transform, rows, y, kept, sample=None, folds=True)


def dense(matrix: Any) -> np.ndarray:
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


@pytest.mark.parametrize("name", SMOOTH)
def test_features_are_those_of_the_transformer(name: str) -> None:
    transform, train, others = fitted(*SMOOTH[name])
    steps = written_out(transform, train, _Y)
    assert not steps.held
    of_train, of_others = steps.step(
        Plain(train), Plain(others), torch.ones(_N, dtype=torch.float64)
    )
    plain = transform.transform(others)
    np.testing.assert_allclose(of_others.dense().detach(), dense(plain), atol=1e-7)
    if is_cross_fitted(transform):
        expected = clone(transform).fit_transform(train, _Y)
        np.testing.assert_allclose(of_train.dense().detach(), expected, atol=1e-9)


@pytest.mark.filterwarnings("ignore:.*random_state. are deprecated:FutureWarning")
@pytest.mark.parametrize("options", [{"random_state": 7}, {"cv": None, "shuffle": False}])
@pytest.mark.parametrize("kind", ["continuous", "binary", "multiclass"])
def test_the_folds_of_a_target_encoder_are_those_of_its_own_fit(kind: str, options: Any) -> None:
    y = {"continuous": _X[:_N, 0], "binary": _Y, "multiclass": _Y + (_X[:_N, 4] > 40)}[kind]
    rows, kept = _FRAME[["city", "size"]].iloc[:_N], torch.ones(_N, dtype=torch.float64)
    transform = TargetEncoder(**options).fit(rows, y)
    assert transform.target_type_ == kind
    found, _ = written_out(transform, rows, y).step(Plain(rows), Plain(rows), kept)
    expected = TargetEncoder(**options).fit_transform(rows, y)
    np.testing.assert_allclose(found.dense(), expected, atol=1e-12)


@pytest.mark.parametrize("name", SMOOTH)
def test_derivatives_are_what_a_removal_does(name: str) -> None:
    """Every row is there eight times, so that one copy is a small change."""
    kind, rows = SMOOTH[name]
    where = np.tile(np.arange(120), 8)
    train, y, others = take(rows, where), _Y[where], take(rows, np.arange(_N, _N + _OTHERS))
    transform = clone(kind).fit(train, y)
    kept = torch.ones(len(y), dtype=torch.float64, requires_grad=True)
    _, of_others = written_out(transform, train, y).step(Plain(train), Plain(others), kept)
    plain, values = dense(transform.transform(others)), of_others.values
    cotangent = torch.from_numpy(np.random.default_rng(1).normal(size=values.shape))
    (gradient,) = torch.autograd.grad(values, kept, cotangent)
    weights = of_others.with_values(cotangent).dense().numpy()
    removed, actual = [3, 10, 50, 77, 101], []
    for i in removed:
        rest = np.delete(np.arange(len(y)), i)
        again = clone(kind).fit(take(train, rest), y[rest])
        actual.append(np.nansum(weights * (dense(again.transform(others)) - plain)))
    scale = max(np.abs(actual).max(), 1e-9)
    np.testing.assert_allclose(-gradient[removed].numpy(), actual, atol=0.05 * scale)


@pytest.mark.parametrize(
    "name",
    [name for name in SMOOTH if name not in ("mean and scale of what is there", "quartiles")],
)
def test_one_jacobian_gives_the_derivatives_of_every_quantity(name: str) -> None:
    transform, train, others = fitted(*SMOOTH[name])
    step, kept = written_out(transform, train, _Y).step, torch.ones(_N, dtype=torch.float64)
    of_train = step(Plain(train), Plain(others), kept)[0].dense()
    (n, d), c, k, rng = of_train.shape, 2, 3, torch.Generator().manual_seed(0)
    sizes = (c, d), (n, c), (n,)
    theta, pulls, curves = (torch.randn(*size, generator=rng).double() for size in sizes)
    slopes, v = (torch.randn(*s, k, generator=rng).double() for s in ((_OTHERS, c), (c, d)))

    def adjoints(directions: Tensor) -> Adjoints:
        bends = curves[:, None, None] * torch.einsum("nd,cdk->nck", of_train, directions)
        return Adjoints(pulls=pulls, bends=bends, slopes=slopes, theta=theta, directions=directions)

    every = torch.eye(c * d, dtype=torch.float64)
    found = jacobian(step, Plain(train), kept, adjoints(every.reshape(c, d, -1)))
    together = found.effects(step, Plain(others), slopes, theta, v.reshape(c * d, k))
    there = kept.clone().requires_grad_()
    moved = step(Plain(train), Plain(others), there)
    each = pulled_back(*moved, adjoints(v), there)
    torch.testing.assert_close(together, each, rtol=1e-8, atol=1e-9 * float(each.abs().max()))


@given(st.integers(0, 2**32 - 1), st.integers(3, 9), st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0]))
@settings(max_examples=40, deadline=None)
def test_extremes_and_quantiles_know_what_they_are_without_each_row(
    seed: int, n: int, q: float
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 6, size=(n, 3)).astype(float)
    x[rng.random(x.shape) < 0.2] = np.nan
    x[:2] = rng.normal(size=(2, 3))
    kept = torch.ones(n, dtype=torch.float64, requires_grad=True)
    for function, oracle in (
        (extremes, np.nanmax),
        (lambda x, k: quantile(x, q, k), lambda x, axis: np.nanquantile(x, q, axis=axis)),
    ):
        value = function(torch.from_numpy(x), kept)
        np.testing.assert_allclose(value.detach().numpy(), oracle(x, axis=0), atol=1e-12)
        for j in range(3):
            (gradient,) = torch.autograd.grad(value[j], kept, retain_graph=True)
            for i in range(n):
                rest = np.delete(x[:, j], i)
                without = oracle(rest, axis=0)
                assert float(value[j].detach() - gradient[i]) == pytest.approx(without, abs=1e-9)


@pytest.mark.parametrize(
    ("transform", "rows", "held"),
    [
        (QuantileTransformer(n_quantiles=50), _X, ("QuantileTransformer",)),
        (KBinsDiscretizer(4, strategy="kmeans", random_state=0), _X, ("KBinsDiscretizer",)),
        (KNNImputer(), _HOLES, ("KNNImputer",)),
        (make_pipeline(StandardScaler(), SelectKBest(k=2)), _X, ("SelectKBest",)),
        (
            make_pipeline(StandardScaler(), FunctionTransformer(np.tanh)),
            _X,
            ("FunctionTransformer",),
        ),
        (FunctionTransformer(np.tanh), _X, ()),
        (OneHotEncoder(), _FRAME[["city"]], ()),
        (TfidfVectorizer(max_features=20), _TEXTS, ("the vocabulary of TfidfVectorizer",)),
        (Normalizer("max"), _X, ()),
    ],
    ids=lambda value: None,
)
def test_what_cannot_follow_is_held_and_named(
    transform: Any, rows: Any, held: tuple[str, ...]
) -> None:
    transform, train, others = fitted(transform, rows)
    steps = written_out(transform, train, _Y)
    assert steps.held == held
    kept = torch.ones(_N, dtype=torch.float64)
    _, of_others = steps.step(Plain(train), Plain(others), kept)
    np.testing.assert_allclose(of_others.dense().detach(), dense(transform.transform(others)))


@pytest.mark.parametrize(
    "vectorizer",
    [
        TfidfVectorizer(),
        TfidfVectorizer(min_df=3, max_df=0.5, ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(max_features=25, norm="l1", use_idf=False),
        CountVectorizer(max_features=25, binary=True),
    ],
)
def test_counted_texts_are_fitted_as_the_vectorizer_fits_them(vectorizer: Any) -> None:
    transform, train, others = fitted(make_pipeline(vectorizer), _TEXTS)
    counted = counting(transform, train)
    assert counted is not transform
    rest = np.delete(np.arange(_N), [4, 9, 100])
    again, matrix = fit_again(counted, train[rest], _Y[rest])
    plain = clone(transform).fit(train[rest], _Y[rest])
    np.testing.assert_array_equal(again.get_feature_names_out(), plain.get_feature_names_out())
    np.testing.assert_allclose(dense(matrix), dense(plain.transform(train[rest])))
    np.testing.assert_allclose(dense(again.transform(others)), dense(plain.transform(others)))


def test_features_that_cannot_be_made_again_are_said() -> None:
    rows, y = _FRAME[["city"]].iloc[:_N], _Y
    random = make_pipeline(TargetEncoder()).fit(rows, y)
    matrix, note = training_matrix(random, rows, y, None)
    assert "splits the training rows at random" in note
    np.testing.assert_allclose(matrix, random.transform(rows))
    fixed = make_pipeline(TargetEncoder(cv=_FOLDS)).fit(rows, y)
    matrix, note = training_matrix(fixed, rows, y, None)
    assert not note
    np.testing.assert_allclose(matrix, clone(fixed).fit_transform(rows, y))
