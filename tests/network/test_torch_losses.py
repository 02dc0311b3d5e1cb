"""Losses as users of torch write them: one value per example, classes and numbers known as such."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import whence
from whence.curvature.exact import GGN, Hessian
from whence.errors import InvalidInput
from whence.linalg import materialize
from whence.network.objective import ModuleObjective
from whence.objective.derived_losses import CallableLoss
from whence.objective.losses import SquaredError
from whence.objective.weighted_losses import ClassWeighted, Multiple

pytestmark = pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")

_N = 24
_X = torch.randn(_N, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
_CLASSES = torch.arange(_N) % 3
_LABELS = (_X[:, 0] > 0).double()
_NUMBERS = _X.sum(1)
_WEIGHTS = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)


def _model(outputs: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, outputs)).double()


def _objective(loss: Any, y: Tensor, outputs: int, weights: Any = None) -> ModuleObjective:
    return whence.from_torch(_model(outputs), loss, (_X, y), l2=0.1, weights=weights)


def _same(found: ModuleObjective, expected: ModuleObjective) -> None:
    """Hold curvature and scores against whence's own loss with a weight for each example."""
    penalty = torch.diag(expected.l2)
    for kind in (GGN, Hessian):
        matrices = [materialize(kind(o)) - penalty for o in (found, expected)]
        torch.testing.assert_close(*matrices, rtol=1e-6, atol=1e-9)
    for measure in ("margin", "probability"):
        values = [
            whence.influence(o, (_X[:4], o.train.targets[:4]), measure=measure, damping=0.1).values
            for o in (found, expected)
        ]
        np.testing.assert_allclose(*values, rtol=1e-6)


@pytest.mark.parametrize(
    ("loss", "y", "outputs", "own", "weights"),
    [
        (nn.CrossEntropyLoss(weight=_WEIGHTS, reduction="none"), _CLASSES, 3,
         whence.CrossEntropy(), _WEIGHTS[_CLASSES]),
        (lambda f, y: 7 * functional.cross_entropy(f, y, reduction="none"), _CLASSES, 3,
         whence.CrossEntropy(), torch.full((_N,), 7.0)),
        (nn.BCEWithLogitsLoss(pos_weight=torch.tensor(4.0), reduction="none"),
         _LABELS.unsqueeze(1), 1, whence.Logistic(), 1 + 3 * _LABELS),
        (lambda f, y: functional.binary_cross_entropy_with_logits(
            f.squeeze(1), y, reduction="none") * (1 + y), _LABELS, 1,
         whence.Logistic(), 1 + _LABELS),
    ],
)  # fmt: skip
def test_a_loss_with_class_weights_is_that_of_weighted_examples(
    loss: Any, y: Tensor, outputs: int, own: Any, weights: Tensor
) -> None:
    found, expected = _objective(loss, y, outputs), _objective(own, y, outputs, weights)
    assert isinstance(found.loss, ClassWeighted)
    _same(found, expected)
    assert str(whence.explain(found, _X[:1], k=1)).startswith("The model says class")
    assert len(whence.find_label_errors(found, method="loss").ranking) == _N


