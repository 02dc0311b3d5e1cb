"""Kronecker factors against the dense Gauss–Newton matrix, on models of eight kinds."""

from __future__ import annotations

import functools
import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import whence
from tests.curvature.approximations import kronecker
from tests.far_device import language_model
from tests.network.zoo import ZOO, objective_of
from whence.curvature import factors
from whence.curvature import kronecker as rule
from whence.curvature.directions import Directions, Fisher
from whence.curvature.exact import GGN
from whence.curvature.kronecker import EKFAC, KFAC
from whence.errors import (
    InvalidInput,
    NotPositiveDefinite,
    UnsupportedModel,
)
from whence.linalg import CG, BlockDiagonal, Diagonal, KroneckerEigen, materialize
from whence.linalg.structured import Reordered
from whence.network.objective import ModuleObjective

_SEVERAL_POSITIONS = ("cnn", "bert", "gpt2", "shared")
_EXACT = {"rtol": 1e-9, "atol": 1e-11}


def blocks(operator: object) -> list[tuple[object, Tensor]]:
    """The blocks with the places of their parameters."""
    assert isinstance(operator, Reordered)
    assert isinstance(operator.inner, BlockDiagonal)
    sizes = [block.shape[0] for block in operator.inner.blocks]
    return list(zip(operator.inner.blocks, operator.order.split(sizes), strict=True))


@functools.cache
def exact_of(name: str) -> Tensor:
    """The Gauss–Newton matrix of a model of the zoo."""
    return materialize(GGN(objective_of(name)))


@pytest.mark.parametrize("name", ["mlp", "cnn", "bert", "attention"])
def test_corrected_eigenvalues_are_the_true_second_moments(name: str) -> None:
    objective, exact = objective_of(name), exact_of(name)
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
    objective, exact = objective_of(name), exact_of(name)
    kinds = [type(block).__name__ for block, _ in blocks(kronecker(objective, fisher="expected"))]
    assert "LowRank" in kinds
    for block, places in blocks(kronecker(objective, fisher="expected")):
        if type(block).__name__ == "LowRank":
            torch.testing.assert_close(materialize(block), exact[places][:, places], **_EXACT)


def small(n: int) -> ModuleObjective:
    """Two layers, of 5 inputs and 5 outputs and of 6 and 3, a bias counting as an input."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    data = torch.randn(n, 4, dtype=torch.float64), torch.arange(n) % 3
    return whence.from_torch(model, whence.CrossEntropy(), data)


@pytest.mark.parametrize(("n", "expected"), [(60, 18), (19, 18), (18, None), (7, None)])
def test_an_eigenbasis_takes_so_many_positions_for_each_side_of_a_layer(
    n: int, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rule, "_POSITIONS", 3)
    objective = small(n)
    one = objective.train.subset(np.arange(1))
    directions = Directions(objective.loss, "empirical", 0)
    ((_, uses, passes),) = objective.traced(directions, one)
    layers = factors.multiplying_layers(objective)
    some, several = rule._enough(objective, layers, uses, next(iter(passes)))
    assert not several
    assert (None if some is objective else len(some.train)) == expected
    if expected:
        order = np.random.default_rng(0).permutation(n)[:18]
        assert some.train.targets.tolist() == objective.train.targets[order].tolist()


@pytest.mark.parametrize(("numbers", "passes"), [(7 * (4 + 5 + 3 * (5 + 3)), 2), (0, 3)])
def test_activations_are_reused_where_they_fit(
    numbers: int, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pass over the first example, and one over all for the factors and eigenvalues."""
    objective, calls = small(7), []
    traced = ModuleObjective.traced

    def counting(self: ModuleObjective, *arguments: object) -> object:
        calls.append(arguments)
        return traced(self, *arguments)

    expected = materialize(kronecker(objective))
    monkeypatch.setattr(ModuleObjective, "traced", counting)
    monkeypatch.setattr(rule, "_REUSED", numbers)
    torch.testing.assert_close(materialize(kronecker(objective)), expected)
    assert len(calls) == passes
    monkeypatch.setattr(rule, "_REUSED", numbers - 1)
    kronecker(objective)
    assert len(calls) == passes + 3


