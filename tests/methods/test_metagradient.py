"""Metagradients against automatic differentiation of the whole loop, and against retraining.

That a killed one goes on, with the same bytes, is shown by `python -m tests.crash`.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from tests.damage import assert_noticed
from whence.errors import CorruptFile, Diverged, InvalidInput
from whence.methods.metagradient import Metagradient, metagradient, query_gradients
from whence.objective.losses import CrossEntropy, Loss, SquaredError, measure_of
from whence.training.backward import weight_gradients
from whence.training.metasmoothness import metasmoothness
from whence.training.recipe import Recipe
from whence.training.replay import retrain
from whence.training.run import Run
from whence.training.train import train

N, Q = 13, 5
RECIPES: dict[str, dict[str, Any]] = {
    "sgd": {"weight_decay": 0.05},
    "momentum": {"momentum": 0.9, "schedule": "cosine", "warmup": 2},
    "nesterov": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.05},
    "adam": {"optimizer": "adam", "weight_decay": 0.05, "eps": 1e-3},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1, "eps_root": 1e-4},
    "clipped momentum": {"momentum": 0.8, "clip_norm": 0.5},
    "clipped adam": {"optimizer": "adam", "clip_norm": 0.5, "eps_root": 1e-3},
}


def recipe(**changes: Any) -> Recipe:
    base: dict[str, Any] = {"learning_rate": 0.1, "batch_size": 4, "epochs": 3}
    return Recipe(**{**base, "dtype": torch.float64, **changes})


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 3))


def convolutions() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)),
        nn.Conv2d(1, 3, 2, padding=1),
        nn.GroupNorm(1, 3),
        nn.Tanh(),
        nn.AvgPool2d(3),
        nn.Flatten(),
        nn.LayerNorm(3),
        nn.Linear(3, 3),
    )


def data(n: int = N, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return x, torch.randint(3, (n,), generator=generator)


def queries() -> tuple[Tensor, Tensor]:
    return data(Q, seed=2)


def unrolled(
    model: nn.Module, chosen: Recipe, weights: Tensor, measure: str
) -> NDArray[np.float64]:
    """Scores by automatic differentiation of a plain loop that keeps its whole graph."""
    model = model.double()
    x, y = data()
    loss: Loss = CrossEntropy()
    w = weights.clone().requires_grad_()
    names = [name for name, _ in model.named_parameters()]
    params = [p.detach().clone().requires_grad_() for p in model.parameters()]
    first = [torch.zeros_like(p) for p in params]
    second = [torch.zeros_like(p) for p in params]
    batches = chosen.batches(N)
    for t, (batch, rate) in enumerate(
        zip(batches, chosen.rates(len(batches)), strict=True), start=1
    ):
        outputs = functional_call(model, dict(zip(names, params, strict=True)), (x[batch],))
        value = (w[batch] * loss(outputs, y[batch])).sum() / len(batch)
        grads = list(torch.autograd.grad(value, params, create_graph=True))
        if chosen.clip_norm is not None:
            norm = torch.cat([g.flatten() for g in grads]).norm()
            if float(norm.detach()) + 1e-6 > chosen.clip_norm:
                grads = [g * chosen.clip_norm / (norm + 1e-6) for g in grads]
        for i, g in enumerate(grads):
            if chosen.optimizer == "adamw":
                params[i] = params[i] * (1 - rate * chosen.weight_decay)
            else:
                g = g + chosen.weight_decay * params[i]
            if chosen.optimizer == "sgd":
                first[i] = chosen.momentum * first[i] + g
                step = g + chosen.momentum * first[i] if chosen.nesterov else first[i]
                params[i] = params[i] - rate * step
            else:
                one, two = chosen.betas
                first[i] = one * first[i] + (1 - one) * g
                second[i] = two * second[i] + (1 - two) * g**2
                root = (second[i] / (1 - two**t) + chosen.eps_root).sqrt()
                params[i] = params[i] - rate * (first[i] / (1 - one**t)) / (root + chosen.eps)
    xq, yq = queries()
    outputs = functional_call(model, dict(zip(names, params, strict=True)), (xq,))
    values = measure_of(loss, measure)(outputs, yq)
    rows = [torch.autograd.grad(value, w, retain_graph=True)[0] for value in values]
    return np.asarray((-torch.stack(rows) * weights).numpy(), dtype=np.float64)


@pytest.mark.parametrize("model", [mlp, convolutions])
@pytest.mark.parametrize("name", RECIPES)
def test_equals_autodiff_of_the_unrolled_loop(name: str, model: Any) -> None:
    chosen = recipe(**RECIPES[name])
    weights = torch.linspace(0, 1.5, N, dtype=torch.float64)
    run = train(model(), CrossEntropy(), data(), chosen, weights=weights)
    found = metagradient(run, queries()).values
    expected = unrolled(model(), chosen, weights, "loss")
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * np.abs(expected).max())
    assert (found[:, 0] == 0).all()  # Weight zero cannot be removed again.


@pytest.mark.parametrize("model", [mlp, convolutions])
def test_equals_autodiff_where_the_steps_are_traced(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whence.training.tracing._CALLS_BEFORE_TRACING", 2)
    chosen, ones = recipe(**RECIPES["adamw"]), torch.ones(N, dtype=torch.float64)
    run = train(model(), CrossEntropy(), data(), chosen)
    found, expected = metagradient(run, queries()).values, unrolled(model(), chosen, ones, "loss")
    assert run.program._pullback._traces
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("measure", ["margin", "probability"])
def test_other_measures(measure: str) -> None:
    chosen = recipe(momentum=0.9)
    run = train(mlp(), CrossEntropy(), data(), chosen)
    ones = torch.ones(N, dtype=torch.float64)
    scores = metagradient(run, queries(), measure=measure)
    assert scores.measure == measure
    np.testing.assert_allclose(scores.values, unrolled(mlp(), chosen, ones, measure), atol=1e-12)


def first_logit(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs[:, 0]


def test_a_function_as_measure() -> None:
    run = train(mlp(), CrossEntropy(), data(), recipe())
    scores = metagradient(run, queries(), measure=first_logit, query_ids=list("abcde"))
    assert scores.measure == "first_logit"
    assert scores.query_ids.tolist() == list("abcde")
    params = retrain(run, 1 - 1e-5 * torch.eye(N, dtype=torch.float64)[:1])[0]
    x = queries()[0]
    change = run.program.outputs(params, x)[:, 0] - run.program.outputs(run.params, x)[:, 0]
    np.testing.assert_allclose(scores.values[:, 0], change.numpy() / 1e-5, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", RECIPES)
def test_equals_finite_differences_of_retraining(name: str) -> None:
    run = train(mlp(), CrossEntropy(), data(), recipe(**RECIPES[name]))
    h, eye = 1e-4, torch.eye(N, dtype=torch.float64)
    params = retrain(run, torch.cat([1 - h * eye, 1 + h * eye]))
    losses = torch.stack([run.program.losses(p, *queries()) for p in params])
    expected = ((losses[:N] - losses[N:]) / (2 * h)).T.numpy()
    found = metagradient(run, queries()).values
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_predicts_removal_and_its_sign() -> None:
    run = train(mlp(), CrossEntropy(), data(), recipe(learning_rate=0.02))
    without = retrain(run, 1 - torch.eye(N, dtype=torch.float64))
    losses = torch.stack([run.program.losses(p, *queries()) for p in without])
    actual = (losses - run.program.losses(run.params, *queries())).T.numpy()
    found = metagradient(run, queries()).values
    assert np.corrcoef(found.ravel(), actual.ravel())[0, 1] > 0.999
    assert np.polyfit(found.ravel(), actual.ravel(), 1)[0] == pytest.approx(1, abs=0.02)


def test_does_not_depend_on_what_is_kept_or_done_together(tmp_path: Path) -> None:
    chosen = recipe(optimizer="adam", eps_root=1e-3)
    expected = metagradient(train(mlp(), CrossEntropy(), data(), chosen), queries()).values
    for options in ({"memory": 0}, {"directory": tmp_path}):
        run = train(mlp(), CrossEntropy(), data(), chosen, **options)  # type: ignore[arg-type]
        for together in (1, 2, 64):
            found = metagradient(run, queries(), together=together).values
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)
    assert list((tmp_path / "reverse").iterdir()) == []


def test_an_answer_outlives_a_file_that_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(mlp(), CrossEntropy(), data(), recipe(), directory=tmp_path)

    def refused(path: Path, missing_ok: bool = False) -> None:
        if path.parent.name == "reverse" and path.suffix == ".npz":
            raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refused)
        found = metagradient(run, queries()).values
    assert len(list((tmp_path / "reverse").iterdir())) > 0
    np.testing.assert_array_equal(metagradient(run, queries()).values, found)
    assert list((tmp_path / "reverse").iterdir()) == []


def test_float32_is_close_to_float64() -> None:
    double = train(mlp(), CrossEntropy(), data(), recipe(momentum=0.9))
    single = train(mlp(), CrossEntropy(), data(), recipe(momentum=0.9, dtype=torch.float32))
    expected = metagradient(double, queries()).values
    found = metagradient(single, queries()).values
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


class Stopped(Exception):
    """What interrupts a walk back in a test."""


class StoppingBar:
    """A progress bar that interrupts after some updates."""

    def __init__(self, updates: int) -> None:
        self.left, self.done = updates, 0

    def update(self, n: int) -> None:
        self.done += n
        self.left -= 1
        if self.left < 0:
            raise Stopped


def interrupted(run: Run, asked: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Walk back, interrupted after the first segments; return the starting cotangents."""
    cotangents = query_gradients(run, CrossEntropy(), *(asked or queries()))
    with pytest.raises(Stopped):
        weight_gradients(run, cotangents, StoppingBar(10))  # type: ignore[arg-type]
    return cotangents


