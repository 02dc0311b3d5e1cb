"""Each estimator's own objective: its fit is the minimum of ours, and refits agree."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    ElasticNet,
    GammaRegressor,
    Lasso,
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    TweedieRegressor,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC

import whence
from whence.adapters.anything import Estimator
from whence.adapters.sklearn import linear_objective
from whence.errors import InvalidInput, NotConvergedWarning, NotFitted, UnsupportedModel
from whence.linear.features import DenseFeatures
from whence.objective.objective import risk, risk_gradient

_TIGHT = {"tol": 1e-12, "max_iter": 200_000}


def data(kind: str, n: int = 120) -> tuple[np.ndarray, np.ndarray]:
    load = {"binary": load_breast_cancer, "classes": load_wine, "numbers": load_diabetes}[kind]
    x, y = load(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))[:n]
    x = StandardScaler().fit_transform(x[order])
    if kind == "binary":
        x = x[:, :12]
    return x, y[order]


_CASES = {
    "logistic": ("binary", LogisticRegression(C=0.7, **_TIGHT)),
    "logistic-newton": ("binary", LogisticRegression(solver="newton-cholesky", **_TIGHT)),
    "logistic-liblinear": (
        "binary",
        LogisticRegression(solver="liblinear", intercept_scaling=3.0, **_TIGHT),
    ),
    "logistic-no-intercept": ("binary", LogisticRegression(fit_intercept=False, **_TIGHT)),
    "logistic-balanced": ("binary", LogisticRegression(class_weight="balanced", **_TIGHT)),
    "logistic-dict": ("classes", LogisticRegression(class_weight={0: 2.0}, **_TIGHT)),
    "softmax": ("classes", LogisticRegression(C=2.0, solver="newton-cg", **_TIGHT)),
    "softmax-no-intercept": (
        "classes",
        LogisticRegression(fit_intercept=False, solver="newton-cg", **_TIGHT),
    ),
    "least-squares": ("numbers", LinearRegression()),
    "ridge": ("numbers", Ridge(alpha=3.0)),
    "ridge-no-intercept": ("numbers", Ridge(alpha=3.0, fit_intercept=False)),
    "ridge-classifier": ("binary", RidgeClassifier(alpha=2.0, class_weight="balanced")),
    "ridge-classes": ("classes", RidgeClassifier(alpha=2.0)),
    "poisson": ("numbers", PoissonRegressor(alpha=0.3, solver="newton-cholesky", **_TIGHT)),
    "gamma": ("numbers", GammaRegressor(alpha=0.3, solver="newton-cholesky", **_TIGHT)),
    "tweedie": (
        "numbers",
        TweedieRegressor(power=1.5, alpha=0.3, solver="newton-cholesky", **_TIGHT),
    ),
    "tweedie-normal": ("numbers", TweedieRegressor(power=0, alpha=0.3, **_TIGHT)),
    "tweedie-normal-log": (
        "numbers",
        TweedieRegressor(power=0, link="log", alpha=0.3, solver="newton-cholesky", **_TIGHT),
    ),
    "linear-svc": ("binary", LinearSVC(C=0.3, intercept_scaling=2.0, tol=1e-12, max_iter=10**6)),
    "linear-svc-classes": (
        "classes",
        LinearSVC(C=0.3, class_weight={1: 3.0}, tol=1e-12, max_iter=10**6),
    ),
    "linear-svc-binary-weights": (
        "binary",
        LinearSVC(C=0.3, class_weight={1: 3.0}, tol=1e-12, max_iter=10**6),
    ),
    "lasso": ("numbers", Lasso(alpha=0.02, tol=1e-14, max_iter=10**6)),
    "elastic-net": ("numbers", ElasticNet(alpha=0.5, l1_ratio=0.7, tol=1e-14, max_iter=10**6)),
    "logistic-l1": (
        "binary",
        LogisticRegression(solver="saga", l1_ratio=1.0, C=0.2, tol=1e-13, max_iter=10**6),
    ),
    "softmax-elastic-net": (
        "classes",
        LogisticRegression(solver="saga", l1_ratio=0.5, C=0.1, tol=1e-13, max_iter=10**6),
    ),
    "linear-svc-l1": (
        "binary",
        LinearSVC(penalty="l1", dual=False, C=0.1, tol=1e-12, max_iter=10**6),
    ),
    "sgd": (
        "binary",
        SGDClassifier(
            "log_loss",
            alpha=0.1,
            tol=1e-12,
            max_iter=3000,
            random_state=0,
            learning_rate="adaptive",
            eta0=0.1,
            n_iter_no_change=20,
        ),
    ),
}


def fitted(name: str, *, weighted: bool = True) -> tuple[Any, np.ndarray, np.ndarray, Any]:
    kind, estimator = _CASES[name]
    x, y = data(kind)
    weights = np.random.default_rng(3).uniform(0.5, 2.0, len(x)) if weighted else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of saga, which rarely reaches so small a tolerance
        return clone(estimator).fit(x, y, sample_weight=weights), x, y, weights


def raw_outputs(estimator: Any, x: Any) -> np.ndarray:
    if hasattr(estimator, "decision_function"):
        values = estimator.decision_function(x)
    else:
        values = estimator.predict(x)
        log_link = isinstance(estimator, (PoissonRegressor, GammaRegressor)) or (
            isinstance(estimator, TweedieRegressor)
            and (estimator.link == "log" or estimator.power > 0)
        )
        values = np.log(values) if log_link else values
    return values.reshape(len(values), -1)


@pytest.mark.parametrize("name", _CASES)
def test_the_fit_is_the_minimum_and_outputs_agree(name: str) -> None:
    estimator, x, y, weights = fitted(name)
    objective = whence.from_sklearn(estimator, x, y, sample_weight=weights)
    gradient = risk_gradient(objective)
    if objective.free is not None:
        gradient = gradient[objective.free]
    assert float(gradient.abs().max()) < (2e-3 if name == "sgd" else 2e-5)
    np.testing.assert_allclose(
        objective.outputs(objective.train).numpy(), raw_outputs(estimator, x), atol=1e-9
    )
    np.testing.assert_allclose(
        objective.outputs(objective.examples((x[:7], y[:7]))).numpy(),
        raw_outputs(estimator, x[:7]),
        atol=1e-9,
    )


@pytest.mark.parametrize("name", ["logistic", "softmax", "linear-svc-classes", "ridge"])
def test_a_weight_of_two_is_the_row_twice(name: str) -> None:
    estimator, x, y, _ = fitted(name)
    counts = np.ones(len(x))
    counts[:5] = 2
    weighted = whence.from_sklearn(estimator, x, y, sample_weight=counts)
    repeated = whence.from_sklearn(estimator, np.r_[x, x[:5]], np.r_[y, y[:5]])
    assert risk(repeated) * (len(x) + 5) == pytest.approx(risk(weighted) * len(x), rel=1e-9)


@pytest.mark.parametrize(
    "name", ["logistic", "softmax", "linear-svc", "ridge-classes", "lasso", "gamma"]
)
def test_removal_is_what_refitting_does(name: str) -> None:
    estimator, x, y, weights = fitted(name)
    objective = whence.from_sklearn(estimator, x, y, sample_weight=weights).refit()
    i = int(np.argsort(whence.self_influence(objective))[len(x) // 2])
    keep = np.arange(len(x)) != i
    refit = clone(estimator).fit(x[keep], y[keep], sample_weight=weights[keep])
    query = (x[i : i + 1], y[i : i + 1])
    actual = whence.leave_one_out(
        objective, [i], query, measure=lambda f, y: f.sum(-1) if f.shape[1] == 1 else f[:, 0]
    )
    expected = raw_outputs(refit, query[0])[0, 0] - raw_outputs(estimator, query[0])[0, 0]
    assert actual[0, 0] == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("kernel", ["linear", "rbf", "poly"])
def test_kernel_machines(kernel: str) -> None:
    x, y = data("binary")
    estimator = SVC(kernel=kernel, C=0.5, degree=2, coef0=1.0, tol=1e-10).fit(x, y)
    objective = whence.from_sklearn(estimator, x, y, temperature=0.01)
    queries = (x[:9] + 0.1, y[:9])
    np.testing.assert_allclose(
        objective.outputs(objective.examples(queries)).numpy()[:, 0],
        estimator.decision_function(queries[0]),
        atol=1e-8,
    )
    assert objective.train.features.shape[1] <= len(x)
    assert any("smoothed" in note for note in objective.notes)
    vector = torch.randn(len(objective.params), generator=torch.Generator().manual_seed(0)).double()
    gradient = objective.input_gradient(objective.examples(queries), vector)

    def projected(shifted: np.ndarray) -> float:
        one = objective.examples((shifted, y[4:5]))
        return float(objective.gradient_dot(one, objective.loss, vector.unsqueeze(1))[0, 0])

    step = np.zeros((1, x.shape[1]))
    step[0, 3] = 1e-6
    start = queries[0][4:5]
    numeric = (projected(start + step) - projected(start - step)) / 2e-6
    assert float(gradient[4, 3]) == pytest.approx(numeric, rel=1e-4, abs=1e-9)


def test_wide_equals_narrow() -> None:
    """A model of more columns than rows answers as the same model in its own coefficients."""
    x, y = data("binary", 40)
    wide = np.hstack([x, np.random.default_rng(0).normal(size=(40, 60))])
    estimator = LogisticRegression(**_TIGHT).fit(wide, y)
    narrow = whence.from_sklearn(estimator, wide, y)
    assert len(narrow.params) <= 41
    queries = (wide[:3] + 0.1, y[:3])
    changes = whence.influence_on_parameters(narrow, [0, 5], order="refined")
    assert changes.shape == (2, 73)
    keep = np.arange(40) != 5
    refit = clone(estimator).fit(wide[keep], y[keep])
    moved = (
        np.r_[refit.coef_[0], refit.intercept_] - np.r_[estimator.coef_[0], estimator.intercept_]
    )
    actual = whence.leave_one_out(narrow, [5], queries, measure=lambda f, y: f[:, 0])
    np.testing.assert_allclose(actual[:, 0], queries[0] @ moved[:-1] + moved[-1], atol=1e-6)
    np.testing.assert_allclose(changes[1], moved, atol=0.02 * np.abs(moved).max())
    derivative = whence.perturbation(narrow, [5], (queries[0][:1], y[:1]))
    assert derivative.shape == (1, 72)


@pytest.mark.parametrize("shape", ["tall", "wide"])
def test_sparse_equals_dense_and_stays_sparse(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = data("binary", 60 if shape == "wide" else 120)
    x = np.where(np.abs(x) > 0.7, x, 0.0)
    if shape == "wide":
        x = np.hstack([x, np.eye(60), np.eye(60)[::-1]])
    estimator = LogisticRegression(**_TIGHT).fit(x, y)
    dense = whence.from_sklearn(estimator, x, y)
    expected = whence.influence(dense, (x[:4], y[:4])).values
    own = whence.self_influence(dense)
    monkeypatch.setattr(sparse.csr_array, "toarray", _refuse_wide(sparse.csr_array.toarray))
    monkeypatch.setattr(sparse.csr_matrix, "toarray", _refuse_wide(sparse.csr_matrix.toarray))
    rows = sparse.csr_matrix(x)
    objective = whence.from_sklearn(estimator, rows, y)
    np.testing.assert_allclose(
        whence.influence(objective, (rows[:4], y[:4])).values, expected, atol=1e-10
    )
    np.testing.assert_allclose(whence.self_influence(objective), own, atol=1e-10)


def _refuse_wide(original: Any) -> Any:
    """Allow small squares, such as Gram matrices, and refuse the data matrix itself."""

    def toarray(matrix: Any, *args: Any, **kwargs: Any) -> Any:
        assert matrix.shape[1] < 12 or matrix.shape[0] in (4, matrix.shape[1]), matrix.shape
        return original(matrix, *args, **kwargs)

    return toarray


def table() -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": rng.normal(40, 10, 80),
            "city": rng.choice(["Oslo", "Rome", "Lima"], 80),
            "income": rng.normal(2000, 300, 80),
        },
        index=[f"person {i}" for i in range(80)],
    )
    frame.loc["person 3", "age"] = np.nan
    y = np.where(frame["age"].fillna(40) + 5 * (frame["city"] == "Rome") > 41, "yes", "no")
    return frame, y


def test_a_frame_through_a_pipeline() -> None:
    frame, y = table()
    encode = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["age", "income"]),
            ("city", OneHotEncoder(), ["city"]),
        ]
    )
    estimator = make_pipeline(encode, LogisticRegression(**_TIGHT)).fit(frame, y)
    objective = whence.from_sklearn(estimator, frame, y)
    assert objective.classes == ("no", "yes")
    scores = whence.influence(objective, (frame.iloc[:2], y[:2]))
    assert scores.train_ids.tolist()[:2] == ["person 0", "person 1"]
    derivative = whence.perturbation(objective, [7], (frame.iloc[0], y[0]))
    assert derivative.shape == (1, 3)
    step = frame.copy()
    losses = []
    for sign in (1, -1):
        step.loc["person 7", "income"] = frame.loc["person 7", "income"] + sign * 0.1
        refit = clone(estimator).fit(step, y)
        p = refit.predict_proba(frame.iloc[:1])[0, int(y[0] == "yes")]
        losses.append(-np.log(p))
    assert derivative[0, 2] == pytest.approx((losses[0] - losses[1]) / 0.2, rel=1e-3)
    city = whence.edit(
        objective, 7, frame.iloc[[7]].assign(city="Rome"), y[7], (frame.iloc[:1], y[:1])
    )
    assert np.isfinite(city).all()


def test_affine_transformers_are_traced_back() -> None:
    x, y = data("binary")
    estimator = make_pipeline(StandardScaler(), PCA(5), LogisticRegression(**_TIGHT)).fit(3 * x, y)
    objective = whence.from_sklearn(estimator, 3 * x, y)
    assert whence.perturbation(objective, [1], (x[0], y[0])).shape == (1, 12)
    curved = make_pipeline(FunctionTransformer(np.tanh), LogisticRegression(**_TIGHT)).fit(x, y)
    objective = whence.from_sklearn(curved, x, y)
    assert any("makes columns of its own" in note for note in objective.notes)


def test_one_row_in_any_form() -> None:
    frame = pd.DataFrame(data("binary")[0]).add_prefix("c")
    y = data("binary")[1]
    estimator = LogisticRegression(**_TIGHT).fit(frame, y)
    objective = whence.from_sklearn(estimator, frame, y)
    expected = whence.influence(objective, (frame.iloc[[5]], y[[5]])).values
    for x in (frame.iloc[5], frame.iloc[5].to_numpy(), frame.iloc[[5]].to_numpy()):
        np.testing.assert_allclose(whence.influence(objective, (x, y[5])).values, expected)


_X, _Y = data("binary")
_FIT = LogisticRegression(**_TIGHT).fit(_X, _Y)


def _with(value: float) -> np.ndarray:
    x = _X.copy()
    x[7, 2] = value
    return x


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((LogisticRegression(), _X, _Y), NotFitted, r"before \.fit"),
        ((RandomForestClassifier(), _X, _Y), NotFitted, "Got RandomForestClassifier before"),
        ((_FIT, _with(np.nan), _Y), InvalidInput, "Got nan in row 7, column 2"),
        ((_FIT, _with(np.inf), _Y), InvalidInput, "Got inf in row 7, column 2"),
        ((_FIT, _X[:, :5], _Y), InvalidInput, "Expected 12 columns.*Got 5"),
        ((_FIT, _X[:3], _Y), InvalidInput, "Expected 3 targets"),
        ((_FIT, _X[:0], _Y[:0]), InvalidInput, "at least one row"),
        ((_FIT, _X[:1], _Y[:1]), InvalidInput, "at least 2 training rows"),
        (
            (_FIT, _X, np.where(_Y == 1, 7, _Y)),
            InvalidInput,
            "labels among 0, 1, .* Got 7",
        ),
        ((_FIT, _X, np.zeros_like(_Y)), InvalidInput, "at least 2 classes"),
        ((_FIT, _X.astype(str), _Y), None, ""),
        ((_FIT, np.full(_X.shape, "a"), _Y), InvalidInput, "Expected columns of numbers"),
    ],
    ids=lambda value: None,
)
def test_bad_input(arguments: Any, error: type[Exception] | None, message: str) -> None:
    if error is None:
        assert whence.from_sklearn(*arguments).train.ids[0] == 0
        return
    with pytest.raises(error, match=message):
        whence.from_sklearn(*arguments)


def test_bad_weights_queries_and_frames() -> None:
    with pytest.raises(InvalidInput, match="finite weights >= 0 as sample_weight"):
        whence.from_sklearn(_FIT, _X, _Y, sample_weight=-np.ones(len(_Y)))
    with pytest.raises(InvalidInput, match="temperature > 0"):
        whence.from_sklearn(_FIT, _X, _Y, temperature=0)
    objective = whence.from_sklearn(_FIT, _X, _Y)
    with pytest.raises(InvalidInput, match="pair"):
        whence.influence(objective, _X)
    with pytest.raises(InvalidInput, match="at least one row"):
        whence.influence(objective, (_X[:0], _Y[:0]))
    with pytest.raises(InvalidInput, match="one target per row"):
        whence.influence(objective, (_X[:2], _Y[:3]))
    frame = pd.DataFrame(_X, columns=["a"] * 12)
    with pytest.raises(InvalidInput, match="'a' twice"):
        whence.from_sklearn(_FIT, frame, _Y)
    named = pd.DataFrame(_X).add_prefix("c")
    estimator = LogisticRegression(**_TIGHT).fit(named, _Y)
    with pytest.raises(InvalidInput, match="without 'c0'"):
        whence.from_sklearn(estimator, named.rename(columns={"c0": "z"}), _Y)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (LinearSVC(multi_class="crammer_singer"), "crammer_singer"),
        (SGDClassifier("modified_huber"), "modified_huber"),
        (SVC(kernel="sigmoid"), "sigmoid"),
        (LinearRegression(positive=True), "positive"),
    ],
)
def test_options_without_an_exact_treatment(estimator: Any, message: str) -> None:
    fitted = estimator.fit(_X, _Y)
    with pytest.raises(UnsupportedModel, match=message):
        linear_objective(fitted, _X, _Y)
    accepted = whence.from_sklearn(fitted, _X, _Y)
    assert isinstance(accepted, Estimator)
    assert any(message in note for note in accepted.notes)


@pytest.mark.parametrize("scaled", [False, True])
def test_collinear_columns_without_a_penalty_have_unique_predictions(scaled: bool) -> None:
    x, y = data("numbers")
    twice = np.hstack([x, x[:, :1]])
    estimator = (
        make_pipeline(StandardScaler(), LinearRegression()) if scaled else LinearRegression()
    )
    model = clone(estimator).fit(twice, y)
    objective = whence.from_sklearn(model, twice, y)
    queries, where = (twice[:3], y[:3]), [5, 9, 50]
    actual = np.empty((3, 3))
    for column, i in enumerate(where):
        again = clone(estimator).fit(np.delete(twice, i, 0), np.delete(y, i))
        moved = (again.predict(twice[:3]) - y[:3]) ** 2 - (model.predict(twice[:3]) - y[:3]) ** 2
        actual[:, column] = moved / 2
    for order in ("newton", "refined"):
        found = whence.influence(objective, queries, order=order, indices=where).values
        np.testing.assert_allclose(found, actual, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(whence.leave_one_out(objective, where, queries), actual, rtol=1e-8)


def test_a_column_given_twice_changes_no_prediction() -> None:
    x, y = data("numbers")
    twice, query = np.hstack([x, x[:, :1]]), (x[:3] + 0.1, y[:3])
    query_twice = np.hstack([query[0], query[0][:, :1]]), query[1]
    single = whence.from_sklearn(LinearRegression().fit(x, y), x, y)
    double = whence.from_sklearn(LinearRegression().fit(twice, y), twice, y)
    for order in ("first", "newton"):
        found = whence.influence(double, query_twice, order=order)  # type: ignore[arg-type]
        expected = whence.influence(single, query, order=order)  # type: ignore[arg-type]
        np.testing.assert_allclose(found.values, expected.values, rtol=1e-6, atol=1e-9)
    actual = whence.leave_one_out(double, [3, 7], query_twice)
    np.testing.assert_allclose(actual, whence.leave_one_out(single, [3, 7], query), atol=1e-8)


def test_default_fits_of_scikit_learn_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotConvergedWarning)
        whence.influence(
            whence.from_sklearn(LogisticRegression().fit(_X, _Y), _X, _Y), (_X[:1], _Y[:1])
        )


def test_data_on_disk_stay_there(tmp_path: Path) -> None:
    x, y = load_iris(return_X_y=True)
    np.save(tmp_path / "x.npy", x)
    stored = np.load(tmp_path / "x.npy", mmap_mode="r")
    model = LogisticRegression(tol=1e-8, max_iter=1000).fit(x, y)
    objective = whence.from_sklearn(model, stored, y)
    assert isinstance(objective.train.features, DenseFeatures)
    assert np.shares_memory(objective.train.features.matrix.numpy(), stored)
    expected = whence.influence(whence.from_sklearn(model, x, y), (x[:3], y[:3]))
    found = whence.influence(objective, (x[:3], y[:3]))
    np.testing.assert_array_equal(found.values, expected.values)


def test_targets_in_a_frame_of_one_column() -> None:
    X, y = load_breast_cancer(return_X_y=True)
    X, y = X[:80, :4], y[:80]
    objective = whence.from_sklearn(LogisticRegression(max_iter=2000).fit(X, y), X, y)
    column = pd.DataFrame({"benign": y})
    again = whence.from_sklearn(LogisticRegression(max_iter=2000).fit(X, y), X, column)
    expected = whence.influence(objective, (X[:3], y[:3])).values
    assert np.array_equal(whence.influence(again, (X[:3], column[:3])).values, expected)


def test_names_of_several_levels_and_frames_as_output_of_transformers() -> None:
    """What whence computes of a user's rows follows neither names nor scikit-learn's settings."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(40, 3)))
    frame.columns = pd.MultiIndex.from_product([["size"], ["a", "b", "c"]])
    cities = pd.DataFrame({"age": frame.iloc[:, 0], "city": rng.choice(["x", "y"], 40)})
    y = (frame.iloc[:, 0] + 0.3 * rng.normal(size=40) > 0).astype(int)
    encoded = make_column_transformer((OneHotEncoder(sparse_output=False), ["city"]))
    with sklearn.config_context(transform_output="pandas"):
        for rows, model in (
            (frame, LogisticRegression()),
            (cities, make_pipeline(encoded, LogisticRegression())),
        ):
            objective = whence.from_sklearn(model.fit(rows, y), rows, y)
            assert "Without one" in str(whence.explain(objective, (rows[:1], y[:1])))