@pytest.mark.parametrize("classes", [2, 3])
def test_few_outputs_are_taken_all(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule, "_CLASSES", classes)
    objective = small(7)  # of three outputs
    kind: Fisher = "expected" if classes == 3 else "sampled"
    found, exact = kronecker(objective), kronecker(objective, fisher=kind)
    torch.testing.assert_close(materialize(found), materialize(exact))


@pytest.mark.parametrize(("positions", "kind"), [(1, "expected"), (2, "sampled")])
def test_outputs_of_a_layer_that_sees_several_positions_are_sampled(
    positions: int, kind: Fisher
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Flatten(), nn.Linear(5 * positions, 3)).double()
    data = torch.randn(7, positions, 4, dtype=torch.float64), torch.arange(7) % 3
    objective = whence.from_torch(model, whence.CrossEntropy(), data)
    found, same = kronecker(objective), kronecker(objective, fisher=kind)
    torch.testing.assert_close(materialize(found), materialize(same))


@pytest.mark.parametrize("name", ZOO)
def test_every_parameter_is_placed_once(name: str) -> None:
    objective = objective_of(name)
    operator = kronecker(objective)
    assert isinstance(operator, Reordered)
    assert operator.order.sort().values.tolist() == list(range(len(objective.params)))
    assert float(operator.eigenvalues().min()) >= 0.1 - 1e-12  # the penalty


def test_positions_of_more_parameters_than_32_bits_count_take_64(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    objective = objective_of("mlp")
    few = kronecker(objective)
    monkeypatch.setattr(rule, "_INT32", len(objective.params))
    many = kronecker(objective)
    assert isinstance(few, Reordered)
    assert isinstance(many, Reordered)
    assert (few.order.dtype, many.order.dtype) == (torch.int32, torch.int64)
    torch.testing.assert_close(materialize(many), materialize(few), rtol=0, atol=0)


def test_curvature_of_few_examples_is_nowhere_negative() -> None:
    torch.manual_seed(0)
    layers = (nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2))
    model = nn.Sequential(*layers).double().eval()
    data = (torch.randn(2, 4, dtype=torch.float64), torch.tensor([0, 1]))
    objective = whence.from_torch(model, whence.CrossEntropy(), data)
    for corrected in (True, False):
        assert float(kronecker(objective, corrected=corrected).eigenvalues().min()) >= 0


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
    with pytest.raises(UnsupportedModel, match="leave KFAC and EKFAC out"):
        whence.influence(objective, (X[:1], y[:1]), solver=EKFAC())


def test_diagonal_of_an_embedding() -> None:
    objective = objective_of("gpt2")
    kinds = {type(block) for block, _ in blocks(kronecker(objective))}
    assert Diagonal in kinds or KroneckerEigen in kinds


def test_repeated_tokens_of_one_example_add_up_before_they_are_squared() -> None:
    torch.manual_seed(0)
    tokens = torch.randint(4, (6, 9))  # every sequence reads some rows many times

    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(4, 80), nn.Linear(80, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.embed(x).mean(1))

    objective = whence.from_torch(
        Bag().double(), whence.CrossEntropy(), (tokens, torch.arange(6) % 3)
    )
    table = objective.slices["embed.weight"]
    diagonal = materialize(GGN(objective)).diagonal()[table]
    found = kronecker(objective, fisher="expected")
    block = next(b for b, places in blocks(found) if int(places[0]) == table.start)
    assert isinstance(block, Diagonal)
    torch.testing.assert_close(block.diagonal, diagonal, **_EXACT)


def test_uses_of_a_tied_matrix_add_up_before_they_are_squared() -> None:
    torch.manual_seed(0)
    embed, head = nn.Embedding(30, 12), nn.Linear(12, 30, bias=False)
    head.weight = embed.weight  # 360 parameters: a diagonal
    tokens = torch.randint(30, (8, 1))
    model = nn.Sequential(embed, nn.Flatten(1), nn.Tanh(), head).double()
    objective = whence.from_torch(model, whence.CrossEntropy(), (tokens, tokens[:, 0].roll(1)))
    exact = materialize(GGN(objective)).diagonal()
    (block,) = (block for block, _ in blocks(kronecker(objective, fisher="expected")))
    torch.testing.assert_close(block.diagonal, exact, **_EXACT)  # type: ignore[attr-defined]


