"""A callback for `transformers.Trainer` that keeps what methods along a training need.

```
directory/
├── manifest.json            names and shapes of the trained parameters, in the order of θ
└── states/00000120.npz      θ after step 120, its second moments, and the sum of learning rates
```
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from whence.checked import checked
from whence.errors import InvalidInput
from whence.storage import make_folder, read_manifest, write_arrays, write_manifest

KIND = "training by transformers.Trainer"
_POINTS = 5  # checkpoints of a training unless told
_EVENTS = ("on_train_begin", "on_step_begin", "on_step_end")


@checked
def trainer_callback(directory: str | os.PathLike[str], *, every: int | None = None) -> Any:
    """Return a callback that records a training for TracIn and its kind as it runs.

    `Trainer(..., callbacks=[whence.trainer_callback("runs/whence")])`, also of TRL. Every so many
    steps it writes the trained parameters, their second moments where the optimizer has them (Adam,
    AdamW, Adafactor), and the sum of the learning rates since the checkpoint before.
    `whence.Run.from_trainer` reads the directory.

    Args:
        directory: Where to write; made if missing. A training that is resumed goes on in it.
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

    if every is not None and every < 1:
        raise InvalidInput(f"Expected every >= 1. Got {every}.")
    recorder = Recorder(Path(directory), every)

    def event(name: str) -> Any:
        def call(_: Any, args: Any, state: Any, control: Any, **given: Any) -> None:
            getattr(recorder, name)(state, given["model"], given.get("optimizer"))

        return call

    kind = type("Recording", (TrainerCallback,), {name: event(name) for name in _EVENTS})
    return kind()


@final
@dataclass(eq=False)
class Recorder:
    """What the callback does at each event of a training.

    Attributes:
        root: The directory.
        every: Steps between checkpoints, or `None`.
        rates: Learning rates of the steps since the last checkpoint.
    """

    root: Path
    every: int | None
    rates: list[float] = field(default_factory=list)

    def on_train_begin(self, state: Any, model: nn.Module, optimizer: Any) -> None:
        """Write the manifest, or make sure that it is this model's."""
        shapes = {name: list(p.shape) for name, p in trained(model).items()}
        path = self.root / "manifest.json"
        if not path.exists():
            make_folder(self.root)
            make_folder(self.root / "states")
            write_manifest(path, KIND, {"shapes": shapes})
        elif read_manifest(path, KIND)["shapes"] != shapes:
            raise InvalidInput(
                f"Expected {self.root} to be empty or to hold checkpoints of this model. Got those "
                "of another. Choose another directory."
            )

    def on_step_begin(self, state: Any, model: nn.Module, optimizer: Any) -> None:
        """Note the learning rate of the step."""
        self.rates.append(max(float(group["lr"]) for group in optimizer.param_groups))

    def on_step_end(self, state: Any, model: nn.Module, optimizer: Any) -> None:
        """Write a checkpoint where one is due, and after the last step."""
        every = self.every or max(math.ceil(state.max_steps / _POINTS), 1)
        if state.global_step % every and state.global_step != state.max_steps:
            return
        if not getattr(state, "is_world_process_zero", True):
            return
        parameters = trained(model)
        arrays = {
            "params": flat(parameters),
            "rate": torch.tensor(sum(self.rates), dtype=torch.float64),
        }
        moments = {
            name: second_moment(optimizer, optimizer.state.get(p, {}), p)
            for name, p in parameters.items()
        }
        found = {name: moment for name, moment in moments.items() if moment is not None}
        if len(found) == len(moments):
            arrays["second"] = flat(found)
        step = int(state.global_step)
        path = self.root / "states" / f"{step:08d}.npz"
        write_arrays(path, f"step {step}", **{key: v.numpy() for key, v in arrays.items()})
        self.rates.clear()


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by the names of the model inside any wrapper."""
    inner = getattr(model, "module", model)
    return {name: p for name, p in inner.named_parameters() if p.requires_grad}


def flat(pieces: Mapping[str, Tensor]) -> Tensor:
    """Return tensors one after the other in float32, [p]."""
    return torch.cat([piece.detach().float().cpu().flatten() for piece in pieces.values()])


def second_moment(optimizer: Any, state: Mapping[str, Any], parameter: Tensor) -> Tensor | None:
    """Return v̂ of a parameter: of Adam free of its start at zero, of Adafactor from its factors.

    Args:
        optimizer: With `param_groups`.
        state: What the optimizer keeps for the parameter.
        parameter: The parameter.

    Returns:
        E g², in the parameter's shape; `None` if the optimizer keeps none.
    """
    group: Mapping[str, Any] = next(
        (g for g in optimizer.param_groups if any(p is parameter for p in g["params"])), {}
    )
    return unbiased(state, group)


def unbiased(state: Mapping[str, Any], group: Mapping[str, Any]) -> Tensor | None:
    """Return v̂ from the state of a parameter and the options of its group; see `second_moment`."""
    found: Tensor | None = None
    if "exp_avg_sq" in state:
        found = torch.as_tensor(state["exp_avg_sq"])
        if "betas" in group:
            found = found / (1 - float(group["betas"][1]) ** float(state["step"]))
    elif "exp_avg_sq_row" in state:
        rows, columns = state["exp_avg_sq_row"], state["exp_avg_sq_col"]
        found = (rows / rows.mean(-1, keepdim=True)).unsqueeze(-1) * columns.unsqueeze(-2)
    return found
