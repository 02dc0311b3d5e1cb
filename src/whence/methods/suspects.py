"""How wrong a label looks under what a model says without it, and which label it would say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from whence.errors import UnsupportedModel
from whence.methods.prediction import as_array
from whence.methods.wrong_labels import WrongLabels, wrong_labels
from whence.objective.targets import target_classes
from whence.objective.trained import Trained


class Suspects(ABC):
    """The labels of a model's training data, judged by outputs of models without each example."""

    @abstractmethod
    def cost(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return how badly targets fit outputs, [b]; 0 or the constant of the loss at best."""

    @abstractmethod
    def suggested(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return encoded labels other than the given ones that outputs speak for, [b] or [b, ·]."""

    def agrees(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return whether outputs speak for the given label before any other, [b]: no, if numbers.

        Args:
            outputs: Outputs without each example, [b, c].
            targets: The given labels, [b] or [b, ·].
        """
        return torch.zeros(len(targets), dtype=torch.bool)

    def adjusted(self) -> Suspects:
        """Return the same with each class's share of the labels divided out of its odds.

        Raises:
            UnsupportedModel: If there are no classes.
        """
        raise UnsupportedModel(
            "Expected a classifier for method='class_adjusted'. Got numbers as targets. "
            "Use method='held_out_loss'."
        )

    def wrong(self, outputs: Tensor | None) -> WrongLabels | None:
        """Return how many labels are wrong, by outputs [n, c] without each; `None` if unknown."""
        return None


@final
@dataclass(frozen=True, eq=False)
class Classes(Suspects):
    """Labels of classes.

    Args:
        trained: The model.
        labels: The encoded labels that occur, [c] or [c, ·].
        given: Which of them each training example has, [n].
        weighed_alike: Whether each class's share of the labels is divided out of its odds.
    """

    trained: Trained
    labels: Tensor
    given: Tensor
    weighed_alike: bool = False

    @classmethod
    def of(cls, trained: Trained) -> Classes:
        """Return the labels of a classifier."""
        labels, given = torch.unique(trained.train.targets, dim=0, return_inverse=True)
        return cls(trained, labels, given)

    def adjusted(self) -> Suspects:
        """Return the same with each class's share of the labels divided out of its odds."""
        return Classes(self.trained, self.labels, self.given, weighed_alike=True)

    def cost(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ℓ(f, y); of classes weighed alike −log of p_y/π_y over the sum of all p_c/π_c."""
        if not self.weighed_alike:
            return self.trained.loss(outputs, targets)
        own = self._where(targets)
        return self._costs(outputs).gather(1, own.unsqueeze(1)).squeeze(1)

    def suggested(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the likeliest class other than the given one."""
        if not len(outputs) or len(self.labels) < 2:
            return targets
        costs = self._costs(outputs)
        costs.scatter_(1, self._where(targets).unsqueeze(1), torch.inf)
        return self.labels[costs.argmin(1)]

    def agrees(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return whether the given class is the likeliest, [b]."""
        if not len(outputs):
            return super().agrees(outputs, targets)
        return self._costs(outputs).argmin(1) == self._where(targets)

    def wrong(self, outputs: Tensor | None) -> WrongLabels | None:
        """Return the estimate of confident learning."""
        probabilities = None if outputs is None else self.trained.loss.probabilities(outputs)
        if probabilities is None:
            return None
        return wrong_labels(as_array(probabilities), self._positions().cpu().numpy())

    def _positions(self) -> Tensor:
        """Return the class of each training example as a column of the probabilities, [n]."""
        return target_classes(self.labels)[self.given]

    def _where(self, targets: Tensor) -> Tensor:
        """Return which of the labels each target is, [b]."""
        same = targets.unsqueeze(1) == self.labels
        return same.reshape(*same.shape[:2], -1).all(2).long().argmax(1)

    def _costs(self, outputs: Tensor) -> Tensor:
        """Return how badly each label fits each row of outputs, [b, c]."""
        loss, b = self.trained.loss, len(outputs)
        each = [loss(outputs, label.expand(b, *label.shape)) for label in self.labels]
        costs = torch.stack(each, 1)
        if not self.weighed_alike:
            return costs
        if loss.probabilities(outputs) is None:
            raise UnsupportedModel(
                "Expected a model that gives probabilities of classes for method='class_adjusted'. "
                f"Got {self.trained!r}. Use method='held_out_loss'."
            )
        weights = self.trained.weights.to(costs)
        shares = weights.new_zeros(len(self.labels)).index_add_(0, self.given, weights)
        return -torch.log_softmax(-costs - (shares / shares.sum()).log(), 1)


@final
@dataclass(frozen=True, eq=False)
class Numbers(Suspects):
    """Targets of a regression.

    Args:
        trained: The model.
    """

    trained: Trained

    def cost(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ℓ(f, y) − min ℓ(·, y): half the squared residual, or half the unit deviance."""
        loss = self.trained.loss
        return loss(outputs, targets) - loss.least(targets)

    def suggested(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the predicted numbers."""
        if outputs.numel() == targets.numel() and outputs.shape[1] > 1:
            return outputs.reshape(targets.shape)
        return self.trained.loss.prediction(outputs, targets).reshape(targets.shape)


def suspects_of(trained: Trained) -> Suspects:
    """Return the labels of a model's training data.

    Args:
        trained: The model.

    Returns:
        Classes or numbers.

    Raises:
        UnsupportedModel: If targets are neither one label nor numbers, but sequences or survival
            times.
    """
    targets = trained.train.targets
    if trained.classes or (trained.loss.classifies and targets.numel() == len(targets)):
        return Classes.of(trained)
    one = trained.outputs(trained.train.subset(np.arange(1)))
    if trained.loss.regresses and targets[:1].numel() in (1, one.shape[1:].numel()):
        return Numbers(trained)
    raise UnsupportedModel(
        "Expected a classifier with one label per example, or a regression. Got a model whose "
        "targets are others. Rank its examples by whence.self_influence(objective)."
    )
