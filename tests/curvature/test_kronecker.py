"""Kronecker factors against the dense Gauss–Newton matrix, on models of eight kinds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import whence
from tests.objective.zoo import ZOO, objective_of
from whence.curvature.exact import GGN
from whence.curvature.kronecker import EKFAC, KFAC, kronecker
from whence.errors import InvalidInput, NotPositiveDefinite, UnsupportedModel
from whence.linalg import CG, BlockDiagonal, Diagonal, KroneckerEigen, materialize
from whence.linalg.structured import Reordered
from whence.objective.module import ModuleObjective

_EXACT = {"rtol": 1e-9, "atol": 1e-11}


def blocks(operator: object) -> list[tuple[object, Tensor]]:
    """The blocks with the places of their parameters."""
    assert isinstance(operator, Reordered)
    assert isinstance(operator.inner, BlockDiagonal)
    sizes = [block.shape[0] for block in operator.inner.blocks]
    return list(zip(operator.inner.blocks, operator.order.split(sizes), strict=True))


@pytest.mark.parametrize("name", ["mlp", "cnn", "bert", "attention"])
def test_corrected_eigenvalues_are_the_true_second_moments(name: str) -> None:
    objective = objective_of(name)
    exact = materialize(GGN(objective))
    found = 0
    for block, places in blocks(kronecker(objective, fisher="expected")):
        if isinstance(block, KroneckerEigen):
            Q = torch.kron(block.left, block.right)
            inside = exact[places][:, places]
            torch.testing.assert_close((Q.T @ inside @ Q).diagonal(), block.eigenvalues(), **_EXACT)
            found += 1
    assert found >= 1


@pytest.mark.parametrize("name", ["cnn", "bert"])
def test_small_parameters_have_their_exact_block(name: str) -> None:
    objective = objective_of(name)
    exact = materialize(GGN(objective))
    kinds = [type(block).__name__ for block, _ in blocks(kronecker(objective, fisher="expected"))]
    assert "LowRank" in kinds
    for block, places in blocks(kronecker(objective, fisher="expected")):
        if type(block).__name__ == "LowRank":
            torch.testing.assert_close(materialize(block), exact[places][:, places], **_EXACT)


@pytest.mark.parametrize("name", ZOO)
def test_every_parameter_is_placed_once(name: str) -> None:
    objective = objective_of(name)
    operator = kronecker(objective)
    assert isinstance(operator, Reordered)
    assert operator.order.sort().values.tolist() == list(range(len(objective.params)))
    assert float(operator.eigenvalues().min()) >= 0.1 - 1e-12  # the penalty


@pytest.mark.parametrize("name", ZOO)
def test_the_correction_never_goes_further_off(name: str) -> None:
    objective = objective_of(name)
    exact = materialize(GGN(objective))
    fisher = "expected"
    near = (materialize(kronecker(objective, fisher=fisher)) - exact).norm()
    far = (materialize(kronecker(objective, corrected=False, fisher=fisher)) - exact).norm()
    assert near <= far * (1 + 1e-12)


def test_exact_for_one_constant_input() -> None:
    x = torch.ones(6, 1, dtype=torch.float64) * torch.tensor([0.5, -1.0, 2.0])
    model = nn.Linear(3, 4).double()
    objective = whence.from_torch(model, whence.CrossEntropy(), (x, torch.arange(6) % 4))
    exact = materialize(GGN(objective))
    for corrected in (True, False):
        approximate = materialize(kronecker(objective, corrected=corrected))
        torch.testing.assert_close(approximate, exact, **_EXACT)


def test_sampled_directions_are_unbiased() -> None:
    objective = objective_of("mlp")
    exact = kronecker(objective, corrected=False, fisher="expected")
    draws = [
        materialize(kronecker(objective, corrected=False, fisher="sampled", seed=seed))
        for seed in range(400)
    ]
    mean, error = torch.stack(draws).mean(0), torch.stack(draws).std(0) / 20
    off = (mean - materialize(exact)).abs() > 5 * error + 1e-9
    assert float(off.double().mean()) < 0.01


def test_squared_error_has_every_direction() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(9, 3).double(), torch.randn(9, 2).double()
    model = nn.Linear(3, 2).double()
    objective = whence.from_torch(model, whence.SquaredError(), (x, y))
    exact = materialize(GGN(objective))
    torch.testing.assert_close(materialize(kronecker(objective)), exact, **_EXACT)


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
def test_preconditioned_iteration_ends_at_the_exact_answer() -> None:
    objective = objective_of("mlp")
    query = (objective.train.inputs[:2], objective.train.targets[:2])
    damping = 1e-3
    exact = _dense_influence(objective, damping)
    alone = whence.influence(objective, query, solver=EKFAC(), damping=damping).values
    solver = CG(rtol=1e-10, preconditioner=EKFAC())
    iterated = whence.influence(objective, query, solver=solver, damping=damping)
    np.testing.assert_allclose(iterated.values, exact, rtol=1e-7)
    assert np.corrcoef(alone[0], exact[0])[0, 1] > 0.7


def test_preconditioning_saves_products() -> None:
    torch.manual_seed(0)
    x = torch.randn(300, 20).double() * torch.logspace(0, -2, 20).double()
    model = nn.Sequential(nn.Linear(20, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    objective = whence.from_torch(model, whence.CrossEntropy(), (x, torch.randint(3, (300,))))
    A = GGN(objective).damped(1e-5)
    b = torch.randn(len(objective.params), 2).double()
    plain = CG(rtol=1e-8).prepare(A).solve(b)
    started = CG(rtol=1e-8, preconditioner=EKFAC()).prepare(A).solve(b)
    assert started.converged
    assert started.iterations < 0.8 * plain.iterations


def _dense_influence(objective: ModuleObjective, damping: float) -> np.ndarray:
    matrix = materialize(GGN(objective))
    matrix += damping * torch.eye(len(matrix))
    n = len(objective.train)
    G = objective.gradient_sum(objective.train, objective.loss, torch.eye(n).double())
    scores = G[:, :2].T @ torch.linalg.solve(matrix, G) * objective.weights / n
    return np.asarray(scores)


def test_penalty_or_damping_is_needed() -> None:
    x, y = torch.randn(3, 5), torch.tensor([0, 1, 0])
    objective = whence.from_torch(nn.Linear(5, 2), whence.CrossEntropy(), (x, y))
    with pytest.raises(NotPositiveDefinite, match="damped"):
        whence.influence(objective, (x[:1], y[:1]), solver=KFAC(), damping=0.0)


def test_models_without_layers_are_refused() -> None:
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    X, y = load_iris(return_X_y=True)
    objective = whence.from_sklearn(LogisticRegression(max_iter=5000).fit(X, y), X, y)
    with pytest.raises(UnsupportedModel, match="leave out solver"):
        whence.influence(objective, (X[:1], y[:1]), solver=EKFAC())


def test_diagonal_of_an_embedding() -> None:
    objective = objective_of("gpt2")
    kinds = {type(block) for block, _ in blocks(kronecker(objective))}
    assert Diagonal in kinds or KroneckerEigen in kinds


def test_factors_that_overflow_name_their_module() -> None:
    x = torch.randn(6, 3) * 1e25  # finite, but not its square
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
    with torch.no_grad():
        model[0].weight.mul_(1e-26)
    objective = whence.from_torch(model, whence.CrossEntropy(), (x, torch.arange(6) % 3))
    with pytest.raises(InvalidInput, match="NaN or infinity in module '0'"):
        kronecker(objective)
