"""Training against the same loop written with torch.optim; what is kept, resumed and refused."""

from __future__ import annotations

import dataclasses
import math
import pickle
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from tests.damage import assert_noticed
from whence.errors import CorruptFile, Diverged, InvalidInput, NotDeterministic, UnsupportedModel
from whence.objective.losses import CrossEntropy, SquaredError
from whence.storage import claim, read_manifest
from whence.training.checkpoints import InMemory, OnDisk, open_directory
from whence.training.program import counted
from whence.training.recipe import Recipe
from whence.training.replay import retrain, stack_size
from whence.training.run import Run
from whence.training.tracing import _CALLS_BEFORE_TRACING, Traced
from whence.training.train import train

N = 21
RECIPES: dict[str, dict[str, Any]] = {
    "sgd": {},
    "momentum": {"momentum": 0.9, "schedule": "cosine", "warmup": 3},
    "nesterov": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "adam": {"optimizer": "adam", "weight_decay": 0.01, "schedule": "linear"},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1, "betas": (0.8, 0.95)},
    "clipped": {"momentum": 0.5, "clip_norm": 0.3},
}


def recipe(**changes: Any) -> Recipe:
    base: dict[str, Any] = {"learning_rate": 0.05, "batch_size": 6, "epochs": 3}
    return Recipe(**{**base, "dtype": torch.float64, **changes})


def data(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(N, 4, generator=generator, dtype=torch.float64).to(dtype)
    return x, torch.randint(3, (N,), generator=generator)


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def weights() -> Tensor:
    return torch.linspace(0, 2, N, dtype=torch.float64)


def hand_written(recipe: Recipe, weights: Tensor) -> tuple[Tensor, list[float]]:
    """The loop a user would write."""
    model = mlp().to(recipe.dtype)
    x, y = data(recipe.dtype)
    parameters = list(model.parameters())
    optimizer: torch.optim.Optimizer
    common: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            parameters, momentum=recipe.momentum, nesterov=recipe.nesterov, **common
        )
    else:
        kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
        optimizer = kind(parameters, betas=recipe.betas, eps=recipe.eps, **common)
    losses = []
    batches = recipe.batches(N)
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * factor(recipe, step, len(batches))
        optimizer.zero_grad()
        each = nn.functional.cross_entropy(model(x[batch]), y[batch], reduction="none")
        loss = (weights[batch].to(recipe.dtype) * each).mean()
        loss.backward()
        if recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
        optimizer.step()
        losses.append(loss.item())
    return torch.cat([p.detach().flatten() for p in parameters]), losses


