"""A training that cannot be repeated, known by its checkpoints."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from whence.checked import checked
from whence.errors import CorruptFile, InvalidInput, UnsupportedModel
from whence.network.examples import ModuleExamples
from whence.network.objective import ModuleObjective
from whence.objective.losses import Loss
from whence.objective.trained import Data, Examples, Trained
from whence.objective.trained import Path as TrainingPath
from whence.storage import read_arrays, read_manifest
from whence.training.scaling import KINDS, Scaling, joined, scaling_of
from whence.training.trainer import KIND, owner_of

_CLOSE = 1e-2  # relative, in which the last checkpoint must be the model that is explained


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Trajectory(Trained):
    """A finished training with its checkpoints, for the methods that need no replay of it.

    `whence.TracIn` goes along it; methods that look at the end of the training, such as influence
    and TRAK, take `objective`'s.

    Attributes:
        objective: R at the end.
        checkpoints: θ_t, [p] each, with what they stand for.
        convex: False.
    """

    objective: ModuleObjective
    checkpoints: TrainingPath
    convex: bool = False

    @property
    def train(self) -> ModuleExamples:
        """The training examples."""
        return self.objective.train

    @property
    def weights(self) -> Tensor:
        """The example weights, [n]."""
        return self.objective.weights

    @property
    def loss(self) -> Loss:
        """The loss ℓ of one example."""
        return self.objective.loss

    @property
    def trained_loss(self) -> Loss:
        """The loss ℓ as it was minimized: the same."""
        return self.objective.loss

    @property
    def classes(self) -> tuple[Any, ...]:
        """The user's names of the classes."""
        return self.objective.classes

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the results must know, a sentence each."""
        return self.objective.notes

    def examples(self, data: Data) -> ModuleExamples:
        """Check and encode a user's (x, y)."""
        return self.objective.examples(data)

    def outputs(self, examples: Examples) -> Tensor:
        """Return f at the end of the training."""
        return self.objective.outputs(examples)

    def refit(self, weights: Tensor | None = None) -> Trained:
        """Raise: the training was not whence's, and cannot be repeated."""
        raise UnsupportedModel(
            "Expected a training that can be repeated. Got the checkpoints of one by another "
            "library, which is not recorded step by step. Train with whence.train for "
            "refits, or use methods that need none, such as whence.TracIn."
        )

    def differentiable(self) -> ModuleObjective:
        """Return R at the end of the training."""
        return self.objective

    def path(self) -> TrainingPath:
        """Return the checkpoints."""
        return self.checkpoints


@checked
def from_trainer(directory: str | os.PathLike[str], objective: Trained) -> Trajectory:
    """Return a training by `transformers.Trainer` or Lightning from what was written of it.

    Args:
        directory: That of `whence.trainer_callback` or `whence.lightning_callback`, or the output
            directory of a `Trainer`, with its folders checkpoint-…, of any ordinary run.
        objective: The trained model with its data, by `whence.from_transformers` or
            `whence.from_torch`.

    Returns:
        The training.

    Raises:
        InvalidInput: If the directory holds no checkpoints, those of another model, or none that
            the objective's parameters are the end of.
        CorruptFile: If a file of a checkpoint is damaged.
    """
    if not isinstance(objective, ModuleObjective):
        raise InvalidInput(
            "Expected an objective by whence.from_transformers or whence.from_torch. Got "
            f"{type(objective).__name__}."
        )
    root = Path(directory)
    recorded = (root / "manifest.json").exists()
    read: Callable[[Path, ModuleObjective], Iterator[_Point]] = _recorded if recorded else _ordinary
    points = sorted(read(root, objective), key=lambda point: point.step)
    if not points:
        raise InvalidInput(
            f"Expected checkpoints in {root}. Got none. Train with "
            "callbacks=[whence.trainer_callback(directory)], or with save_strategy='steps'."
        )
    last = points[-1].params.to(objective.params)
    scale = float(objective.params.abs().max())
    if not torch.allclose(last, objective.params, rtol=_CLOSE, atol=_CLOSE * scale):
        raise InvalidInput(
            "Expected the model at the end of its training. Got parameters that are not those of "
            f"the last checkpoint, of step {points[-1].step}. Load the model from it, or turn off "
            "load_best_model_at_end."
        )
    maps = [joined(point.scalings, _names(objective), objective.params) for point in points]
    known = tuple(each for each in maps if each is not None)
    return Trajectory(
        objective=objective,
        checkpoints=TrainingPath(
            points=tuple(point.params.to(objective.params) for point in points),
            rates=tuple(point.rate for point in points),
            scales=known if len(known) == len(points) else None,
        ),
    )


@final
@dataclass(frozen=True, eq=False)
class _Point:
    """One checkpoint: its step, θ, how gradients were scaled, the sum of the rates before it."""

    step: int
    params: Tensor
    scalings: Mapping[str, Scaling]
    rate: float


def _names(objective: ModuleObjective) -> dict[str, torch.Size]:
    """Return names and shapes of the parameters in the user's model."""
    shapes = objective.shapes.items()
    return {name.removeprefix("model."): shape for name, shape in shapes}


def _bare(names: Iterable[str]) -> dict[str, str]:
    """Return names of parameters without the modules that are all of theirs; each with its name."""
    shared = os.path.commonpath([name.rpartition(".")[0].replace(".", "/") for name in names])
    return {name[len(shared) + 1 if shared else 0 :]: name for name in names}


