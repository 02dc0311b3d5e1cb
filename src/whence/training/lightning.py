"""A callback for Lightning that records a training as that for `transformers.Trainer` does."""

from __future__ import annotations

import math
import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from whence.checked import checked
from whence.errors import InvalidInput, MissingDependency
from whence.training.trainer import Recorder, StepCount

_PACKAGES = ("lightning.pytorch", "pytorch_lightning")


@checked
def lightning_callback(directory: str | os.PathLike[str], *, every: int | None = None) -> Any:
    """Return a Lightning callback that records a training for TracIn and its kind as it runs.

    `lightning.Trainer(..., callbacks=[whence.lightning_callback("runs/whence")])`, for automatic
    and manual optimization, with one optimizer or several. It writes what
    `whence.trainer_callback` writes; `whence.Run.from_trainer` reads the directory, given the
    objective of the module that was trained inside the LightningModule.

    Args:
        directory: Where to write; made if missing. A training that is resumed goes on in it, one
            that begins anew replaces what is there.
        every: Optimizer steps between checkpoints, >= 1; a fifth of the training if `None`.

    Returns:
        A `lightning.pytorch.Callback`.

    Raises:
        InvalidInput: If `every` is below 1; in the training, if the directory holds another model,
            or `every` is `None` and the training has no end.

    Cost:
        Two numbers of four bytes on disk per trained parameter and checkpoint.

    Examples:
        >>> import tempfile, whence
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     type(whence.lightning_callback(folder)).__mro__[1].__name__
        'Callback'
    """
    recorder, began = Recorder(Path(directory), every), dict[str, int]()

    def steps(trainer: Any) -> StepCount:
        whole = trainer.estimated_stepping_batches
        if every is None and not math.isfinite(whole):
            raise InvalidInput(
                "Expected a training of a known number of steps. Got one without an end. Pass "
                "every=, the steps between checkpoints."
            )
        # Each optimizer that is stepped by hand counts.
        return StepCount(int(trainer.global_step), whole, bool(trainer.is_global_zero))

    def on_train_start(_: Any, trainer: Any, module: Any) -> None:
        began["at"] = trainer.global_step
        recorder.on_train_begin(steps(trainer), module, trainer.optimizers)

    def on_train_batch_start(_: Any, trainer: Any, module: Any, batch: Any, index: int) -> None:
        began["at"] = trainer.global_step
        recorder.on_step_begin(steps(trainer), module, trainer.optimizers)

    def on_train_batch_end(
        _: Any, trainer: Any, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        if trainer.global_step == began["at"]:
            recorder.rates.pop()  # gradients were accumulated, and no step made
            return
        recorder.on_step_end(steps(trainer), module, trainer.optimizers)

    events = (on_train_start, on_train_batch_start, on_train_batch_end)
    return type("Recording", (_callback(),), {event.__name__: event for event in events})()


def _callback() -> Any:
    """Return the class of callbacks of the Lightning that is installed."""
    for name in _PACKAGES:
        if find_spec(name.partition(".")[0]) is not None:
            return import_module(name).Callback
    raise MissingDependency(
        "Expected Lightning. Got an environment without it. Run: pip install lightning"
    )