def test_an_interrupted_walk_goes_on_from_its_last_segment(tmp_path: Path) -> None:
    run = train(mlp(), CrossEntropy(), data(), recipe(momentum=0.9), directory=tmp_path)
    cotangents = interrupted(run)
    for path in (tmp_path / "states").iterdir():
        # Segments that are done are not read again.
        if int(path.stem) > run.segments()[-1][0]:
            path.unlink()
    memory = train(mlp(), CrossEntropy(), data(), recipe(momentum=0.9))
    expected = weight_gradients(memory, cotangents)
    assert torch.allclose(weight_gradients(run, cotangents), expected, rtol=0, atol=1e-13)


def test_the_bar_of_a_walk_that_goes_on_counts_each_step_once(tmp_path: Path) -> None:
    run = train(mlp(), CrossEntropy(), data(), recipe(epochs=2), directory=tmp_path)
    lengths = [stop - start for start, stop in run.segments()]
    assert lengths[-1] < lengths[0], (
        "the segments that are done are shorter than those that are not"
    )
    cotangents = query_gradients(run, CrossEntropy(), *queries())
    with pytest.raises(Stopped):
        weight_gradients(run, cotangents, StoppingBar(lengths[-1] + 1))  # type: ignore[arg-type]
    bar = StoppingBar(1000)
    weight_gradients(run, cotangents, bar)  # type: ignore[arg-type]
    assert bar.done == run.steps * len(cotangents)


