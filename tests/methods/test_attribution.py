"""What methods share: own effects, differences of two answers, other orders, checks of rounding."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

import whence
from whence.curvature.exact import Gradients
from whence.curvature.prepare import prepare
from whence.errors import NotConvergedWarning, UnsupportedModel
from whence.methods import influence
from whence.methods.contrast import Contrast
from whence.methods.directed import directed
from whence.methods.orders import _rounding
from whence.methods.subsets import blocks, train_subset
from whence.objective.objective import Objective, objective_of

X, Y = load_iris(return_X_y=True)


@pytest.fixture(scope="module")
def objective() -> Objective:
    x, y = X[::2], Y[::2]
    return objective_of(
        whence.from_sklearn(LogisticRegression(tol=1e-10, max_iter=10_000).fit(x, y), x, y)
    )


def test_own_effects_are_scores_of_examples_on_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = np.vstack([X, X + 0.01]), np.r_[Y, Y]  # more than one block of 256
    model = whence.from_sklearn(KNeighborsClassifier(3).fit(x, y), x, y)
    for method in (whence.KNNShapley(), whence.HiddenCosine()):
        trained = model
        if method == whence.HiddenCosine():
            trained = whence.from_sklearn(LogisticRegression(max_iter=1000).fit(x, y), x, y)
        found = method.fit(trained)
        every = found.scores((x, y)).values
        np.testing.assert_allclose(found.self_scores(), every.diagonal(), atol=1e-12)
        np.testing.assert_allclose(found.self_scores([299, 4]), every.diagonal()[[299, 4]])
        assert not found.follows_inputs
        with pytest.raises(UnsupportedModel, match="follows changes of training inputs"):
            whence.perturbation(trained, [3], (x[:1], y[:1]), method=method)
    assert whence.Influence().fit(trained).follows_inputs


@pytest.mark.parametrize("method", [whence.Influence(), whence.Influence(order="newton")])
def test_a_contrast_is_the_difference_of_two_answers(
    objective: Objective, method: whence.Influence
) -> None:
    query, other = (objective.examples((X[1:2], [label])) for label in (0, 2))
    found = Contrast(method, other).fit(objective)
    each = [method.fit(objective).scores(asked).values for asked in (query, other)]
    np.testing.assert_allclose(found.scores(query).values, each[0] - each[1], atol=1e-14)
    assert found.calibrated == method.fit(objective).calibrated
    assert Contrast(method, other).refined() == Contrast(method.refined(), other)  # type: ignore[arg-type]
    assert Contrast(whence.TracIn(), other).refined() is None
    rougher = Contrast(method, other).rougher()
    assert rougher == (Contrast(whence.Influence(), other) if method.order == "newton" else None)
    split = directed(found)
    assert (split is None) == (directed(method.fit(objective)) is None)
    if split is not None:
        along = split.directions(query, objective.loss, "training")[0]
        own, theirs = (
            split.inner.directions(asked, objective.loss, "training")[0]  # type: ignore[attr-defined]
            for asked in (query, other)
        )
        torch.testing.assert_close(along, own - theirs)


def test_features_of_influence_are_whole_gradients_and_solved_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(20, 3).double(), torch.arange(20) % 2
    net = whence.from_torch(torch.nn.Linear(3, 2).double(), whence.CrossEntropy(), (x, y), l2=0.1)
    fitted = net.refit() if net.convex else net
    method = whence.Influence(damping=0.5)
    monkeypatch.setattr(influence, "_WIDEST", len(net.params))
    features = method.feature_map(fitted)
    asked = fitted.train.subset(np.arange(2))
    products = features.queries(asked, fitted.loss) @ features.rows(fitted.train).T / 20
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)
        expected = method.fit(fitted).scores(asked).values
    np.testing.assert_allclose(products, expected, atol=1e-10)
    monkeypatch.setattr(influence, "_WIDEST", len(net.params) - 1)
    with pytest.raises(UnsupportedModel, match="Expected at most 7 parameters"):
        method.feature_map(fitted)
    for other in (whence.Influence(order="newton"), whence.Influence(normalize="loss")):
        with pytest.raises(UnsupportedModel, match="inner products of features"):
            other.feature_map(fitted)


def test_positions_of_all_examples_in_order_are_the_training_data(objective: Objective) -> None:
    n = len(objective.train)
    assert train_subset(objective, np.arange(n)) is objective.train
    for where in (np.arange(n)[::-1].copy(), np.arange(n - 1)):
        assert train_subset(objective, where).ids.tolist() == where.tolist()
    parts = [part.tolist() for part in blocks(np.arange(3, 10), 3)]
    assert parts == [[3, 4, 5], [6, 7, 8], [9]]


def test_the_orders_around_an_order() -> None:
    first, newton, refined = (
        whence.Influence(order=order, damping=0.1) for order in ("first", "newton", "refined")
    )
    assert [each.rougher() for each in (first, newton, refined)] == [None, first, newton]
    assert [each.refined() for each in (first, newton, refined)] == [refined, refined, None]
    assert whence.Influence(normalize="loss").refined() is None


@pytest.mark.parametrize(("q", "k"), [(5, 30), (1, 3)])
def test_rounded_scores_are_held_against_some_in_full(objective: Objective, q: int, k: int) -> None:
    prepared = prepare(objective, q)
    queries, where = objective.train.subset(np.arange(q)), np.arange(4, 4 + k)
    exact, _ = prepared.inverse.between(
        Gradients(objective, queries, objective.loss),
        Gradients(objective, objective.train.subset(where), objective.loss),
    )
    (note,) = _rounding(objective, prepared, queries, objective.loss, where, 1.03 * exact)
    assert f"{min(k, 8)} examples done again in float64 for {min(q, 2)} of the queries" in note
    assert "differ by 3 %" in note
    last = exact.clone()
    last[-1, -1] += exact.abs().max()
    (note,) = _rounding(objective, prepared, queries, objective.loss, where, last)
    assert "differ by 0 %" not in note
    (note,) = _rounding(objective, prepared, queries, objective.loss, where, 0 * exact)
    assert "differ by 1e+02 %" in note
