"""Replays of a recorded training with other weights: alone, or several as one stack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from whence.objective.program import kept
from whence.objective.updates import clip

if TYPE_CHECKING:
    from whence.objective.training import Run

# The rule of `stack_size`.
_STACK, _ENOUGH, _PER_PARAMETER = 16, 5e7, 100


def stack_size(run: Run) -> int:
    """Return how many trainings of a run `retrain` takes in one stack, unless told.

    On a CPU one, if a step of it is work enough to hide what its calls cost, or if the model
    cannot be stacked at all; otherwise 16. The work of a step is counted as the floating-point
    operations of its products and convolutions, and 100 for each parameter, which the optimizer
    reads and writes: 50 million are enough.

    Args:
        run: A training recorded by `train`.

    Returns:
        1 or 16.

    Cost:
        A gradient of a batch, and one of two trainings.
    """
    program, batch = run.program, run.batches[0]
    params = program.parameters()
    if params.device.type == "cpu":
        with FlopCounterMode(display=False) as counter:
            program.gradient(params, batch, params.new_ones(len(batch)))
        if counter.get_total_flops() + _PER_PARAMETER * len(params) > _ENOUGH:
            return 1
    try:
        program.gradients(params.expand(2, -1), batch, params.new_ones(2, len(batch)))
    except RuntimeError:
        # For example a recurrent layer, or a torch.autograd.Function with no rule for vmap.
        return 1
    return _STACK


def replay_alone(run: Run, weights: Tensor, bar: tqdm[Any]) -> tuple[Tensor, Tensor]:
    """Return θ [1, p] of the training with weights [1, n], and its last loss [1]."""
    program, update, limit = run.program, run.update, run.recipe.clip_norm
    state = update.start(program.parameters())
    vectors = [list(program.named(vector).values()) for vector in state]
    # A parameter at a time, which spares a copy of the gradient in one piece.
    parts = list(zip(*vectors, strict=True))
    steps = zip(kept(run.batches, weights[0]), run.rates, strict=True)
    for step, ((rows, scaled), rate) in enumerate(steps):
        gradient, loss = program.gradient_by_parameter(vectors[0], rows, scaled)
        if limit is not None:
            flat = torch.cat([piece.flatten() for piece in gradient])
            gradient = list(program.named(clip(flat, limit)).values())
        for part, piece in zip(parts, gradient, strict=True):
            update.forward_(part, piece, rate, step)
        bar.update()
    return state[:1], loss.reshape(1)


def replay_stack(run: Run, weights: Tensor, bar: tqdm[Any]) -> tuple[Tensor, Tensor]:
    """Return θ [k, p] of the trainings with weights [k, n], as one stack, and last losses [k]."""
    state = run.update.start(run.program.parameters().expand(len(weights), -1))
    for step, (batch, rate) in enumerate(zip(run.batches, run.rates, strict=True)):
        gradients, losses = run.program.gradients(state[0], batch, weights[:, batch])
        gradients = clip(gradients, run.recipe.clip_norm)
        run.update.forward_(state.unbind(), gradients, rate, step)
        bar.update(len(weights))
    return state[0], losses
