"""Which solver and which damping are picked, and that the reason is told."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import whence
from tests.linear.test_objective import _N, CASES, random
from tests.network.zoo import objective_of
from whence.curvature import precision
from whence.curvature import prepare as rule
from whence.curvature.damping import Choice, choose
from whence.curvature.exact import GGN, Hessian
from whence.curvature.prepare import prepare
from whence.errors import InvalidInput
from whence.linalg import CG, Cholesky, materialize
from whence.network.operations import forward_operations


def test_small_models_are_factored() -> None:
    prepared = prepare(CASES["softmax"](), 1)
    assert "Cholesky factor of the 18 x 18 Hessian" in prepared.solver
    assert prepared.damping == 0
    assert "convex" in prepared.damping_reason


def test_the_inverse_is_that_of_the_hessian_less_its_flat_directions() -> None:
    objective = CASES["softmax"]()
    inverse = materialize(prepare(objective, 1).inverse)
    flat = objective.flat_directions()
    exact = torch.linalg.pinv(objective.dense_hessian())
    off = torch.eye(len(flat)).double() - flat @ flat.T
    torch.testing.assert_close(off @ inverse @ off, exact, rtol=1e-8, atol=1e-8)


def test_what_was_prepared_is_kept_per_option() -> None:
    objective = CASES["softmax"]()
    assert prepare(objective, 1) is prepare(objective, 1)
    assert prepare(objective, 1, damping=0.1) is not prepare(objective, 1)
    solver = CG(rtol=1e-9)
    assert prepare(objective, 1, solver=solver).solver.endswith("as asked")


def test_damping_shifts_the_eigenvalues() -> None:
    plain, damped = (prepare(CASES["softmax"](), 1, damping=d) for d in (0.0, 0.25))
    assert plain.smallest_eigenvalue is not None
    assert damped.smallest_eigenvalue == pytest.approx(plain.smallest_eigenvalue + 0.25)


def test_without_convexity_gauss_newton_is_damped_by_its_mean_eigenvalue_or_more() -> None:
    objective = objective_of("mlp")
    choice = choose(objective)
    assert isinstance(choice.curvature, GGN)
    exact = float(materialize(choice.curvature).trace() - objective.l2.sum())
    assert choice.damping > 0.5 * exact / len(objective.params)
    assert "Gauss-Newton" in choice.reason
    assert isinstance(choose(replace(objective, convex=True)).curvature, Hessian)


def test_negative_damping_is_refused() -> None:
    with pytest.raises(InvalidInput, match="Got -1"):
        choose(CASES["softmax"](), damping=-1)


def test_a_singular_hessian_is_inverted_on_its_range() -> None:
    objective = CASES["squared"]()
    twice = objective.train.features.dense().clone()
    twice[:, 1] = twice[:, 0]
    train = replace(objective.train, features=type(objective.train.features)(twice))
    singular = replace(objective, train=train, l2=torch.zeros_like(objective.l2))
    prepared = prepare(singular, 1)
    hessian = singular.dense_hessian()
    inverse = torch.linalg.pinv(hessian, rtol=1e-12)
    torch.testing.assert_close(prepared.inverse.matmat(hessian), inverse @ hessian)
    assert "linear combinations" in prepared.notes[0]


def test_a_small_network_is_solved_by_gauss_newton() -> None:
    """What the words say: without convexity the factor is that of the Gauss-Newton matrix."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    data = torch.randn(30, 3, dtype=torch.float64), torch.arange(30) % 2
    objective = whence.from_torch(model.double(), whence.CrossEntropy(), data)
    prepared = prepare(objective, 1, damping=0.1)
    p = len(objective.params)
    eye = torch.eye(p, dtype=torch.float64)
    expected = torch.linalg.inv(objective.ggnvp(eye) + 0.1 * eye)
    torch.testing.assert_close(prepared.inverse.matmat(eye), expected)
    assert "Gauss-Newton" in prepared.solver
    assert "Gauss-Newton" in prepared.damping_reason


@pytest.mark.parametrize("name", ["softmax", "softmax, unpenalized", "one versus rest"])
@pytest.mark.parametrize("direct", [True, False])
def test_large_models_are_solved_in_float32_and_checked_in_float64(
    name: str, direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "SMALL", 5)
    monkeypatch.setattr(rule, "_factor_is_cheaper", lambda *_: direct)
    objective = CASES[name]()
    prepared = prepare(objective, 1)
    assert prepared.scored is not None
    assert prepared.scored.params.dtype == torch.float32
    assert "float32" in prepared.solver
    assert ("Cholesky" in prepared.solver) == direct
    flat, hessian = objective.flat_directions(), objective.dense_hessian()
    b = hessian @ random(len(flat), 2)
    solution = prepared.inverse.solve(b)
    assert solution.converged
    assert float((hessian @ solution.value - b).norm() / b.norm()) < 1e-5