def _recorded(root: Path, objective: ModuleObjective) -> Iterator[_Point]:
    """Yield the checkpoints of a callback, which may have seen the model inside another module."""
    there = {name: list(shape) for name, shape in _names(objective).items()}
    manifest = read_manifest(root / "manifest.json", KIND)
    shapes, before = manifest["shapes"], 0
    found, own = _bare(shapes), _bare(there)
    if {each: shapes[name] for each, name in found.items()} != {
        each: there[name] for each, name in own.items()
    }:
        differing = sorted(found.keys() ^ own.keys()) or sorted(found)
        raise InvalidInput(
            f"Expected checkpoints of the objective's {len(there)} parameters. Got those of "
            f"{len(found)}, which differ in {differing[0]!r}. Pass params= so that the objective "
            "has the parameters that were trained."
        )
    for path in sorted((root / "states").glob("*.npz")):
        step = int(path.stem)
        arrays = read_arrays(path, owner_of(step, manifest.get("training", "without a name")))
        # Of steps between a checkpoint and a resumed training nothing is kept: as of the others.
        steps = step - int(arrays["after"])
        yield _Point(
            step=step,
            params=torch.from_numpy(arrays["params"]),
            scalings={
                own[bare]: kind(torch.from_numpy(arrays[f"{kind.kind}.{name}"]))
                for kind in KINDS
                for bare, name in found.items()
                if f"{kind.kind}.{name}" in arrays
            },
            rate=float(arrays["rate"]) / steps * (step - before),
        )
        before = step


def _ordinary(root: Path, objective: ModuleObjective) -> Iterator[_Point]:
    """Yield the checkpoints that `Trainer` itself keeps."""
    folders = {int(f.name.split("-")[1]): f for f in root.glob("checkpoint-*") if f.is_dir()}
    before = 0
    for step in sorted(folders):
        folder = folders[step]
        yield _Point(
            step=step,
            params=_values(folder, _names(objective)),
            scalings=_scalings(folder, _names(objective)),
            rate=_rate(folder, before, step),
        )
        before = step


def _values(folder: Path, names: Mapping[str, torch.Size]) -> Tensor:
    """Return θ from the safetensors of a checkpoint, [p]."""
    from safetensors.torch import load_file

    stored: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with _readable(file):
            stored |= load_file(file)
    pieces = []
    for name, shape in names.items():
        found = next((stored[each] for each in _stored_names(name) if each in stored), None)
        if found is None or found.shape != shape:
            raise InvalidInput(
                f"Expected {name!r} of shape {list(shape)} in {folder}. Got "
                f"{'no such tensor' if found is None else list(found.shape)}. Pass params= so that "
                "the objective has the parameters that were trained, or train with "
                "whence.trainer_callback, which keeps all of them."
            )
        pieces.append(found.float().flatten())
    return torch.cat(pieces)


def _stored_names(name: str) -> tuple[str, ...]:
    """Return the names that a checkpoint may have for a parameter: peft's are shorter."""
    bare = re.sub(r"(\.modules_to_save)?\.default(?=\.|$)", "", name)
    tuned = name == "prompt_encoder.default.embedding.weight"
    return (name, bare, bare.removesuffix(".weight"), *(["prompt_embeddings"] if tuned else []))


def _scalings(folder: Path, names: Mapping[str, torch.Size]) -> dict[str, Scaling]:
    """Return how the optimizer of a checkpoint scales gradients; nothing where it does not say.

    `Trainer` stores no names: first come the parameters with weight decay, matrices, then the
    others, vectors, both in the order of the model.
    """
    path = folder / "optimizer.pt"
    if not path.exists():
        return {}
    with _readable(path):
        content = torch.load(path, map_location="cpu", weights_only=True)
        groups, states = content["param_groups"], content["state"]
        places = [(place, group) for group in groups for place in group["params"]]
    one = sum(bool(group["params"]) for group in groups) == 1
    order = [name for name in names if one or len(names[name]) > 1]
    order += [name for name in names if name not in order]
    if len(places) != len(names):
        return {}
    found: dict[str, Scaling] = {}
    for name, (place, group) in zip(order, places, strict=True):
        scaling = scaling_of(states.get(place, {}), group)
        if scaling is not None and scaling.fits(names[name]):
            found[name] = scaling
    return found


def _rate(folder: Path, before: int, step: int) -> float:
    """Return the sum of the learning rates of steps before + 1, …, step, between those logged."""
    path = folder / "trainer_state.json"
    known = []
    if path.exists():
        with _readable(path):
            log = json.loads(path.read_text(encoding="utf-8"))["log_history"]
            known = [(e["step"], e["learning_rate"]) for e in log if "learning_rate" in e]
    if not known:
        return float(step - before)
    at, rates = zip(*known, strict=True)
    return float(np.interp(np.arange(before + 1, step + 1), at, rates).sum())


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raise `CorruptFile` where a file that `Trainer` wrote cannot be read."""
    try:
        yield
    except Exception as error:  # each format raises kinds of its own
        why = str(error).partition("\n")[0] or type(error).__name__
        raise CorruptFile(
            f"Expected what transformers.Trainer writes in {path}. Got a file that cannot be read "
            f"({why}). Copy the checkpoint again, or delete its folder if it is not the last one."
        ) from error
