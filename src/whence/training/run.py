r"""Deterministic training that can be repeated with other weights, and differentiated.

Example i enters each of its batches as wᵢ ℓᵢ, so that training without it is training with
wᵢ = 0: same order, same batches, same divisors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from whence.errors import NotDeterministic
from whence.network.examples import ModuleExamples
from whence.network.objective import ModuleObjective
from whence.network.rules import module_objective
from whence.network.transformers import users_module
from whence.objective.losses import Loss
from whence.objective.trained import Data, Examples, Trained
from whence.result import Card, Result
from whence.storage import digest
from whence.training.checkpoints import Checkpoints
from whence.training.optimizers import clip
from whence.training.program import Program
from whence.training.recipe import Recipe
from whence.training.replay import Steps, retrain, stack_size
from whence.training.trajectory import from_trainer


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Run(Result, Steps, Trained):
    """A finished training: its result, and enough to repeat any part of it.

    Attributes:
        program: Model, loss and data, as functions of θ.
        recipe: How it was trained.
        weights: wᵢ of the training examples, [n].
        params: θ after the last step, [p].
        losses: The weighted mean loss of each step's batch, before the step, [T].
        batches: The examples of each step, T tensors [b].
        rates: The learning rate of each step, [T].
        interval: Steps between two stored states; 1 stores all.
        checkpoints: The stored states.
        directory: Where they lie, or `None`.
        convex: False: what training reaches depends on its start.
        classes: None are known.
        notes: What a reader of the results must know, a sentence each.
    """

    weights: Tensor
    params: Tensor
    losses: Tensor
    interval: int
    checkpoints: Checkpoints
    directory: Path | None
    convex: bool = False
    classes: tuple[Any, ...] = ()
    notes: tuple[str, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for pickling; batches are copied, being views of whole epochs."""
        fields = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return {**fields, "batches": tuple(batch.clone() for batch in self.batches)}

    def card(self) -> Card:
        """Return how the model was trained."""
        title = f"{len(self.params):,} parameters trained on {len(self.weights):,} examples in "
        loss = {"loss": repr(self.loss), "recipe": repr(self.recipe)}
        return Card(title=f"{title}{len(self.losses):,} steps", facts=loss)

    from_trainer = staticmethod(from_trainer)

    @property
    def train(self) -> ModuleExamples:
        """The training examples."""
        return self.program.train

    @property
    def loss(self) -> Loss:
        """The loss ℓ of one example."""
        return self.program.loss

    @property
    def trained_loss(self) -> Loss:
        """The loss ℓ as it was minimized: the same."""
        return self.program.loss

    def examples(self, data: Data) -> ModuleExamples:
        """Check and encode a user's (x, y)."""
        return self.program.examples(data)

    def outputs(self, examples: Examples) -> Tensor:
        """Return f at the end of the training, [b, c]."""
        return self.objective().outputs(examples)

    def objective(self) -> ModuleObjective:
        """Return R at the end of the training, its penalty the weight decay of the recipe.

        Returns:
            The objective. Its `refit` repeats the training.

        Cost:
            A few passes over eight examples, once.

        Examples:
            >>> import torch, whence
            >>> x, y = torch.tensor([[1.0], [1.0]]), torch.tensor([[1.0], [3.0]])
            >>> recipe = whence.Recipe(learning_rate=0.2, batch_size=2, epochs=200)
            >>> model = torch.nn.Linear(1, 1, bias=False)
            >>> run = whence.train(model, whence.SquaredError(), (x, y), recipe)
            >>> run.objective().params.round(decimals=3)
            tensor([2.])
        """
        return self._objective

    @cached_property
    def _objective(self) -> ModuleObjective:
        """The objective at the end of the training, made once."""
        program = self.program
        steps = Steps(program=program, recipe=self.recipe, batches=self.batches, rates=self.rates)
        decay = self.params.new_tensor(self.recipe.weight_decay)
        return module_objective(
            ModuleObjective(
                module=program.module,
                loss=program.loss,
                train=program.train,
                weights=self.weights,
                params=self.params,
                l2=decay.expand(len(self.params)),
                encoder=program.encoder,
                refit_with=_Repeated(steps),
                notes=self.notes,
            ),
            None,
        )

    def differentiable(self) -> ModuleObjective:
        """Return `objective()`."""
        return self.objective()

    @cached_property
    def together(self) -> int:
        """How many trainings are repeated as one stack: measured once, by three gradients."""
        return stack_size(self)

    def identity(self) -> tuple[Tensor | str, ...]:
        """Return the settings that determine the training besides data and weights."""
        known = identity_of(self.program, self.recipe, self.rates, self.weights)
        return tuple(known.values())

    def refit(self, weights: Tensor | None = None) -> ModuleObjective:
        """Repeat the training with other example weights; return R at its end."""
        (fitted,) = self.refits((self.weights if weights is None else weights)[None])
        return fitted

    def refits(self, weights: Tensor) -> Iterator[ModuleObjective]:
        """Repeat the training with several sets of example weights, [k, n], in stacks."""
        together = self.together
        for chunk in torch.split(weights, together):
            for row, params in zip(chunk, retrain(self, chunk, together=together), strict=True):
                yield self.objective().reweighted(row).at(params)

    @property
    def train_ids(self) -> NDArray[Any]:
        """The positions of the training examples, [n]."""
        return np.arange(len(self.weights))

    @property
    def model(self) -> nn.Module:
        """A copy of the user's module that holds the trained parameters."""
        return users_module(self.program.module.filled(self.params))

    def segments(self) -> list[tuple[int, int]]:
        """Return the segments (start, stop) between stored states, in order."""
        starts = range(0, self.steps, self.interval)
        return [(start, min(start + self.interval, self.steps)) for start in starts]

    def states(self, start: int, stop: int) -> list[Tensor]:
        """Return the states before steps start, …, stop of one segment, recomputed if need be.

        Args:
            start: A step whose state is stored.
            stop: The next such step.

        Returns:
            stop − start + 1 states, [s, p] each.

        Raises:
            CorruptFile: If a stored state cannot be read.
            NotDeterministic: If the steps, repeated, do not lead to the next stored state.
        """
        states = [self.checkpoints.read(start)[0]]
        if stop == start + 1:
            return [*states, self.checkpoints.read(stop)[0]]
        for step in range(start, stop):
            states.append(advance(self, states[-1], step, self.weights)[0])
        stored = self.checkpoints.read(stop)[0]
        if not torch.allclose(stored, states[-1], rtol=1e-3, atol=1e-3 * float(stored.abs().max())):
            raise NotDeterministic(
                f"Expected steps {start} to {stop} to lead to the stored state. Got another. "
                "Use deterministic kernels (torch.use_deterministic_algorithms), and the model and "
                "the number of threads of the training: sums in another order round otherwise."
            )
        return states


