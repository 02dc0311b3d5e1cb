"""Trainings that are recorded: of a user's model, and of a recorded one in another order."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from whence.checked import checked
from whence.checked import weights as checked_weights
from whence.objective.losses import Loss
from whence.objective.measures import OutputFunction
from whence.progress import progress
from whence.training.checkpoints import Checkpoints, InMemory, open_directory
from whence.training.program import Program, prepare
from whence.training.recipe import Recipe
from whence.training.replay import refuse_nonfinite
from whence.training.run import Run, advance, identity_of


@checked
def train(
    model: nn.Module,
    loss: Loss | OutputFunction,
    dataset: Any,
    recipe: Recipe,
    *,
    weights: Tensor | None = None,
    directory: str | os.PathLike[str] | None = None,
    memory: int = 2**30,
) -> Run:
    """Train a copy of a model, and store the run so that it can be differentiated and repeated.

    The result equals that of the same loop written with `torch.optim`, up to rounding.

    Args:
        model: A module that starts from its own parameters and is left as it is. Parameters with
            `requires_grad=False` stay fixed. It returns one row of outputs per example, and is
            called as model(x), model(*x) for a tuple or model(**x) for a dict; of a model of the
            transformers library, the logits are taken, and rows are read as by
            `whence.from_transformers`.
        loss: A `Loss`, or a function of (outputs [b, c], targets) giving losses [b].
        dataset: (x, y) as tensors, arrays or nested inputs; or a map-style data set of pairs (x, y)
            or of dicts with "labels", such as a Hugging Face data set.
        recipe: How to train.
        weights: wᵢ >= 0, [n]; ones by default. The divisor of a batch is its size.
        directory: Keep the states there. Called again with the same arguments after an
            interruption, the run goes on from its last state; when complete, it is only read. One
            process at a time may fill a directory; a second one is refused.
        memory: Bytes of states in memory. Where all T do not fit, as many as do are stored, and
            the reverse pass repeats the steps between. With a directory every √T-th is stored.

    Returns:
        The run.

    Raises:
        InvalidInput: If data, weights and model do not fit, the directory holds another run, or
            another process is filling it.
        NotDeterministic: If the model or the data set is random.
        UnsupportedModel: If the model mixes the examples of a batch.
        Diverged: If the loss does not stay finite.
        CorruptFile: If the directory holds a file that is cut short or changed.
        NotWritten: If the disk is full or the directory read-only. States written before stay.

    Cost:
        T forward and backward passes of a batch.

    Examples:
        >>> import torch
        >>> from whence.objective.losses import SquaredError
        >>> x = torch.tensor([[1.0], [2.0]])
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> recipe = Recipe(learning_rate=0.2, batch_size=2, epochs=50)
        >>> run = train(model, SquaredError(), (x, 3 * x), recipe)
        >>> run.params
        tensor([3.])
    """
    program = prepare(model, loss, dataset, recipe.dtype)
    return recorded(program, recipe, weights, directory=directory, memory=memory)


def reordered(run: Run, seed: int) -> Run:
    """Return another training of the same model from the same start, its examples in another order.

    Args:
        run: A training, of any data that can be read again.
        seed: Decides the order, >= 0.

    Cost:
        The training; √T states in memory.
    """
    return recorded(run.program, replace(run.recipe, seed=seed), run.weights, memory=0)


def recorded(
    program: Program,
    recipe: Recipe,
    weights: Tensor | None = None,
    *,
    directory: str | os.PathLike[str] | None = None,
    memory: int = 2**30,
) -> Run:
    """Train, and store the run.

    Args:
        program: Model, loss and data.
        recipe: How to train.
        weights: As for `train`.
        directory: As for `train`.
        memory: As for `train`.
    """
    n, device = len(program.train), program.start.device
    checked = _check_weights(weights, n, program)
    batches = tuple(batch.to(device) for batch in recipe.batches(n))
    rates = tuple(recipe.rates(len(batches)))
    initial = recipe.update().start(program.parameters())
    interval = _interval(len(batches), initial.numel() * initial.element_size(), memory)
    checkpoints: Checkpoints = InMemory()
    if directory is not None:
        interval = math.ceil(math.sqrt(len(batches)))
        identity = identity_of(program, recipe, rates, checked)
        checkpoints = open_directory(Path(directory), identity, device)
    run = Run(
        program=program,
        recipe=recipe,
        weights=checked,
        params=initial[0],
        losses=initial.new_empty(0),
        batches=batches,
        rates=rates,
        interval=interval,
        checkpoints=checkpoints,
        directory=None if directory is None else Path(directory),
        notes=_notes(program, recipe),
    )
    final_state, losses = _complete(run, initial)
    refuse_nonfinite(final_state[0], losses)
    return replace(run, params=final_state[0], losses=losses)


def _complete(run: Run, initial: Tensor) -> tuple[Tensor, Tensor]:
    """Take the steps that are not stored; return the last state and all losses [T]."""
    stored = [0, *(stop for _, stop in run.segments())]
    with (
        run.checkpoints.writing(stored),
        progress(total=run.steps, desc="training") as bar,
    ):
        if not run.checkpoints.has(0):
            run.checkpoints.write(0, initial, initial.new_empty(0))
        state, losses = run.checkpoints.read(0)
        found = [losses]
        for start, stop in run.segments():
            if run.checkpoints.has(stop):
                state, losses = run.checkpoints.read(stop)
            else:
                state, losses = _segment(run, state, start, stop)
                run.checkpoints.write(stop, state, losses)
            found.append(losses)
            bar.update(stop - start)
    return state, torch.cat(found)


def _segment(run: Run, state: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """Return the state after the steps of a segment, and their losses."""
    losses: list[Tensor] = []
    for step in range(start, stop):
        state, loss = advance(run, state, step, run.weights)
        losses.append(loss)
    return state, torch.stack(losses)


def _interval(steps: int, size: int, memory: int) -> int:
    """Return the smallest number of steps between stored states of `size` bytes that fit."""
    most = math.ceil(math.sqrt(steps))  # beyond it memory grows again
    for interval in range(1, most + 1):
        repeated = interval if interval > 1 else 0
        if (math.ceil(steps / interval) + 1 + repeated) * size <= memory:
            return interval
    return most


def _check_weights(weights: Tensor | None, n: int, program: Program) -> Tensor:
    """Return the weights in the dtype of the run."""
    like = program.parameters()
    if weights is None:
        return like.new_ones(n)
    return torch.from_numpy(checked_weights("weights", weights, n)).to(like)


def _notes(program: Program, recipe: Recipe) -> tuple[str, ...]:
    """Return what a reader must know of a training, a sentence each."""
    notes = list(program.notes)
    if recipe.optimizer == "adamw" and recipe.weight_decay > 0:
        notes.append("The decoupled weight decay of AdamW counts as an l2 penalty of that size.")
    return tuple(notes)
