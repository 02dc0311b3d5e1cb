"""What a fitted estimator answers, as outputs that whence's losses understand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.multioutput import MultiOutputClassifier
from torch import Tensor

from whence.arrays import Floats
from whence.checked import class_positions, finite_numbers
from whence.errors import InvalidInput, UnsupportedModel
from whence.objective.arrays import shared
from whence.objective.derived_losses import LabelSet
from whence.objective.losses import CrossEntropy, Logistic, Loss, SquaredError
from whence.objective.share_losses import LogProbability
from whence.preprocessing.containers import final as last_step


class Answer(ABC):
    """How an estimator's predictions become outputs [b, c], and labels become targets."""

    @property
    @abstractmethod
    def loss(self) -> Loss:
        """The loss that goes with the outputs."""

    @property
    def of_scores(self) -> Loss:
        """The loss of a network with these targets: of scores before a softmax, if of classes."""
        return self.loss

    @property
    def classes(self) -> tuple[Any, ...]:
        """The user's names of the classes; empty where targets are no classes."""
        return ()

    @property
    def note(self) -> str:
        """What a reader must know about the outputs; empty if nothing."""
        return ""

    @abstractmethod
    def outputs(self, estimator: Any, rows: Any) -> Floats:
        """Return outputs of checked rows, [b, c]."""

    @abstractmethod
    def targets(self, labels: NDArray[Any]) -> Tensor:
        """Encode the user's targets, or refuse those that the estimator cannot have."""

    @abstractmethod
    def labels_of(self, targets: Tensor) -> NDArray[Any]:
        """Return encoded targets as the estimator is fitted on them."""

    def votes(self, targets: Tensor) -> Floats | None:
        """Return what a neighbor with each target votes for, [n, v], if its votes are known."""
        return None

    def of_votes(self, mean: Floats) -> Floats:
        """Return outputs of mean votes, [b, c]: those themselves."""
        return mean


@final
@dataclass(frozen=True, eq=False)
class Numbers(Answer):
    """The numbers that a regression predicts.

    Args:
        width: c, how many it predicts for a row.
    """

    width: int

    @property
    def loss(self) -> Loss:
        """Half the squared error."""
        return SquaredError()

    def outputs(self, estimator: Any, rows: Any) -> Floats:
        """Return predictions, [b, c]."""
        values = np.asarray(estimator.predict(rows), dtype=np.float64)
        each = values.size // max(len(values), 1)
        if each != self.width:
            raise UnsupportedModel(
                f"Expected as many predictions for a row as it has targets, {self.width}. Got "
                f"{each} by {type(estimator).__name__}, such as several quantiles, or a mean and a "
                "variance. Fit a model for one of them."
            )
        return values.reshape(-1, self.width)

    def targets(self, labels: NDArray[Any]) -> Tensor:
        """Return finite numbers, [b] or [b, c]."""
        return shared(finite_numbers(labels, self.width))

    def labels_of(self, targets: Tensor) -> Floats:
        """Return the numbers."""
        return targets.numpy()

    def votes(self, targets: Tensor) -> Floats:
        """Return the numbers, [n, c]."""
        return targets.numpy().reshape(len(targets), -1)


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Classes(Answer):
    """The classes of a classifier: log-probabilities, decision values or the predicted label.

    Decision values of two classes are one output.

    Args:
        labels: The classes, sorted, [C].
        says: The method that is asked: "predict_proba", "decision_function" or "predict".
        floor: The least probability that counts.
    """

    labels: NDArray[Any]
    says: str
    floor: float

    @property
    def loss(self) -> Loss:
        """−log of the probability of the class."""
        return self.of_scores if self.says == "decision_function" else LogProbability()

    @property
    def of_scores(self) -> Loss:
        """The loss of a score per class, of two classes one, whose softmax is the probabilities."""
        return Logistic() if len(self.labels) == 2 else CrossEntropy()

    @property
    def classes(self) -> tuple[Any, ...]:
        """The user's names of the classes."""
        return tuple(self.labels.tolist())

    @property
    def note(self) -> str:
        """What the outputs are, where they are no probabilities, and where they are too small."""
        if self.says == "decision_function":
            return (
                "The model gives decision values and no probabilities: its loss is the logistic "
                "loss of those values."
            )
        if self.says == "predict":
            return (
                "The model gives labels and no probabilities: a label counts as a probability of "
                f"1 − {self.floor:.2g}."
            )
        return (
            f"In the loss, a probability below {self.floor:.2g}, half of one training row, counts "
            "as that much."
        )

    def targets(self, labels: NDArray[Any]) -> Tensor:
        """Return the position of each label among the classes, [b]; 0.0 or 1.0 for two."""
        at: Tensor = torch.from_numpy(class_positions(self.labels, labels))
        return at.double() if len(self.labels) == 2 else at

    def labels_of(self, targets: Tensor) -> NDArray[Any]:
        """Return the classes, [b]."""
        return np.asarray(self.labels[targets.long().numpy()])

    def votes(self, targets: Tensor) -> Floats:
        """Return one-hot classes, [n, C]."""
        votes: Floats = np.eye(len(self.labels))[targets.long().numpy()]
        return votes

    def of_votes(self, mean: Floats) -> Floats:
        """Return log-probabilities, [b, C]."""
        shares = mean / mean.sum(1, keepdims=True)  # 1 of a class that has all votes, not rounded
        return np.asarray(np.log(np.maximum(shares, self.floor)))

    def outputs(self, estimator: Any, rows: Any) -> Floats:
        """Return log-probabilities, [b, C], or decision values, of two classes [b, 1].

        A class that a refit has not seen has the least.
        """
        known = np.asarray(getattr(estimator, "classes_", self.labels))
        where = np.searchsorted(self.labels, known)
        if self.says == "decision_function":
            values = np.asarray(estimator.decision_function(rows), dtype=np.float64)
            if values.ndim == 1:
                values = np.stack([np.zeros_like(values), values], 1)
            least = np.full((len(values), len(self.labels)), values.min() - 1)
            least[:, where] = values
            return one_of_two(least)
        if self.says == "predict":
            said = np.searchsorted(self.labels, np.asarray(estimator.predict(rows)).reshape(-1))
            shares = np.zeros((len(said), len(self.labels)))
            shares[np.arange(len(said)), said] = 1
        else:
            given = np.asarray(estimator.predict_proba(rows), dtype=np.float64)
            shares = np.zeros((len(given), len(self.labels)))
            shares[:, where] = given
        return np.asarray(np.log(np.maximum(shares, self.floor)))


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Labels(Answer):
    """Several labels of a row, each there or not, as the log odds of each.

    Args:
        width: k, the number of labels.
        floor: The least probability that counts.
    """

    width: int
    floor: float

    @property
    def loss(self) -> Loss:
        """The logistic losses of all labels, summed."""
        return LabelSet()

    @property
    def note(self) -> str:
        """What the outputs are where they are too small or too large."""
        return (
            f"In the loss, the probability of a label is {self.floor:.2g}, half of one training "
            f"row, at least and {1 - self.floor:.4g} at most."
        )

    def outputs(self, estimator: Any, rows: Any) -> Floats:
        """Return log odds, [b, k]."""
        given = estimator.predict_proba(rows)
        if isinstance(given, list):
            given = np.stack([_share_of_one(each) for each in given], 1)
        shares = np.asarray(given, dtype=np.float64)
        odds = np.maximum(shares, self.floor) / np.maximum(1 - shares, self.floor)
        return np.asarray(np.log(odds))

    def targets(self, labels: NDArray[Any]) -> Tensor:
        """Return 0.0 or 1.0 for each label, [b, k]."""
        values = np.asarray(labels)
        if values.shape[1:] != (self.width,) or not np.isin(values, (0, 1)).all():
            raise InvalidInput(
                f"Expected {self.width} labels of 0 or 1 per row. Got shape {values.shape}."
            )
        return torch.from_numpy(values.astype(np.float64))

    def labels_of(self, targets: Tensor) -> NDArray[Any]:
        """Return 0 or 1 for each label, [b, k]."""
        return targets.numpy().astype(np.intp)


