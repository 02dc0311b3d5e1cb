"""How measures are read: as a probability, a number, a margin or a loss."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.preprocessing import scale
from sklearn.svm import LinearSVC

import whence
from whence.objective.trained import Trained
from whence.views.answer import said_of, share_text, target_decimals
from whence.views.quantity import default_measure, quantity_of

DATA = load_iris(return_X_y=True)


def fitted(model: object, binary: bool = False) -> Trained:
    x, y = DATA
    if binary:
        x, y = load_breast_cancer(return_X_y=True)
        x = scale(x)
    return whence.from_sklearn(model.fit(x, y), x, y)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def softmax() -> Trained:
    return fitted(LogisticRegression(tol=1e-8, max_iter=1000))


def test_loss_probability_and_log_odds_say_the_same(softmax: Trained) -> None:
    query = softmax.train.subset(np.array([77]))
    expected = float(softmax.loss.probability(softmax.outputs(query), query.targets)[0])
    for measure in ("loss", "probability", "margin"):
        quantity = quantity_of(softmax, query, measure)
        value = float(whence_measure(softmax, measure)(softmax.outputs(query), query.targets)[0])
        assert quantity.read(value) == pytest.approx(100 * expected, rel=1e-6)
        assert quantity.phrases == ("to “1”", "away from “1”")
        assert quantity.rising == (measure != "loss")


def whence_measure(trained: Trained, measure: str) -> object:
    from whence.objective.losses import measure_of

    return measure_of(trained.loss, measure)


def test_two_classes_are_both_named() -> None:
    trained = fitted(LogisticRegression(tol=1e-8), binary=True)
    query = trained.train.subset(np.array([0]))
    assert quantity_of(trained, query, "loss").phrases == ("to “0”", "to “1”")


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (LogisticRegression(tol=1e-8, max_iter=1000), "loss"),
        (Ridge(), "prediction"),
        (LinearSVC(loss="squared_hinge", tol=1e-8, max_iter=100_000, dual=False), "margin"),
        (SGDClassifier(loss="log_loss", alpha=0.1, tol=1e-8, max_iter=10_000), "probability"),
    ],
    ids=["softmax", "ridge", "hinge", "one versus rest"],
)
@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
def test_what_people_read_is_the_default(model: object, expected: str) -> None:
    trained = fitted(model)
    assert default_measure(trained, trained.train.subset(np.array([3]))) == expected


def test_a_loss_that_is_no_probability_is_named_with_its_unit() -> None:
    trained = fitted(Ridge())
    query = trained.train.subset(np.array([3]))
    quantity = quantity_of(trained, query, "loss")
    assert quantity.name == "the loss (half the squared error)"
    assert quantity.phrases == ("the loss up", "the loss down")


def test_relative_scores_are_no_probabilities(softmax: Trained) -> None:
    query = softmax.train.subset(np.array([3]))
    quantity = quantity_of(softmax, query, "loss", unit=" per unit of its length")
    assert not quantity.percent
    assert quantity.name == "the loss per unit of its length"


@given(st.floats(1e-5, 50))
def test_digits_show_the_largest_change_and_no_more_than_six(change: float) -> None:
    quantity = quantity_of(_RIDGE, _RIDGE.train.subset(np.array([3])), "prediction")
    decimals = quantity.decimals([change, -change / 100, math.nan])
    assert 0 <= decimals <= 6
    assert float(f"{change:.{decimals}f}") == pytest.approx(change, rel=0.1)


_RIDGE = fitted(Ridge())


@pytest.mark.parametrize(
    ("targets", "expected"),
    [([1.0, 2.0, 18531.0], 0), ([2.75, 2.80], 2), ([0.1, 0.30], 1), ([0.0, math.pi], 2)],
)
def test_targets_have_their_own_digits(targets: list[float], expected: int) -> None:
    x = np.arange(len(targets), dtype=float)[:, None]
    trained = whence.from_sklearn(Ridge().fit(x, targets), x, targets)
    assert target_decimals(trained) == expected


def test_a_prediction_between_whole_targets_has_decimals() -> None:
    x = np.arange(40, dtype=float)[:, None]
    for scale_, digits in ((0.3, 1), (100.0, 0)):
        y = (x[:, 0] * scale_).round()
        trained = whence.from_sklearn(Ridge().fit(x, y), x, y)
        said = said_of(trained, trained.examples(([[7.0]], [0.0])))
        predicted = Ridge().fit(x, y).predict([[7.0]])[0]
        assert said == f"The model predicts {predicted:.{digits}f}."


def test_shares_near_a_half_and_one_have_decimals() -> None:
    assert share_text(0.5) == "50 %"
    assert (share_text(0.4983), share_text(0.50004)) == ("49.8 %", "50.00 %")
    assert (share_text(1.8e-7), share_text(1 - 1e-9)) == ("under 0.01 %", "over 99.99 %")
    assert (share_text(0.0), share_text(1.0)) == ("0.00 %", "100.00 %")
    assert share_text(0.99951) == "99.95 %"
    assert share_text(0.0001) == "0.01 %"


def test_a_network_without_names_has_numbered_classes() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(8, 2), torch.arange(8) % 2
    objective = whence.from_torch(torch.nn.Linear(2, 2), whence.CrossEntropy(), (x, y), l2=0.1)
    quantity = quantity_of(objective, objective.train.subset(np.array([1])), "loss")
    assert quantity.name == "P(class 1)"
    assert quantity.phrases == ("to “class 1”", "to “class 0”")


@pytest.mark.parametrize("method", [whence.HiddenCosine(), whence.TracIn(cosine=True)])
def test_an_example_pushes_a_measure_by_name_and_not_its_unit(
    softmax: Trained, method: whence.Method
) -> None:
    X, y = load_iris(return_X_y=True)
    said = str(whence.explain(softmax, (X[:1], y[:1]), k=1, method=method))
    lines = [line.strip() for line in said.splitlines()]
    pushed = [line.split(",")[0] for line in lines if line.startswith("push ")]
    assert pushed
    assert {*pushed} <= {"push the loss up", "push the loss down"}