@final
@dataclass(frozen=True, eq=False)
class _Repeated:
    """Fits an objective again by repeating the steps of its training with other weights."""

    steps: Steps

    def __call__(self, objective: ModuleObjective, weights: Tensor) -> ModuleObjective:
        """Return the objective at the end of the repeated training."""
        return objective.reweighted(weights).at(retrain(self.steps, weights[None], together=1)[0])


def advance(run: Run, state: Tensor, step: int, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the state after a step, and the loss of its batch before it.

    Args:
        run: Whose step it is.
        state: The state before it, [s, p].
        step: Its number.
        weights: wᵢ, [n].
    """
    batch = run.batches[step]
    gradient, loss = run.program.gradient(state[0], batch, weights[batch])
    gradient = clip(gradient, run.recipe.clip_norm)
    return run.update.forward(state, gradient, run.rates[step], step), loss


def identity_of(
    program: Program, recipe: Recipe, rates: tuple[float, ...], weights: Tensor
) -> dict[str, str]:
    """Return the settings that determine a run, by name.

    Args:
        program: Model, loss and data.
        recipe: How it is trained.
        rates: The learning rate of each step.
        weights: wᵢ, [n].
    """
    schedule = digest(torch.tensor(rates, dtype=torch.float64))
    return {
        **program.identity(),
        "weights": digest(weights),
        "recipe": f"{replace(recipe, schedule='constant', warmup=0)!r}, rates {schedule}",
    }