def test_damaged_progress_is_refused(tmp_path: Path) -> None:
    run = train(mlp(), CrossEntropy(), data(), recipe(), directory=tmp_path)
    cotangents = interrupted(run)
    (progress,) = (tmp_path / "reverse").iterdir()
    assert_noticed(progress, lambda: weight_gradients(run, cotangents), flips=500, cuts=[0, 500])
    other = interrupted(run, data(2, seed=3))
    (second,) = set((tmp_path / "reverse").iterdir()) - {progress}
    progress.write_bytes(second.read_bytes())
    with pytest.raises(CorruptFile, match=f"{progress.name} to belong to the pass back"):
        weight_gradients(run, cotangents)
    assert weight_gradients(run, other).shape == (len(other), N)  # Other queries are free.
    assert sorted((tmp_path / "reverse").iterdir()) == [progress]


def test_input_that_does_not_fit() -> None:
    run = train(mlp(), CrossEntropy(), data(), recipe())
    x, y = queries()
    with pytest.raises(InvalidInput, match=r"\[q, 4\]"):
        metagradient(run, (x[:, :3], y))
    with pytest.raises(InvalidInput, match="label"):
        metagradient(run, (x, y + 7))
    with pytest.raises(InvalidInput, match="one value per example"):
        metagradient(run, (x, y), measure=lambda outputs, targets: outputs)
    with pytest.raises(InvalidInput, match="measure"):
        metagradient(run, (x, y), measure="correctness")
    with pytest.raises(InvalidInput, match="together"):
        metagradient(run, (x, y), together=0)
    assert Metagradient(together=1).together == 1


def test_a_derivative_that_overflows_is_an_error() -> None:
    run = train(mlp(), CrossEntropy(), data(), recipe())
    cotangents = torch.full((1, len(run.params)), torch.inf, dtype=torch.float64)
    with pytest.raises(Diverged, match="metasmoothness"):
        weight_gradients(run, cotangents)


def test_metasmoothness_is_one_on_a_straight_path_and_low_on_a_bent_one() -> None:
    x, y = data(60)
    line = train(nn.Linear(4, 4), SquaredError(), (x, x), recipe(learning_rate=0.02))
    assert metasmoothness(line, fraction=0.05).mean > 0.99
    calm, wild = (
        train(mlp(), CrossEntropy(), (x, y), recipe(learning_rate=rate, momentum=0.9, epochs=10))
        for rate in (0.01, 2.0)
    )
    found = metasmoothness(calm, fraction=0.05)
    assert found.values.shape == (8,)
    assert found.mean > 0.9 > 0.6 > metasmoothness(wild, fraction=0.05).mean
    again = metasmoothness(calm, fraction=0.05, directions=2, together=1)
    assert torch.allclose(found.values[:2], again.values, atol=1e-6)


def test_metasmoothness_is_what_its_formula_says() -> None:
    run = train(mlp(), CrossEntropy(), data(), recipe(momentum=0.9))
    found = metasmoothness(run, fraction=0.2, directions=2, seed=5)
    generator = np.random.default_rng(5)
    for value in found.values:
        subset = generator.choice(N, round(0.2 * N), replace=False)
        path = []
        for weight in (1.0, 0.5, 0.0):
            weights = torch.ones(N)
            weights[subset] = weight
            path.append(
                train(mlp(), CrossEntropy(), data(), run.recipe, weights=weights).params.numpy()
            )
        one, two = path[1] - path[0], path[2] - path[1]
        expected = np.sum(np.abs(one) * np.sign(one) * np.sign(two)) / np.abs(one).sum()
        assert float(value) == pytest.approx(expected, abs=1e-9)
    with pytest.raises(InvalidInput, match="fraction"):
        metasmoothness(run, fraction=1.0)
