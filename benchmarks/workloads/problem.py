"""The problems that an adapter can be given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Scores = NDArray[Any]
Ask = Callable[[], Scores]


@dataclass(frozen=True, kw_only=True)
class Influence:
    """Score all training examples for each query: `method(problem, setting)` returns how to ask.

    Scores are [q, n] in one sign and unit: the predicted change of the query's loss in nats if the
    training example is removed.

    Attributes:
        x: Training inputs, float32 [n, d].
        y: Training labels [n].
        queries: Inputs [q, d] and labels [q].
        model: The trained network; its outputs are logits.
        l2: The penalty (l2/2)‖θ‖² that it was trained with.
        base: Part of the damping that is no choice: the penalty, where it is part of the curvature.
        unit: What settings multiply, on top of the base.
        margin: Mean square of an entry of a training example's margin gradient: what settings
            multiply where a kernel of margins is inverted.
        params: The parameters in float64, where the workload is a convex problem.
        folder: An empty folder, deleted afterwards.
    """

    x: Tensor
    y: Tensor
    queries: tuple[Tensor, Tensor]
    model: nn.Module
    l2: float
    base: float
    unit: float
    margin: float
    params: NDArray[np.float64] | None
    folder: Path

    @property
    def n(self) -> int:
        return len(self.x)

    @property
    def device(self) -> torch.device:
        """Where the model and all data are."""
        return self.x.device

    def damping(self, setting: float) -> float:
        """Return λ for a multiple of the unit."""
        return self.base + setting * self.unit

    def on(self, device: str) -> Influence:
        """Return the same problem with model and data on a device."""
        x, y = self.queries
        return replace(
            self,
            x=self.x.to(device),
            y=self.y.to(device),
            queries=(x.to(device), y.to(device)),
            model=self.model.to(device),
        )


@dataclass(frozen=True, kw_only=True)
class Suspects:
    """Rank training examples by how likely their labels are wrong: scores [n], high is suspect.

    Attributes:
        x: Training rows, sparse float64 [n, d].
        y: Labels 0 and 1, some of them flipped, [n].
        coef: Of the fitted logistic regression, [d].
        intercept: Its intercept.
        l2: Its penalty.
        folder: An empty folder, deleted afterwards.
    """

    x: Any
    y: NDArray[np.int64]
    coef: NDArray[np.float64]
    intercept: float
    l2: float
    folder: Path


@dataclass(frozen=True, kw_only=True)
class Removals:
    """Refit a softmax regression without each of some examples: changes of a query's loss [k].

    An adapter may do the first k; the time is then that of k.

    Attributes:
        x: Training rows, float64 [n, d].
        y: Labels [n].
        query: One row and its label.
        coef: The fit on all, to its minimum, [c, d].
        l2: Its penalty.
        removed: Positions, in the order in which they are removed.
    """

    x: NDArray[np.float64]
    y: NDArray[np.int64]
    query: tuple[NDArray[np.float64], NDArray[np.int64]]
    coef: NDArray[np.float64]
    l2: float
    removed: NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class Halves:
    """Train W2's network on random halves: losses of the queries [k, q] for the first k halves.

    Attributes:
        x: Training inputs [n, d].
        y: Labels [n].
        queries: Inputs and labels.
        masks: Which examples each half keeps, [m, n].
    """

    x: Tensor
    y: Tensor
    queries: tuple[Tensor, Tensor]
    masks: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Score all rows of a table for each query: [q, n], in the sign and unit of `Influence`.

    Attributes:
        x: Training rows, float64 [n, d].
        y: Classes 0 and 1, or numbers, [n].
        queries: Rows [q, d] and their targets [q].
        model: The estimator of scikit-learn, fitted to its minimum; its loss is −log p or half the
            squared error.
        folder: An empty folder, deleted afterwards.
    """

    x: NDArray[np.float64]
    y: NDArray[Any]
    queries: tuple[NDArray[np.float64], NDArray[Any]]
    model: Any
    folder: Path

    @property
    def classifies(self) -> bool:
        return hasattr(self.model, "predict_proba")