@pytest.mark.parametrize(
    ("loss", "y", "outputs", "scale"),
    [
        (nn.MSELoss(reduction="none"), _NUMBERS.unsqueeze(1), 1, 2.0),
        (lambda f, y: (f.squeeze(1) - y).square(), _NUMBERS, 1, 2.0),
        (lambda f, y: 0.5 * (f.squeeze(1) - y).square(), _NUMBERS, 1, 1.0),
        (lambda f, y: (f - y).square().mean(1), _X, 3, 2 / 3),
    ],
)
def test_a_squared_error_is_known_as_one(loss: Any, y: Tensor, outputs: int, scale: float) -> None:
    found, expected = _objective(loss, y, outputs), _objective(SquaredError(), y, outputs)
    assert isinstance(found.loss, SquaredError if scale == 1 else Multiple)
    penalty = torch.diag(expected.l2)
    truth = scale * (materialize(GGN(expected)) - penalty)
    torch.testing.assert_close(materialize(GGN(found)) - penalty, truth, rtol=1e-6, atol=1e-9)
    losses = [o.loss(o.outputs(o.train), o.train.targets) for o in (found, expected)]
    torch.testing.assert_close(losses[0], scale * losses[1])
    if outputs == 1:
        assert str(whence.explain(found, _X[:1], k=1)).startswith("The model predicts")


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(reduction="none", label_smoothing=0.1),
        lambda f, y: functional.cross_entropy(f, y, reduction="none") ** 2,
        lambda f, y: functional.cross_entropy(2 * f, y, reduction="none"),
    ],
)
def test_a_loss_that_is_no_multiple_stays_what_it_is(loss: Any) -> None:
    assert isinstance(_objective(loss, _CLASSES, 3).loss, CallableLoss)
    many = torch.arange(_N)  # each class once: a weight for each would fit anything
    assert isinstance(_objective(loss, many, _N).loss, CallableLoss)


@pytest.mark.parametrize("loss", [nn.SmoothL1Loss(reduction="none"), nn.L1Loss(reduction="none")])
def test_other_errors_of_numbers_stay_what_they_are(loss: Any) -> None:
    assert isinstance(_objective(loss, _NUMBERS.unsqueeze(1), 1).loss, CallableLoss)


@pytest.mark.parametrize("several", [False, True])
def test_a_gain_is_no_multiple_of_the_cross_entropy(several: bool) -> None:
    """Minus one times a loss has no curvature of one."""

    def of_classes(p: Tensor, y: Tensor) -> Tensor:
        return p.log().gather(1, y.unsqueeze(1)).squeeze(1)

    def of_labels(p: Tensor, y: Tensor) -> Tensor:
        return -functional.binary_cross_entropy(p, y, reduction="none").sum(1)

    model = _model(2 if several else 3).append(nn.Sigmoid() if several else nn.Softmax(-1))
    y = torch.stack([_LABELS, 1 - _LABELS], 1) if several else _CLASSES
    found = whence.from_torch(model, of_labels if several else of_classes, (_X, y), l2=0.1)
    assert isinstance(found, ModuleObjective)
    assert isinstance(found.loss, CallableLoss)


@pytest.mark.parametrize(
    ("loss", "y", "outputs", "said"),
    [
        (nn.MSELoss(), _NUMBERS.unsqueeze(1), 1, "Use reduction='none', or whence.CrossEntropy"),
        (lambda f, y: (f - y) ** 2, _NUMBERS, 1, "each with each. Pass targets of shape"),
        (nn.BCEWithLogitsLoss(reduction="none"), torch.stack([_LABELS] * 3, 1), 3, "Add up the"),
        (nn.BCEWithLogitsLoss(reduction="none"), _LABELS, 1, "may need the shape of the outputs"),
        (whence.Logistic(), torch.stack([_LABELS] * 3, 1), 3, "For several labels of each"),
        (whence.CrossEntropy(), _LABELS, 1, r"Got one output. Use whence.Logistic\(\)"),
        (nn.MSELoss, _NUMBERS, 1, r"Got the class MSELoss, not an object that it makes"),
        (SquaredError, _NUMBERS, 1, r"Got the class SquaredError, not an object"),
    ],
)
def test_a_loss_that_gives_no_value_per_example_says_what_to_do(
    loss: Any, y: Tensor, outputs: int, said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        _objective(loss, y, outputs)


@pytest.mark.parametrize("loss", [whence.SmoothHinge(temperature=0.1), whence.SquaredHinge()])
def test_hinges_take_labels_in_a_column(loss: Any) -> None:
    values = [
        whence.influence(_objective(loss, y, 1), (_X[:3], y[:3]), damping=0.1).values
        for y in (_LABELS, _LABELS.unsqueeze(1))
    ]
    np.testing.assert_allclose(*values)
