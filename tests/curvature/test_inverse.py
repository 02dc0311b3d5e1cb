"""Scores in the eigenbasis against gradients that are formed and matrices that are inverted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import whence
from tests.curvature.approximations import kronecker
from tests.network.zoo import ZOO, objective_of
from whence.curvature.exact import GGN, Gradients
from whence.curvature.inverse import KroneckerInverse
from whence.curvature.kronecker import EKFAC, KFAC
from whence.curvature.prepare import prepare
from whence.errors import InvalidInput
from whence.linalg import Dense, materialize
from whence.network.objective import ModuleObjective
from whence.objective.measures import CallableMeasure

_DAMPING = 0.05
_EXACT = {"rtol": 1e-6, "atol": 1e-9}


def prepared(objective: ModuleObjective, solver: EKFAC | KFAC) -> KroneckerInverse:
    return solver.prepare(GGN(objective).damped(_DAMPING))


def rows(objective: ModuleObjective) -> Tensor:
    """The gradients of all training examples, one by one, [n, p]."""
    return objective.per_example.looped(
        objective.train.inputs, objective.train.targets, objective.loss.gradient
    )


@pytest.mark.parametrize("solver", [EKFAC(), KFAC(sharing="reduce")])
@pytest.mark.parametrize("name", ZOO)
def test_both_forms_are_those_of_the_dense_inverse(name: str, solver: EKFAC | KFAC) -> None:
    objective = objective_of(name, batch_size=3)
    if name == "bert" and solver == EKFAC():
        assert any(layer.one_position for layer in prepared(objective, solver).layers)
        assert not all(layer.one_position for layer in prepared(objective, solver).layers)
    matrix = materialize(kronecker(objective, corrected=solver.corrected, sharing=solver.sharing))
    inverse = torch.linalg.inv(matrix + _DAMPING * torch.eye(len(matrix)).double())
    G = rows(objective)
    queries = objective.train.subset(np.arange(2))
    found = prepared(objective, solver)
    left = Gradients(objective, queries, objective.loss)
    right = Gradients(objective, objective.train, objective.loss)
    torch.testing.assert_close(found.between(left, right)[0], G[:2] @ inverse @ G.T, **_EXACT)
    torch.testing.assert_close(found.quadratic(right), ((G @ inverse) * G).sum(1), **_EXACT)


@pytest.mark.parametrize("name", ["mlp", "bert", "tied"])
def test_products_come_in_tiles_and_rows_in_blocks(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = objective_of(name, batch_size=3)
    found = prepared(objective, EKFAC())
    left, right = (
        Gradients(objective, objective.train.subset(np.arange(k)), objective.loss) for k in (3, 7)
    )
    whole, own = found.between(left, right)[0], found.quadratic(right)
    monkeypatch.setattr("whence.curvature.exact._COLUMNS", 2 * len(objective.params))
    monkeypatch.setattr("whence.curvature.inverse._TILE", 20)
    torch.testing.assert_close(found.between(left, right)[0], whole, **_EXACT)
    torch.testing.assert_close(found.quadratic(right), own, **_EXACT)
    formed = Dense(torch.cat(list(left.row_blocks()), 1).T)
    torch.testing.assert_close(found.between(formed, right)[0], whole, **_EXACT)
    torch.testing.assert_close(found.quadratic(formed), own[:3], **_EXACT)
    assert found.between(formed, right)[1] is None


def test_no_gradient_is_formed_where_factors_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = objective_of("mlp")
    found = prepared(objective, EKFAC())
    right = Gradients(objective, objective.train, objective.loss)
    monkeypatch.setattr(ModuleObjective, "gradient_columns", None)  # a call would fail
    own, products = found.quadratic(right), found.between(right, right)[0]
    torch.testing.assert_close(products.diagonal(), own, **_EXACT)


def test_what_it_says_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, factored in (("mlp", True), ("gpt2", False)):
        objective = objective_of(name)
        found = EKFAC(rtol=0.03).prepare(GGN(objective).damped(_DAMPING))
        assert found.factors == factored
        assert found.gradient_rtol == (None if factored else 0.03)
        assert found.closed_form is found.closed
        few = Dense(torch.ones(2, len(objective.params)).double())
        assert found.downdated(few, torch.ones(2).double()) is not None
        monkeypatch.setattr("whence.curvature.inverse._DOWNDATE", 2 * len(objective.params) - 1)
        assert found.downdated(few, torch.ones(2).double()) is None
        monkeypatch.undo()


@pytest.mark.parametrize("b", [2, 300])
def test_rotating_either_side_gives_the_same(b: int) -> None:
    objective = wide(torch.float64)
    inverse = prepared(objective, KFAC())
    left = Gradients(objective, objective.train.subset(np.arange(3)), objective.loss)
    right = Gradients(objective, objective.train.subset(np.arange(b)), objective.loss)
    (a,), (c,) = left.row_blocks(), right.row_blocks()
    rotated = {layer: term[2] for layer, term in inverse._terms(left, b).items()}
    assert any(rotated.values()) == (b == 300)
    scale = float((a.T @ inverse.matmat(c)).std())
    found, _ = inverse.between(left, right)
    torch.testing.assert_close(found, a.T @ inverse.matmat(c), rtol=1e-5, atol=1e-6 * scale)


def test_other_measures_and_checkpoints_are_followed() -> None:
    objective = objective_of("mlp")
    objective = objective.at(objective.params * 1.1)
    found = prepared(objective, EKFAC())
    measure = CallableMeasure(objective.loss.margin)
    left = Gradients(objective, objective.train.subset(np.arange(3)), measure)
    right = Gradients(objective, objective.train, objective.loss)
    columns = [next(G.row_blocks()) for G in (left, right)]
    expected = columns[0].T @ found.matmat(columns[1])
    torch.testing.assert_close(found.between(left, right)[0], expected, **_EXACT)


def wide(dtype: torch.dtype) -> ModuleObjective:
    """A network whose activations have a decaying spectrum, as those of images have."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(40, 40, generator=generator, dtype=torch.float64)
    x = torch.randn(300, 40, generator=generator, dtype=torch.float64)
    x = x * torch.logspace(0, -2, 40).double() @ torch.linalg.qr(mix)[0]
    y = (x[:, :5]).argmax(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 5)).double()
    return whence.from_torch(model.to(dtype), whence.CrossEntropy(), (x.to(dtype), y))


