"""Strict minima: which curvature is inverted, and that it is the better one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

import whence
from whence.curvature import minimum as rule
from whence.curvature.damping import choose, mean_eigenvalue
from whence.curvature.exact import GGN, Hessian
from whence.curvature.kronecker import KroneckerSolver
from whence.curvature.minimum import minimum
from whence.errors import InvalidInput, NotPositiveDefinite
from whence.linalg import Cholesky, Dense, Diagonal, materialize
from whence.linalg.direct import DirectInverse
from whence.network.objective import ModuleObjective
from whence.objective.cache import is_cached
from whence.objective.objective import risk, risk_gradient

pytestmark = pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")


def network(l2: float = 1e-2, seed: int = 1) -> tuple[ModuleObjective, tuple[Tensor, Tensor]]:
    """A small network at its start, with queries."""
    torch.manual_seed(seed)
    truth = torch.randn(4, 3).double()
    x, noise = torch.randn(80, 4).double(), torch.randn(80, 3).double()
    y = (x @ truth + noise).argmax(1)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    objective = whence.from_torch(model, whence.CrossEntropy(), (x[:60], y[:60]), l2=l2)
    return objective, (x[60:], y[60:])


def trained(objective: ModuleObjective, steps: int = 200) -> ModuleObjective:
    """The objective at a local minimum nearby, by Newton steps on the absolute eigenvalues."""
    for _ in range(steps):
        slope = risk_gradient(objective)
        if float(slope.norm()) < 1e-11:
            break
        values, vectors = torch.linalg.eigh(objective.dense_hessian())
        step = vectors @ ((vectors.T @ slope) / values.abs().clamp_min(1e-6))
        size = 1.0
        while risk(objective.at(objective.params - size * step)) > risk(objective) + 1e-15:
            size /= 2
        objective = objective.at(objective.params - size * step)
    return objective


@pytest.fixture(scope="module")
def converged() -> tuple[ModuleObjective, tuple[Tensor, Tensor]]:
    start, queries = network()
    return trained(start), queries


def test_at_a_strict_minimum_the_exact_hessian_is_inverted_as_it_is(
    converged: tuple[ModuleObjective, tuple[Tensor, Tensor]],
) -> None:
    objective, queries = converged
    smallest = float(torch.linalg.eigvalsh(objective.dense_hessian())[0])
    assert smallest > 0
    assert minimum(objective).strict
    assert minimum(objective).smallest == pytest.approx(smallest)
    found = whence.influence(objective, queries)
    assert found.diagnostics.curvature == "Hessian"
    assert found.diagnostics.damping == 0
    assert "strict local minimum" in found.diagnostics.damping_reason
    G = objective.gradient_columns(objective.train, objective.loss)
    Q = objective.gradient_columns(objective.examples(queries), objective.loss)
    exact = Q.T @ torch.linalg.solve(objective.dense_hessian(), G) / 60
    np.testing.assert_allclose(found.values, exact, rtol=1e-8)


def test_it_correlates_better_with_retraining_than_the_damped_gauss_newton_matrix(
    converged: tuple[ModuleObjective, tuple[Tensor, Tensor]],
) -> None:
    objective, queries = converged
    examples = objective.examples(queries)
    before = objective.loss(objective.outputs(examples), examples.targets)
    actual = []
    for i in range(0, 60, 5):
        weights = objective.weights.clone()
        weights[i] = 0
        refit = trained(objective.reweighted(weights))
        actual.append(refit.loss(refit.outputs(examples), examples.targets) - before)
    truth = torch.stack(actual, 1).numpy().ravel()
    where = list(range(0, 60, 5))
    r = {
        name: np.corrcoef(
            whence.influence(objective, queries, indices=where, curvature=name).values.ravel(),
            truth,
        )[0, 1]
        for name in ("auto", "hessian", "ggn")
    }
    assert r["auto"] == r["hessian"]
    assert r["auto"] > r["ggn"] + 0.05
    assert r["auto"] > 0.65


def test_elsewhere_gauss_newton_is_damped_and_the_reason_told(
    converged: tuple[ModuleObjective, tuple[Tensor, Tensor]],
) -> None:
    start, _ = network()
    far = choose(start)
    assert isinstance(far.curvature, GGN)
    assert far.damping > 0
    assert "Hessian has eigenvalues from -" in far.reason
    near = converged[0].at(converged[0].params + 1e-3)
    assert isinstance(choose(near).curvature, Hessian)
    x, y = start.train.inputs, start.train.targets
    linear = whence.from_torch(nn.Linear(4, 3).double(), whence.CrossEntropy(), (x, y), l2=1e-2)
    assert isinstance(choose(linear).curvature, GGN)
    assert "not converged: finishing the fit" in choose(linear).reason
    asked = choose(start, curvature="hessian")
    assert (asked.name, far.name) == ("Hessian", "Gauss-Newton matrix")
    assert asked.damping == far.damping >= mean_eigenvalue(start)
    assert "Hessian has eigenvalues from -" in asked.reason
    assert asked.hessian is not None


def test_without_a_penalty_flat_directions_are_damped() -> None:
    objective = trained(network(l2=0.0)[0], steps=60)
    assert isinstance(choose(objective).curvature, GGN)


@pytest.mark.parametrize("dense", [True, False])
def test_both_ways_to_the_smallest_eigenvalue_agree(
    dense: bool,
    converged: tuple[ModuleObjective, tuple[Tensor, Tensor]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, _ = network()
    monkeypatch.setattr(rule, "DENSE", len(start.params) - (not dense))
    for objective, strict in ((converged[0].at(converged[0].params), True), (start, False)):
        found = minimum(objective)
        assert found.strict == strict
        values = torch.linalg.eigvalsh(objective.dense_hessian())
        if strict:
            assert found.smallest == pytest.approx(float(values[0]), rel=1e-6)
            assert found.largest == pytest.approx(float(values[-1]), rel=1e-6)
        assert dense or is_cached(objective, (rule.ends, len(values))) == strict
        assert (found.hessian is not None) == (dense and found.smallest is not None)


def test_the_user_names_the_curvature(
    converged: tuple[ModuleObjective, tuple[Tensor, Tensor]],
) -> None:
    objective, queries = converged
    names = {
        name: whence.influence(objective, queries, curvature=name, damping=0.1).diagnostics
        for name in ("hessian", "ggn", "auto")
    }
    assert names["hessian"].curvature == names["auto"].curvature == "Hessian"
    assert names["ggn"].curvature == "Gauss-Newton matrix"
    assert all(found.damping == 0.1 for found in names.values())
    with pytest.raises(InvalidInput, match="curvature to be one of"):
        whence.influence(objective, queries, curvature="fisher")
    with pytest.raises(InvalidInput, match="approximates the Gauss-Newton matrix"):
        whence.influence(objective, queries, curvature="hessian", solver=whence.EKFAC())


def test_an_indefinite_hessian_asked_for_is_damped_or_refused() -> None:
    start, queries = network()
    found = whence.influence(start, queries, curvature="hessian", damping=5.0).diagnostics
    assert found.curvature == "Hessian"
    with pytest.raises(NotPositiveDefinite):
        whence.influence(start, queries, curvature="hessian", damping=0.0)


def test_a_torch_module_and_the_same_model_of_scikit_learn_agree() -> None:
    x, y = load_digits(return_X_y=True)
    x = x / 16.0
    data, queries = (x[:300], y[:300]), (x[300:304], y[300:304])
    l2 = 1e-2
    model = LogisticRegression(C=1 / (300 * l2), fit_intercept=False, tol=1e-10, max_iter=5_000)
    linear = whence.from_sklearn(model.fit(*data), *data)
    module = nn.Linear(64, 10, bias=False).double()
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(model.coef_))
    tensors = [tuple(map(torch.from_numpy, pair)) for pair in (data, queries)]
    objective = whence.from_torch(module, whence.CrossEntropy(), tensors[0], l2=l2)
    expected = whence.influence(linear, queries)
    found = whence.influence(objective, tensors[1])
    np.testing.assert_allclose(found.values, expected.values, atol=1e-6 * expected.values.std())
    assert found.diagnostics.damping == expected.diagnostics.damping == 0
    for said in (whence.diagnose(linear), whence.diagnose(objective)):
        assert said.damping == 0
        assert said.curvature == "Hessian"
        assert "none" in str(said)


def unused(rows: int) -> ModuleObjective:
    """A model of words, with a number of rows of its embedding that no example reads."""
    torch.manual_seed(0)
    table = nn.Embedding(6 + rows, 4)
    head = nn.Sequential(nn.Flatten(), nn.Linear(8, 3))
    with torch.no_grad():
        table.weight[:6] = torch.linspace(-1, 1, 24).reshape(6, 4)
    generator = torch.Generator().manual_seed(1)
    head[1].weight.data = torch.randn(3, 8, generator=generator)
    head[1].bias.data = torch.zeros(3)
    tokens = torch.randint(6, (40, 2), generator=generator)
    targets = torch.arange(40) % 3
    model = nn.Sequential(table, head)
    return whence.from_torch(model.double(), whence.CrossEntropy(), (tokens, targets), l2=1e-3)


@pytest.mark.parametrize("solver", [None, whence.EKFAC(fisher="expected"), whence.KFAC()])
def test_damping_does_not_depend_on_parameters_that_nothing_reaches(solver: Any) -> None:
    # A small embedding has its block, a large one its diagonal: two of one kind are compared.
    sizes = (0, 500) if solver is None else (500, 1_000)
    few, many = (choose(unused(rows), solver=solver).damping for rows in sizes)
    assert many == pytest.approx(few, rel=0.3 if solver is None else 1e-9)


def test_the_mean_eigenvalue_is_the_trace_over_the_parameters_reached() -> None:
    objective = unused(50)
    diagonal = materialize(GGN(objective)).diagonal() - objective.l2
    reached = int((diagonal > 1e-12).sum())
    assert reached == len(diagonal) - 50 * 4
    expected = float(diagonal.sum()) / reached
    assert mean_eigenvalue(objective) == pytest.approx(expected, rel=0.3)
    solver: KroneckerSolver = whence.EKFAC(fisher="expected")
    assert solver.approximate(GGN(objective)).mean_eigenvalue == pytest.approx(expected, rel=1e-6)


def test_the_mean_eigenvalue_of_one_parameter_is_its_own() -> None:
    x = torch.linspace(-1, 2, 9).double().reshape(-1, 1)
    line = nn.Linear(1, 1, bias=False).double()
    objective = whence.from_torch(line, whence.SquaredError(), (x, x[:, 0]), l2=0.7)
    assert mean_eigenvalue(objective) == pytest.approx(float(x.square().mean()))


def test_random_sums_are_as_long_as_the_gradient_of_an_example() -> None:
    """In the mean square over the signs: the products of different examples cancel."""
    objective = network()[0]
    sums = rule._random_sums(objective)
    G = objective.gradient_columns(objective.train, objective.loss) / len(objective.train)
    typical = float(G.square().sum(0).mean())
    assert float(sums.square().sum(0).mean()) == pytest.approx(typical, rel=0.5)
    assert len({round(float(size), 12) for size in sums.norm(dim=0)}) == sums.shape[1]


def test_the_decrement_is_that_of_the_dense_matrix(
    converged: tuple[ModuleObjective, tuple[Tensor, Tensor]],
) -> None:
    objective = converged[0].at(converged[0].params + 1e-3)
    H, slope = objective.dense_hessian(), risk_gradient(objective)
    found = rule.decrement(objective, Cholesky().prepare(Dense(H)))
    step = torch.linalg.solve(H, slope)
    torch.testing.assert_close(found.step, step)
    assert found.gradient_norm == pytest.approx(float(slope.norm()))
    G = objective.gradient_columns(objective.train, objective.loss)
    G = G * objective.weights / len(objective.train)
    typical = (G * torch.linalg.solve(H, G)).sum(0).mean().sqrt()
    assert found.in_examples == pytest.approx(float((slope @ step).sqrt() / typical), rel=0.3)


@pytest.mark.parametrize(("far", "strict"), [(0.7, True), (1.5, False)])
def test_converged_is_nearer_than_one_typical_example(
    far: float, strict: bool, converged: tuple[ModuleObjective, tuple[Tensor, Tensor]]
) -> None:
    best, away = converged[0], torch.full_like(converged[0].params, 1e-3)

    def distance(objective: ModuleObjective) -> float:
        inverse = Cholesky().prepare(Dense(objective.dense_hessian()))
        return rule.decrement(objective, inverse).in_examples

    unit = distance(best.at(best.params + away))
    objective = best.at(best.params + far / unit * away)
    assert distance(objective) == pytest.approx(far, rel=0.2)
    assert minimum(objective).strict == strict


def test_a_negative_estimate_is_no_length() -> None:
    objective = network()[0]
    closed = Diagonal(torch.full_like(objective.params, -1.0))
    assert rule.decrement(objective, DirectInverse(closed, closed, 0.1)).in_examples == 0


def test_where_the_gradient_is_large_no_curvature_is_computed(
    converged: tuple[ModuleObjective, tuple[Tensor, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = converged[0].at(converged[0].params + 1e-2)
    assert minimum(objective).largest is not None
    monkeypatch.setattr(rule, "_FAR", 0.01)
    far = minimum(objective.at(objective.params))
    assert not far.strict
    assert "not converged: finishing the fit" in far.reason
    assert far.largest is None


def test_ratios_of_nothing() -> None:
    assert [rule._ratio(*pair) for pair in ((0, 0), (1, 0), (3, 2))] == [0.0, float("inf"), 1.5]


def test_what_counts_as_positive_depends_on_the_precision() -> None:
    objective = network()[0]
    assert rule.floor(objective, -2.0) == pytest.approx(2e-9)
    data = torch.ones(3, 2), torch.arange(3)
    single = whence.from_torch(nn.Linear(2, 3), whence.CrossEntropy(), data)
    assert rule.floor(single, 2.0) == pytest.approx(2e3 * torch.finfo(torch.float32).eps)
