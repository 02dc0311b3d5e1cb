"""How far a Kronecker inverse is from the exact Gauss–Newton system."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import whence
from tests.network.zoo import objective_of
from whence.curvature import fidelity
from whence.curvature.exact import GGN
from whence.curvature.fidelity import approximation_error
from whence.linalg import CG, materialize
from whence.network.objective import ModuleObjective

_DAMPING = 0.05


def exact_error(objective: ModuleObjective, solver: whence.EKFAC | whence.KFAC) -> float:
    """The relative residual in the dense Gauss–Newton system, of all training gradients."""
    A = materialize(GGN(objective)) + _DAMPING * torch.eye(len(objective.params)).double()
    generator = torch.Generator().manual_seed(1)
    n = len(objective.train)
    order = np.sort(np.random.default_rng(1).permutation(n)[-64:])
    signs = torch.randint(0, 2, (len(order), 1), generator=generator).mul(2).sub(1).double()
    some = objective.train.subset(order)
    b = objective.gradient_columns(some, objective.loss) @ signs
    x = solver.prepare(GGN(objective).damped(_DAMPING)).matmat(b)
    return float((b - A @ x).norm() / b.norm())


@pytest.mark.parametrize("solver", [whence.EKFAC(), whence.KFAC()])
@pytest.mark.parametrize("name", ["mlp", "cnn", "gpt2"])
def test_on_few_examples_it_is_exact(name: str, solver: whence.EKFAC | whence.KFAC) -> None:
    objective = objective_of(name)
    inverse = solver.prepare(GGN(objective).damped(_DAMPING))
    found = approximation_error(objective, inverse)
    assert found == pytest.approx(exact_error(objective, solver), rel=1e-9)
    assert found > 0.01


def test_it_is_zero_where_the_approximation_is_exact() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(9, 3).double(), torch.randn(9, 2).double()
    objective = whence.from_torch(nn.Linear(3, 2).double(), whence.SquaredError(), (x, y), l2=0.1)
    inverse = whence.EKFAC().prepare(GGN(objective).damped(0.2))
    assert approximation_error(objective, inverse) < 1e-9


def test_without_a_gradient_nothing_is_measured() -> None:
    """Every row beyond its margin: no gradient is there to be solved for."""
    torch.manual_seed(0)
    x = torch.randn(80, 3, dtype=torch.float64)
    y = (x[:, 0] > 0).long()
    x[:, 0] += 2.0 * y - 1
    model = nn.Sequential(nn.Linear(3, 1, bias=False)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[2.0, 0.0, 0.0]]))
    objective = whence.from_torch(model, whence.SquaredHinge(), (x, y), l2=0.1)
    inverse = whence.EKFAC().prepare(GGN(objective).damped(_DAMPING))
    assert approximation_error(objective, inverse) is None


def test_two_samples_estimate_it_without_their_own_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(600, 6, generator=generator, dtype=torch.float64)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    objective = whence.from_torch(model, whence.CrossEntropy(), (x, x[:, :3].argmax(1)))
    inverse = whence.KFAC().prepare(GGN(objective).damped(_DAMPING))
    exact = exact_error(objective, whence.KFAC())
    monkeypatch.setattr(fidelity, "_SHARE", 2)
    assert approximation_error(objective, inverse) == pytest.approx(exact, rel=0.15)
    monkeypatch.undo()
    assert fidelity._error(objective, inverse) == pytest.approx(exact, rel=0.5)  # 75 of 600


def test_the_estimate_is_a_product_over_two_disjoint_halves() -> None:
    """From 160 examples, of which ten would be a share: the least is 32, sixteen in each half."""
    torch.manual_seed(0)
    x = torch.randn(160, 4, dtype=torch.float64)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)).double()
    objective = whence.from_torch(model, whence.CrossEntropy(), (x, x[:, :3].argmax(1)))
    inverse = whence.KFAC().prepare(GGN(objective).damped(_DAMPING))
    order = np.random.default_rng(1).permutation(160)
    signs = (
        torch.randint(0, 2, (64, 1), generator=torch.Generator().manual_seed(1)).double() * 2 - 1
    )
    some = objective.train.subset(np.sort(order[-64:]))
    b = objective.gradient_columns(some, objective.loss) @ signs
    x = inverse.matmat(b)
    gaps = []
    for half in (order[:16], order[16:32]):
        G = materialize(GGN(objective.restricted(half)))
        gaps.append(b - G @ x - _DAMPING * x)
    expected = float((gaps[0] * gaps[1]).sum() / b.square().sum())
    assert expected > 0
    assert approximation_error(objective, inverse) == pytest.approx(expected**0.5)


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
def test_every_kronecker_result_says_it_and_claims_no_residual() -> None:
    objective = objective_of("mlp")
    query = objective.train.subset(np.arange(2))
    for order in ("first", "newton"):
        options = {"order": order, "solver": whence.EKFAC(), "damping": _DAMPING}
        found = whence.influence(objective, query, **options).diagnostics
        expected = exact_error(objective, whence.EKFAC())
        assert found.approximation_error == pytest.approx(expected, rel=1e-9)
        assert found.residual is None
        assert "exact Gauss-Newton system" in str(found)
    iterated = whence.influence(objective, query, solver=CG(), damping=_DAMPING).diagnostics
    assert iterated.approximation_error is None
    assert iterated.residual < 1e-5


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
def test_refined_results_say_how_much_gradient_is_left() -> None:
    objective = objective_of("mlp")
    query = objective.train.subset(np.arange(2))
    options = {"order": "refined", "solver": whence.EKFAC(), "damping": 2.0}
    found = whence.influence(objective, query, indices=[1, 4], **options).diagnostics
    assert 1e-6 < found.residual < 10
    assert found.converged == (found.residual <= 0.1)