class Pooled(nn.Module):
    """One matrix at every position; outputs averaged, or kept apart."""

    def __init__(self, average: bool) -> None:
        super().__init__()
        self.read, self.average = nn.Linear(3, 2), average

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.read(x)
        return outputs.mean(1) if self.average else outputs


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
def test_each_kind_of_sharing_is_exact_in_its_own_setting(sharing: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 4, 3).double()
    y = torch.randn(6, 4, 2).double()
    average = sharing == "reduce"
    model = Pooled(average).double()
    data = (x, y.mean(1) if average else y)
    objective = whence.from_torch(model, whence.SquaredError(), data)
    exact = materialize(GGN(objective))
    other = "expand" if average else "reduce"
    found, wrong = (
        materialize(kronecker(objective, corrected=False, fisher="expected", sharing=kind))  # type: ignore[arg-type]
        for kind in (sharing, other)
    )
    torch.testing.assert_close(found, exact, **_EXACT)
    assert (wrong - exact).norm() > 0.1 * exact.norm()


@pytest.mark.parametrize(
    ("name", "sharing"),
    [*((name, "expand") for name in ZOO), *((name, "reduce") for name in _SEVERAL_POSITIONS)],
)
def test_the_correction_never_goes_further_off_in_either_basis(name: str, sharing: str) -> None:
    objective, exact = objective_of(name), exact_of(name)
    near, far = (
        materialize(
            kronecker(objective, corrected=c, fisher="expected", sharing=sharing)  # type: ignore[arg-type]
        )
        for c in (True, False)
    )
    assert (near - exact).norm() <= (far - exact).norm() * (1 + 1e-12)


def test_a_layer_called_twice_has_twice_the_positions_not_twice_the_inputs() -> None:
    torch.manual_seed(0)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read = nn.Linear(3, 2, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.read(x[:, 0]), self.read(x[:, 1])], 1)

    x, y = torch.randn(5, 2, 3).double(), torch.randn(5, 2, 2).double()
    objective = whence.from_torch(Twice().double(), whence.SquaredError(), (x, y))
    exact = materialize(GGN(objective))
    torch.testing.assert_close(
        materialize(kronecker(objective, corrected=False, fisher="expected")), exact, **_EXACT
    )


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
@pytest.mark.parametrize("solver", [EKFAC(), KFAC()])
def test_influence_is_exact_on_one_layer_with_independent_directions(solver: EKFAC) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(9, 3).double(), torch.randn(9, 2).double()
    objective = whence.from_torch(nn.Linear(3, 2).double(), whence.SquaredError(), (x, y), l2=0.1)
    found = whence.influence(objective, (x[:2], y[:2]), solver=solver, damping=0.2).values
    np.testing.assert_allclose(found, _dense_influence(objective, 0.2), rtol=1e-7)


@pytest.mark.filterwarnings("ignore:.*converged.*:UserWarning")
def test_factors_that_overflow_name_their_module() -> None:
    x, y = torch.full((4, 3), 1e30), torch.tensor([0, 1, 0, 1])
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    objective = whence.from_torch(model, whence.CrossEntropy(), (x, y))
    with pytest.raises(InvalidInput, match="module '0'"):
        whence.influence(objective, (x[:1], y[:1]), solver=EKFAC(), damping=1.0)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
