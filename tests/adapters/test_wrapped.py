"""What wrappers fitted in the end, networks of scikit-learn, kernels, Huber: exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.frozen import FrozenEstimator
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import (
    ElasticNetCV,
    HuberRegressor,
    LassoLars,
    LassoLarsIC,
    LogisticRegression,
    MultiTaskElasticNetCV,
    MultiTaskLassoCV,
    OrthogonalMatchingPursuitCV,
    Ridge,
    RidgeClassifierCV,
    RidgeCV,
    SGDRegressor,
)
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    TunedThresholdClassifierCV,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

import whence
from whence.adapters.anything import Estimator
from whence.adapters.composed import Composed
from whence.adapters.equivalents import plain
from whence.adapters.huber import ScaledHuber
from whence.linear.objective import LinearObjective
from whence.methods.choose import default_of
from whence.network.objective import ModuleObjective
from whence.objective.objective import risk_gradient

Floats = NDArray[np.float64]


def rows(load: Any, n: int = 80) -> tuple[Floats, NDArray[Any]]:
    x, y = load(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))[:n]
    x = (x - x.mean(0)) / x.std(0)
    y = (y - y.mean()) / y.std() if load is load_diabetes else y
    return x[order, :6], y[order]


LOGISTIC = LogisticRegression(solver="newton-cholesky", tol=1e-10)
TIGHT = {"tol": 1e-10, "max_iter": 20_000}

# A wrapper, what it is fitted to, the attribute of the plain estimator inside, and what is said.
WRAPPED: dict[str, tuple[Any, Any, str]] = {
    "search": (GridSearchCV(LOGISTIC, {"C": [0.1, 1.0]}), load_breast_cancer, "GridSearchCV"),
    "search at the end": (
        make_pipeline(StandardScaler(), GridSearchCV(LOGISTIC, {"C": [0.1, 1.0]})),
        load_breast_cancer,
        "GridSearchCV",
    ),
    "search over a pipeline at the end": (
        make_pipeline(
            StandardScaler(),
            GridSearchCV(make_pipeline(StandardScaler(), Ridge()), {"ridge__alpha": [0.1, 1.0]}),
        ),
        load_diabetes,
        "ridge__alpha",
    ),
    "fixed threshold": (FixedThresholdClassifier(LOGISTIC), load_breast_cancer, "threshold"),
    "tuned threshold": (
        TunedThresholdClassifierCV(LOGISTIC, cv=2),
        load_breast_cancer,
        "threshold",
    ),
    "ridge": (RidgeCV(), load_diabetes, "RidgeCV chose alpha"),
    "ridge of classes": (RidgeClassifierCV(), load_breast_cancer, "chose alpha"),
    "elastic net": (ElasticNetCV(cv=3, **TIGHT), load_diabetes, "l1_ratio"),
    "least angles": (LassoLarsIC(), load_diabetes, "LassoLarsIC chose alpha"),
    "least angles, given": (LassoLars(alpha=0.05), load_diabetes, ""),
    "search in a search": (
        GridSearchCV(RidgeCV(), {"fit_intercept": [True, False]}, cv=3),
        load_diabetes,
        "RidgeCV chose alpha",
    ),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_wrapper_is_what_it_fitted_in_the_end(name: str) -> None:
    wrapper, load, said = WRAPPED[name]
    x, y = rows(load)
    fitted = clone(wrapper).fit(x, y)
    model = whence.from_sklearn(fitted, x, y)
    assert isinstance(model, LinearObjective)
    assert any(said in note for note in model.notes) or not said
    outputs = model.outputs(model.train)
    if model.classes and hasattr(fitted, "predict_proba"):
        own = fitted.predict_proba(x)[:, 1]
        assert np.allclose(torch.sigmoid(outputs[:, 0]), own)
    elif not model.classes:
        assert np.allclose(outputs[:, 0], fitted.predict(x))
    free = risk_gradient(model)
    free = free if model.free is None else free * model.free
    assert free.norm() < 1e-6


def test_a_frozen_estimator_is_the_one_inside() -> None:
    x, y = rows(load_breast_cancer)
    inside = clone(LOGISTIC).fit(x, y)
    model = whence.from_sklearn(FrozenEstimator(inside), x, y)
    assert isinstance(model, LinearObjective)
    assert np.allclose(model.outputs(model.train)[:, 0], inside.decision_function(x))
    assert any("what FrozenEstimator holds" in note for note in model.notes)


def test_several_outputs_of_ridges() -> None:
    x, y = rows(load_diabetes)
    both = np.stack([y, y**2], 1)
    fitted = MultiOutputRegressor(Ridge(alpha=2.0)).fit(x, both)
    model = whence.from_sklearn(fitted, x, both)
    assert isinstance(model, LinearObjective)
    assert np.allclose(model.outputs(model.train), fitted.predict(x))
    assert risk_gradient(model).norm() < 1e-10


def test_one_versus_rest() -> None:
    x, y = rows(load_wine)
    for inner in (LOGISTIC, LinearSVC(tol=1e-10, max_iter=100_000)):
        fitted = OneVsRestClassifier(inner).fit(x, y)
        model = whence.from_sklearn(fitted, x, y)
        assert isinstance(model, LinearObjective)
        own = np.stack([np.ravel(each.decision_function(x)) for each in fitted.estimators_], 1)
        assert np.allclose(model.outputs(model.train), own)
        assert risk_gradient(model).norm() < 1e-4
    kernels = OneVsRestClassifier(SVC(random_state=0)).fit(x, y)
    assert isinstance(whence.from_sklearn(kernels, x, y), Composed)


def test_sgd_of_a_regression_is_an_elastic_net() -> None:
    x, y = rows(load_diabetes)
    fitted = SGDRegressor(alpha=0.1, eta0=0.001, tol=1e-10, max_iter=50_000, random_state=0)
    model = whence.from_sklearn(fitted.fit(x, y), x, y)
    assert isinstance(model, LinearObjective)
    assert risk_gradient(model).norm() < 1e-2


@pytest.mark.parametrize("kernel", ["linear", "rbf", "poly", "laplacian", "cosine"])
def test_kernel_ridge(kernel: str) -> None:
    x, y = rows(load_diabetes)
    fitted = KernelRidge(kernel=kernel, alpha=0.7, degree=2).fit(x, y)
    model = whence.from_sklearn(fitted, x, y)
    assert isinstance(model, LinearObjective)
    assert np.allclose(model.outputs(model.train)[:, 0], fitted.predict(x), atol=1e-7)
    scores = whence.influence(model, (x[:2], y[:2]), order="newton", indices=[5, 9]).values
    for column, at in enumerate((5, 9)):
        again = clone(fitted).fit(np.delete(x, at, 0), np.delete(y, at))
        errors = [(each.predict(x[:2]) - y[:2]) ** 2 / 2 for each in (fitted, again)]
        assert np.allclose(scores[:, column], errors[1] - errors[0], atol=1e-7)


def test_gaussian_process() -> None:
    x, y = rows(load_diabetes)
    fitted = GaussianProcessRegressor(RBF(2.0) + WhiteKernel(0.3), optimizer=None).fit(x, y)
    model = whence.from_sklearn(fitted, x, y)
    assert isinstance(model, LinearObjective)
    scores = whence.influence(model, (x[:2], y[:2]), order="newton", indices=[5]).values
    again = clone(fitted).fit(np.delete(x, 5, 0), np.delete(y, 5))
    errors = [(each.predict(x[:2]) - y[:2]) ** 2 / 2 for each in (fitted, again)]
    assert np.allclose(scores[:, 0], errors[1] - errors[0], atol=1e-8)
    for other in (
        GaussianProcessRegressor(RBF(2.0), optimizer=None),  # noise of 1e-10
        GaussianProcessRegressor(WhiteKernel(0.3) + RBF(2.0), normalize_y=True, optimizer=None),
    ):
        assert isinstance(whence.from_sklearn(other.fit(x, y), x, y), Estimator)


def test_huber_with_its_scale() -> None:
    x, y = rows(load_diabetes)
    y = y.copy()
    y[:4] += 6
    fitted = HuberRegressor(alpha=0.5, epsilon=1.2, tol=1e-10, max_iter=5000).fit(x, y)
    model = whence.from_sklearn(fitted, x, y)
    assert isinstance(model, ModuleObjective)
    assert model.convex
    outputs = model.outputs(model.train)
    assert np.allclose(outputs[:, 0], fitted.predict(x))
    assert np.allclose(outputs[:, 1], fitted.scale_)
    assert risk_gradient(model).norm() < 1e-3
    refitted = model.refit()
    weights = model.weights.clone()
    weights[2] = 0
    again = clone(fitted).fit(x[np.arange(80) != 2], y[np.arange(80) != 2])
    found = refitted.refit(weights).outputs(model.train)[:, 0]
    assert np.allclose(found, again.predict(x), atol=1e-3)


def test_the_derivatives_of_hubers_loss() -> None:
    loss = ScaledHuber(epsilon=1.3)
    outputs = torch.tensor([[0.5, 1.0], [4.0, 1.5], [-3.0, 0.7]], dtype=torch.float64)
    targets = torch.tensor([0.1, 0.0, 0.2], dtype=torch.float64)
    leaf = outputs.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(leaf, targets).sum(), leaf)
    assert torch.allclose(loss.gradient(outputs, targets), slope)
    tangents = torch.randn(3, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    step = 1e-6 * tangents[..., 0]
    ahead, behind = (loss.gradient(outputs + s * step, targets) for s in (1, -1))
    expected = (ahead - behind) / 2e-6
    assert torch.allclose(loss.hvp(outputs, targets, tangents)[..., 0], expected, atol=1e-6)


@pytest.mark.parametrize(
    "chooser",
    [
        MultiTaskLassoCV(alphas=3, cv=3),
        MultiTaskElasticNetCV(l1_ratio=[0.2, 0.8], alphas=3, cv=3),
        OrthogonalMatchingPursuitCV(cv=3),
    ],
    ids=lambda one: type(one).__name__,
)
def test_what_was_chosen_is_held_in_each_removal(chooser: Any) -> None:
    x, y = rows(load_diabetes)
    pursuit = isinstance(chooser, OrthogonalMatchingPursuitCV)
    targets = y if pursuit else np.stack([y, y + x[:, 0]], 1)
    fitted = clone(chooser).fit(x, targets)
    model = whence.from_sklearn(fitted, x, targets)
    assert any("held, here and in refits" in note for note in model.notes)
    assert default_of(model)[0] == whence.LeaveOneOut()
    own = plain(fitted).estimator
    kept = np.delete(np.arange(80), 7)
    weights = model.weights.clone()
    weights[7] = 0
    expected = clone(own).fit(x[kept], targets[kept]).predict(x)
    found = model.refit(weights).outputs(model.train).numpy()
    np.testing.assert_allclose(found, expected.reshape(80, -1))
    np.testing.assert_allclose(
        model.outputs(model.train).numpy(), fitted.predict(x).reshape(80, -1)
    )


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
def test_a_network_is_at_its_minimum(activation: str) -> None:
    x, y = rows(load_wine)
    net = MLPClassifier(
        (4,), activation, alpha=1.0, solver="lbfgs", tol=1e-9, max_iter=5000, random_state=0
    ).fit(x, y)
    model = whence.from_sklearn(net, x, y)
    assert isinstance(model, ModuleObjective)
    shares = torch.softmax(model.outputs(model.train), 1)
    assert np.allclose(shares, net.predict_proba(x))
    assert risk_gradient(model).norm() < (2e-2 if activation == "relu" else 1e-3)


@pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning", "ignore::whence.errors.NotConvergedWarning"
)
@pytest.mark.parametrize("classes", [2, 3, None])
def test_rows_that_told_a_network_when_to_stop_have_no_weight(classes: int | None) -> None:
    x, y = rows(load_diabetes if classes is None else load_wine)
    y = y if classes is None else np.minimum(y, classes - 1)
    options: dict[str, Any] = {
        "hidden_layer_sizes": (4,),
        "early_stopping": True,
        "validation_fraction": 0.2,
        "max_iter": 30,
        "learning_rate_init": 0.01,
    }
    kind = MLPRegressor if classes is None else MLPClassifier
    net = kind(random_state=3, **options).fit(x, y)
    model = whence.from_sklearn(net, x, y)
    assert isinstance(model, ModuleObjective)
    judged = model.weights.numpy() == 0
    assert judged.sum() == 16
    assert float(model.weights.mean()) == pytest.approx(1)
    assert net.score(x[judged], y[judged]) == pytest.approx(net.best_validation_score_)
    scores = whence.influence(model, (x[:2], y[:2])).values
    assert not scores[:, judged].any()
    assert scores[:, ~judged].any(1).all()
    gone = np.flatnonzero(~judged)[4]
    weights = model.weights.clone()
    weights[gone] = 0
    again = clone(net).fit(np.delete(x, gone, 0), np.delete(y, gone))
    theirs = whence.from_sklearn(again, np.delete(x, gone, 0), np.delete(y, gone))
    assert torch.equal(model.refit(weights).params, theirs.params)  # type: ignore[attr-defined]
    unknown = whence.from_sklearn(kind(**options).fit(x, y), x, y)
    assert any("Fit with random_state=0" in note for note in unknown.notes)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_network_that_stopped_at_its_last_epoch_is_not_converged() -> None:
    x, y = rows(load_wine)
    short = MLPClassifier((4,), max_iter=9, random_state=0).fit(x, y)
    model = whence.from_sklearn(short, x, y)
    assert model.stopped == "MLPClassifier stopped at its max_iter of 9"
    assert model.refit().stopped == model.stopped
    with pytest.warns(whence.errors.NotConvergedWarning, match=r"max_iter of 9.*Raise max_iter"):
        found = whence.influence(model, (x[:2], y[:2])).diagnostics
    assert found is not None
    assert found.fit == "not converged"
    long = short.set_params(solver="lbfgs", alpha=1.0, max_iter=5000).fit(x, y)
    assert whence.from_sklearn(long, x, y).stopped == ""


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_penalty_of_a_batch() -> None:
    x, y = rows(load_diabetes)
    both = np.stack([y, y**2], 1)
    options = {"hidden_layer_sizes": (3,), "max_iter": 5, "alpha": 0.4, "random_state": 0}
    for batch, divisor in ((16, 16), ("auto", 80)):
        net = MLPRegressor(batch_size=batch, **options).fit(x, both)
        model = whence.from_sklearn(net, x, both)
        assert isinstance(model, ModuleObjective)
        assert np.allclose(model.outputs(model.train), net.predict(x))
        # The mean over two outputs is half their sum: twice the penalty.
        assert float(model.l2.max()) == pytest.approx(2 * 0.4 / divisor)
        assert float(model.l2[model.slices["0.bias"]].abs().max()) == 0


@pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning", "ignore::whence.errors.NotConvergedWarning"
)
def test_a_network_with_names_after_transformers() -> None:
    x, y = rows(load_wine)
    names = np.array(["red", "rosé", "white"])[y]
    frame = pd.DataFrame(x, columns=list("abcdef"), index=[f"wine {i}" for i in range(80)])
    net = MLPClassifier((4,), max_iter=20, random_state=0)
    pipe = make_pipeline(StandardScaler(), net).fit(frame, names)
    model = whence.from_sklearn(pipe, frame, names)
    assert isinstance(model, ModuleObjective)
    assert model.train.ids[2] == "wine 2"
    scores = whence.influence(model, (frame.iloc[:3], names[:3]))
    assert scores.values.shape == (3, 80)
    assert any("held as they were fitted" in note for note in model.notes)
    weights = model.weights.clone()
    weights[5] = 0
    inner = pipe.steps[0][1].transform(frame)
    again = clone(net).fit(np.delete(inner, 5, 0), np.delete(names, 5))
    shares = torch.softmax(model.refit(weights).outputs(model.train), 1)
    assert np.allclose(shares, again.predict_proba(inner))
