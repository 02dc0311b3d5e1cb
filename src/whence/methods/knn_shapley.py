"""KNN-Shapley: the Shapley value of each training example for its nearest neighbors' vote."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.adapters.neighbors import Neighbors
from whence.checked import checked
from whence.errors import InvalidInput, UnsupportedModel
from whence.methods.attribution import Attribution
from whence.methods.method import Method
from whence.methods.similarity import coordinates
from whence.methods.subsets import Positions, blocks
from whence.objective.measures import Measure
from whence.objective.sets.measure import SetMeasure
from whence.objective.targets import target_classes
from whence.objective.trained import Examples, Trained
from whence.scores import Diagnostics

_STANDARD = 10  # neighbors that vote where the model is no neighbors' vote itself


@final
@checked
@dataclass(frozen=True, kw_only=True)
class KNNShapley(Method):
    r"""Value training examples by their Shapley value for a vote of nearest neighbors.

    With α₁, α₂, … the training examples from the nearest on, and v(S) the mean target (or share of
    a class) of the k nearest of S, 0 in place of missing ones:

        s(α_n) = v_n / n · min(k, n)/k,   s(α_j) = s(α_{j+1}) + (v_j − v_{j+1})/k · min(k, j)/j,

        score[q, i] = −⟨∂m_q/∂v, s(i)⟩.

    The mean change over all orders in which examples may arrive, not the removal from all of them:
    every one of k equal neighbors has its share. Exact for the vote itself, so for
    measure="probability" and "prediction"; other measures are taken as linear at the vote, whose
    shares count as at least 1/(2n).

    Args:
        k: Neighbors that vote; those of a KNeighbors model, 10 for other models, if `None`.

    Raises:
        InvalidInput: If k < 1.

    Cost:
        A sort of n distances per query, and no fit.

    References:
        Jia et al. (2019), "Efficient task-specific data valuation for nearest neighbor
        algorithms", theorem 1 and, for regression, its linear part.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.neighbors import KNeighborsClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> model = whence.from_sklearn(KNeighborsClassifier(5).fit(X[9:], y[9:]), X[9:], y[9:])
        >>> found = whence.KNNShapley().fit(model).scores((X[:1], y[:1]), measure="probability")
        >>> round(float(found.values.sum()), 1)  # minus the whole probability, shared out
        -1.0
    """

    k: int | None = None

    def __post_init__(self) -> None:
        """Check k."""
        if self.k is not None and self.k < 1:
            raise InvalidInput(f"Expected k >= 1. Got {self.k}.")

    def attribution(self, trained: Trained) -> Attribution:
        """Return the values for a model's training examples."""
        own = _voters(trained)
        return _Values(trained, min(self.k or own, len(trained.train)))


@singledispatch
def _voters(trained: Trained) -> int:
    """Return how many neighbors vote."""
    return _STANDARD


@_voters.register
def _(trained: Neighbors) -> int:
    if not trained.votes_alike:
        raise UnsupportedModel(
            f"Expected neighbors whose votes count alike. Got weights={trained.voter.weights!r}. "
            "Use whence.LeaveOneOut(), which is exact for it."
        )
    return trained.k


@singledispatch
def _from_nearest(trained: Trained, queries: Examples) -> NDArray[np.intp]:
    """Return the training examples from the nearest on, [q, n]."""
    points = coordinates(trained.train.inputs, queries.inputs)
    if points is None:
        raise UnsupportedModel(
            "Expected inputs with distances: a table, texts or tensors. Got "
            f"{type(trained.train.inputs).__name__}."
        )
    near = torch.cdist(points[1], points[0]).argsort(dim=1, stable=True)
    return np.asarray(near.cpu().numpy(), dtype=np.intp)


@_from_nearest.register
def _(trained: Neighbors, queries: Examples) -> NDArray[np.intp]:
    return trained.nearest(queries, len(trained.train)).rows