@pytest.mark.parametrize("fisher", ["expected", "empirical", "sampled"])
def test_reused_passes_give_the_same(
    name: str, fisher: Fisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    from whence.curvature import kronecker as module

    found = []
    for most in (0, 2**25):
        monkeypatch.setattr(module, "_REUSED", most)
        found.append(kronecker(objective_of(name), fisher=fisher).eigenvalues())
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_an_eigenbasis_takes_no_more_positions_than_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from whence.curvature import kronecker as module

    objective = objective_of("cnn", params=lambda name, p: name.startswith("3."))
    monkeypatch.setattr(module, "_POSITIONS", 1)  # 13 for 13 inputs, 4 per example: four of seven
    one = objective.train.subset(np.arange(1))
    ((_, uses, (deltas,)),) = objective.traced(Directions(objective.loss, "empirical", 0), one)
    few, several = module._enough(objective, module.multiplying_layers(objective), uses, deltas)
    assert several
    assert len(few.train) == 4
    exact = materialize(GGN(objective))
    for block, places in blocks(kronecker(objective, fisher="expected")):
        Q = torch.kron(block.left, block.right)  # type: ignore[attr-defined]
        inside = (Q.T @ exact[places][:, places] @ Q).diagonal()
        torch.testing.assert_close(inside, block.eigenvalues(), **_EXACT)  # type: ignore[attr-defined]


def test_eigenvalues_from_rounded_products_are_those_of_exact_ones() -> None:
    objective = objective_of("bert")
    layers, rounded = (factors.multiplying_layers(objective) for _ in range(2))
    for several, kind in ((layers, torch.float64), (rounded, torch.bfloat16)):
        draws = Directions(objective.loss, "expected", 0)
        factors.add_factors(objective, several, objective.traced(draws), "expand")
        for layer in several:
            layer.rotate()
        others = factors.Others(objective, [])
        factors.add_second_moments(objective, several, others, objective.traced(draws), kind)
    assert any(not layer.one_position for layer in layers)
    for exact, bf16 in zip(layers, rounded, strict=True):
        scale = float(exact.values.mean())
        assert bf16.one_position == torch.equal(exact.values, bf16.values)
        torch.testing.assert_close(bf16.values, exact.values, rtol=2e-2, atol=1e-2 * scale)


@pytest.mark.parametrize("name", ["cnn", "bert", "gpt2"])
@pytest.mark.parametrize("solver", [EKFAC(), KFAC()])
def test_factors_of_rounded_passes_are_nearly_the_same(name: str, solver: EKFAC | KFAC) -> None:
    """As on hardware made for bfloat16, where an objective may come rounded."""
    torch.manual_seed(0)
    model, data = ZOO[name]()
    objective = whence.from_torch(model, whence.CrossEntropy(), data)
    assert isinstance(objective, ModuleObjective)
    rounded = objective.in_bf16()
    assert rounded.bf16
    exact, rough = (
        materialize(solver.approximate(GGN(each)).operator) for each in (objective, rounded)
    )
    assert 0 < torch.linalg.norm(rough - exact) <= 0.05 * torch.linalg.norm(exact)


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
@pytest.mark.parametrize("damping", [None, 0.05])
def test_influence_from_rounded_passes_is_nearly_the_same(
    damping: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"amx_bf16": True})
    torch.manual_seed(0)
    model, data = ZOO["gpt2"]()
    query = ({"input_ids": data[0]["input_ids"][:3]}, data[1][:3])
    scores = []
    for rtol in (1e-3, 1e-2):
        objective = whence.from_torch(model, whence.CrossEntropy(), data)
        found = whence.influence(objective, query, solver=EKFAC(rtol=rtol), damping=damping)
        scores.append(found.values.astype(np.float64))
        told = [note for note in found.diagnostics.notes if "from passes in bfloat16" in note]
        assert len(told) == (rtol == 1e-2)
    exact, rounded = scores
    found_error = re.search(r"7 examples .* 2 of the queries differ by (\S+) %", told[0])
    assert found_error
    assert 0 < float(found_error[1]) <= 5
    assert not np.array_equal(exact, rounded)
    assert np.linalg.norm(exact - rounded) <= 0.05 * np.linalg.norm(exact)


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
def test_the_basis_that_rounding_chose_for_a_null_space_does_not_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three short texts span few directions; the second draw of labels sees others."""
    eigh = torch.linalg.eigh

    def turned(matrix: Tensor) -> tuple[Tensor, Tensor]:
        values, vectors = eigh(matrix)
        null = values <= torch.finfo(values.dtype).eps * len(values) * values.max()
        if null.any():
            vectors[:, null] = vectors[:, null] @ orthogonal(int(null.sum()))
        return values, vectors

    def scores() -> np.ndarray:
        query = [{"input_ids": [2, 3, 4]}]
        return whence.influence(language_model("cpu"), query, solver=EKFAC()).values

    expected = scores()
    monkeypatch.setattr(torch.linalg, "eigh", turned)
    np.testing.assert_allclose(scores(), expected, rtol=1e-9)


def orthogonal(size: int) -> Tensor:
    return torch.linalg.qr(
        torch.randn(size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    )[0]