def factor(recipe: Recipe, step: int, steps: int) -> float:
    """The schedule, written once more."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    rest = (step - recipe.warmup) / (steps - recipe.warmup)
    shapes = {"constant": 1.0, "linear": 1 - rest, "cosine": 0.5 + 0.5 * math.cos(math.pi * rest)}
    return shapes[str(recipe.schedule)]


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("name", RECIPES)
def test_equals_a_torch_loop(name: str, dtype: torch.dtype, bound: float) -> None:
    chosen = recipe(**RECIPES[name], dtype=dtype)
    run = train(mlp(), CrossEntropy(), data(), chosen, weights=weights())
    params, losses = hand_written(chosen, weights())
    assert run.params.dtype == dtype
    assert float((run.params - params).abs().max()) <= bound
    assert run.losses.tolist() == pytest.approx(losses, abs=bound, rel=bound)


@pytest.mark.parametrize("name", RECIPES)
def test_retraining_together_equals_one_after_another(name: str) -> None:
    chosen = recipe(**RECIPES[name])
    run = train(mlp(), CrossEntropy(), data(), chosen)
    no_batch = torch.ones(N)
    no_batch[run.batches[0]] = 0  # a whole batch of weight zero, and other batches in part
    half = torch.arange(N) % 2
    rows = torch.stack([weights(), torch.ones(N), weights().flip(0), half, no_batch]).double()
    expected = torch.stack(
        [train(mlp(), CrossEntropy(), data(), chosen, weights=row).params for row in rows]
    )
    for together in (None, 1, 2, 5):
        found = retrain(run, rows, together=together)
        assert torch.allclose(found, expected, rtol=0, atol=1e-12)


def test_a_training_of_one_step_is_repeated() -> None:
    chosen = recipe(batch_size=N, epochs=1)
    run = train(mlp(), CrossEntropy(), data(), chosen)
    found = retrain(run, weights()[None])[0]
    assert float((found - hand_written(chosen, weights())[0]).abs().max()) <= 1e-12


@pytest.mark.parametrize("name", ["nesterov", "adam", "clipped"])
def test_a_long_retraining_alone_equals_a_torch_loop(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whence.training.tracing._CALLS_BEFORE_TRACING", 8)
    chosen = recipe(**RECIPES[name], epochs=40)  # long enough for traces of most shapes
    half = (torch.arange(N) % 3 > 0).double() * weights()
    run = train(mlp(), CrossEntropy(), data(), chosen)
    found = retrain(run, half[None], together=1)[0]
    traces = run.program._gradient._traces.values()
    assert sum(trace != run.program._plain_gradient for trace in traces) >= 3
    assert float((found - hand_written(chosen, half)[0]).abs().max()) <= 1e-12


def test_gradients_that_share_memory() -> None:
    class Twice(nn.Module):
        """Autograd gives one tensor as the gradient of both biases."""

        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Parameter(torch.zeros(N, 4))
            self.second = nn.Parameter(torch.ones(N, 4))
            self.unused = nn.Parameter(torch.ones(2))

        def forward(self, x: Tensor) -> Tensor:
            return x + (self.first + self.second).mean(0)

    x, _ = data()
    chosen = recipe(momentum=0.9, weight_decay=0.1)
    run = train(Twice(), SquaredError(), (x, 2 * x), chosen)
    rows = torch.ones(2, N)
    found = [retrain(run, rows, together=together) for together in (1, 2)]
    for params in (*found[0], *found[1]):
        assert torch.allclose(params, run.params, rtol=0, atol=1e-12)


@hypothesis.given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    share=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_counted_examples_are_those_with_weight(sizes: list[int], share: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    n = max(sizes) + 5
    weights = torch.rand(n, generator=generator) * (torch.rand(n, generator=generator) < share)
    batches = [torch.randperm(n, generator=generator)[:size] for size in sizes]
    found = list(counted(batches, weights))
    assert len(found) == len(batches)
    for batch, (rows, scaled) in zip(batches, found, strict=True):
        total = torch.zeros(n).index_add(0, rows, scaled)
        expected = torch.zeros(n).index_add(0, batch, weights[batch] / len(batch))
        assert torch.allclose(total, expected)
        count = int(weights[batch].count_nonzero())
        assert count <= len(rows) <= min(len(batch), max(count + len(batch) / 16, 1) + 1)
        if count:
            assert (weights[rows] > 0).all()
        if len(rows) == len(batch) == count:
            assert torch.equal(rows, batch)


def test_small_models_are_stacked_and_others_are_not() -> None:
    class Square(torch.autograd.Function):
        """Without a rule for torch.func."""

        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
            ctx.save_for_backward(x)
            return x.square()

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
            (x,) = ctx.saved_tensors
            return 2 * x * g

    class Custom(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return Square.apply(self.layer(x))  # type: ignore[no-any-return,no-untyped-call]

    wide = nn.Sequential(nn.Linear(4, 1000), nn.Tanh(), nn.Linear(1000, 600), nn.Linear(600, 3))
    once = recipe(epochs=1)
    sizes = [
        stack_size(train(model, CrossEntropy(), data(), once)) for model in (mlp(), wide, Custom())
    ]
    assert sizes == [16, 1, 1]


def test_a_pickled_run_is_the_run() -> None:
    run = train(mlp(), CrossEntropy(), data(), recipe(momentum=0.9))
    payload = pickle.dumps(dataclasses.replace(run, checkpoints=InMemory()))
    again = pickle.loads(payload)
    assert torch.equal(retrain(again, weights()[None]), retrain(run, weights()[None]))
    # Batches are views of a whole epoch, which is not to be sent with each of them.
    longer = train(mlp(), CrossEntropy(), data(), recipe(momentum=0.9, batch_size=1, epochs=1))
    size = len(pickle.dumps(dataclasses.replace(longer, checkpoints=InMemory())))
    assert size < len(payload) + N * 1000


def test_weight_zero_forgets_the_example() -> None:
    x, y = data()
    changed = x.clone()
    changed[4] = 1e3
    without = torch.ones(N)
    without[4] = 0
    runs = [
        train(mlp(), CrossEntropy(), (inputs, y), recipe(momentum=0.9), weights=without)
        for inputs in (x, changed)
    ]
    assert torch.equal(runs[0].params, runs[1].params)


def test_batches_are_permutations_that_depend_on_the_seed_alone() -> None:
    batches = recipe(seed=3).batches(N)
    assert [len(batch) for batch in batches] == [6, 6, 6, 3] * 3
    epochs = [torch.cat(batches[i : i + 4]) for i in (0, 4, 8)]
    assert all(epoch.sort().values.tolist() == list(range(N)) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    assert all(map(torch.equal, batches, recipe(seed=3, learning_rate=1.0).batches(N)))
    assert not torch.equal(batches[0], recipe(seed=4).batches(N)[0])


def test_a_schedule_may_be_a_function() -> None:
    rates = recipe(schedule=lambda step: 1 / (1 + step)).rates(3)
    assert rates == pytest.approx([0.05, 0.025, 0.05 / 3])
    with pytest.raises(InvalidInput, match="at step 1"):
        recipe(schedule=lambda step: 1 - 2 * step).rates(3)


def test_the_model_is_left_alone_and_the_run_gives_a_trained_copy() -> None:
    model = mlp()
    start = [p.detach().clone() for p in model.parameters()]
    run = train(model, CrossEntropy(), data(), recipe())
    assert all(map(torch.equal, model.parameters(), start))
    x = data()[0]
    assert torch.equal(run.model(x), run.program.outputs(run.params, x))
    assert not torch.equal(run.params, torch.cat([p.flatten() for p in start]).double())


def test_fixed_and_tied_parameters() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first = nn.Linear(4, 4)
            self.second = nn.Linear(4, 4)
            self.second.weight = self.first.weight
            self.second.bias.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(torch.tanh(self.first(x)))  # type: ignore[no-any-return]

    x, _ = data()
    model = Tied()
    run = train(model, SquaredError(), (x, x), recipe(momentum=0.9))
    trained = run.model
    assert len(run.params) == 4 * 4 + 4
    assert isinstance(trained, Tied)
    assert trained.second.weight is trained.first.weight
    assert torch.equal(trained.second.bias, model.second.bias.double())

    twin = Tied().double()
    optimizer = torch.optim.SGD([p for p in twin.parameters() if p.requires_grad], 0.05, 0.9)
    for batch in recipe().batches(N):
        optimizer.zero_grad()
        (0.5 * (twin(x[batch]) - x[batch]).square().sum(1)).mean().backward()
        optimizer.step()
    assert torch.allclose(trained.first.weight, twin.first.weight, rtol=0, atol=1e-12)


def test_a_data_set_object_is_the_same_as_its_tensors() -> None:
    run = train(mlp(), CrossEntropy(), TensorDataset(*data()), recipe())
    assert torch.equal(run.params, train(mlp(), CrossEntropy(), data(), recipe()).params)


def states_of(run: Run) -> Tensor:
    states = [run.states(start, stop) for start, stop in run.segments()]
    return torch.stack([state for segment in states for state in segment[:-1]])


def test_states_do_not_depend_on_what_is_stored(tmp_path: Path) -> None:
    chosen = recipe(momentum=0.9)
    everything = train(mlp(), CrossEntropy(), data(), chosen)
    little = train(mlp(), CrossEntropy(), data(), chosen, memory=8 * everything.params.numel() * 16)
    nothing = train(mlp(), CrossEntropy(), data(), chosen, memory=0)
    disk = train(mlp(), CrossEntropy(), data(), chosen, directory=tmp_path)
    assert everything.interval == 1
    assert 1 < little.interval < nothing.interval == disk.interval == 4
    for run in (little, nothing, disk):
        assert torch.equal(run.params, everything.params)
        assert torch.equal(run.losses, everything.losses)
        assert torch.equal(states_of(run), states_of(everything))


def test_an_interrupted_directory_goes_on_from_its_last_state(tmp_path: Path) -> None:
    chosen = recipe(momentum=0.9)
    whole = train(mlp(), CrossEntropy(), data(), chosen, directory=tmp_path)
    states = sorted((tmp_path / "states").iterdir())
    before = states[1].stat().st_mtime_ns
    for path in states[2:]:
        path.unlink()
    (tmp_path / "states" / ".whence-0123.tmp").write_bytes(b"half")
    again = train(mlp(), CrossEntropy(), data(), chosen, directory=tmp_path)
    assert torch.equal(again.params, whole.params)
    assert torch.equal(again.losses, whole.losses)
    assert sorted((tmp_path / "states").iterdir()) == states
    assert states[1].stat().st_mtime_ns == before


def test_damaged_states_and_manifests_are_refused(tmp_path: Path) -> None:
    run = train(mlp(), CrossEntropy(), data(), recipe(), directory=tmp_path)
    assert isinstance(run.checkpoints, OnDisk)
    path, manifest = sorted((tmp_path / "states").iterdir())[1], tmp_path / "manifest.json"
    assert_noticed(path, lambda: run.checkpoints.read(4))

    def again() -> None:
        train(mlp(), CrossEntropy(), data(), recipe(), directory=tmp_path)

    for file in (path, manifest):
        assert_noticed(file, again, flips=20, cuts=[0, 100])
    assert_noticed(path, lambda: run.states(4, 8), flips=20, cuts=[0, 100])
    identity = read_manifest(manifest, "training")
    assert_noticed(manifest, lambda: open_directory(tmp_path, identity, torch.device("cpu")))


def test_states_of_another_run_or_step_are_refused(tmp_path: Path) -> None:
    run = train(mlp(), CrossEntropy(), data(), recipe(), directory=tmp_path / "a")
    train(mlp(), CrossEntropy(), data(), recipe(seed=1), directory=tmp_path / "b")
    path = tmp_path / "a" / "states" / "00000004.npz"
    for other in ("b/states/00000004.npz", "a/states/00000008.npz"):
        path.write_bytes((tmp_path / other).read_bytes())
        with pytest.raises(CorruptFile, match="to belong to step 4 of the training"):
            train(mlp(), CrossEntropy(), data(), recipe(), directory=tmp_path / "a")
        with pytest.raises(CorruptFile, match=path.name):
            run.states(4, 8)


def test_a_second_writer_is_refused_and_readers_are_not(tmp_path: Path) -> None:
    whole = train(mlp(), CrossEntropy(), data(), recipe(), directory=tmp_path)
    with claim(tmp_path):
        again = train(mlp(), CrossEntropy(), data(), recipe(), directory=tmp_path)
        assert torch.equal(again.params, whole.params)
        (tmp_path / "states" / "00000008.npz").unlink()
        with pytest.raises(InvalidInput, match="no other process to write in"):
            train(mlp(), CrossEntropy(), data(), recipe(), directory=tmp_path)
    train(mlp(), CrossEntropy(), data(), recipe(), directory=tmp_path)
    assert again.checkpoints.has(8)


def test_a_kill_before_the_manifest_has_its_name(tmp_path: Path) -> None:
    (tmp_path / ".whence-0123.tmp").write_bytes(b"half")
    train(mlp(), CrossEntropy(), data(), recipe(), directory=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", "states"]


def test_a_missing_state_and_a_cut_manifest(tmp_path: Path) -> None:
    run = train(mlp(), CrossEntropy(), data(), recipe(), directory=tmp_path)
    (tmp_path / "states" / "00000004.npz").unlink()
    with pytest.raises(CorruptFile, match="Got no file"):
        run.states(4, 8)
    manifest = tmp_path / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:-20])
    with pytest.raises(CorruptFile, match="manifest"):
        train(mlp(), CrossEntropy(), data(), recipe(), directory=tmp_path)


def test_a_directory_of_something_else_is_refused(tmp_path: Path) -> None:
    x, y = data()
    train(mlp(), CrossEntropy(), (x, y), recipe(), directory=tmp_path / "run")
    relu = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    relu.load_state_dict(mlp().state_dict())
    others: dict[str, tuple[nn.Module, Tensor, Recipe, Tensor | None]] = {
        "architecture": (relu, x, recipe(), None),
        "data": (mlp(), x + 1, recipe(), None),
        "recipe": (mlp(), x, recipe(schedule=lambda step: 0.5), None),
        "weights": (mlp(), x, recipe(), weights()),
    }
    for name, (model, inputs, chosen, given) in others.items():
        directory = tmp_path / "run"
        with pytest.raises(InvalidInput, match=f"Got another {name}"):
            train(model, CrossEntropy(), (inputs, y), chosen, weights=given, directory=directory)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(InvalidInput, match="other files"):
        train(mlp(), CrossEntropy(), (x, y), recipe(), directory=tmp_path / "mine")


def test_steps_that_do_not_repeat_are_noticed() -> None:
    run = train(mlp(), CrossEntropy(), data(), recipe(), memory=0)
    doctored = dataclasses.replace(run, rates=tuple(10 * rate for rate in run.rates))
    with pytest.raises(NotDeterministic, match="stored state"):
        doctored.states(4, 8)


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x + torch.randn_like(x))  # type: ignore[no-any-return]


class Mixing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x - x.mean(0))  # type: ignore[no-any-return]


class RandomData(Dataset[tuple[Tensor, int]]):
    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.randn(4), index % 3


def test_what_cannot_be_repeated_is_refused() -> None:
    dropout = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5))
    with pytest.raises(NotDeterministic, match=r"Dropout '1'.*eval"):
        train(dropout, CrossEntropy(), data(), recipe())
    norm = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3))
    with pytest.raises(UnsupportedModel, match="BatchNorm1d '0'"):
        train(norm, CrossEntropy(), data(), recipe())
    for model in (dropout, norm):
        assert train(model.eval(), CrossEntropy(), data(), recipe()).steps == 12
    with pytest.raises(NotDeterministic, match="same outputs"):
        train(Noisy(), CrossEntropy(), data(), recipe())
    with pytest.raises(UnsupportedModel, match="alone in its batch"):
        train(Mixing(), CrossEntropy(), data(), recipe())
    with pytest.raises(NotDeterministic, match="index 0"):
        train(mlp(), CrossEntropy(), RandomData(), recipe())


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"optimizer": "rmsprop"}, UnsupportedModel, "rmsprop"),
        ({"dtype": torch.bfloat16}, UnsupportedModel, "bfloat16"),
        ({"eps": 1e-3}, InvalidInput, "no eps for optimizer 'sgd'"),
        ({"optimizer": "adam", "momentum": 0.9}, InvalidInput, "no momentum"),
        ({"epochs": 0}, InvalidInput, "epochs >= 1"),
        ({"momentum": 1.0}, InvalidInput, "0 <= momentum < 1"),
        ({"weight_decay": -0.1}, InvalidInput, "weight_decay >= 0"),
        ({"optimizer": "adam", "betas": (0.9, 1.0)}, InvalidInput, "two betas"),
        ({"optimizer": "adam", "eps": 0.0}, InvalidInput, "eps > 0"),
        ({"optimizer": "adam", "eps_root": -1e-9}, InvalidInput, "eps_root >= 0"),
        ({"nesterov": True}, InvalidInput, "momentum > 0 with nesterov"),
        ({"learning_rate": 0.0}, InvalidInput, "learning_rate > 0"),
        ({"learning_rate": math.nan}, InvalidInput, "learning_rate as a finite number"),
        ({"batch_size": 0}, InvalidInput, "batch_size >= 1"),
        ({"schedule": "poly"}, InvalidInput, "schedule"),
        ({"schedule": lambda step: 1.0, "warmup": 2}, InvalidInput, "warmup"),
        ({"clip_norm": 0.0}, InvalidInput, "clip_norm"),
    ],
)
def test_recipes_that_mean_nothing(
    changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        recipe(**changes)


def test_input_that_does_not_fit() -> None:
    x, y = data()
    cases: list[tuple[tuple[Any, Any], Tensor | None, str]] = [
        ((x, y[:-1]), None, "as many targets"),
        ((x.index_fill(0, torch.tensor(2), math.nan), y), None, "finite inputs"),
        ((x, y.index_fill(0, torch.tensor(N - 1), 3)), None, "label"),
        ((x, y), torch.ones(N - 1), "finite weights"),
        ((x, y), -torch.ones(N), "finite weights"),
    ]
    for dataset, given, words in cases:
        with pytest.raises(InvalidInput, match=words):
            train(mlp(), CrossEntropy(), dataset, recipe(), weights=given)
    with pytest.raises(InvalidInput, match="trainable"):
        train(mlp().requires_grad_(False), CrossEntropy(), (x, y), recipe())
    run = train(mlp(), CrossEntropy(), (x, y), recipe())
    with pytest.raises(InvalidInput, match=r"shape \[k, n\]"):
        retrain(run, torch.ones(N))


def test_divergence_is_an_error() -> None:
    x, _ = data()
    wild = recipe(learning_rate=1e6, epochs=40)
    with pytest.raises(Diverged, match="Lower the learning rate"):
        train(nn.Linear(4, 4), SquaredError(), (x, x), wild)


def test_a_trace_gives_what_the_function_gives() -> None:
    def function(x: Tensor, y: Tensor) -> Tensor:
        return (x * y).sin().sum(0)

    traced = Traced(function)
    generator = torch.Generator().manual_seed(0)
    for _ in range(_CALLS_BEFORE_TRACING + 4):
        x, y = torch.randn(2, 3, 4, generator=generator)
        assert torch.equal(traced(x, y), function(x, y))
    assert list(traced._traces.values()) != [function]


def test_a_trace_that_holds_a_value_as_a_constant_is_dropped() -> None:
    def by_numpy(x: Tensor) -> Tensor:
        return x * float(x.detach().numpy().sum())

    traced = Traced(by_numpy)
    for i in range(1, _CALLS_BEFORE_TRACING + 12):
        x = torch.full((3,), float(i))
        assert torch.equal(traced(x), by_numpy(x))


def test_what_cannot_be_traced_is_called() -> None:
    def branching(x: Tensor) -> Tensor:
        return x if float(x.sum()) > 0 else -x

    traced = Traced(branching)
    for sign in (1.0, -1.0) * _CALLS_BEFORE_TRACING:
        assert torch.equal(traced(torch.tensor([sign])), torch.ones(1))
