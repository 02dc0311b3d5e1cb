"""Replays of a training run with other weights: alone, or several as one stack."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from whence.checked import checked, floats
from whence.errors import Diverged, InvalidInput
from whence.progress import Bar, progress
from whence.training.optimizers import Update, clip
from whence.training.program import Program, counted
from whence.training.recipe import Recipe

# The rule of `stack_size`.
_STACK, _ENOUGH, _PER_PARAMETER = 16, 5e7, 100


@dataclass(frozen=True, eq=False, kw_only=True)
class Steps:
    """The steps of a training, complete enough to repeat them with other example weights.

    Attributes:
        program: Model, loss and data, as functions of θ.
        recipe: How the model is trained.
        batches: The examples of each step, T tensors [b].
        rates: The learning rate of each step, [T].
    """

    program: Program
    recipe: Recipe
    batches: tuple[Tensor, ...]
    rates: tuple[float, ...]

    @property
    def steps(self) -> int:
        """T, the number of steps."""
        return len(self.batches)

    @property
    def update(self) -> Update:
        """The update rule of the optimizer."""
        return self.recipe.update()


def stack_size(run: Steps) -> int:
    """Return how many trainings of a run `retrain` takes in one stack, unless told.

    On a CPU one, if a step of it is work enough to hide what its calls cost, or if the model
    cannot be stacked at all; otherwise 16. The work of a step is counted as the floating-point
    operations of its products and convolutions, and 100 for each parameter, which the optimizer
    reads and writes: 50 million are enough.

    Args:
        run: A run of `train`.

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


def replay_alone(run: Steps, weights: Tensor, bar: Bar) -> tuple[Tensor, Tensor]:
    """Return θ [1, p] of the training with weights [1, n], and its last loss [1]."""
    program, update, limit = run.program, run.update, run.recipe.clip_norm
    state = update.start(program.parameters())
    vectors = [list(program.named(vector).values()) for vector in state]
    # A parameter at a time, which spares a copy of the gradient in one piece.
    parts = list(zip(*vectors, strict=True))
    steps = zip(counted(run.batches, weights[0]), run.rates, strict=True)
    for step, ((rows, scaled), rate) in enumerate(steps):
        gradient, loss = program.gradient_by_parameter(vectors[0], rows, scaled)
        if limit is not None:
            flat = torch.cat([piece.flatten() for piece in gradient])
            gradient = list(program.named(clip(flat, limit)).values())
        for part, piece in zip(parts, gradient, strict=True):
            update.forward_(part, piece, rate, step)
        bar.update()
    return state[:1], loss.reshape(1)


def replay_stack(run: Steps, weights: Tensor, bar: Bar) -> tuple[Tensor, Tensor]:
    """Return θ [k, p] of the trainings with weights [k, n], as one stack, and last losses [k]."""
    state = run.update.start(run.program.parameters().expand(len(weights), -1))
    for step, (batch, rate) in enumerate(zip(run.batches, run.rates, strict=True)):
        gradients, losses = run.program.gradients(state[0], batch, weights[:, batch])
        gradients = clip(gradients, run.recipe.clip_norm)
        run.update.forward_(state.unbind(), gradients, rate, step)
        bar.update(len(weights))
    return state[0], losses


@checked
def retrain(run: Steps, weights: Tensor, *, together: int | None = None) -> Tensor:
    """Repeat a run with other example weights, several trainings at once.

    Args:
        run: The training, such as a `Run`: same start, same order, same recipe.
        weights: One training per row, [k, n], finite; zero removes an example.
        together: Trainings in one stack; the result does not depend on it, up to rounding. Stacks
            pay for small models. Alone, a training skips the examples of weight zero and stays
            in the cache, which pays for others. By default see `stack_size`.

    Returns:
        θ after the last step of each training, [k, p].

    Raises:
        InvalidInput: If the weights do not fit.
        Diverged: If a training does not stay finite.

    Cost:
        k · T forward and backward passes of a batch.

    Examples:
        >>> import torch
        >>> from whence.objective.losses import SquaredError
        >>> x = torch.tensor([[1.0], [1.0]])
        >>> from whence.training.recipe import Recipe
        >>> from whence.training.train import train
        >>> recipe = Recipe(learning_rate=0.2, batch_size=2, epochs=200)
        >>> data = x, torch.tensor([[1.0], [2.0]])
        >>> run = train(torch.nn.Linear(1, 1, bias=False), SquaredError(), data, recipe)
        >>> retrain(run, torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
        tensor([[1.5000],
                [2.0000]])
    """
    weights = torch.from_numpy(floats("weights", weights, "k, n")).to(run.program.parameters())
    n = len(run.program.train)
    if weights.shape[1] != n:
        raise InvalidInput(
            f"Expected finite weights of shape [k, {n}], a training per row. "
            f"Got shape {list(weights.shape)}."
        )
    together = stack_size(run) if together is None else together
    if together < 1:
        raise InvalidInput(f"Expected together >= 1. Got {together}.")
    done = [run.program.parameters().new_empty(0, len(run.program.parameters()))]
    with progress(total=len(weights) * run.steps, desc="retraining") as bar:
        for chunk in torch.split(weights, together):
            replay = replay_alone if together == 1 else replay_stack
            params, losses = replay(run, chunk, bar)
            refuse_nonfinite(params, losses)
            done.append(params)
    return torch.cat(done)


def refuse_nonfinite(params: Tensor, losses: Tensor) -> None:
    """Raise `Diverged` if parameters or losses of a training are not finite.

    Args:
        params: θ after the last step, any shape.
        losses: Losses of its steps.
    """
    if bool(torch.isfinite(params).all()) and bool(torch.isfinite(losses).all()):
        return
    bad = (~torch.isfinite(losses)).nonzero()
    where = f"from entry {int(bad[0, 0])} of {len(losses)}" if len(bad) else "after the last step"
    raise Diverged(
        f"Expected a training whose loss stays finite. Got infinity or NaN {where}. "
        "Lower the learning rate, add warm-up steps, or set clip_norm."
    )
