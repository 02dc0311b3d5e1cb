"""Losses of probabilities and log probabilities, against the same model with its logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import whence
from whence.curvature.exact import GGN, Hessian
from whence.linalg import materialize
from whence.network.links import OfSigmoid, OfSoftmax
from whence.network.objective import ModuleObjective
from whence.objective.derived_losses import CallableLoss
from whence.objective.losses import CrossEntropy, Logistic
from whence.objective.weighted_losses import ClassWeighted

pytestmark = pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")

_N, _C = 12, 4


def logits(outputs: int = _C) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, outputs)).double()


def inputs() -> Tensor:
    return torch.randn(_N, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def labels() -> Tensor:
    return torch.arange(_N) % (_C - 1)  # one class is never seen


def ended(activation: nn.Module, outputs: int = _C) -> nn.Module:
    return nn.Sequential(*logits(outputs), activation)


def objective(model: nn.Module, loss: Any, y: Tensor) -> ModuleObjective:
    return whence.from_torch(model, loss, (inputs(), y), l2=0.1)


def same(found: ModuleObjective, expected: ModuleObjective, scale: float = 1.0) -> None:
    """Hold value, gradient, both curvatures and scores against the model with logits."""
    penalty = torch.diag(expected.l2)
    for kind in (GGN, Hessian):
        truth = scale * (materialize(kind(expected)) - penalty)
        torch.testing.assert_close(materialize(kind(found)) - penalty, truth, rtol=1e-8, atol=1e-10)
    columns = [
        o.gradient_columns(o.train, o.loss) * factor
        for o, factor in ((found, 1.0), (expected, scale))
    ]
    torch.testing.assert_close(*columns, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("c", [_C, 120])  # of 120 classes −100 is an index too
def test_targets_without_a_loss_have_no_curvature(c: int) -> None:
    y = labels().masked_fill(torch.arange(_N) % 5 == 1, -100)

    def of_shares(p: Tensor, y: Tensor) -> Tensor:
        return nll(p.log(), y)

    found = objective(ended(nn.Softmax(1), c), of_shares, y)
    expected = objective(logits(c), CrossEntropy(), y)
    assert isinstance(found.loss, OfSoftmax)
    tangents = torch.randn(len(expected.params), 2, dtype=torch.float64)
    torch.testing.assert_close(found.ggnvp(tangents), expected.ggnvp(tangents))
    outputs = found.outputs(found.train), expected.outputs(expected.train)
    for measure in ("probability", "margin"):
        values = [
            getattr(o.loss, measure)(f, y) for o, f in zip((found, expected), outputs, strict=True)
        ]
        torch.testing.assert_close(*values)


_WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=torch.float64)


def nll(f: Tensor, y: Tensor) -> Tensor:
    return functional.nll_loss(f, y, reduction="none")


def minus_log(p: Tensor, y: Tensor) -> Tensor:
    return -p.gather(1, y.unsqueeze(1)).squeeze(1).log()


@pytest.mark.parametrize(
    ("activation", "loss", "kind"),
    [
        (nn.LogSoftmax(1), nll, CrossEntropy),
        (nn.LogSoftmax(1), nn.NLLLoss(reduction="none"), CrossEntropy),
        (nn.LogSoftmax(1), nn.CrossEntropyLoss(reduction="none"), CrossEntropy),
        (nn.Softmax(1), minus_log, OfSoftmax),
        (nn.Identity(), nn.CrossEntropyLoss(reduction="none"), CrossEntropy),
        (nn.Identity(), lambda f, y: f.logsumexp(1) - f[range(len(y)), y], CrossEntropy),
    ],
)
def test_softmax_in_the_model_is_that_of_the_loss(activation: Any, loss: Any, kind: Any) -> None:
    found = objective(ended(activation), loss, labels())
    expected = objective(logits(), CrossEntropy(), labels())
    assert isinstance(found.loss, kind)
    same(found, expected)
    of_logits = isinstance(activation, nn.Identity) or isinstance(loss, nn.CrossEntropyLoss)
    assert bool(found.notes) == (not of_logits)
    for measure in ("probability", "margin"):
        values = [
            whence.influence(o, (inputs()[:2], labels()[:2]), measure=measure, damping=0.1).values
            for o in (found, expected)
        ]
        np.testing.assert_allclose(*values, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("inside", [True, False])
def test_class_weights_stay(inside: bool) -> None:
    def weighted(f: Tensor, y: Tensor) -> Tensor:
        p = f if inside else f.exp()
        return _WEIGHTS[y] * minus_log(p, y)

    found = objective(ended(nn.Softmax(1) if inside else nn.LogSoftmax(1)), weighted, labels())
    truth = nn.CrossEntropyLoss(weight=_WEIGHTS, reduction="none")
    expected = objective(logits(), truth, labels())
    assert isinstance(expected.loss, ClassWeighted)  # not the cross entropy without weights
    same(found, expected)


def test_soft_targets_of_log_probabilities() -> None:
    soft = torch.softmax(torch.randn(_N, _C, dtype=torch.float64), 1)
    found = objective(ended(nn.LogSoftmax(1)), lambda f, y: -(y * f).sum(1), soft)
    assert "next to no" not in " ".join(found.notes)
    expected = objective(logits(), lambda f, y: f.logsumexp(1) - (y * f).sum(1), soft)
    same(found, expected)


@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("outputs", [1, 3])
def test_sigmoid_in_the_model_is_that_of_the_loss(outputs: int, scale: float) -> None:
    y = (torch.arange(_N * outputs) % 2).reshape(_N, outputs)
    target = y.double() if outputs > 1 else y.squeeze(1)

    def loss(s: Tensor, t: Tensor) -> Tensor:
        t = t.to(s.dtype).reshape(s.shape)
        return scale * functional.binary_cross_entropy(s, t, reduction="none").sum(1)

    def of_logits(f: Tensor, t: Tensor) -> Tensor:
        t = t.to(f.dtype).reshape(f.shape)
        return functional.binary_cross_entropy_with_logits(f, t, reduction="none").sum(1)

    found = objective(ended(nn.Sigmoid(), outputs), loss, target)
    expected = objective(logits(outputs), of_logits, target)
    assert isinstance(found.loss, OfSigmoid)
    assert isinstance(expected.loss, Logistic if outputs == 1 else CallableLoss)
    same(found, expected, scale)


@pytest.mark.parametrize("solver", [whence.EKFAC(), whence.KFAC()])
def test_kronecker_factors_see_the_logits(solver: Any) -> None:
    query = inputs()[:3], labels()[:3]
    found, expected = (
        whence.influence(
            objective(ended(activation), loss, labels()), query, solver=solver, damping=0.1
        ).values
        for activation, loss in (
            (nn.Softmax(1), minus_log),
            (nn.Identity(), CrossEntropy()),
        )
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("loss", "activation"),
    [
        (lambda f, y: (f.gather(1, y.unsqueeze(1)).squeeze(1) - 1).square(), nn.Softmax(1)),
        (nn.CrossEntropyLoss(reduction="none", label_smoothing=0.1), nn.Identity()),
        (nn.CrossEntropyLoss(reduction="none", ignore_index=0), nn.Identity()),
    ],
)
def test_other_functions_stay_what_they_are(loss: Any, activation: nn.Module) -> None:
    found = objective(ended(activation), loss, labels())
    assert isinstance(found.loss, CallableLoss)
    assert not found.notes


def test_a_loss_without_curvature_says_so() -> None:
    y = torch.randn(_N, _C, dtype=torch.float64)
    found = objective(logits(), lambda f, t: (f - t).abs().sum(1), y)
    assert "no curvature" in " ".join(found.notes)


def test_a_training_takes_the_same_loss() -> None:
    recipe = whence.Recipe(learning_rate=0.1, batch_size=4, epochs=3)
    ends = [
        whence.train(model, loss, (inputs(), labels()), recipe)
        for model, loss in (
            (ended(nn.LogSoftmax(1)), nn.NLLLoss(reduction="none")),
            (logits(), CrossEntropy()),
        )
    ]
    torch.testing.assert_close(ends[0].params, ends[1].params, rtol=0, atol=1e-12)
    assert isinstance(ends[0].loss, CrossEntropy)
    assert len(ends[0].objective().notes) == 1


def test_a_function_of_probabilities_is_asked_of_nothing_else() -> None:
    """On a GPU a number outside [0, 1] ends all that comes after, where a CPU raises."""
    asked: list[Tensor] = []

    def loss(s: Tensor, t: Tensor) -> Tensor:
        asked.append(s.detach())
        return functional.binary_cross_entropy(s[:, 0], t, reduction="none")

    y = (torch.arange(_N) % 2).double()
    found = objective(ended(nn.Sigmoid(), 1), loss, y)
    assert isinstance(found.loss, OfSigmoid)
    assert min(float(s.min()) for s in asked) >= 0
    assert max(float(s.max()) for s in asked) <= 1
