"""Label-flipping attacks on tables and texts: how few wrong labels turn a prediction?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from whence.applications.poisoning import mean_loss, predicted
from whence.checked import checked
from whence.errors import InvalidInput, UnsupportedModel
from whence.methods.edits import relabel_gain
from whence.objective.objective import Objective, objective_of
from whence.objective.trained import Data, Examples, Trained
from whence.result import Card, Result


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class LabelFlips(Result):
    """Training labels that were turned, and what that did; made by `flip_labels`.

    Args:
        ids: The user's names of the turned examples, in the order of the turns, [m].
        positions: Their positions in the training data, [m].
        labels: Their labels now, [m].
        losses: The mean loss of the queries after each turn, the clean one first, [m + 1].
        flipped: Which queries are now predicted otherwise, [q].
        poisoned: The model fitted on the turned labels.
    """

    ids: NDArray[Any]
    positions: NDArray[np.intp]
    labels: tuple[Any, ...]
    losses: tuple[float, ...]
    flipped: NDArray[np.bool_]
    poisoned: Objective

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each turned label: whose, what it is now, and the loss."""
        return pd.DataFrame(
            {
                "row": self.ids,
                "label": pd.Series(self.labels, dtype=object),
                "loss": self.losses[1:],
            }
        )

    def card(self) -> Card:
        """Return the outcome in a sentence, and the turns."""
        title = (
            f"{int(self.flipped.sum())} of {len(self.flipped)} predictions flipped by "
            f"{len(self.positions)} turned training labels; mean loss {self.losses[0]:.3f} -> "
            f"{self.losses[-1]:.3f}, refitted"
        )
        return Card(title=title, table=self.to_frame())


@checked
def flip_labels(objective: Trained, queries: Data, *, most: int = 10) -> LabelFlips:
    """Turn training labels one by one until the predictions of some queries flip.

    Each turn takes the label whose change raises the queries' mean loss most, by the derivative
    −(1/n) ∇m̄ᵀ H⁻¹ (g(x, y′) − g(x, y)), and fits the model again on the turned labels, the
    preprocessing with it.

    Args:
        objective: A classifier of two classes from `whence.from_sklearn`: of a table, or of texts.
        queries: (X, y) of the queries whose loss is to rise.
        most: At most so many labels are turned, >= 1; it ends when all queries have flipped.

    Returns:
        The turned labels, and the model fitted on them.

    Raises:
        UnsupportedModel: If the model is no such classifier.
        InvalidInput: If an option is out of range, or queries cannot be used.

    Cost:
        Per label one solve and one refit.

    References:
        Biggio, Nelson & Laskov (2011), "Support vector machines under adversarial label noise"; Koh
        & Liang (2017), section 2.2, equation 3.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_breast_cancer
        >>> from sklearn.linear_model import LogisticRegression
        >>> X, y = load_breast_cancer(return_X_y=True)
        >>> X = (X[:, :5] - X[:, :5].mean(0)) / X[:, :5].std(0)
        >>> model = LogisticRegression(tol=1e-8).fit(X[20:120], y[20:120])
        >>> objective = whence.from_sklearn(model, X[20:120], y[20:120])
        >>> attack = whence.attacks.flip_labels(objective, (X[:1], y[:1]), most=2)
        >>> attack.losses[0] < attack.losses[1] < attack.losses[2]
        True
    """
    if most < 1:
        raise InvalidInput(f"Expected most >= 1 labels to turn. Got {most}.")
    current = objective_of(objective)
    if len(current.classes) != 2 or current.statistics is None or current.train.targets.ndim != 1:
        raise UnsupportedModel(
            "Expected a classifier of two classes from whence.from_sklearn, which is fitted again "
            f"on turned labels. Got {objective!r}."
        )
    current = current.refit()
    encoded = current.examples(queries)
    low, high = float(current.train.targets.min()), float(current.train.targets.max())
    before, losses = predicted(current, encoded), [mean_loss(current, encoded)]
    turned: list[int] = []
    while len(turned) < most and not (predicted(current, encoded) != before).all():
        at = np.array([_strongest(current, encoded, low + high, turned)])
        example = current.train.subset(at)
        current = current.refit_edited(at, example.relabeled(low + high - example.targets))
        turned.append(int(at[0]))
        losses.append(mean_loss(current, encoded))
    where = np.array(turned, dtype=np.intp)
    labels = current.train.targets[torch.from_numpy(where)] == high
    return LabelFlips(
        ids=current.train.ids[where],
        positions=where,
        labels=tuple(current.classes[int(label)] for label in labels.tolist()),
        losses=tuple(losses),
        flipped=predicted(current, encoded) != before,
        poisoned=current,
    )


def _strongest(objective: Objective, queries: Examples, ends: float, turned: list[int]) -> int:
    """Return the position of the label whose turn raises the queries' mean loss most."""
    where = np.setdiff1d(np.flatnonzero(objective.weights.numpy() > 0), turned)
    targets = ends - objective.train.targets[torch.from_numpy(where)]
    return int(where[np.argmin(relabel_gain(objective, where, targets, queries))])
