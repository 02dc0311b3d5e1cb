"""Trainings by transformers.Trainer: what its callback and its own checkpoints are good for."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

import whence
from tests.damage import assert_noticed
from whence.errors import CorruptFile, InvalidInput, NotWritten, UnsupportedModel
from whence.network.objective import ModuleObjective
from whence.training.scaling import scaling_of, second_moment
from whence.training.trainer import Recorder, StepCount

pytest.importorskip("accelerate")
pytestmark = pytest.mark.filterwarnings("ignore")

_TEXTS = [
    {"input_ids": torch.randint(2, 20, (5,), generator=torch.Generator().manual_seed(i)).tolist()}
    for i in range(6)
]


def made(folder: Path, *, callback: bool, adapter: Any = None, **options: Any) -> ModuleObjective:
    """A small GPT-2 trained by the Trainer in 4 steps, or an adapter of it, as an objective."""
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 20,
        "n_positions": 8,
        "n_embd": 8,
        "n_layer": 1 + bool(adapter),
        "n_head": 2,
    }
    config = GPT2Config(**sizes, bos_token_id=0, eos_token_id=1)
    config.resid_pdrop = config.embd_pdrop = config.attn_pdrop = 0.0
    model: Any = GPT2LMHeadModel(config)
    if adapter is not None:
        model = pytest.importorskip("peft").get_peft_model(model, adapter)
    arguments = TrainingArguments(
        output_dir=str(folder / "run"),
        per_device_train_batch_size=3,
        num_train_epochs=2,
        learning_rate=1e-2,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        **options,
    )
    data = [{**text, "labels": text["input_ids"]} for text in _TEXTS]
    callbacks = [whence.trainer_callback(folder / "whence", every=2)] if callback else []
    Trainer(model=model, args=arguments, train_dataset=data, callbacks=callbacks).train()  # type: ignore[arg-type]
    return whence.from_transformers(model.eval(), _TEXTS)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ModuleObjective]:
    folder = tmp_path_factory.mktemp("trainer")
    options = {"save_strategy": "steps", "save_steps": 2, "warmup_steps": 1}
    return folder, made(folder, callback=True, **options)


def rows(objective: ModuleObjective, at: Tensor) -> Tensor:
    """G at some parameters, [n, p]."""
    there = objective.at(at)
    return there.gradient_columns(there.train, there.loss).T


@pytest.mark.parametrize("where", ["whence", "run"])
def test_tracin_goes_along_the_checkpoints(
    recorded: tuple[Path, ModuleObjective], where: str
) -> None:
    folder, objective = recorded
    run = whence.Run.from_trainer(folder / where, objective)
    path = run.path()
    assert len(path.points) == 2
    # Warm-up of a step to 1e-2, then linearly to zero in the other three.
    rates = [0.0, 1e-2, 1e-2 * 2 / 3, 1e-2 / 3]
    np.testing.assert_allclose(path.rates, [sum(rates[:2]), sum(rates[2:])], rtol=1e-6)
    torch.testing.assert_close(path.points[-1], objective.params)
    found = whence.TracIn().fit(run).scores(_TEXTS[:2])
    truth = sum(
        rate * rows(objective, at)[:2] @ rows(objective, at).T
        for rate, at in zip(path.rates, path.points, strict=True)
    )
    np.testing.assert_allclose(found.values, truth / 6, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("where", ["whence", "run"])
def test_gradients_scaled_as_adam_scaled_them(
    recorded: tuple[Path, ModuleObjective], where: str, cosine: bool
) -> None:
    folder, objective = recorded
    run = whence.Run.from_trainer(folder / where, objective)
    path = run.path()
    assert path.scales is not None
    method = whence.TracIn(optimizer=True, cosine=cosine)
    found = method.fit(run).scores(_TEXTS[:2])
    total = torch.zeros(2, 6)
    for rate, at, scale in zip(path.rates, path.points, path.scales, strict=True):
        G = rows(objective, at)
        scaled = scale @ G.T
        dots = G[:2] @ scaled
        if cosine:
            dots = dots / G[:2].norm(dim=1, keepdim=True) / scaled.norm(dim=0) / 2
        else:
            dots = dots * rate / 6
        total += dots
    np.testing.assert_allclose(found.values, total, rtol=1e-3, atol=1e-6)
    own = method.fit(run).self_scores([0, 1])
    np.testing.assert_allclose(own, total.diagonal(), rtol=1e-3)


ADAPTERS: dict[str, Any] = {
    "lora": lambda peft: peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True),
    "dora": lambda peft: peft.LoraConfig(
        r=2, target_modules=["c_attn"], fan_in_fan_out=True, use_dora=True
    ),
    "ia3": lambda peft: peft.IA3Config(
        target_modules=["c_attn"], feedforward_modules=[], fan_in_fan_out=True
    ),
    "prompt": lambda peft: peft.PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"),
    "prefix": lambda peft: peft.PrefixTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"),
    "layer kept": lambda peft: peft.LoraConfig(
        r=2, target_modules=["c_attn"], fan_in_fan_out=True, modules_to_save=["wpe"]
    ),
}


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_adapters_are_found_in_the_checkpoints_of_the_trainer(adapter: str, tmp_path: Path) -> None:
    """The same parameters, and the same scaling of each, as the callback writes by their names."""
    adapted = ADAPTERS[adapter](pytest.importorskip("peft"))
    objective = made(tmp_path, callback=True, adapter=adapted, save_strategy="steps", save_steps=2)
    assert_the_same_is_kept(tmp_path, objective)


def test_the_callback_and_the_trainer_keep_the_same(
    recorded: tuple[Path, ModuleObjective],
) -> None:
    assert_the_same_is_kept(*recorded)


def assert_the_same_is_kept(folder: Path, objective: ModuleObjective) -> None:
    ours, theirs = (
        whence.Run.from_trainer(folder / name, objective).path() for name in ("whence", "run")
    )
    for mine, other in zip(ours.points, theirs.points, strict=True):
        torch.testing.assert_close(mine, other)
    assert ours.scales is not None
    assert theirs.scales is not None
    for mine, other in zip(ours.scales, theirs.scales, strict=True):
        one = torch.ones(len(objective.params))
        torch.testing.assert_close(mine @ one, other @ one)


def test_a_training_in_mixed_precision_is_explained_in_that_of_its_parameters(
    tmp_path: Path,
) -> None:
    objective = made(tmp_path, callback=False, save_strategy="no", bf16=True)
    model = objective.module.filled(objective.params).model
    with torch.no_grad():
        own = GPT2LMHeadModel.forward(model, torch.tensor([_TEXTS[0]["input_ids"]])).logits
    found = objective.outputs(objective.train.subset(np.arange(1)))
    torch.testing.assert_close(found, own[:, :-1], rtol=1e-5, atol=1e-6)


def test_influence_looks_at_the_end_and_refits_are_refused(
    recorded: tuple[Path, ModuleObjective],
) -> None:
    folder, objective = recorded
    run = whence.Run.from_trainer(folder / "whence", objective)
    same = whence.influence(objective, _TEXTS[:1], solver=whence.KFAC()).values
    np.testing.assert_array_equal(
        whence.influence(run, _TEXTS[:1], solver=whence.KFAC()).values, same
    )
    with pytest.raises(UnsupportedModel, match="cannot be repeated|can be repeated"):
        run.refit()


def test_checkpoints_of_another_model_are_refused(
    recorded: tuple[Path, ModuleObjective], tmp_path: Path
) -> None:
    folder, objective = recorded
    with pytest.raises(InvalidInput, match="the end of its training"):
        whence.Run.from_trainer(folder / "whence", objective.at(objective.params + 1))
    with pytest.raises(InvalidInput, match="Got none"):
        whence.Run.from_trainer(tmp_path, objective)
    part = whence.from_transformers(
        objective.module.filled(objective.params).model,
        _TEXTS,
        params=lambda name, p: "attn" in name,
    )
    with pytest.raises(InvalidInput, match="parameters that were trained"):
        whence.Run.from_trainer(folder / "whence", part)
    with pytest.raises(InvalidInput, match="second moments"):
        whence.TracIn(optimizer=True).fit(objective)
    with pytest.raises(InvalidInput, match="every >= 1"):
        whence.trainer_callback(tmp_path, every=0)


def test_what_a_killed_training_half_wrote_is_removed(tmp_path: Path) -> None:
    for _ in range(2):
        Recorder(tmp_path, None).on_train_begin(StepCount(0, 4), torch.nn.Linear(2, 1), [])
        assert [path.name for path in (tmp_path / "states").iterdir()] == []
        (tmp_path / "states" / ".whence-0123.tmp").write_bytes(b"half")


def test_checkpoints_that_cannot_be_removed_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(tmp_path, range(4), every=2)

    def refused(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refused)
    with pytest.raises(NotWritten, match=r"00000002.npz.*Read-only file system"):
        record(tmp_path, range(4), every=2)


@pytest.mark.parametrize("name", ["optimizer.pt", "trainer_state.json", "model.safetensors"])
def test_damaged_checkpoints_of_the_trainer_are_named(
    recorded: tuple[Path, ModuleObjective], name: str
) -> None:
    folder, objective = recorded
    path = folder / "run" / "checkpoint-2" / name
    whole = path.read_bytes()
    try:
        for damaged in (b"", whole[: len(whole) // 2], b"[1]", b"{}", b"\x80" * 50):
            path.write_bytes(damaged)
            with pytest.raises(CorruptFile, match=rf"checkpoint-2/{name}.*cannot be read"):
                whence.Run.from_trainer(folder / "run", objective)
    finally:
        path.write_bytes(whole)


def record(folder: Path, steps: range, *, every: int, rate: float = 1.0) -> torch.nn.Linear:
    """A training of one parameter, which is the step that it has reached, over some of 12 steps."""
    model = torch.nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    recorder = Recorder(folder, every)
    recorder.on_train_begin(StepCount(steps.start, 12), model, [optimizer])
    for step in steps:
        recorder.on_step_begin(StepCount(step, 12), model, [optimizer])
        torch.nn.init.constant_(model.weight, step + 1)
        recorder.on_step_end(StepCount(step + 1, 12), model, [optimizer])
    return model


def read(folder: Path, model: torch.nn.Linear) -> list[tuple[float, float]]:
    """What is read of a recorded training: each point with the sum of the rates before it."""
    data = torch.ones(2, 1), torch.ones(2, 1)
    objective = whence.from_torch(model, whence.SquaredError(), data)
    path = whence.Run.from_trainer(folder, objective).path()
    return [(float(p), float(r)) for p, r in zip(path.points, path.rates, strict=True)]


def test_a_directory_holds_one_training(tmp_path: Path) -> None:
    record(tmp_path / "a", range(12), every=3)
    model = record(tmp_path / "a", range(12), every=4, rate=2.0)
    assert read(tmp_path / "a", model) == [(4, 8), (8, 8), (12, 8)]
    record(tmp_path / "a", range(4, 9), every=4, rate=2.0)
    record(tmp_path / "a", range(6, 12), every=4, rate=2.0)  # two steps of which nothing is kept
    assert read(tmp_path / "a", model) == [(4, 8), (8, 8), (12, 8)]
    record(tmp_path / "b", range(12), every=4, rate=0.5)
    name = "states/00000008.npz"
    (tmp_path / "a" / name).write_bytes((tmp_path / "b" / name).read_bytes())
    with pytest.raises(CorruptFile, match=name):
        read(tmp_path / "a", model)


def test_one_callback_records_one_training_after_the_other(tmp_path: Path) -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    recorder = Recorder(tmp_path, 2)
    for _ in range(2):
        recorder.on_train_begin(StepCount(0, 4), model, [])
        recorder.rates.append(0.1)  # of a step that was not finished
        recorder.on_train_begin(StepCount(0, 4), model, [])
        for step in range(1, 5):
            recorder.rates.append(1.0)
            recorder.on_step_end(StepCount(step, 4), model, [])
        assert read(tmp_path, model)[0][1] == 2
        assert len(read(tmp_path, model)) == 2


def test_every_bit_of_a_recorded_training(tmp_path: Path) -> None:
    model = record(tmp_path, range(12), every=6)
    for path in (tmp_path / "states" / "00000006.npz", tmp_path / "manifest.json"):
        assert_noticed(path, lambda: read(tmp_path, model), flips=30, cuts=[0, 99])


def test_second_moments() -> None:
    square = torch.rand(3, 4) + 0.1
    product = torch.outer(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0, 7.0]))
    rows, columns = product.mean(1), product.mean(0)
    adam = {"exp_avg_sq": square * (1 - 0.9**2), "step": torch.tensor(2.0)}
    for state, group, expected in (
        (adam, {"betas": (0.5, 0.9)}, square),
        ({"square_avg": square}, {}, square),
        ({"exp_avg_sq_row": rows, "exp_avg_sq_col": columns}, {}, product),
        ({"row_var": rows[:, None], "col_var": columns[None]}, {}, product),
    ):
        found = second_moment(state, group)
        assert found is not None
        torch.testing.assert_close(found, expected)
    assert second_moment({"momentum_buffer": square}, {}) is None


@pytest.mark.parametrize("shape", [(3, 5), (5, 3)])
@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
def test_the_map_of_muon_gives_the_step_that_it_made(shape: tuple[int, int], adjust: str) -> None:
    """Without Nesterov's part a step is −lr S M, M the momentum: to the rounding of bfloat16."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(shape))
    before = weight.detach().clone()
    muon = torch.optim.Muon([weight], lr=0.1, weight_decay=0, nesterov=False, adjust_lr_fn=adjust)
    for _ in range(2):
        before = weight.detach().clone()
        weight.grad = torch.randn(shape)
        muon.step()
    scaling = scaling_of(muon.state[weight], muon.param_groups[0])
    assert scaling is not None
    S = scaling.operator(weight.shape, before)
    momentum = muon.state[weight]["momentum_buffer"].flatten()
    step = -0.1 * (S @ momentum).view(shape)
    torch.testing.assert_close(
        weight.detach() - before, step, rtol=0.05, atol=0.02 * float(step.abs().max())
    )
    V = torch.randn(15, 2)
    torch.testing.assert_close(S.rmatmat(V), S.matmat(V))


@pytest.mark.parametrize("cosine", [False, True])
def test_gradients_scaled_by_the_optimizer_in_an_index(
    recorded: tuple[Path, ModuleObjective], tmp_path: Path, cosine: bool
) -> None:
    folder, objective = recorded
    run = whence.Run.from_trainer(folder / "whence", objective)
    method = whence.TracIn(optimizer=True, cosine=cosine)
    whole = method.fit(run).scores(_TEXTS[:2])
    index = whence.Index.build(run, tmp_path / "index", method=method, rows="float32")
    hits = index.query(_TEXTS[:2], k=6)
    truth = np.take_along_axis(whole.values, hits.helpful.positions, 1)
    np.testing.assert_allclose(hits.helpful.values, truth, rtol=1e-4, atol=1e-6)
    projected = whence.TracIn(optimizer=True, cosine=cosine, size=10_000)  # nothing projected away
    np.testing.assert_allclose(
        projected.fit(run).scores(_TEXTS[:2]).values, whole.values, rtol=1e-4, atol=1e-6
    )