def test_what_float32_cannot_factor_is_factored_in_float64(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precision, "SMALL", 5)
    monkeypatch.setattr(rule, "_factor_is_cheaper", lambda *_: True)
    objective = CASES["softmax without intercept"]()
    twice = objective.train.features.dense().clone()
    twice[:, 1] = twice[:, 0]
    train = replace(objective.train, features=type(objective.train.features)(twice))
    objective = replace(objective, train=train, l2=torch.full_like(objective.l2, 1e-9))
    prepared = prepare(objective, 1)
    assert prepared.scored is None
    assert "float32" not in prepared.solver
    residual = prepared.inverse.solve(torch.ones(len(objective.l2), 1).double()).residual
    assert residual < 1e-6


def test_a_solver_as_asked_works_in_the_precision_of_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precision, "SMALL", 5)
    objective = CASES["softmax without intercept"]()
    eye = torch.eye(len(objective.params)).double()
    for solver in (Cholesky(), CG(rtol=1e-12)):
        prepared = prepare(objective, 1, solver=solver)
        assert prepared.scored is None
        torch.testing.assert_close(prepared.inverse.matmat(objective.dense_hessian()), eye)


@pytest.mark.parametrize(("c", "k"), [(1, 1), (1, 63), (1, 64), (3, 21), (3, 22), (10, 1000)])
def test_costs_are_counted_product_by_product(c: int, k: int) -> None:
    """A product [a, b] @ [b, c] takes 2 a b c operations, a symmetric one 0.6 of them."""
    n, d = 500, 70
    p = c * d
    gram = sum(0.6 * 2 * d * n * d for i in range(c) for _ in range(i + 1))
    solves = 2 * (k * p * p)  # two triangles
    assert rule._factoring(n, p, c, k) == pytest.approx(gram + p**3 / 3 + solves)
    forward = back = 2 * n * d * c * k
    thin = 2.5 if c * k < 64 else 1  # bound by memory
    assert rule._product(n, p, c, k) == pytest.approx((forward + back) * thin)


