"""Measures of each query: by name, by function, and what is refused."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

import whence
from whence import measures
from whence.errors import InvalidInput, UnsupportedModel
from whence.objective.losses import Loss, measure_of
from whence.objective.measures import CallableMeasure, OutputFunction, measure_name

_F = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
_Y = torch.tensor([1, 0])


def second(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return outputs[:, 1] ** 2


@pytest.mark.parametrize(
    ("measure", "loss", "expected"),
    [
        ("loss", whence.CrossEntropy(), whence.CrossEntropy()(_F, _Y)),
        ("margin", whence.CrossEntropy(), [1.0, 4.0]),
        ("probability", whence.CrossEntropy(), torch.sigmoid(torch.tensor([1.0, 4.0]))),
        (second, whence.CrossEntropy(), [4.0, 1.0]),
        (whence.CrossEntropy(), whence.SquaredError(), whence.CrossEntropy()(_F, _Y)),
    ],
)
def test_a_measure_by_its_name(measure: Any, loss: Loss, expected: Any) -> None:
    torch.testing.assert_close(measure_of(loss, measure)(_F, _Y), torch.as_tensor(expected))


def test_a_prediction_by_its_name() -> None:
    prediction = measure_of(whence.SquaredError(), "prediction")
    assert prediction(_F[:, :1], _Y).tolist() == [1.0, 3.0]


def test_the_gradient_of_a_function() -> None:
    assert CallableMeasure(second).gradient(_F, _Y).tolist() == [[0.0, 4.0], [0.0, -2.0]]


@pytest.mark.parametrize("measure", ["accuracy", 3, measures.AUROC])
def test_what_is_no_measure_of_a_query(measure: object) -> None:
    with pytest.raises(InvalidInput, match="Expected measure to be"):
        measure_of(whence.Logistic(), measure)


@pytest.mark.parametrize("measure", ["margin", "probability"])
def test_a_regression_has_no_classes(measure: str) -> None:
    with pytest.raises(UnsupportedModel, match=f"measure='{measure}'"):
        measure_of(whence.SquaredError(), measure)(_F, 3 * torch.ones(2, 2))


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (lambda f, y: f, r"Got.*\(2, 2\)"),
        (lambda f, y: f.sum(), r"Got.*\(\)"),
        (lambda f, y: f.detach().sum(1), "differentiable"),
    ],
)
def test_functions_without_a_gradient(function: OutputFunction, match: str) -> None:
    with pytest.raises(InvalidInput, match=match):
        CallableMeasure(function).gradient(_F, _Y)


def test_a_number_is_no_value_of_each_query() -> None:
    with pytest.raises(InvalidInput, match="Got 1.5"):
        CallableMeasure(lambda f, y: 1.5)(_F, _Y)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize(
    ("measure", "name"),
    [
        ("loss", "loss"),
        (second, "second"),
        (CallableMeasure(second), "second"),
        (partial(second), "partial"),
        (measures.Mean(), "mean loss"),
        (whence.Logistic(), "Logistic"),
    ],
)
def test_what_a_measure_is_called(measure: object, name: str) -> None:
    assert measure_name(measure) == name
