"""Every product of a module objective against plain, dense differentiation in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import whence
from tests.network.zoo import SIZE, ZOO, objective_of
from whence.curvature.exact import GGN, EmpiricalFisher, Hessian
from whence.errors import IncompleteCoverage, InvalidInput, NotDeterministic, UnsupportedModel
from whence.linalg import CG, materialize
from whence.network import checks
from whence.network.checks import check_repeatable
from whence.network.objective import ModuleObjective
from whence.objective.losses import measure_of

_EXACT = {"rtol": 1e-10, "atol": 1e-11}
_LOOPED = {"lstm": 2, "tied": 1}


@pytest.fixture(scope="module", params=list(ZOO))
def objective(request: pytest.FixtureRequest) -> ModuleObjective:
    return objective_of(request.param)


def losses(objective: ModuleObjective, params: Tensor) -> Tensor:
    """The losses of the training examples, each computed alone."""
    pieces = {
        name: params[at].view(objective.shapes[name]) for name, at in objective.slices.items()
    }
    each = []
    for b in range(SIZE):
        one = objective.train.subset(np.array([b]))
        each.append(objective.loss(objective.module(pieces, one.inputs, twice=True), one.targets))
    return torch.cat(each)


def gradients(objective: ModuleObjective) -> Tensor:
    """G, by a loop over the examples."""
    leaf = objective.params.detach().requires_grad_()
    each = losses(objective, leaf)
    return torch.stack([torch.autograd.grad(x, leaf, retain_graph=True)[0] for x in each])


def hessian_times(objective: ModuleObjective, V: Tensor) -> Tensor:
    """∇²R V, a derivative of ∇Rᵀ v for each column."""
    leaf = objective.params.detach().requires_grad_()
    mean = (objective.weights * losses(objective, leaf)).mean()
    (gradient,) = torch.autograd.grad(mean, leaf, create_graph=True)
    found = [torch.autograd.grad(gradient @ v, leaf, retain_graph=True)[0] for v in V.T]
    return torch.stack(found, 1) + objective.l2.unsqueeze(1) * V


def jacobian(objective: ModuleObjective) -> Tensor:
    """J of all outputs, [b, outputs, p]."""
    leaf = objective.params.detach().requires_grad_()
    rows = []
    for b in range(SIZE):
        one = objective.train.subset(np.array([b]))
        outputs = objective.run(leaf, one.inputs).flatten()
        rows.append(
            torch.stack([torch.autograd.grad(f, leaf, retain_graph=True)[0] for f in outputs])
        )
    return torch.stack(rows)


def columns(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_per_example_gradients(objective: ModuleObjective) -> None:
    truth = gradients(objective)
    p = len(objective.params)
    v, w = columns(p, 4), columns(SIZE, 4)
    train, loss = objective.train, objective.loss
    torch.testing.assert_close(objective.gradient_dot(train, loss, v), truth @ v, **_EXACT)
    torch.testing.assert_close(objective.gradient_sum(train, loss, w), truth.T @ w, **_EXACT)
    one = w[:, :1]
    torch.testing.assert_close(objective.gradient_sum(train, loss, one), truth.T @ one, **_EXACT)


def test_every_parameter_is_covered(objective: ModuleObjective) -> None:
    eye = torch.eye(SIZE, dtype=torch.float64)
    reached = objective.gradient_sum(objective.train, objective.loss, eye).T
    torch.testing.assert_close(reached, gradients(objective), **_EXACT)


@pytest.mark.parametrize("name", ["gpt2", "bert", "tied"])
def test_tables_of_any_size_have_the_same_products(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = objective_of(name)
    V = torch.randn(len(objective.params), 20, dtype=torch.float64)
    small = objective.gradient_dot(objective.train, objective.loss, V)
    monkeypatch.setattr("whence.network.gradients._SMALL_TABLE", 0)
    large = objective.gradient_dot(objective.train, objective.loss, V)
    torch.testing.assert_close(small, large)


@pytest.mark.parametrize("name", ["mlp", "cnn", "gpt2", "bert", "tied"])
def test_rounded_passes_give_nearly_the_same_gradients(name: str) -> None:
    torch.manual_seed(0)
    model, data = ZOO[name]()
    objective = whence.from_torch(model, whence.CrossEntropy(), data)
    rough = objective.in_bf16()
    assert rough.bf16
    assert rough.factored == objective.factored
    V = torch.randn(len(objective.params), 20)
    exact = objective.gradient_dot(objective.train, objective.loss, V)
    rounded = rough.gradient_dot(rough.train, rough.loss, V)
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    assert float((exact - rounded).norm()) <= 0.05 * float(exact.norm())


class _Particular(nn.Module):
    """A model that minds the precision of its inner results."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.inner, self.how = nn.Linear(3, 2), how

    def forward(self, x: Tensor) -> Tensor:
        inside = self.inner(x)
        if inside.dtype != torch.bfloat16:
            return inside
        if self.how == "raises":
            raise RuntimeError("float32, please")
        return 3 * inside


