"""A callback for `transformers.Trainer` that keeps what methods along a training need.

```
directory/
├── manifest.json            names and shapes of the trained parameters, in the order of θ, and
                             what names this training in its states
└── states/00000120.npz      θ after step 120, the sum of the learning rates since step "after", and
                             of each parameter "second.<name>", v̂, or "side.<name>", Muon's matrix
```
"""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from whence.checked import checked
from whence.errors import InvalidInput
from whence.storage import make_folder, read_manifest, write_arrays, write_manifest
from whence.storage.files import explained
from whence.training.scaling import scaling_of

KIND = "training recorded by a callback"
_POINTS = 5  # checkpoints of a training unless told
_EVENTS = ("on_train_begin", "on_step_begin", "on_step_end")


@checked
def trainer_callback(directory: str | os.PathLike[str], *, every: int | None = None) -> Any:
    """Return a callback that records a training for TracIn and its kind as it runs.

    `Trainer(..., callbacks=[whence.trainer_callback("runs/whence")])`, also of TRL. Every so many
    steps it writes the trained parameters, what the optimizer multiplies gradients by, where its
    state says so (Adam, AdamW, Adafactor, RMSprop, Adagrad, Muon), and the sum of the learning
    rates since the checkpoint before. `whence.Run.from_trainer` reads the directory.

    Args:
        directory: Where to write; made if missing. A training that is resumed goes on in it, one
            that begins anew replaces what is there.
        every: Steps between checkpoints, >= 1; a fifth of the training if `None`.

    Returns:
        A `transformers.TrainerCallback`.

    Raises:
        InvalidInput: If `every` is below 1; in the training, if the directory holds another model.

    Cost:
        Two numbers of four bytes on disk per trained parameter and checkpoint.

    Examples:
        >>> import tempfile, whence
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     type(whence.trainer_callback(folder)).__mro__[1].__name__
        'TrainerCallback'
    """
    from transformers import TrainerCallback

    recorder = Recorder(Path(directory), every)

    def event(name: str) -> Any:
        def call(_: Any, args: Any, state: Any, control: Any, **given: Any) -> None:
            optimizer = given.get("optimizer")
            optimizers = [] if optimizer is None else [optimizer]
            getattr(recorder, name)(StepCount.of(state), given["model"], optimizers)

        return call

    kind = type("Recording", (TrainerCallback,), {name: event(name) for name in _EVENTS})
    return kind()


@final
@dataclass(frozen=True)
class StepCount:
    """Where a training stands.

    Args:
        done: Optimizer steps so far.
        whole: Steps of the whole training.
        writes: Whether this process is the one that writes.
    """

    done: int
    whole: int
    writes: bool = True

    @staticmethod
    def of(state: Any) -> StepCount:
        """Return where a `transformers.TrainerState` stands."""
        writes = bool(getattr(state, "is_world_process_zero", True))
        return StepCount(int(state.global_step), int(state.max_steps), writes)


@final
@dataclass(eq=False)
class Recorder:
    """What the callback does at each event of a training.

    Attributes:
        root: The directory.
        every: Steps between checkpoints, or `None`.
        rates: Learning rates of the steps since the last checkpoint.
        last: The step of the last checkpoint, or that the training begins after.
        training: What names the training in its files.
    """

    root: Path
    every: int | None
    rates: list[float] = field(default_factory=list)
    last: int = 0
    training: str = ""

    def __post_init__(self) -> None:
        """Check the steps between checkpoints."""
        if self.every is not None and self.every < 1:
            raise InvalidInput(f"Expected every >= 1. Got {self.every}.")

    def on_train_begin(self, steps: StepCount, model: nn.Module, optimizers: Sequence[Any]) -> None:
        """Write the manifest, or make sure that it is this model's; remove what is made anew."""
        self.last = steps.done
        self.rates.clear()
        if not steps.writes:
            return
        shapes = {name: list(p.shape) for name, p in trained(model).items()}
        path = self.root / "manifest.json"
        make_folder(self.root)
        make_folder(self.root / "states")
        found = read_manifest(path, KIND) if path.exists() else {}
        if found.get("shapes", shapes) != shapes:
            raise InvalidInput(
                f"Expected {self.root} to be empty or to hold checkpoints of this model. Got those "
                "of another. Choose another directory."
            )
        for state in (self.root / "states").glob("*.npz"):
            if int(state.stem) > steps.done:  # of a training before, or of steps that come again
                with explained(state):
                    state.unlink(missing_ok=True)
        self.training = (
            found["training"] if steps.done and "training" in found else uuid.uuid4().hex
        )
        if self.training != found.get("training"):
            write_manifest(path, KIND, {"shapes": shapes, "training": self.training})

    def on_step_begin(self, steps: StepCount, model: nn.Module, optimizers: Sequence[Any]) -> None:
        """Note the learning rate of the step."""
        self.rates.append(max(float(group["lr"]) for group, _ in _groups(optimizers)))

    def on_step_end(self, steps: StepCount, model: nn.Module, optimizers: Sequence[Any]) -> None:
        """Write a checkpoint where one is due, and after the last step."""
        every = self.every or max(math.ceil(steps.whole / _POINTS), 1)
        due = steps.done // every > self.last // every or steps.done == steps.whole
        if not (due and steps.writes):
            return
        parameters = trained(model)
        arrays = {
            "params": flat(parameters),
            "rate": torch.tensor(sum(self.rates), dtype=torch.float64),
            "after": torch.tensor(self.last),
        }
        places = {id(p): found for found in _groups(optimizers) for p in found[0]["params"]}
        for name, p in parameters.items():
            group, state = places.get(id(p), ({}, {}))
            scaling = scaling_of(state.get(p, {}), group)
            if scaling is not None:
                arrays[f"{scaling.kind}.{name}"] = scaling.stored.detach().float().cpu()
        path = self.root / "states" / f"{steps.done:08d}.npz"
        owner = owner_of(steps.done, self.training)
        write_arrays(path, owner, **{key: v.numpy() for key, v in arrays.items()})
        self.last = steps.done
        self.rates.clear()


def _groups(optimizers: Sequence[Any]) -> list[tuple[dict[str, Any], Any]]:
    """Return the groups of parameters of optimizers, each with the state of its optimizer."""
    return [(group, each.state) for each in optimizers for group in each.param_groups]


def owner_of(step: int, training: str) -> str:
    """Return what the file of a checkpoint belongs to."""
    return f"step {step} of training {training}"


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by the names of the model inside any wrapper."""
    inner = getattr(model, "module", model)
    return {name: p for name, p in inner.named_parameters() if p.requires_grad}


def flat(pieces: Mapping[str, Tensor]) -> Tensor:
    """Return tensors one after the other in float32, [p]."""
    return torch.cat([piece.detach().float().cpu().flatten() for piece in pieces.values()])
