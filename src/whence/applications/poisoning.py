"""How a model under attack is trained on changed inputs: its top layer alone, or end to end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any, TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.arrays import Floats
from whence.checked import checked
from whence.curvature.prepare import prepare
from whence.errors import InvalidInput, UnsupportedModel
from whence.fitting.newton import newton
from whence.linalg.cg import CG
from whence.linalg.solver import Inverse
from whence.linear.features import DenseFeatures
from whence.linear.objective import LinearObjective
from whence.methods.changes import perturbation
from whence.methods.choose import chosen
from whence.methods.influence import Influence
from whence.methods.method import Method
from whence.network.objective import ModuleObjective
from whence.objective.objective import Objective
from whence.objective.trained import Data, Examples
from whence.views.answer import class_of

Retrain: TypeAlias = Callable[[Tensor], Objective]

_CANDIDATES = 32  # training inputs whose derivative is taken to choose among them


class Training(ABC):
    """How a model is trained on changed inputs.

    Attributes:
        clean: The objective before the attack, its training inputs a tensor.
    """

    clean: Objective

    @abstractmethod
    def on(self, inputs: Tensor, rows: Tensor, moved: Tensor, near: Objective) -> Objective:
        """Return the objective trained on changed inputs.

        Args:
            inputs: All training inputs, [n, ...].
            rows: Positions of those that change.
            moved: What they change to, [m, ...].
            near: The objective trained on slightly different inputs.
        """

    @abstractmethod
    def from_nothing(self, poisoned: Objective) -> Objective:
        """Return the objective trained on the inputs of another, from its start."""

    @abstractmethod
    def encode(self, queries: Data) -> Examples:
        """Return queries with the inputs that a page shows."""

    def method(self, method: Method | None) -> Method:
        """Return the method that follows a change of inputs through the training."""
        return Influence() if method is None else method


@final
@dataclass(frozen=True, eq=False)
class TopLayer(Training):
    """The top layer is trained anew on the features of changed inputs.

    Args:
        clean: R at its minimum.
        inverse: H⁻¹ there, from which nearby problems are solved.
    """

    clean: LinearObjective
    inverse: Inverse

    def on(self, inputs: Tensor, rows: Tensor, moved: Tensor, near: Objective) -> Objective:
        """Return the top layer trained on the features of some changed inputs, from θ̂ nearby."""
        changed = _with_features(near, rows, moved)
        return newton(changed, inverse=self.inverse)

    def from_nothing(self, poisoned: Objective) -> Objective:
        """Return the top layer trained from zero."""
        start = poisoned.at(torch.zeros_like(poisoned.params))
        return newton(start)

    def encode(self, queries: Data) -> Examples:
        """Return queries with their raw inputs and the features of them."""
        return self.clean.examples(queries)

    def method(self, method: Method | None) -> Method:
        """Return influence that starts from the curvature of the clean model."""
        if method is not None:
            return method
        return Influence(solver=CG(rtol=1e-6, preconditioner=self.inverse))


@final
@dataclass(frozen=True, eq=False)
class EndToEnd(Training):
    """The whole model is trained on changed inputs by a user's function.

    Args:
        clean: R at θ̂.
        retrain: From all training inputs, [n, ...], to the objective trained on them.
    """

    clean: Objective
    retrain: Retrain

    def on(self, inputs: Tensor, rows: Tensor, moved: Tensor, near: Objective) -> Objective:
        """Return the model trained on all inputs."""
        return self.retrain(inputs.index_copy(0, rows, moved))

    def from_nothing(self, poisoned: Objective) -> Objective:
        """Return the model trained once more on the same inputs."""
        return self.retrain(inputs_of(poisoned))

    def encode(self, queries: Data) -> Examples:
        """Return queries as the model takes them."""
        return self.clean.examples(queries)


@singledispatch
def training_of(objective: Objective, retrain: Retrain | None) -> Training:
    """Return how a model under attack is trained.

    Args:
        objective: R at θ̂, from `whence.from_frozen`, or with `retrain` from `whence.from_torch`.
        retrain: How a model is trained end to end, or `None`.

    Returns:
        The training.

    Raises:
        UnsupportedModel: If the inputs cannot be changed, or the model not be trained on them.
    """
    raise _untrainable(objective, retrain)


@training_of.register
def _of_top_layer(objective: LinearObjective, retrain: Retrain | None) -> Training:
    if retrain is not None or not _has_tensors(objective):
        raise _untrainable(objective, retrain)
    clean = newton(objective)
    return TopLayer(clean, prepare(clean, 1).inverse)


@training_of.register
def _end_to_end(objective: ModuleObjective, retrain: Retrain | None) -> Training:
    if retrain is None or not _has_tensors(objective):
        raise _untrainable(objective, retrain)
    return EndToEnd(objective, retrain)


def _has_tensors(objective: Objective) -> bool:
    """Return whether the inputs are one tensor, which can be moved by gradients."""
    return isinstance(objective.train.inputs, Tensor)


def _untrainable(objective: Objective, retrain: Retrain | None) -> UnsupportedModel:
    """Return the error that says what can be attacked."""
    return UnsupportedModel(
        "Expected an objective whose inputs are a tensor and whose top layer can be retrained, or "
        f"one from whence.from_torch and retrain=. Got {type(objective).__name__} and "
        f"retrain={retrain}. Make it with whence.from_frozen, or say how the model is trained on "
        "changed inputs."
    )


@checked
def strongest(
    objective: Objective, queries: Data, m: int, *, method: Method | None = None
) -> NDArray[np.intp]:
    """Return the training inputs whose change can move the queries' loss most, the first first.

    Args:
        objective: R at θ̂, from `whence.from_frozen` or `whence.from_torch`.
        queries: (inputs, y) of the queries.
        m: How many, >= 1.
        method: What scores the training inputs and follows their changes; `whence.Influence` if
            `None`.

    Returns:
        Positions [m], by the L1 norm of `whence.perturbation`; that is taken only for the training
        inputs that raise the loss most by being there, 32 or m of them. One that raises it pulls
        the more, the worse the model fits it; one that lowers it has only its own pull to lose.

    Cost:
        One influence of all, one forward and backward pass of 32 inputs.

    References:
        Koh & Liang (2017), section 5.2.

    Examples:
        >>> import torch, whence
        >>> from sklearn.linear_model import LogisticRegression
        >>> images = torch.linspace(-1, 1, 160).reshape(10, 1, 4, 4).flip(3)
        >>> y = torch.arange(10) // 5
        >>> top = LogisticRegression(tol=1e-10).fit(images.flatten(1), y)
        >>> objective = whence.from_frozen(torch.nn.Flatten(), top, images, y)
        >>> len(whence.attacks.strongest(objective, (images[:1], y[:1]), 3))
        3
    """
    scores = chosen(objective, method).fit(objective).scores(queries)
    harmful_first = np.argsort(scores.values.sum(0), kind="stable")
    candidates = harmful_first[: max(_CANDIDATES, m)]
    moves = np.abs(perturbation(objective, candidates, queries, method=method))
    order = np.argsort(-moves.reshape(len(candidates), -1).sum(1), kind="stable")
    return candidates[order[:m]]


def inputs_of(objective: Objective) -> Tensor:
    """Return the training inputs, [n, ...].

    Args:
        objective: R, its inputs a tensor.
    """
    inputs: Tensor = objective.train.inputs
    return inputs


def seeing(objective: Any, inputs: Tensor) -> Objective:
    """Return the objective with these training inputs, all else as it was.

    Args:
        objective: R.
        inputs: All training inputs, [n, ...].
    """
    seen: Objective = replace(objective, train=replace(objective.train, inputs=inputs))
    return seen


def mean_loss(objective: Objective, queries: Examples) -> float:
    """Return the mean loss of the queries, in nats.

    Args:
        objective: R.
        queries: The queries.
    """
    return float(objective.loss(objective.outputs(queries), queries.targets).mean())


def predicted(objective: Objective, queries: Examples) -> NDArray[np.intp]:
    """Return the predicted classes, as positions among the classes, [q].

    Args:
        objective: R of a classifier.
        queries: The queries.
    """
    return np.array([class_of(row) for row in objective.outputs(queries)], dtype=np.intp)


def _with_features(objective: Any, rows: Tensor, inputs: Tensor) -> LinearObjective:
    """Return the objective with the features of some training inputs made anew, θ as it was."""
    train = objective.train
    labels = train.targets[rows]
    names = np.asarray(objective.classes, dtype=object) if objective.classes else None
    y = labels.numpy() if names is None else names[labels.long().clamp_min(0).numpy()]
    new = objective.inputs.encode((inputs, np.asarray(y.tolist())))
    matrix = train.features.dense().clone()
    matrix[rows] = new.features.dense()
    changed: LinearObjective = replace(
        objective, train=replace(train, features=DenseFeatures(matrix))
    )
    return changed


def step_sizes(
    n_images: int, steps: int, step_size: float | None, budget: float, momentum: float
) -> Floats:
    """Return the size of each step of an attack, in units of the inputs, [steps].

    Args:
        n_images: How many training inputs are changed, >= 1.
        steps: How many steps, >= 1.
        step_size: Of every step; from the budget down to a tenth of it if `None`.
        budget: The largest change of a pixel, > 0.
        momentum: In [0, 1).

    Raises:
        InvalidInput: If one of them is out of range.
    """
    first, last = (budget, budget / 10) if step_size is None else (step_size, step_size)
    if min(n_images, steps) < 1 or not (first > 0 and budget > 0 and 0 <= momentum < 1):
        raise InvalidInput(
            "Expected n_images, steps >= 1, step_size, budget > 0 and momentum in [0, 1). Got "
            f"{n_images}, {steps}, {step_size}, {budget}, {momentum}."
        )
    return np.geomspace(first, last, steps)