@pytest.mark.parametrize("how", ["raises", "differs"])
def test_a_model_that_does_not_bear_rounding_is_left_as_it_is(how: str) -> None:
    x, y = torch.randn(6, 3), torch.arange(6) % 2
    objective = build(_Particular(how), whence.CrossEntropy(), x, y)
    assert not objective.in_bf16().bf16


def test_a_batch_is_what_a_cache_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert objective_of("cnn").batch_size == 1024
    monkeypatch.setattr("whence.network.rules._CACHE", 80)
    assert objective_of("mlp").batch_size == 80 // 5  # its widest layer has 5 outputs
    assert objective_of("cnn").batch_size == 2  # its widest layer has 3 x 3 x 4 = 36
    monkeypatch.setattr("whence.network.rules._CACHE", 1)
    assert objective_of("mlp").batch_size == 1
    assert objective_of("mlp", batch_size=3).batch_size == 3


@pytest.mark.parametrize("name", ZOO)
def test_what_has_a_rule_is_factored(name: str) -> None:
    objective = objective_of(name)
    assert len(objective.shapes) - len(objective.factored) == _LOOPED.get(name, 0)


class Positions(nn.Module):
    """Positions are embedded once for all examples, as [t] or [1, t], and may be reshaped so."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.tokens, self.places = nn.Embedding(5, 4), nn.Embedding(6, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        where = torch.arange(tokens.shape[1])
        placed = self.places(where if self.form == "flat" else where.unsqueeze(0))
        if self.form == "reshaped":
            placed = placed.view(1, tokens.shape[1], 4)
        return self.head((self.tokens(tokens) + placed).tanh().mean(1))


@pytest.mark.parametrize("form", ["flat", "one row", "reshaped"])
@pytest.mark.parametrize("length", [3, 4])  # 3: as many positions as examples in the probe
def test_positions_embedded_once_for_all_examples(form: str, length: int) -> None:
    torch.manual_seed(0)
    tokens = torch.randint(5, (SIZE, length))
    objective = whence.from_torch(
        Positions(form).double(), whence.CrossEntropy(), (tokens, torch.arange(SIZE) % 3)
    )
    assert ("places.weight" in objective.factored) == (form != "reshaped")
    truth = gradients(objective)
    v = columns(truth.shape[1], 3)
    for batch_size in (1, 2, SIZE):
        batched = replace(objective, batch_size=batch_size)
        found = batched.gradient_dot(objective.train, objective.loss, v)
        torch.testing.assert_close(found, truth @ v, **_EXACT)


def test_hessian(objective: ModuleObjective) -> None:
    v = columns(len(objective.params), 3)
    torch.testing.assert_close(objective.hvp(v), hessian_times(objective, v), **_EXACT)


def test_gauss_newton(objective: ModuleObjective) -> None:
    J = jacobian(objective)
    outputs = objective.outputs(objective.train)
    eye = torch.eye(J.shape[1], dtype=torch.float64)
    eye = eye.reshape(*outputs.shape[1:], -1).expand(*outputs.shape, -1)
    S = objective.loss.hvp(outputs, objective.train.targets, eye).reshape(SIZE, J.shape[1], -1)
    truth = torch.einsum("b,bap,bac,bcq->pq", objective.weights / SIZE, J, S, J)
    truth += torch.diag(objective.l2)
    v = columns(len(truth), 3)
    torch.testing.assert_close(objective.ggnvp(v), truth @ v, **_EXACT)


def test_jacobian_products(objective: ModuleObjective) -> None:
    J = jacobian(objective)
    shape = objective.outputs(objective.train).shape
    v, w = columns(J.shape[2], 2), columns(*shape, 2)
    forward = objective.jvp(objective.train, v)
    torch.testing.assert_close(forward, (J @ v).reshape(*shape, 2), **_EXACT)
    back = torch.einsum("bap,bak->pk", J, w.reshape(SIZE, -1, 2))
    torch.testing.assert_close(objective.vjp(objective.train, w), back, **_EXACT)


def test_displaced(objective: ModuleObjective) -> None:
    deltas = 0.1 * columns(len(objective.params), 2)
    w = columns(SIZE, 2)
    for k in range(2):
        there = objective.at(objective.params + deltas[:, k])
        outputs = objective.outputs_at(objective.train, deltas)[..., k]
        torch.testing.assert_close(outputs, there.outputs(there.train), **_EXACT)
        summed = objective.gradient_at(objective.train, w, deltas)[:, k]
        torch.testing.assert_close(summed, gradients(there).T @ w[:, k], **_EXACT)


def test_operators_are_the_same_for_any_batch_size(objective: ModuleObjective) -> None:
    from dataclasses import replace

    v = columns(len(objective.params), 2)
    for operator in (Hessian, GGN, EmpiricalFisher):
        whole = operator(objective) @ v
        for size in (1, 3):
            parts = operator(replace(objective, batch_size=size)) @ v
            torch.testing.assert_close(parts, whole, **_EXACT)


def test_empirical_fisher() -> None:
    objective = objective_of("mlp")
    G = gradients(objective)
    truth = (objective.weights / SIZE * G.T) @ G + torch.diag(objective.l2)
    torch.testing.assert_close(materialize(EmpiricalFisher(objective)), truth, **_EXACT)


@pytest.mark.parametrize("name", ["mlp", "cnn", "shared", "lstm"])
def test_input_gradient(name: str) -> None:
    objective = objective_of(name)
    v = columns(len(objective.params), 1)[:, 0]
    mixed = objective.input_gradient(objective.train, v)
    step = 1e-5
    inputs = objective.train.inputs
    for at in (0, inputs[0].numel() - 1):
        moved = []
        for sign in (1, -1):
            shifted = inputs.clone()
            shifted.view(SIZE, -1)[:, at] += sign * step
            examples = objective.examples((shifted, objective.train.targets))
            moved.append(objective.gradient_dot(examples, objective.loss, v.unsqueeze(1))[:, 0])
        numeric = (moved[0] - moved[1]) / (2 * step)
        torch.testing.assert_close(mixed.reshape(SIZE, -1)[:, at], numeric, rtol=1e-6, atol=1e-8)


def test_tokens_have_no_input_gradient() -> None:
    objective = objective_of("gpt2")
    with pytest.raises(UnsupportedModel, match="Tokens are discrete"):
        objective.input_gradient(objective.train, objective.params)


def test_sampled_hessian_is_unbiased() -> None:
    objective = objective_of("mlp")
    each = [materialize(Hessian(objective.restricted(np.array([i])))) for i in range(SIZE)]
    mean = torch.stack(each).mean(0)
    torch.testing.assert_close(mean, materialize(Hessian(objective)), **_EXACT)


def test_measures() -> None:
    objective = objective_of("mlp")
    v = columns(len(objective.params), 1)
    margin = measure_of(objective.loss, "margin")
    dots = objective.gradient_dot(objective.train, margin, v)
    step = 1e-6
    ahead, behind = (
        margin(objective.outputs_at(objective.train, s * step * v)[..., 0], objective.train.targets)
        for s in (1, -1)
    )
    torch.testing.assert_close(dots[:, 0], (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-8)


def test_selection() -> None:
    last = objective_of("mlp", params=["2.weight", "2.bias"])
    assert list(last.shapes) == ["2.weight", "2.bias"]
    weights = objective_of("mlp", params=lambda name, parameter: parameter.ndim == 2)
    assert list(weights.shapes) == ["0.weight", "2.weight"]
    with pytest.raises(IncompleteCoverage, match="Got '3.weight'"):
        objective_of("mlp", params=["3.weight"])
    with pytest.raises(IncompleteCoverage, match="at least one"):
        objective_of("mlp", params=lambda name, parameter: False)


def test_the_users_model_is_left_alone() -> None:
    model = nn.Linear(2, 2)
    objective = whence.from_torch(
        model, whence.CrossEntropy(), (torch.randn(4, 2), torch.tensor([0, 1, 0, 1]))
    )
    before = objective.params.clone()
    with torch.no_grad():
        model.weight.zero_()
    assert model.weight.requires_grad
    torch.testing.assert_close(objective.outputs(objective.train)[:, 0] * 0, torch.zeros(4))
    assert torch.equal(objective.params, before)


class Numbered(torch.utils.data.Dataset[Any]):
    def __init__(self, noise: float = 0.0) -> None:
        self.noise = noise

    def __len__(self) -> int:
        return 5

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return torch.full((3,), float(i)) + self.noise * torch.randn(3), i % 2


def test_data_sets() -> None:
    model = nn.Linear(3, 2)
    objective = whence.from_torch(model, whence.CrossEntropy(), Numbered())
    assert objective.train.inputs.shape == (5, 3)
    assert objective.train.ids.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(NotDeterministic, match="augmentation"):
        whence.from_torch(model, whence.CrossEntropy(), Numbered(noise=0.1))
    loader = torch.utils.data.DataLoader(Numbered(), shuffle=True)
    with pytest.raises(InvalidInput, match="loader.dataset"):
        whence.from_torch(model, whence.CrossEntropy(), loader)


def build(model: nn.Module, loss: Any, x: Tensor, y: Tensor, **options: Any) -> ModuleObjective:
    return whence.from_torch(model, loss, (x, y), **options)


@pytest.mark.parametrize(
    ("model", "loss", "change", "message"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.Dropout()), None, None, r"\.eval\(\)"),
        (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), None, None, r"\.eval\(\)"),
        (nn.Linear(2, 2), nn.functional.cross_entropy, None, "one value per example"),
        (nn.Linear(2, 2), None, "nan target input", "example 2"),
        (nn.Linear(2, 2), None, "label", "whole numbers from 0 to 1"),
        (nn.Linear(2, 2), None, "length", "as many targets"),
        (nn.Linear(2, 2), None, "empty", "at least one example"),
        (nn.Linear(3, 2), None, None, r"float32 \[2, 2\], of which it says: mat1"),
        (nn.Linear(2, 2), None, "dtype", r"int64 \[2, 2\], of which it says"),
        (nn.Linear(2, 2, device="meta"), None, None, "on one device, with values. Got meta"),
        (
            nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, device="meta")),
            None,
            None,
            "Got cpu, meta",
        ),
    ],
)
def test_bad_input(model: nn.Module, loss: Any, change: str | None, message: str) -> None:
    x, y = torch.ones(4, 2), torch.tensor([0, 1, 0, 1])
    if change == "nan target input":
        x[2, 1] = torch.nan
    elif change == "label":
        y[1] = 7
    elif change == "length":
        y = y[:3]
    elif change == "dtype":
        x = x.long()
    elif change == "empty":
        x, y = x[:0], y[:0]
    with pytest.raises((InvalidInput, NotDeterministic, UnsupportedModel), match=message):
        build(model, loss or whence.CrossEntropy(), x, y)


def test_labels_may_be_true_and_false() -> None:
    x, y = torch.randn(4, 2), torch.tensor([True, False, True, True])
    objective = build(nn.Linear(2, 2), whence.CrossEntropy(), x, y)
    assert objective.train.targets.tolist() == [1, 0, 1, 1]


def test_a_loss_that_is_not_finite_names_the_example() -> None:
    x = torch.ones(4, 1)
    x[3] = -2
    with pytest.raises(InvalidInput, match="training example 3"):
        build(_Plain(), lambda f, y: f[:, 0].log(), x, torch.zeros(4))


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
@pytest.mark.parametrize("solver", [None, whence.EKFAC(), CG()])
@pytest.mark.parametrize("convex", [True, False])
def test_a_loss_that_is_not_finite_is_named_wherever_it_is(solver: Any, convex: bool) -> None:
    x, y = torch.ones(40, 1), torch.zeros(40)
    x[29] = -2  # the slope of its logarithm is finite all the same
    objective = build(_Plain(), lambda f, y: f[:, 0].log(), x, y, l2=5.0, convex=convex)
    with pytest.raises(InvalidInput, match="Got nan on training example 29"):
        whence.influence(objective, (x[:2], y[:2]), solver=solver, damping=1.0)
    with pytest.raises(InvalidInput, match="Got nan on training example 29"):
        whence.projected(objective, (x[:2], y[:2]))


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
def test_a_query_whose_loss_is_not_finite_is_refused() -> None:
    x, y = torch.ones(4, 1), torch.zeros(4)
    objective = build(_Plain(), lambda f, y: f[:, 0].log(), x, y, l2=5.0)
    with pytest.raises(InvalidInput, match="Check the queries"):
        whence.influence(objective, (-x[:1], y[:1]), damping=1.0)


class _Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(1, 1, bias=False)
        nn.init.ones_(self.inner.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def test_a_call_is_what_the_model_does() -> None:
    model, data = ZOO["tied"]()
    objective = whence.from_torch(model, whence.CrossEntropy(), data)
    torch.testing.assert_close(objective.outputs(objective.train), model(data[0]).detach())


def test_no_more_outputs_are_held_for_the_checks_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Eight texts of 1,024 tokens have 1.6 GB of logits, three times GPT-2; two are checked."""
    monkeypatch.setattr(checks, "_HELD", 40)
    sizes: list[int] = []

    def outputs(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return x.repeat(1, width)

    width = 5
    assert len(check_repeatable(outputs, torch.randn(8, 2))) == 4
    assert max(sizes) == 4
    width, sizes[:] = 500, []
    assert len(check_repeatable(outputs, torch.randn(8, 2))) == 2
    assert max(sizes) == 2
    with pytest.raises(UnsupportedModel, match="one example each"):
        check_repeatable(lambda x: (x - x.mean(0)).repeat(1, width), torch.randn(8, 2))
    with pytest.raises(NotDeterministic):
        check_repeatable(lambda x: torch.randn(len(x), 2 * width), torch.randn(8, 2))