def one_of_two(values: Floats) -> Floats:
    """Return how much more the second of two classes has, [b, 1]; of more classes, as they are.

    Args:
        values: A number per class, [b, C].
    """
    return values[:, 1:] - values[:, :1] if values.shape[1] == 2 else values


def answer_of(estimator: Any, y: NDArray[Any]) -> Answer:
    """Return how the predictions of a fitted estimator are read.

    Args:
        estimator: It has `predict`.
        y: The targets that it was fitted on, [n] or [n, k].

    Returns:
        The reading: probabilities where there are some, else decision values, else labels.

    Raises:
        UnsupportedModel: If its answers are neither classes nor numbers.
    """
    name = type(estimator).__name__
    if not _classifies(estimator, y):
        return Numbers(1 if y.ndim == 1 else y.shape[1])
    floor = 1 / (2 * len(y))
    if y.ndim == 2 and y.shape[1] > 1:
        if not hasattr(estimator, "predict_proba") or not np.isin(y, (0, 1)).all():
            raise UnsupportedModel(
                f"Expected one label per row, or several of 0 or 1 with probabilities. Got a "
                f"{name} of {y.shape[1]} outputs. Explain one of them, "
                + (
                    "whence.from_sklearn(model.estimators_[0], X, y[:, 0])."
                    if type(estimator) is MultiOutputClassifier
                    else "as a model of its own: whence.from_sklearn(clone(model).fit(X, y[:, 0]), "
                    "X, y[:, 0])."
                )
            )
        return Labels(width=y.shape[1], floor=floor)
    labels = np.asarray(getattr(estimator, "classes_", np.unique(y)))
    if labels.ndim != 1 or len(labels) < 2:
        raise InvalidInput(f"Expected at least 2 classes. Got {labels.tolist()!r:.80}.")
    says = "predict"
    if getattr(last_step(estimator), "multi_class", "") == "one_vs_one" and len(labels) > 2:
        raise UnsupportedModel(
            f"Expected a classifier with probabilities. Got {name} with multi_class='one_vs_one', "
            "which has none of more than two classes. Fit it with multi_class='one_vs_rest'."
        )
    if hasattr(estimator, "predict_proba"):
        says = "predict_proba"
    elif _decides(estimator, len(labels)):
        says = "decision_function"
    return Classes(labels=labels, says=says, floor=floor)


def _classifies(estimator: Any, y: NDArray[Any]) -> bool:
    """Return whether the answers are classes."""
    if hasattr(estimator, "__sklearn_tags__") or hasattr(estimator, "_estimator_type"):
        return bool(is_classifier(estimator))
    return (
        hasattr(estimator, "predict_proba")
        or hasattr(estimator, "classes_")
        or y.dtype.kind in "OUSb"
    )


def _decides(estimator: Any, classes: int) -> bool:
    """Return whether there is one decision value per class, or one in all for two classes."""
    if not hasattr(estimator, "decision_function"):
        return False
    pairs = getattr(estimator, "decision_function_shape", "ovr") == "ovo"
    return classes == 2 or not pairs


def _share_of_one(given: Any) -> Floats:
    """Return the probability that a label is there, [b]; 0 where a refit has not seen it."""
    shares = np.asarray(given, dtype=np.float64)
    return shares[:, 1] if shares.shape[1] > 1 else np.zeros(len(shares))
