"""The damping at which a quadratic model promises no more than the loss can give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import whence
from whence.curvature import trust_region
from whence.curvature.damping import choose, mean_eigenvalue
from whence.curvature.exact import GGN
from whence.curvature.kronecker import KroneckerSolver
from whence.linalg import materialize
from whence.network.objective import ModuleObjective
from whence.objective.objective import risk, risk_gradient

pytestmark = pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")

SOLVERS = [whence.EKFAC(), whence.EKFAC(fisher="empirical"), whence.KFAC()]


def network(l2: float = 1e-3, epochs: int = 0, loss: Any = None, n: int = 60) -> ModuleObjective:
    """A network of 11 parameters on three classes that overlap."""
    torch.manual_seed(0)
    x = torch.randn(n, 1).double()
    y = (x[:, 0] + torch.randn(n) > 0).long()
    model: nn.Module = nn.Sequential(
        nn.Linear(1, 2), nn.Tanh(), nn.Linear(2, 2, bias=False), Ends()
    )
    model = model.double()
    if epochs:
        recipe = whence.Recipe(learning_rate=0.5, batch_size=n, epochs=epochs, weight_decay=l2)
        model = whence.train(model, whence.CrossEntropy(), (x, y), recipe).model
    return whence.from_torch(model, loss or whence.CrossEntropy(), (x, y), l2=l2)


class Ends(nn.Module):
    """A shift of each output."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor([0.3, -1.0]))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift


def predicted(matrix: Tensor, objective: ModuleObjective, damping: float) -> float:
    """How far the damped model expects R to fall, by a solve with the matrix."""
    slope = risk_gradient(objective)
    damped = matrix + damping * torch.eye(len(matrix)).double()
    return float(slope @ torch.linalg.solve(damped, slope)) / 2


@pytest.mark.parametrize("solver", SOLVERS)
def test_an_unfinished_fit_is_damped_until_half_of_the_loss_is_promised(
    solver: KroneckerSolver,
) -> None:
    objective = network(epochs=2)
    choice = choose(objective, solver=solver)
    approximation = solver.approximate(GGN(objective))
    found = predicted(materialize(approximation.operator), objective, choice.damping)
    assert "half" in choice.reason
    assert found == pytest.approx(risk(objective) / 2, rel=1e-4)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_finished_fit_is_damped_by_a_hundredth_of_the_mean(solver: KroneckerSolver) -> None:
    objective = network(epochs=2_000)
    choice = choose(objective, solver=solver)
    approximation = solver.approximate(GGN(objective))
    assert choice.damping == pytest.approx(approximation.mean_eigenvalue / 100, rel=1e-9)
    found = predicted(materialize(approximation.operator), objective, choice.damping)
    assert found < risk(objective) / 2
    assert "a hundredth of the mean" in choice.reason


def test_gauss_newton_promises_a_tenth() -> None:
    """The parameters are fewer than the Lanczos steps, which are then exact."""
    objective = network(epochs=4)
    choice = choose(objective, curvature="ggn")
    found = predicted(materialize(GGN(objective)), objective, choice.damping)
    assert "a tenth" in choice.reason
    assert found == pytest.approx(risk(objective) / 10, rel=1e-4)
    assert choice.damping > mean_eigenvalue(objective)


def test_gauss_newton_of_a_finished_fit_takes_its_mean_eigenvalue() -> None:
    objective = network(epochs=2_000)
    choice = choose(objective, curvature="ggn")
    assert choice.damping == mean_eigenvalue(objective)
    assert "the mean" in choice.reason


def shifted(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss whose zero says nothing."""
    return nn.functional.cross_entropy(outputs, targets, reduction="none") - 100


@pytest.mark.parametrize("solver", [None, *SOLVERS])
def test_a_loss_that_may_be_negative_bounds_nothing(solver: KroneckerSolver | None) -> None:
    objective = network(loss=shifted)
    choice = choose(objective, solver=solver, curvature="ggn")
    assert "the mean" in choice.reason
    if solver is None:
        assert choice.damping == mean_eigenvalue(objective)
    else:
        assert choice.damping == solver.approximate(GGN(objective)).mean_eigenvalue


@pytest.mark.parametrize("solver", [whence.EKFAC(), whence.KFAC()])
def test_damping_has_the_unit_of_the_loss(solver: KroneckerSolver) -> None:
    def hundredfold(outputs: Tensor, targets: Tensor) -> Tensor:
        return 100 * nn.functional.cross_entropy(outputs, targets, reduction="none")

    both = network(l2=0.0), network(l2=0.0, loss=hundredfold)
    one, other = (choose(objective, solver=solver).damping for objective in both)
    assert other == pytest.approx(100 * one, rel=1e-3)


def test_of_many_examples_two_samples_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust_region, "_SAMPLE", 20)
    objective = network()
    found = trust_region.slope(objective)
    chosen = np.random.default_rng(0).permutation(60)[:40]
    halves = [objective.restricted(part) for part in (chosen[:20], chosen[20:])]
    torch.testing.assert_close(found.left, risk_gradient(halves[0]))
    torch.testing.assert_close(found.right, risk_gradient(halves[1]))
    assert found.risk == pytest.approx(sum(map(risk, halves)) / 2)


@given(
    slopes=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=5),
    bound=st.floats(1e-6, 1e6),
    least=st.floats(1e-9, 1e3),
    times=st.floats(1.5, 1e6),
)
def test_the_least_damping_within_a_bound(
    slopes: list[float], bound: float, least: float, times: float
) -> None:
    def decrease(damping: float) -> float:
        return sum(square / (square + damping) for square in slopes)

    most = least * times
    found = trust_region.within(decrease, bound, least, most)
    assert least <= found <= most * (1 + 1e-9)
    assert found >= most * (1 - 1e-9) or decrease(found) <= bound * (1 + 1e-4)
    assert found == least or decrease(found * (1 - 1e-4)) >= bound * (1 - 1e-4)


def test_two_samples_may_disagree_on_the_sign_of_a_decrease() -> None:
    """Of leftᵀ (C + λ I)⁻¹ right nothing says that it stays positive."""
    found = trust_region.within(lambda damping: 1 / damping - 2, 0.5, 0.01, 10.0)
    assert found == pytest.approx(0.4, rel=1e-5)


@pytest.mark.parametrize("solver", [None, whence.EKFAC()])
def test_damping_has_an_upper_bound(solver: KroneckerSolver | None) -> None:
    """As for a penalty that the objective was not told of: the gradient is that of a loss alone."""
    objective = network()
    choice = choose(objective, solver=solver, curvature="ggn")
    if solver is None:
        assert choice.damping == 10 * mean_eigenvalue(objective)
    else:
        assert choice.damping == 3 * solver.approximate(GGN(objective)).mean_eigenvalue
    assert "not finished" in choice.reason