@pytest.mark.parametrize("error", [1e-3, 1e-2])
def test_error_in_single_precision_is_as_stated_and_terms_are_few(error: float) -> None:
    exact, fast = wide(torch.float64), wide(torch.float32)
    values = []
    for objective, rtol in ((exact, None), (fast, error)):
        inverse = EKFAC(rtol=rtol).prepare(GGN(objective).damped(1e-4))
        queries = objective.train.subset(np.arange(20))
        left = Gradients(objective, queries, objective.loss)
        right = Gradients(objective, objective.train, objective.loss)
        values.append(inverse.between(left, right)[0].double())
    G = rows(exact)
    twin = G[:20] @ torch.linalg.solve(
        materialize(kronecker(exact)) + 1e-4 * torch.eye(G.shape[1]).double(), G.T
    )
    torch.testing.assert_close(values[0], twin, rtol=1e-5, atol=1e-6 * float(twin.std()))
    assert (values[1] - twin).norm() < 2 * error * twin.norm()
    assert max(len(u) for u, _ in inverse._separated.values()) < 40


def test_self_influence_is_the_diagonal_of_influence() -> None:
    objective = objective_of("mlp")
    with pytest.warns(whence.errors.NotConvergedWarning):
        scores = whence.influence(objective, objective.train, solver=EKFAC(), damping=0.1)
    own = whence.self_influence(objective, solver=EKFAC(), damping=0.1)
    np.testing.assert_allclose(np.diag(scores.values), own, rtol=1e-6)
    some = whence.self_influence(objective, solver=EKFAC(), damping=0.1, indices=[5, 2])
    np.testing.assert_allclose(some, own[[5, 2]], rtol=1e-9)


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
def test_answers_do_not_depend_on_batches() -> None:
    one, other = (objective_of("mlp", batch_size=size) for size in (2, 1024))
    a, b = (whence.influence(o, o.train, solver=EKFAC()) for o in (one, other))
    np.testing.assert_allclose(a.values, b.values, rtol=1e-9)


def test_the_mean_eigenvalue_is_that_of_what_the_data_contribute() -> None:
    objective = objective_of("mlp")
    found = EKFAC(fisher="empirical").approximate(GGN(objective))
    moment = (rows(objective).square() * objective.weights.unsqueeze(1)).mean(0)
    assert found.mean_eigenvalue == pytest.approx(float(moment.mean()), rel=1e-9)
    assert "EKFAC" in prepare(objective, 1, solver=EKFAC(fisher="empirical")).damping_reason


def test_queries_of_another_shape_are_refused() -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x).mean(1))

    x, y = torch.randn(5, 1, 3), torch.arange(5) % 2
    objective = whence.from_torch(Mean(), whence.CrossEntropy(), (x, y))
    with pytest.raises(InvalidInput, match="one position per example"):
        whence.influence(objective, (torch.randn(1, 2, 3), y[:1]), solver=EKFAC(), damping=0.1)


def test_an_impossible_error_is_refused() -> None:
    with pytest.raises(InvalidInput, match="rtol"):
        EKFAC(rtol=0.0)
