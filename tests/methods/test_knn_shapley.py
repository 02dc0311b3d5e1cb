"""KNN-Shapley against the definition: every subset of the training examples."""

from __future__ import annotations

from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

import whence
from whence.errors import InvalidInput, UnsupportedModel
from whence.methods.choose import default_of
from whence.methods.knn_shapley import shapley

Floats = NDArray[np.float64]


def by_definition(votes: Floats, k: int) -> Floats:
    """The Shapley value of each example, [n], from all subsets; the nearest come first."""
    n = len(votes)

    def vote(subset: tuple[int, ...]) -> float:
        return float(votes[sorted(subset)[:k]].sum()) / k

    values = np.zeros(n)
    for i in range(n):
        others = [j for j in range(n) if j != i]
        for size in range(n):
            for subset in combinations(others, size):
                gain = vote((*subset, i)) - vote(subset)
                values[i] += gain / (n * comb(n - 1, size))
    return values


@given(
    votes=st.lists(st.floats(-3, 3), min_size=2, max_size=7),
    k=st.integers(1, 7),
)
@settings(max_examples=40, deadline=None)
def test_the_recursion_is_the_definition(votes: list[float], k: int) -> None:
    k = min(k, len(votes))
    given_votes = np.array(votes)
    found = shapley(given_votes.reshape(1, -1, 1), k)[0, :, 0]
    assert np.allclose(found, by_definition(given_votes, k), atol=1e-9)
    assert found.sum() == pytest.approx(given_votes[:k].mean(), abs=1e-9)


def test_scores_of_a_classifier_share_out_its_probability() -> None:
    x, y = load_iris(return_X_y=True)
    clf = KNeighborsClassifier(4).fit(x[9:], y[9:])
    model = whence.from_sklearn(clf, x[9:], y[9:])
    assert default_of(model)[0] == whence.KNNShapley()
    scores = whence.KNNShapley().fit(model).scores((x[:5], y[:5]), measure="probability")
    shares = clf.predict_proba(x[:5])[np.arange(5), y[:5]]
    assert np.allclose(scores.values.sum(1), -shares, atol=0.01)
    nearest = clf.kneighbors(x[:1], 1, return_distance=False)[0, 0]
    assert scores.values[0, nearest] == scores.values[0].min()
    few = whence.KNNShapley().fit(model).scores((x[:5], y[:5]), indices=[7, 3])
    every = whence.KNNShapley().fit(model).scores((x[:5], y[:5]))
    assert np.array_equal(few.values, every.values[:, [7, 3]])


@pytest.mark.parametrize("classes", [2, 3])
def test_scores_are_the_definition_along_the_slope_of_the_measure(classes: int) -> None:
    x = np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0], [6.0]])
    y = np.array([0, 1, classes - 1, 0, 1, 1, 0])
    model = whence.from_sklearn(KNeighborsClassifier(3).fit(x, y), x, y)
    fitted = whence.KNNShapley().fit(model)
    query = np.array([[-0.1]])  # its neighbors are the rows as they stand
    for label in range(classes):
        own = by_definition((y == label).astype(float), 3)
        share = (y[:3] == label).mean()
        chance = fitted.scores((query, [label]), measure="probability").values[0]
        np.testing.assert_allclose(chance, -own, atol=1e-12)
        loss = fitted.scores((query, [label])).values[0]
        np.testing.assert_allclose(loss, own / share, atol=1e-12)
    number = whence.from_sklearn(KNeighborsRegressor(3).fit(x, y), x, y)
    found = whence.KNNShapley(k=2).fit(number).scores((query, [0.5]), measure="loss").values[0]
    error = y[:2].mean() - 0.5
    np.testing.assert_allclose(found, -error * by_definition(y.astype(float), 2), atol=1e-12)


def test_a_class_without_a_vote_has_half_a_row() -> None:
    x, y = np.arange(6.0)[:, None], np.array([0, 0, 0, 1, 1, 1])
    model = whence.from_sklearn(KNeighborsClassifier(3).fit(x, y), x, y)
    found = whence.KNNShapley().fit(model).scores((x[:1], [1])).values[0]
    np.testing.assert_allclose(found, by_definition((y == 1).astype(float), 3) * 12, atol=1e-12)