@final
@dataclass(frozen=True, eq=False)
class _Values(Attribution):
    """Shapley values for the vote of nearest neighbors.

    Args:
        trained: The model.
        k: How many vote.
    """

    trained: Trained
    k: int

    @property
    def words(self) -> str:
        """The method, with its source."""
        return f"KNN-Shapley of {self.k} neighbors (Jia et al. 2019)"

    def values(
        self, queries: Examples, measure: Measure, where: Positions
    ) -> tuple[Tensor, Diagnostics]:
        """Return minus the values, along the slope of the measure, [q, k]."""
        votes = self._votes()
        parts = []
        for part in blocks(np.arange(len(queries))):
            some = queries.subset(part)
            order = _from_nearest(self.trained, some)
            each = shapley(votes[order], self.k)
            slopes = self._slopes(some, measure, votes[order[:, : self.k]].mean(1))
            scores = -torch.einsum("qv,qnv->qn", slopes, torch.from_numpy(each))
            placed = torch.empty_like(scores).scatter_(1, torch.from_numpy(order), scores)
            parts.append(placed[:, torch.as_tensor(where)])
        return torch.cat(parts), Diagnostics(notes=self.trained.notes)

    def set_values(
        self, queries: Examples, measure: SetMeasure, where: Positions
    ) -> tuple[Tensor, Diagnostics]:
        """Raise: Shapley values of votes add up over queries, and say nothing of a set."""
        raise UnsupportedModel(
            f"Expected a method that follows outputs for {measure.name}. Got KNN-Shapley, which "
            "values the vote on each query. Use method=whence.LeaveOneOut() or "
            "whence.Retrained()."
        )

    def _votes(self) -> NDArray[np.float64]:
        """Return what each training example votes for: a one-hot class or a number, [n, v]."""
        loss, targets = self.trained.loss, self.trained.train.targets.cpu()
        if loss.classifies and targets.numel() == len(targets):
            count = max(len(self.trained.classes), int(targets.max()) + 1)
            shares: NDArray[np.float64] = np.eye(count)[target_classes(targets).numpy()]
            return shares
        if not loss.regresses or targets.numel() != len(targets):
            raise UnsupportedModel(
                "Expected one class or one number per training example. Got targets of shape "
                f"{list(targets.shape)}."
            )
        numbers: NDArray[np.float64] = targets.double().reshape(-1, 1).numpy()
        return numbers

    def _slopes(self, queries: Examples, measure: Measure, mean: NDArray[np.float64]) -> Tensor:
        """Return ∂m/∂v at the vote of all examples, [q, v]."""
        vote, targets = torch.from_numpy(mean), queries.targets.cpu()
        if self.trained.loss.regresses:
            return measure.gradient(vote, targets)
        least = 1 / (2 * len(self.trained.train))
        held = vote.clamp_min(least)
        outputs = held.log()
        if self.trained.outputs(queries.subset(np.arange(1))).shape[1] == 1:
            slope = measure.gradient(outputs[:, 1:] - outputs[:, :1], targets)
            slope = torch.cat([-slope, slope], 1)
        else:
            slope = measure.gradient(outputs, targets)
        slope = slope / held
        # Shares sum to one, so that a slope is known up to a constant: without the label's class it
        # is none on the average, as in the paper, whose vote counts the right label alone.
        label = torch.nn.functional.one_hot(target_classes(targets), slope.shape[1]).bool()
        rest = slope.masked_fill(label, 0).sum(1, keepdim=True) / (slope.shape[1] - 1)
        return slope - rest


def shapley(votes: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Return the Shapley value of each example for the mean vote of the k nearest.

    Args:
        votes: What examples vote for, from the nearest on, [q, n, v].
        k: How many vote, 1 to n.

    Returns:
        Values in the same order, [q, n, v]; they sum to the mean vote of the k nearest.
    """
    n = votes.shape[1]
    j = np.arange(1, n)
    steps = (votes[:, :-1] - votes[:, 1:]) * (np.minimum(k, j) / (j * k))[:, None]
    last = votes[:, -1:] * min(k, n) / (n * k)
    return np.concatenate([np.cumsum(steps[:, ::-1], 1)[:, ::-1] + last, last], 1)
