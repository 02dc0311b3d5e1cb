"""How alike the model finds two examples: the cosine of its own hidden states."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from whence.checked import checked
from whence.errors import UnsupportedModel
from whence.linear.objective import LinearObjective
from whence.methods.attribution import Attribution
from whence.methods.features import Block, FeatureMap
from whence.methods.mapped import Mapped
from whence.methods.method import Method
from whence.methods.subsets import blocks
from whence.network.examples import named_input
from whence.network.objective import ModuleObjective
from whence.objective.measures import Measure
from whence.objective.objective import Objective, objective_of
from whence.objective.trained import Examples, Trained

_FLOOR = 1e-6  # of the largest variance: directions below it are noise


@final
@checked
@dataclass(frozen=True, kw_only=True)
class HiddenCosine(Method):
    """Score training examples by the cosine of their hidden state with the query's.

    The hidden state is what goes into the module's last layer, its mean over the tokens that are
    read; of a model linear in θ it is the row of features. A baseline: the labels, the loss and the
    measure are not in it.

    Args:
        whiten: Subtract the mean of the training examples first, and divide by the square root of
            their covariance: raw states of language models nearly all point one way.

    Raises:
        UnsupportedModel: If the model has no layers.

    Cost:
        One forward pass over the training data.

    References:
        Su et al. (2021), "Whitening Sentence Representations for Better Semantics and Faster
        Retrieval"; Pezeshkpour et al. (2021) for likeness as a baseline of attribution.

    Examples:
        >>> import torch, whence
        >>> x, y = torch.randn(30, 4), torch.arange(30) % 3
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(),
        ...                             torch.nn.Linear(8, 3))
        >>> objective = whence.from_torch(model, whence.CrossEntropy(), (x, y))
        >>> scores = whence.HiddenCosine().fit(objective).scores((x[4:5], y[4:5]))
        >>> scores.top(1).ids, round(float(scores.values.max()), 5)
        (array([[4]]), 1.0)
    """

    whiten: bool = False

    def attribution(self, trained: Trained) -> Attribution:
        """Return the hidden states of a model's training examples."""
        objective = objective_of(trained)
        if not self.whiten:
            return Mapped(trained, self.feature_map(trained))
        states = hidden_states(objective, objective.train).double()
        mean = states.mean(0)
        values, vectors = torch.linalg.eigh(torch.cov(states.T).reshape(len(mean), -1))
        kept = values > _FLOOR * values.max()
        inverse = vectors[:, kept] / values[kept].sqrt()
        return Mapped(trained, _States(objective, (mean, inverse)))

    def feature_map(self, trained: Trained) -> FeatureMap:
        """Return the hidden state of any example; whitened ones depend on the others."""
        if self.whiten:
            return super().feature_map(trained)
        return _States(objective_of(trained), None)


@final
@dataclass(frozen=True, eq=False)
class _States(FeatureMap):
    """Hidden states of length 1.

    Args:
        trained: R.
        whitening: The mean that is subtracted, [d], and what is multiplied with, [d, r]; or `None`.
    """

    trained: Objective
    whitening: tuple[Tensor, Tensor] | None

    @property
    def words(self) -> str:  # type: ignore[override]
        """What is compared."""
        return f"cosine of {'whitened ' if self.whitening else ''}hidden states"

    @property
    def unit(self) -> str:
        """Cosines have no unit."""
        return ", as the cosine of two hidden states"

    @property
    def averaged(self) -> bool:
        """Cosines do not hold wᵢ/n."""
        return False

    @property
    def parts(self) -> tuple[tuple[Block, ...], ...]:
        """The one block."""
        few = self.trained.train.subset(np.arange(1))
        return ((Block("hidden state", (self.rows(few).shape[1],)),),)

    def rows(self, examples: Examples) -> Tensor:
        """Return the states, [b, d]."""
        states = hidden_states(self.trained, examples)
        if self.whitening is not None:
            mean, inverse = self.whitening
            states = ((states.double() - mean) @ inverse).to(states)
        return nn.functional.normalize(states, dim=1)

    def queries(self, examples: Examples, measure: Measure) -> Tensor:
        """Return the states, [q, d]; the measure does not matter."""
        return self.rows(examples)


@singledispatch
def hidden_states(objective: Objective, examples: Examples) -> Tensor:
    """Return what goes into the last layer, its mean over the tokens that are read, [b, d].

    Args:
        objective: R at θ̂.
        examples: b examples.

    Raises:
        UnsupportedModel: If the model has no layers.
    """
    raise UnsupportedModel(
        f"Expected a torch module or a linear model. Got {objective!r}, without hidden states."
    )


@hidden_states.register
def _(objective: LinearObjective, examples: Examples) -> Tensor:
    return objective.examples(examples).features.dense()


@hidden_states.register
def _of_module(objective: ModuleObjective, examples: Examples) -> Tensor:
    seen: list[Tensor] = []
    calls: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Any, ...], _: Any) -> None:
        if inputs:
            calls.append(inputs[0])

    layers = [each for each in objective.model.modules() if _multiplies(each)]
    if not layers:
        raise UnsupportedModel("Expected a module with a layer that multiplies. Got none.")
    with objective.module.lock:
        handles = [layer.register_forward_hook(keep) for layer in layers]
        try:
            for part in _parts(objective, examples):
                calls.clear()
                objective.outputs(part)
                seen.append(_pooled(calls[-1], part.inputs, len(part)))
        finally:
            for handle in handles:
                handle.remove()
    return torch.cat(seen)


def _parts(objective: ModuleObjective, examples: Examples) -> list[Examples]:
    """Return examples in batches that the model takes at once."""
    return [examples.subset(p) for p in blocks(np.arange(len(examples)), objective.batch_size)]


def _multiplies(module: nn.Module) -> bool:
    """Return whether a module is a layer with a matrix: linear, or as GPT-2 has them."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def _pooled(states: Tensor, inputs: Any, b: int) -> Tensor:
    """Return the mean over positions, of those that are read where the inputs say it, [b, d]."""
    states = states.detach().reshape(b, -1, states.shape[-1])
    mask = named_input(inputs, "attention_mask")
    if mask is None or mask.shape[1] != states.shape[1]:
        return states.mean(1)
    read: Tensor = mask.to(states).unsqueeze(2)
    return (states * read).sum(1) / read.sum(1).clamp_min(1)