def test_scores_of_a_regression_share_out_its_prediction() -> None:
    x, y = load_diabetes(return_X_y=True)
    model = whence.from_sklearn(KNeighborsRegressor(6).fit(x[9:], y[9:]), x[9:], y[9:])
    scores = whence.KNNShapley().fit(model).scores((x[:3], y[:3]), measure="prediction")
    assert np.allclose(scores.values.sum(1), -model.fitted.predict(x[:3]))  # type: ignore[attr-defined]


def test_a_helpful_neighbor_has_a_positive_score_for_the_loss() -> None:
    x, y = load_iris(return_X_y=True)
    model = whence.from_sklearn(KNeighborsClassifier(5).fit(x[9:], y[9:]), x[9:], y[9:])
    scores = whence.KNNShapley().fit(model).scores((x[:1], y[:1])).values[0]
    same = y[9:] == y[0]
    assert scores[same].mean() > scores[~same].mean()
    assert scores.max() > 0


def test_other_models_take_a_vote_of_standardized_rows() -> None:
    x, y = load_iris(return_X_y=True)
    model = whence.from_sklearn(LogisticRegression(max_iter=1000).fit(x[9:], y[9:]), x[9:], y[9:])
    scores = whence.KNNShapley(k=3).fit(model).scores((x[:2], y[:2]), measure="probability")
    assert scores.values.shape == (2, 141)
    assert "3 neighbors" in scores.method
    assert np.allclose(scores.values.sum(1), -1, atol=0.05)


def refuse(estimator: Any, method: whence.Method, y: Any = None) -> None:
    x, labels = load_iris(return_X_y=True)
    y = labels if y is None else y
    method.fit(whence.from_sklearn(estimator.fit(x, y), x, y)).scores((x[:1], y[:1]))


def test_what_has_no_such_values() -> None:
    with pytest.raises(InvalidInput, match="k >= 1"):
        whence.KNNShapley(k=0)
    with pytest.raises(UnsupportedModel, match=r"weights='distance'.*whence.LeaveOneOut"):
        refuse(KNeighborsClassifier(weights="distance"), whence.KNNShapley())
    x, _ = load_iris(return_X_y=True)
    with pytest.raises(UnsupportedModel, match="one class or one number"):
        refuse(KNeighborsRegressor(), whence.KNNShapley(), x[:, :2])


def test_an_explanation_shows_what_the_answer_is_without_each_neighbor(tmp_path: Path) -> None:
    x, y = load_breast_cancer(return_X_y=True)
    clf = KNeighborsClassifier().fit(x[:300], y[:300])
    shares = clf.predict_proba(x[300:])[:, 1]
    query = x[[300 + int(np.flatnonzero(shares == 0.6)[0])]]
    trained = whence.from_sklearn(clf, x[:300], y[:300])
    found = whence.explain(trained, query, measure="probability", k=5)
    frame = found.to_frame().set_index("position")
    refitted = [
        clone(clf).fit(np.delete(x[:300], at, 0), np.delete(y[:300], at)).predict_proba(query)[0, 1]
        for at in frame.index
    ]
    np.testing.assert_allclose(frame["effect"], np.array(refitted) - 0.6, atol=1e-9)
    assert set(frame["effect"].abs().round(9)) == {0, 0.2}
    # A removal that changes nothing alone is on the side of its Shapley value.
    still = frame[frame["effect"] == 0]
    assert {effect.position for effect in found.raising} == set(still.index[still["first"] < 0])
    page = found.report(tmp_path / "why.html").read_text("utf-8")
    assert page.count(" retrained</span>") == len(frame)
    assert "Each number is of the model fitted again without the row." in page
    assert "predicted;" not in page


def test_copies_of_a_row_are_removed_together_by_refitting() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    x, y = np.vstack([x[:300], x[[0, 0]]]), np.r_[1 - y[0], y[1:300], 1 - y[0], 1 - y[0]]
    clf = KNeighborsClassifier(3).fit(x, y)
    found = whence.explain(whence.from_sklearn(clf, x, y), x[:1], measure="probability", k=3)
    (group,) = found.groups
    assert sorted(group.positions) == [0, 300, 301]
    rest = np.delete(np.arange(302), group.positions)
    again = clone(clf).fit(x[rest], y[rest]).predict_proba(x[:1])[0, 1]
    assert group.effect == pytest.approx(
        again - clf.predict_proba(x[:1])[0, 1], abs=1 / 600
    )  # least share
