"""Measures of sets of queries, each beside the same by numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor

import whence
from whence import measures
from whence.errors import InvalidInput, UnsupportedModel
from whence.objective.losses import Loss
from whence.objective.sets.measure import Along, Output
from whence.objective.sets.measures import SetMeasure, set_measure_of
from whence.objective.sets.positive import is_positive, probability

Array = NDArray[Any]
Value = Callable[[Array, Array], float]  # of predictions (or losses) and targets

_G = np.array(["b", "a", "c", "a", "b", "a", "c", "b", "c", "c"])
_TWO = np.where(_G == "c", "b", _G)
_Y = np.array([0, 1, 1, 0, 1, 1, 0, 0, 1, 0])
_SCORES = np.array([0.5, -1.0, 2.0, 0.5, 0.5, 3.0, -1.0, -2.0, 0.0, 0.25])
_REAL = np.linspace(-1, 2, 10) ** 2


def _sigmoid(f: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-f)))


def _means(values: Array, names: Array) -> list[float]:
    return [float(values[names == name].mean()) for name in np.unique(names)]


def _log_loss(f: Array, y: Array) -> Array:
    return np.asarray(np.logaddexp(0, -(2 * y - 1) * f))


def _cohen(a: Array, b: Array) -> float:
    squares = (len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1)
    return float((a.mean() - b.mean()) / np.sqrt(squares / (len(a) + len(b) - 2)))


# A measure, and what it is of the scores f and the targets y of a logistic model.
BINARY: dict[str, tuple[SetMeasure, Value]] = {
    "mean loss": (measures.Mean(), lambda f, y: _log_loss(f, y).mean()),
    "mean margin": (measures.Mean("margin"), lambda f, y: ((2 * y - 1) * f).mean()),
    "accuracy": (measures.Accuracy(), lambda f, y: ((f > 0) == (y == 1)).mean()),
    "AUROC": (measures.AUROC(), lambda f, y: roc_auc_score(y, f)),
    "AUROC of 1": (measures.AUROC(positive=1), lambda f, y: roc_auc_score(y, f)),
    "AUROC of 0": (measures.AUROC(positive=0), lambda f, y: roc_auc_score(1 - y, -f)),
    "parity": (measures.DemographicParity(_G), lambda f, y: np.ptp(_means(_sigmoid(f), _G))),
    "parity of 0": (
        measures.DemographicParity(_G, positive=0, between=("a", "c")),
        lambda f, y: _sigmoid(-f)[_G == "a"].mean() - _sigmoid(-f)[_G == "c"].mean(),
    ),
    "opportunity": (
        measures.EqualOpportunity(_G),
        lambda f, y: np.ptp(_means(_sigmoid(f)[y == 1], _G[y == 1])),
    ),
    "false positives": (
        measures.EqualOpportunity(_G, outcome=0, between=("c", "b")),
        lambda f, y: (
            _sigmoid(f)[(y == 0) & (_G == "c")].mean() - _sigmoid(f)[(y == 0) & (_G == "b")].mean()
        ),
    ),
    "calibration": (measures.Calibration(_G), lambda f, y: np.ptp(_means(_sigmoid(f) - y, _G))),
    "worst loss": (measures.WorstGroup(_G), lambda f, y: max(_means(_log_loss(f, y), _G))),
    "worst margin": (
        measures.WorstGroup(_G, of="margin"),
        lambda f, y: min(_means((2 * y - 1) * f, _G)),
    ),
    "Cohen": (
        measures.CohensD(_TWO),
        lambda f, y: _cohen(_sigmoid(f)[_TWO == "a"], _sigmoid(f)[_TWO == "b"]),
    ),
    "Cohen of named": (
        measures.CohensD(_G, between=("c", "a")),
        lambda f, y: _cohen(_sigmoid(f)[_G == "c"], _sigmoid(f)[_G == "a"]),
    ),
    "a function": (measures.OfSet(lambda f, y: f.std()), lambda f, y: f.std(ddof=1)),
    "a count": (
        measures.OfSet(lambda f, y: (f[:, 0] > y).sum(), smooth=False),
        lambda f, y: (f > y).sum(),
    ),
}
REGRESSION: dict[str, tuple[SetMeasure, Value]] = {
    "parity": (measures.DemographicParity(_G), lambda f, y: np.ptp(_means(f, _G))),
    "calibration": (measures.Calibration(_G), lambda f, y: np.ptp(_means(f - y, _G))),
    "mean": (measures.Mean("prediction"), lambda f, y: f.mean()),
    "AUROC": (
        measures.AUROC(),
        lambda f, y: roc_auc_score(y == y.max(), f),
    ),
}


def _column(values: Array) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64).unsqueeze(1)


@pytest.mark.parametrize("name", BINARY)
def test_of_a_binary_model(name: str) -> None:
    measure, by_hand = BINARY[name]
    found = measure.value(_column(_SCORES), torch.as_tensor(_Y), whence.Logistic())
    assert found.dtype == torch.float64
    assert float(found) == pytest.approx(float(by_hand(_SCORES, _Y)))


@pytest.mark.parametrize("name", REGRESSION)
def test_of_a_regression(name: str) -> None:
    measure, by_hand = REGRESSION[name]
    y = np.where(_Y, 2.5, -1.5) if name == "AUROC" else _REAL
    found = measure.value(_column(_SCORES), torch.as_tensor(y), whence.SquaredError())
    assert float(found) == pytest.approx(float(by_hand(_SCORES, y)))


@pytest.mark.parametrize(("c", "positive"), [(2, None), (2, 0), (2, 1), (3, 1), (3, 2)])
def test_of_several_classes(c: int, positive: int | None) -> None:
    outputs = torch.randn(10, c, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y, p, loss = _Y + (c - 2), outputs.softmax(1).numpy(), whence.CrossEntropy()
    at = 1 if positive is None else positive
    for measure, expected in (
        (measures.Accuracy(), (p.argmax(1) == y).mean()),
        (measures.AUROC(positive=positive), roc_auc_score(y == at, p[:, at])),
        (measures.DemographicParity(_G, positive=positive), np.ptp(_means(p[:, at], _G))),
        (
            measures.EqualOpportunity(_G, positive=positive),
            np.ptp(_means(p[y == at, at], _G[y == at])),
        ),
        (measures.Calibration(_G, positive=positive), np.ptp(_means(p[:, at] - (y == at), _G))),
        (
            measures.CohensD(_TWO, positive=positive),
            _cohen(p[_TWO == "a", at], p[_TWO == "b", at]),
        ),
    ):
        found = measure.value(outputs, torch.as_tensor(y), loss)
        assert float(found) == pytest.approx(float(expected))


def test_of_more_than_two_classes_the_positive_one_is_named() -> None:
    outputs, y = torch.randn(10, 3), torch.as_tensor(_Y)
    for measure in (measures.AUROC(), measures.DemographicParity(_G)):
        with pytest.raises(InvalidInput, match=r"positive=.*Got 3"):
            measure.value(outputs, y, whence.CrossEntropy())


@pytest.mark.parametrize(
    ("targets", "positive", "expected"),
    [
        ([0.0, 1.0], None, [False, True]),
        ([0.0, 0.0], None, [False, False]),
        ([1.0, 1.0], None, [True, True]),
        ([0.0, 2.0], None, [False, True]),
        ([-1.0, 1.0], None, [False, True]),
        ([0.2, 0.7], None, [False, True]),
        ([[0.0], [1.0]], None, [False, True]),
        ([0.0, 1.0, 2.0], 2, [False, False, True]),
        ([0.0, 1.0, 2.0], 0, [True, False, False]),
    ],
)
def test_who_is_positive(targets: list[Any], positive: int | None, expected: list[bool]) -> None:
    assert is_positive(torch.tensor(targets), positive).tolist() == expected


def test_what_a_regression_predicts_is_one_number_each() -> None:
    found = probability(_column(_SCORES), whence.SquaredError(), None)
    assert found.tolist() == _SCORES.tolist()


@pytest.mark.parametrize("name", ["parity", "Cohen", "opportunity", "a function"])
def test_derivatives_and_changes_are_those_of_the_value(name: str) -> None:
    measure, by_hand = BINARY[name]
    f, y, loss = _column(_SCORES), torch.as_tensor(_Y), whence.Logistic()
    step = 1e-6
    by = step * torch.eye(10, dtype=torch.float64).unsqueeze(1)
    changes = measure.changes(f, by, y, loss)
    again = [by_hand(_SCORES + step * np.eye(10)[i], _Y) for i in range(10)]
    np.testing.assert_allclose(changes, np.array(again) - by_hand(_SCORES, _Y), atol=1e-12)
    torch.testing.assert_close(
        measure.gradient(f, y, loss)[:, 0], changes / step, atol=1e-5, rtol=1e-4
    )
    assert measure.changes(f, by[..., :0], y, loss).shape == (0,)


def test_what_measures_of_a_set_are_called() -> None:
    def spread(f: Tensor, y: Tensor) -> Tensor:
        return f.std()

    for measure, name in (
        (measures.Mean("margin"), "mean margin"),
        (measures.Accuracy(), "accuracy"),
        (measures.AUROC(), "AUROC"),
        (measures.DemographicParity(_G), "demographic parity gap"),
        (measures.EqualOpportunity(_G), "equal opportunity gap"),
        (measures.EqualOpportunity(_G, outcome=0), "false positive gap"),
        (measures.Calibration(_G), "calibration gap"),
        (measures.WorstGroup(_G, of="margin"), "margin of the worst group"),
        (measures.CohensD(_G), "Cohen's d"),
        (measures.OfSet(spread), "spread"),
    ):
        assert measure.name == name
    assert "spread, smooth=True)" in repr(measures.OfSet(spread))


def test_a_part_of_the_queries_keeps_its_groups() -> None:
    rows = np.array([1, 4, 7, 9])
    f, y = _column(_SCORES[rows]), torch.as_tensor(_Y[rows])
    part = BINARY["parity"][0].subset(rows)
    expected = np.ptp(_means(_sigmoid(_SCORES[rows]), _G[rows]))
    assert float(part.value(f, y, whence.Logistic())) == pytest.approx(expected)
    assert measures.Mean().subset(rows) == measures.Mean()


Refused = tuple[SetMeasure, Loss, type[Exception], str]
REFUSED: list[Refused] = [
    (measures.DemographicParity(_G[:3]), whence.Logistic(), InvalidInput, "Got 3 groups"),
    (measures.DemographicParity(["a"] * 10), whence.Logistic(), InvalidInput, "two groups"),
    (measures.DemographicParity([None, *_G[1:]]), whence.Logistic(), InvalidInput, "missing"),
    (
        measures.DemographicParity(_G, between=("a", "x")),
        whence.Logistic(),
        InvalidInput,
        "Got 'x'",
    ),
    (measures.DemographicParity(_G), whence.SmoothHinge(), UnsupportedModel, "probabilities"),
    (measures.EqualOpportunity(_Y), whence.Logistic(), InvalidInput, "Got none in group 0"),
    (measures.CohensD(_G), whence.Logistic(), InvalidInput, "Name two"),
    (measures.CohensD(["a"] * 9 + ["b"]), whence.Logistic(), InvalidInput, "at least two queries"),
    (measures.CohensD(["a"] + ["b"] * 9), whence.Logistic(), InvalidInput, "at least two queries"),
    (measures.OfSet(lambda f, y: f[:, 0]), whence.Logistic(), InvalidInput, "one number"),
    (measures.OfSet(lambda f, y: f[y > 1].mean()), whence.Logistic(), InvalidInput, "Got nan"),
    (measures.OfSet(lambda f, y: y.sum()), whence.Logistic(), InvalidInput, "differentiable"),
]


@pytest.mark.parametrize(("measure", "loss", "error", "match"), REFUSED)
def test_what_cannot_be_measured(
    measure: SetMeasure, loss: Loss, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        measure.gradient(_column(_SCORES), torch.as_tensor(_Y), loss)


def test_both_classes_are_needed_to_rank_them() -> None:
    for y in (torch.zeros(10), torch.ones(10)):
        with pytest.raises(InvalidInput, match="positive class and others"):
            measures.AUROC().value(_column(_SCORES), y, whence.Logistic())
    with pytest.raises(InvalidInput, match="two classes"):
        measures.AUROC().value(_column(_SCORES), torch.arange(10) % 3, whence.Logistic())


def test_which_measures_are_of_a_set() -> None:
    def found(measure: object) -> SetMeasure | None:
        return set_measure_of(measure, lambda: (_column(_SCORES), torch.as_tensor(_Y)))

    mean = measures.Mean("margin")
    assert found(mean) is mean
    assert found("auroc") == measures.AUROC()
    assert found("accuracy") == measures.Accuracy()
    assert found("mean loss") == measures.Mean()
    for of_each in ("loss", 3, whence.Logistic(), measures.AUROC, None, lambda f, y: f[:, 0]):
        assert found(of_each) is None
    for function, smooth in (
        (lambda f, y: f.mean(), True),
        (lambda f, y: f.detach().mean(), False),
        (lambda f, y: float(f.numpy().mean()), False),
    ):
        of_set = found(function)
        assert of_set == measures.OfSet(function, smooth=smooth)


def test_outputs_along_a_direction_and_one_output() -> None:
    f = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    u = torch.tensor([[1, 0, -1], [2, 1, 0]])
    assert Along()(f, u).tolist() == [-2.0, 13.0]
    assert Along().gradient(f, u).tolist() == u.tolist()
    assert Output(1)(f, u).tolist() == [2.0, 5.0]
    assert Output(1).gradient(f, u).tolist() == [[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]


_QUERIES = torch.tensor([[0.0], [1.0], [2.0], [-1.0]]), torch.tensor([0.0, 1.0, 1.0, 0.0])


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ("city", "one label for each query. Got 'city'"),
        (lambda x: x, "one label for each query"),
        (np.zeros((4, 2)), "one label for each query. Got an array"),
        (np.linspace(0.05, 1, 21), r"labels. Got a quantity of 21 different values. Cut"),
    ],
)
def test_groups_are_one_label_for_each_query(groups: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        measures.DemographicParity(groups).value(*_QUERIES, whence.Logistic())


def test_groups_in_a_column_and_cut_from_numbers_are_labels() -> None:
    values = [
        measures.DemographicParity(groups).value(*_QUERIES, whence.Logistic())
        for groups in (np.array([0, 0, 1, 1]), np.array([[0], [0], [1], [1]]), [0.5, 0.5, 1.5, 1.5])
    ]
    assert values[0] == values[1] == values[2]
    cut = pd.qcut(pd.Series([0.1, 0.2, 0.3, 0.4]), 2)
    assert measures.DemographicParity(cut).value(*_QUERIES, whence.Logistic()) == values[0]


@pytest.mark.parametrize("positive", ["yes", 2, -1])
def test_a_positive_class_is_a_position(positive: Any) -> None:
    with pytest.raises(InvalidInput, match="Expected positive as a"):
        measures.DemographicParity([0, 0, 1, 1], positive=positive).value(
            *_QUERIES, whence.Logistic()
        )
    with pytest.raises(InvalidInput, match="Expected positive as a"):
        measures.AUROC(positive=positive).value(*_QUERIES, whence.Logistic())


@pytest.mark.parametrize(
    ("measure", "said"),
    [
        ("AUROC", "Did you mean 'auroc'"),
        ("acuracy", "Did you mean 'accuracy'"),
        ("margn", "Did you mean 'margin'"),
        ("f1", "there are 'accuracy', 'auroc', 'mean loss'"),
        (measures.AUROC, r"Got the class AUROC, not an object that it makes"),
        (lambda f: f.mean(), r"takes \(outputs, targets\). Got: .*1 positional argument"),
    ],
)
def test_a_measure_that_is_none_says_which_there_are(measure: Any, said: str) -> None:
    X, y = load_iris(return_X_y=True)
    objective = whence.from_sklearn(LogisticRegression(max_iter=1000).fit(X, y), X, y)
    for use in (whence.influence, whence.explain):
        with pytest.raises(InvalidInput, match=said):
            use(objective, (X[:1], y[:1]), measure=measure)
