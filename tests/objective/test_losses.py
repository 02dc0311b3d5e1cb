"""Losses against automatic differentiation in float64, and at the ends of the number line."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log, sqrt

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import whence
from whence.adapters.outliers import Strangeness
from whence.adapters.survival import Hazard
from whence.errors import InvalidInput, UnsupportedModel
from whence.objective.derived_losses import CallableLoss, LabelSet, OneVersusRest
from whence.objective.losses import Loss, Tweedie, measure_of, output_hessian
from whence.objective.robust_losses import (
    Huber,
    Insensitive,
    PseudoHuber,
    Quantile,
    SquaredInsensitive,
)
from whence.objective.share_losses import Lifted, LogProbability

_B = 6
_INDICES = torch.tensor([0, 1, 2, 2, 0, 1])
_BINARY = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 0.0], dtype=torch.float64)
_POSITIVE = torch.tensor([0.5, 1.0, 3.0, 2.0, 0.1, 4.0], dtype=torch.float64)
_PAIRS = torch.stack([_POSITIVE - 2, 1 - _POSITIVE], 1)
_LABELS = torch.nn.functional.one_hot(_INDICES, 3) + torch.tensor([0, 0, 1])
_LABELS = _LABELS.clamp_max(1).double()

CASES: dict[str, tuple[Loss, int, Tensor]] = {
    "logistic": (whence.Logistic(), 1, _BINARY),
    "cross entropy": (whence.CrossEntropy(), 3, _INDICES),
    "log probability": (LogProbability(), 3, _INDICES),
    "lifted": (Lifted(0.1), 1, _BINARY),
    "lifted shares": (Lifted(0.1), 3, _INDICES),
    "hazard": (Hazard(), 2, torch.stack([_POSITIVE, _BINARY], 1)),
    "strangeness": (Strangeness(), 1, _POSITIVE),
    "squared error": (whence.SquaredError(), 1, _POSITIVE),
    "squared errors": (whence.SquaredError(), 2, _PAIRS),
    "normal": (Tweedie(power=0.0), 1, _POSITIVE),
    "poisson": (Tweedie(power=1.0), 1, _POSITIVE),
    "gamma": (Tweedie(power=2.0), 1, _POSITIVE),
    "tweedie": (Tweedie(power=1.5), 1, _POSITIVE),
    "inverse normal": (Tweedie(power=3.0), 1, _POSITIVE),
    "smooth hinge": (whence.SmoothHinge(0.5), 1, _BINARY),
    "squared hinge": (whence.SquaredHinge(), 1, _BINARY),
    "huber": (Huber(delta=0.8), 2, _PAIRS),
    "pseudo huber": (PseudoHuber(delta=0.8), 2, _PAIRS),
    "quantile": (Quantile(level=0.3), 2, _PAIRS),
    "insensitive": (Insensitive(epsilon=0.2, temperature=0.5), 2, _PAIRS),
    "squared insensitive": (SquaredInsensitive(epsilon=0.3), 2, _PAIRS),
    "one versus rest": (OneVersusRest(whence.Logistic()), 3, _INDICES),
    "weighted": (OneVersusRest(whence.SquaredHinge(), (1.0, 2.0, 5.0)), 3, _INDICES),
    "label set": (LabelSet(), 3, _LABELS),
    "callable": (CallableLoss(lambda f, y: (f[:, 0] - y) ** 4), 1, _POSITIVE),
    "coupled": (CallableLoss(lambda f, y: (f.sum(1) - y) ** 2 + f[:, 1] ** 4), 2, _POSITIVE),
}


def _softplus(x: float) -> float:
    return log(1 + exp(x))


# ℓ of one number by its definition; losses of several outputs are sums of such, with weights.
FORMULAS: dict[str, Callable[[float, float], float]] = {
    "logistic": lambda f, y: _softplus(f) - y * f,
    "squared error": lambda f, y: (f - y) ** 2 / 2,
    "squared errors": lambda f, y: (f - y) ** 2 / 2,
    "normal": lambda f, y: exp(2 * f) / 2 - y * exp(f),
    "poisson": lambda f, y: exp(f) - y * f,
    "gamma": lambda f, y: f + y * exp(-f),
    "tweedie": lambda f, y: exp(f / 2) / 0.5 + y * exp(-f / 2) / 0.5,
    "inverse normal": lambda f, y: -exp(-f) + y * exp(-2 * f) / 2,
    "smooth hinge": lambda f, y: 0.5 * _softplus((1 - (2 * y - 1) * f) / 0.5),
    "squared hinge": lambda f, y: max(0, 1 - (2 * y - 1) * f) ** 2,
    "huber": lambda f, y: (f - y) ** 2 / 2 if abs(f - y) <= 0.8 else 0.8 * (abs(f - y) - 0.4),
    "pseudo huber": lambda f, y: 0.64 * (sqrt(1 + ((f - y) / 0.8) ** 2) - 1),
    "quantile": lambda f, y: max(0.3 * (y - f), -0.7 * (y - f)),
    "insensitive": lambda f, y: sum(0.5 * _softplus((s * (f - y) - 0.2) / 0.5) for s in (1, -1)),
    "squared insensitive": lambda f, y: max(0, abs(f - y) - 0.3) ** 2,
    "label set": lambda f, y: _softplus(f) - y * f,
}


_NOT_CONVEX = {"normal", "inverse normal"}  # in a log link


def _outputs(c: int) -> Tensor:
    return torch.randn(_B, c, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("name", FORMULAS)
def test_values_are_those_of_the_definition(name: str) -> None:
    loss, c, targets = CASES[name]
    outputs = _outputs(c)
    rows = zip(outputs.tolist(), targets.reshape(_B, c).tolist(), strict=True)
    expected = [sum(map(FORMULAS[name], f, y)) for f, y in rows]
    assert loss(outputs, targets).tolist() == pytest.approx(expected)


def test_one_versus_rest_is_the_weighted_sum_of_its_classes() -> None:
    outputs = _outputs(3)
    for name, binary, weights in (
        ("one versus rest", "logistic", (1.0, 1.0, 1.0)),
        ("weighted", "squared hinge", (1.0, 2.0, 5.0)),
    ):
        expected = [
            sum(
                (weights[a] if a == y else 1) * FORMULAS[binary](f, float(a == y))
                for a, f in enumerate(row)
            )
            for row, y in zip(outputs.tolist(), _INDICES.tolist(), strict=True)
        ]
        assert CASES[name][0](outputs, _INDICES).tolist() == pytest.approx(expected)


def test_at_a_corner_the_derivatives_are_those_that_are_stated() -> None:
    """Of a hinge the flat side; r/2 within δ, ends included; curvature of Huber within, too."""
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    at = torch.tensor([[0.5]], dtype=torch.float64)
    for loss, targets, outputs, slope, curvature in (
        (whence.SmoothHinge(0.0), one, one.unsqueeze(1), 0.0, 0.0),
        (whence.SquaredHinge(), one, one.unsqueeze(1), 0.0, 0.0),
        (Insensitive(epsilon=0.5), zero, at, 0.0, 0.0),
        (Insensitive(epsilon=0.5), zero, -at, 0.0, 0.0),
        (SquaredInsensitive(epsilon=0.5), zero, at, 0.0, 0.0),
        (Quantile(level=0.25), zero, 0 * at, -0.25, 0.0),
        (Huber(delta=0.5), zero, at, 0.5, 1.0),
    ):
        assert float(loss.gradient(outputs, targets)) == slope
        assert float(output_hessian(loss, outputs, targets)) == curvature


def test_a_function_without_curvature_has_none() -> None:
    loss = CallableLoss(lambda f, y: f[:, 0] * y)
    assert not loss.hvp(torch.ones(2, 1), torch.ones(2), torch.ones(2, 1, 3)).any()


@pytest.mark.parametrize("name", CASES)
def test_gradient_and_curvature(name: str) -> None:
    loss, c, targets = CASES[name]
    outputs = _outputs(c)
    leaf = outputs.clone().requires_grad_()
    values = loss(leaf, targets)
    assert values.shape == (_B,)
    (gradient,) = torch.autograd.grad(values.sum(), leaf)
    torch.testing.assert_close(loss.gradient(outputs, targets), gradient)
    curved = torch.autograd.functional.hessian(lambda f: loss(f, targets).sum(), outputs)
    curved = curved[torch.arange(_B), :, torch.arange(_B)]
    torch.testing.assert_close(output_hessian(loss, outputs, targets), curved)
    tangents = torch.randn(_B, c, 4, generator=torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(loss.hvp(outputs, targets, tangents), curved @ tangents)


@pytest.mark.parametrize("name", sorted(set(CASES) - _NOT_CONVEX))
def test_curvature_is_positive_semidefinite(name: str) -> None:
    loss, c, targets = CASES[name]
    curvature = output_hessian(loss, _outputs(c), targets)
    assert float(torch.linalg.eigvalsh(curvature).min()) > -1e-12


@pytest.mark.parametrize("loss", [whence.SmoothHinge(0.0), Insensitive(epsilon=0.2)], ids=repr)
def test_a_loss_with_corners_has_the_gradient_beside_them(loss: Loss) -> None:
    targets = _POSITIVE if loss.regresses else _BINARY
    outputs = torch.linspace(-2.03, 4.01, _B, dtype=torch.float64).unsqueeze(1).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(outputs, targets).sum(), outputs)
    outputs = outputs.detach()
    torch.testing.assert_close(loss.gradient(outputs, targets), gradient)
    assert 0 < int((gradient == 0).sum()) < _B
    assert not output_hessian(loss, outputs, targets).any()


@pytest.mark.parametrize("name", ["logistic", "smooth hinge", "squared hinge", "one versus rest"])
def test_margins_one_by_one(name: str) -> None:
    loss, c, targets = CASES[name]
    outputs = torch.randn(_B, c, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for row, target, margin in zip(
        outputs.tolist(), targets.tolist(), loss.margin(outputs, targets).tolist(), strict=True
    ):
        others = [value for index, value in enumerate(row) if index != target]
        expected = row[target] - max(others) if c > 1 else row[0] if target else -row[0]
        assert margin == pytest.approx(expected)


def test_least_squares_have_margins_of_targets_that_are_classes() -> None:
    loss = whence.SquaredError()
    one = loss.margin(torch.tensor([[2.0], [-3.0], [0.5]]), torch.tensor([1.0, -1.0, -1.0]))
    assert one.tolist() == [2.0, 3.0, -0.5]
    several = torch.tensor([[-1.0, 1.0, -1.0]])
    assert loss.margin(torch.tensor([[0.25, 1.0, 0.5]]), several).tolist() == [0.5]
    for targets in (torch.tensor([2.0]), torch.tensor([0.0])):
        with pytest.raises(UnsupportedModel, match="margin"):
            loss.margin(torch.tensor([[1.0]]), targets)


@pytest.mark.parametrize("name", ["logistic", "cross entropy", "one versus rest"])
def test_probabilities_are_those_of_each_class(name: str) -> None:
    loss, c, targets = CASES[name]
    outputs = torch.randn(_B, c, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    found = loss.probabilities(outputs)
    assert found is not None
    torch.testing.assert_close(found.sum(1), torch.ones(_B, dtype=torch.float64))
    for label in range(found.shape[1]):
        each = loss.probability(outputs, torch.full_like(targets, label))
        torch.testing.assert_close(found[:, label], each)


def test_a_sequence_is_the_sum_of_its_tokens() -> None:
    loss = whence.CrossEntropy()
    outputs = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(5)).double()
    targets = torch.tensor([[1, 2, 4], [0, -100, 3]])
    tangents = torch.randn(2, 3, 5, 2, generator=torch.Generator().manual_seed(6)).double()
    products = loss.hvp(outputs, targets, tangents)
    torch.testing.assert_close(loss.probabilities(outputs).sum(2), torch.ones(2, 3).double())
    for row in range(2):
        counted = [t for t in range(3) if targets[row, t] >= 0]
        each = [(outputs[row, t].unsqueeze(0), targets[row, t].unsqueeze(0)) for t in counted]
        for measure in (loss, loss.margin):
            total = torch.stack([measure(*token) for token in each]).sum()
            torch.testing.assert_close(measure(outputs, targets)[row], total)
        product = torch.stack([loss.probability(*token) for token in each]).prod()
        torch.testing.assert_close(loss.probability(outputs, targets)[row], product)
        for t in range(3):
            at, target = outputs[row, t].unsqueeze(0), targets[row, t].clamp_min(0).unsqueeze(0)
            expected = loss.gradient(at, target)[0] * (t in counted)
            torch.testing.assert_close(loss.gradient(outputs, targets)[row, t], expected)
            p = torch.softmax(at[0], 0)
            hessian = (p.diag() - torch.outer(p, p)) * (t in counted)
            torch.testing.assert_close(products[row, t], hessian @ tangents[row, t])


@pytest.mark.parametrize("name", ["logistic", "cross entropy", "smooth hinge", "squared hinge"])
@pytest.mark.parametrize("size", [0.0, 40.0, 800.0])
def test_extreme_outputs_stay_finite(name: str, size: float) -> None:
    loss, c, targets = CASES[name]
    for sign in (1, -1):
        outputs = torch.full((_B, c), sign * size, dtype=torch.float64)
        outputs[:, 0] += size
        for values in (
            loss(outputs, targets),
            loss.gradient(outputs, targets),
            output_hessian(loss, outputs, targets),
        ):
            assert torch.isfinite(values).all()


@given(st.floats(-30, 30))
def test_the_smoothed_hinge_is_above_the_hinge_by_at_most_t_log_2(margin: float) -> None:
    t = 0.01
    outputs = torch.tensor([[margin]], dtype=torch.float64)
    smooth = float(whence.SmoothHinge(t)(outputs, torch.ones(1, dtype=torch.float64)))
    assert -1e-12 <= smooth - max(0.0, 1 - margin) <= t * 0.6932


@pytest.mark.parametrize("name", ["logistic", "cross entropy", "one versus rest"])
def test_probability_and_margin_agree_with_the_loss(name: str) -> None:
    loss, c, targets = CASES[name]
    outputs = torch.randn(_B, c, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    probability = measure_of(loss, "probability")(outputs, targets)
    margin = measure_of(loss, "margin")(outputs, targets)
    assert bool(((probability > 0) & (probability < 1)).all())
    if name != "one versus rest":
        torch.testing.assert_close(loss(outputs, targets), -probability.log())
        torch.testing.assert_close(margin, torch.logit(probability))


@pytest.mark.parametrize("ignored", [255, -1, 0])
def test_any_number_may_mark_positions_without_a_loss(ignored: int) -> None:
    outputs = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(7)).double()
    tangents = torch.randn(2, 3, 4, 2, generator=torch.Generator().manual_seed(8)).double()
    targets = torch.tensor([[1, -100, 1], [-100, 2, 3]])
    marked = targets.masked_fill(targets == -100, ignored)
    found, expected = whence.CrossEntropy(ignore_index=ignored), whence.CrossEntropy()
    found.check_targets(outputs, marked)
    for name in ("__call__", "gradient", "margin", "probability"):
        values = [getattr(found, name)(outputs, marked), getattr(expected, name)(outputs, targets)]
        torch.testing.assert_close(*values, rtol=0, atol=0)
    products = found.hvp(outputs, marked, tangents), expected.hvp(outputs, targets, tangents)
    torch.testing.assert_close(*products, rtol=0, atol=0)


def test_ignored_positions_do_not_count() -> None:
    loss = whence.CrossEntropy()
    outputs = torch.randn(2, 3, 5, dtype=torch.float64)
    targets = torch.tensor([[1, 2, -100], [0, -100, -100]])
    shorter = loss(outputs[1:, :1], targets[1:, :1])
    torch.testing.assert_close(loss(outputs, targets)[1:], shorter)
    assert not loss.gradient(outputs, targets)[1, 1:].any()


@pytest.mark.parametrize(
    ("loss", "c", "targets"),
    [
        (whence.CrossEntropy(), 3, torch.tensor([0, 3])),
        (whence.CrossEntropy(), 3, torch.tensor([0, -1])),
        (whence.Logistic(), 1, torch.tensor([0.0, 2.0])),
        (OneVersusRest(whence.Logistic()), 3, torch.tensor([0, 3])),
        (Tweedie(power=2.0), 1, torch.tensor([1.0, 0.0])),
    ],
)
def test_labels_out_of_range(loss: Loss, c: int, targets: Tensor) -> None:
    with pytest.raises(InvalidInput, match=r"Expected .* Got"):
        loss.check_targets(torch.zeros(2, c), targets)


@pytest.mark.parametrize(
    "loss",
    [
        whence.SmoothHinge(0.0),
        OneVersusRest(whence.SmoothHinge(0.0), (1.0, 2.0, 3.0)),
        Insensitive(epsilon=0.4),
    ],
    ids=repr,
)
def test_hinges_add_up_to_the_loss(loss: Loss) -> None:
    c = 3 if isinstance(loss, OneVersusRest) else 1
    targets = {3: _INDICES, 1: _POSITIVE if loss.regresses else _BINARY}[c]
    outputs = torch.randn(_B, c, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = loss.hinges(targets, c)
    assert found is not None
    again = outputs.T.repeat(1, found.signs.shape[1] // _B)
    each = found.factors * (found.signs * (found.corners - again)).clamp_min(0)
    torch.testing.assert_close(each.reshape(-1, _B).sum(0), loss(outputs, targets))
    smooth = loss.smoothed(0.001)
    assert not smooth.hinged
    assert smooth.hinges(targets, c) is None
    torch.testing.assert_close(smooth(outputs, targets), loss(outputs, targets), atol=0.01, rtol=0)
    assert smooth.smoothed(0.5) == smooth


def test_a_set_of_labels_is_as_clear_as_its_least_clear_label() -> None:
    outputs = torch.tensor([[2.0, -0.5, 3.0], [1.0, 1.5, -4.0]], dtype=torch.float64)
    targets = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]], dtype=torch.float64)
    loss = LabelSet()
    assert loss.margin(outputs, targets).tolist() == [-3.0, 1.0]
    each = torch.where(targets == 1, outputs.sigmoid(), 1 - outputs.sigmoid())
    torch.testing.assert_close(loss.probability(outputs, targets), each.prod(1))


def test_labels_of_a_set_are_there_or_not() -> None:
    outputs = torch.zeros(2, 3)
    LabelSet().check_targets(outputs, torch.tensor([[0, 1, 1], [0, 0, 0]]))
    for wrong in (torch.tensor([[0, 1, 2], [0, 0, 0]]), torch.tensor([[0, 1], [0, 0]])):
        with pytest.raises(InvalidInput, match="a 0 or a 1 for each of 3 labels"):
            LabelSet().check_targets(outputs, wrong)


@pytest.mark.parametrize("power", [1.0, 1.5])
def test_the_least_loss_of_a_target_is_its_minimum_over_outputs(power: float) -> None:
    loss = Tweedie(power=power)
    targets = torch.tensor([0.0, 0.5, 3.0], dtype=torch.float64)
    grid = torch.linspace(-40, 5, 200_001, dtype=torch.float64).unsqueeze(1)
    found = [loss(grid, y.expand(len(grid))).min() for y in targets]
    torch.testing.assert_close(loss.least(targets), torch.stack(found), rtol=0, atol=1e-6)


RANGES: list[tuple[Loss, int, list[float], list[float]]] = [
    (whence.Logistic(), 1, [0, 1], [-1, 0.5, 2]),
    (whence.SmoothHinge(0.5), 1, [0, 1], [-1, 0.5, 2]),
    (whence.SquaredHinge(), 1, [0, 1], [-1, 0.5, 2]),
    (whence.CrossEntropy(), 3, [0, 2, -100], [-1, 1.5, 3]),
    (OneVersusRest(whence.Logistic()), 3, [0, 2], [-1, 1.5, 3]),
    (whence.SquaredError(), 1, [-7.5, 0], []),
    (Tweedie(power=0.0), 1, [-7.5, 0], []),
    (Tweedie(power=1.0), 1, [0, 2.5], [-0.1]),
    (Tweedie(power=1.9), 1, [0, 2.5], [-0.1]),
    (Tweedie(power=2.0), 1, [0.1], [0, -0.1]),
]


@pytest.mark.parametrize(("loss", "c", "allowed", "refused"), RANGES, ids=repr)
def test_targets_out_of_range_are_refused(
    loss: Loss, c: int, allowed: list[float], refused: list[float]
) -> None:
    for target in allowed:
        loss.check_targets(torch.zeros(1, c), torch.tensor([target]))
    for target in refused:
        with pytest.raises(InvalidInput, match="for example 0"):
            loss.check_targets(torch.zeros(1, c), torch.tensor([target]))


def test_what_a_loss_does_not_offer() -> None:
    loss = whence.SquaredError()
    assert (loss.hinged, loss.hinges(_POSITIVE, 1), loss.smoothed(0.1)) == (False, None, loss)
    assert loss.least(_POSITIVE).tolist() == [0.0] * _B
    assert OneVersusRest(whence.Logistic()).hinges(_INDICES, 3) is None
    for measure in ("margin", "probability"):
        for refusing in (Huber(delta=1.0), CASES["callable"][0], Tweedie(power=1.0)):
            with pytest.raises(UnsupportedModel, match=f"measure='{measure}'"):
                measure_of(refusing, measure)(torch.ones(_B, 1), _POSITIVE)
    with pytest.raises(UnsupportedModel, match="measure='prediction'"):
        measure_of(whence.Logistic(), "prediction")(torch.ones(_B, 1), _BINARY)


def test_what_losses_are_of() -> None:
    known = {name for name, (loss, _, _) in CASES.items() if loss.known_dispersion}
    assert known == {"logistic", "poisson"}
    soft = {
        n for n, (loss, c, y) in CASES.items() if loss.softmax(torch.ones(_B, c), y) is not None
    }
    assert soft == {"cross entropy"}
    assert OneVersusRest(whence.SquaredHinge()).probabilities(torch.ones(_B, 3)) is None


@pytest.mark.parametrize(
    ("loss", "outputs", "fitting", "wrong"),
    [
        (whence.SquaredError(), (2, 2), (2, 2), (2, 1)),
        (Huber(delta=1.0), (2, 2), (2, 2), (2, 1)),
        (whence.Logistic(), (2, 1), (2, 1), (3,)),
        (whence.CrossEntropy(), (2, 4, 3), (2, 4), (2, 3)),
        (CallableLoss(lambda f, y: (f - y).square().sum(-1)), (2, 1), (1,), (2, 2, 1)),
    ],
    ids=repr,
)
def test_targets_of_another_shape_are_refused(
    loss: Loss, outputs: tuple[int, ...], fitting: tuple[int, ...], wrong: tuple[int, ...]
) -> None:
    loss.check_targets(torch.zeros(outputs), torch.zeros(fitting))
    with pytest.raises(InvalidInput, match=r"Expected .* Got .*\(\d"):
        loss.check_targets(torch.zeros(outputs), torch.zeros(wrong))


@pytest.mark.parametrize("shape", [(2, 2), (2, 1, 1), (2, 3, 1)])
def test_a_prediction_is_one_output(shape: tuple[int, ...]) -> None:
    with pytest.raises(UnsupportedModel, match="one output"):
        whence.SquaredError().prediction(torch.zeros(shape), torch.zeros(2))


def test_the_prediction_of_a_log_link_is_its_mean() -> None:
    found = Tweedie(power=1.5).prediction(torch.tensor([[0.0], [1.0]]), torch.ones(2))
    torch.testing.assert_close(found, torch.tensor([1.0, torch.e]))