@pytest.mark.parametrize(("name", "c", "steps"), [("logistic", 1, 60), ("softmax", 3, 18)])
def test_a_linear_model_is_factored_where_that_costs_less(
    name: str, c: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = CASES[name]()
    p, choice = len(objective.params), choose(objective)
    monkeypatch.setattr(rule, "SMALL", p - 1)
    columns = range(1, 80)
    cheaper = [rule._factor_is_cheaper(objective, k, choice) for k in columns]
    costs = [(rule._factoring(_N, p, c, k), steps * rule._product(_N, p, c, k)) for k in columns]
    assert cheaper == [once < each for once, each in costs]
    monkeypatch.setattr(rule, "_MATRIX_BYTES", 8 * p * p - 1)
    assert not any(rule._factor_is_cheaper(objective, k, choice) for k in columns)
    monkeypatch.setattr(rule, "SMALL", p)
    assert all(rule._factor_is_cheaper(objective, k, choice) for k in columns)


def test_a_network_is_factored_where_that_takes_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = objective_of("mlp")
    n, p, c = len(objective.train), len(objective.params), 3
    formed = 2 * n * c * p * p
    for kind, k, dense, small, steps, jacobians, expected in (
        (Hessian, 1, p, 0, 0, 0, True),
        (Hessian, 1, p - 1, p, p, 0, True),
        (Hessian, 1, p - 1, p - 1, p, 0, False),
        (Hessian, 1, p - 1, p, p - 1, 0, False),
        (Hessian, 2, p - 1, p, (p + 1) // 2, 0, True),
        (GGN, 1, p, 0, 0, 0, True),
        (GGN, 1, p - 1, p, 0, formed, True),
        (GGN, 1, p - 1, p, 0, formed - 1, False),
        (GGN, 1, p - 1, p - 1, 0, formed, False),
    ):
        for name, value in (
            ("DENSE", dense),
            ("SMALL", small),
            ("_CG_STEPS", steps),
            ("_JACOBIANS", jacobians),
        ):
            monkeypatch.setattr(rule, name, value)
        choice = Choice(curvature=kind(objective), damping=0.1, reason="")
        assert rule._factor_is_cheaper(objective, k, choice) == expected


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
def test_a_network_of_sequences_is_iterated_where_that_takes_fewer_products(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its Gauss-Newton matrix takes a product for each parameter, as any Hessian does."""
    objective = objective_of("gpt2")
    p, choice = len(objective.params), Choice(curvature=GGN(objective), damping=0.1, reason="")
    monkeypatch.setattr(rule, "DENSE", p - 1)
    for k, steps, expected in ((1, p, True), (1, p - 1, False), (2, p - 1, True)):
        monkeypatch.setattr(rule, "_CG_STEPS", steps)
        assert rule._factor_is_cheaper(objective, k, choice) == expected
    product = 8 * len(objective.train) * forward_operations(objective)
    for most, expected in ((p * product, False), (0.99 * p * product, True)):
        monkeypatch.setattr(rule, "_ITERATIONS", most)
        assert rule._iterates_too_long(objective, 2) == expected
        assert not rule._iterates_too_long(objective_of("mlp"), 2)


def test_float32_counts_steps_by_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = CASES["softmax without intercept"]()
    p, choice = len(objective.params), choose(objective)
    monkeypatch.setattr(rule, "SMALL", 5)
    monkeypatch.setattr(precision, "SMALL", 5)
    for k in range(1, 80):
        each = 10 * k ** (-1 / 6) * rule._product(_N, p, 3, k)
        cheaper = rule._factor_is_cheaper(objective, k, choice)
        assert cheaper == (rule._factoring(_N, p, 3, k) < each)
    monkeypatch.setattr(rule, "_MATRIX_BYTES", 4 * p * p)
    assert rule._factor_is_cheaper(objective, 79, choice)
    monkeypatch.setattr(rule, "_MATRIX_BYTES", 4 * p * p - 1)
    assert not rule._factor_is_cheaper(objective, 79, choice)


def test_a_factor_that_was_paid_for_serves_fewer_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = CASES["softmax without intercept"]()
    monkeypatch.setattr(rule, "_factor_is_cheaper", lambda objective, k, choice: k > 100)
    assert "conjugate gradients" in prepare(objective, 1).solver
    assert prepare(objective, 10) is prepare(objective, 1)
    assert prepare(objective, 11) is not prepare(objective, 10)
    assert prepare(objective, 12) is prepare(objective, 100)
    factored = prepare(objective, 101)
    assert "Cholesky" in factored.solver
    assert prepare(objective, 1) is factored
    own = CG(rtol=1e-9)
    assert prepare(objective, 1, solver=own) is prepare(objective, 1000, solver=own)


def test_flat_directions_are_lifted() -> None:
    objective = CASES["softmax"]()
    flat, H = objective.flat_directions(), objective.dense_hessian()
    lifted = rule._lifted(Hessian(objective), flat)
    torch.testing.assert_close(materialize(lifted), H + flat @ flat.T)
    curvature = Hessian(objective)
    assert rule._lifted(curvature, flat[:, :0]) is curvature


@pytest.mark.parametrize("name", ["softmax", "logistic"])
def test_the_extreme_eigenvalues_are_those_off_the_flat_directions(name: str) -> None:
    objective = CASES[name]()
    values = torch.linalg.eigvalsh(objective.dense_hessian())
    values = values[objective.flat_directions().shape[1] :]
    prepared = prepare(objective, 1)
    assert prepared.smallest_eigenvalue == pytest.approx(float(values[0]))
    assert prepared.largest_eigenvalue == pytest.approx(float(values[-1]))


def _network(width: int) -> whence.Objective:
    torch.manual_seed(0)
    layers = torch.nn.Linear(8, width), torch.nn.Tanh(), torch.nn.Linear(width, 3)
    data = torch.randn(40, 8), torch.arange(40) % 3
    return whence.from_torch(torch.nn.Sequential(*layers), whence.CrossEntropy(), data)


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
def test_a_network_that_takes_minutes_to_iterate_is_approximated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    objective = _network(400)
    assert len(objective.params) > 4_000
    iterated = whence.influence(objective, objective.train.subset([0, 1]))
    assert iterated.diagnostics.solver.startswith("conjugate gradients")
    products = 60 * 8 * 40 * 2 * (8 * 400 + 400 * 3)
    monkeypatch.setattr(rule, "_ITERATIONS", 1.5 * products)
    assert prepare(_network(400), 1).solver.startswith("conjugate gradients")
    assert prepare(_network(400), 1, curvature="hessian", damping=1.0).solver.startswith("conj")
    found = whence.influence(_network(400), objective.train.subset([0, 1]))
    asked = whence.influence(objective, objective.train.subset([0, 1]), solver=whence.EKFAC())
    assert found.diagnostics.solver.startswith("EKFAC")
    assert "few are iterated" in found.diagnostics.solver
    assert "EKFAC" in found.diagnostics.damping_reason
    assert (found.values == asked.values).all()
    monkeypatch.setattr(rule, "_ITERATIONS", 0.5 * products)
    assert prepare(_network(400), 1).solver.endswith("would take minutes")


def test_a_convex_network_is_iterated_however_long_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rule, "_ITERATIONS", 0)
    torch.manual_seed(0)
    x, y = torch.randn(40, 2_100), torch.arange(40) % 2
    model = torch.nn.Linear(2_100, 2)
    objective = whence.from_torch(model, whence.CrossEntropy(), (x, y), l2=1e-2, convex=True)
    assert len(objective.params) > 4_000
    assert prepare(objective, 200).solver.startswith("conjugate gradients")


def test_operations_of_a_forward_pass_are_counted_per_position() -> None:
    dense = _network(5)
    assert forward_operations(dense) == 2 * (8 * 5 + 5 * 3)
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(2 * 16, 2)
    data = torch.randn(4, 1, 6, 6), torch.arange(4) % 2
    model = torch.nn.Sequential(*layers)
    objective = whence.from_torch(model, whence.CrossEntropy(), data, params=["0.weight"])
    assert forward_operations(objective) == 2 * (2 * 16 * 9 + 2 * 32)
