"""QuantileRegressor: a linear program whose removals are a few edges away."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import QuantileRegressor
from torch import Tensor

from whence.adapters.answered import Answered
from whence.adapters.answers import Numbers
from whence.adapters.rows import encoded, labels_of
from whence.adapters.tables import as_floats
from whence.adapters.tabular import far_center
from whence.arrays import Floats
from whence.errors import InvalidInput
from whence.fitting.pinball import Vertex, vertex_near
from whence.objective.losses import Loss
from whence.objective.robust_losses import Quantile
from whence.rows import column_names, is_sparse

_NEAR = (
    1e-6  # how near the minimum's predictions are to the estimator's, beside the targets' spread
)


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class QuantileModel(Answered):
    """A fitted quantile regression, Σ wᵢ ℓ(yᵢ − f(xᵢ)) + α Σw ‖coef‖₁, at its minimum.

    Args:
        vertex: The minimum; its rows are those of the data, then one for each coefficient.
        center: What is taken off columns far from 0, [d], or `None`.
    """

    vertex: Vertex
    center: Floats | None

    @property
    def loss(self) -> Loss:
        """The quantile loss."""
        return Quantile(float(self.fitted.quantile))

    @property
    def trained_loss(self) -> Loss:
        """The same loss."""
        return self.loss

    @property
    def instant(self) -> bool:
        """True: a removal is a few edges away."""
        return True

    def outputs(self, examples: Any) -> Tensor:
        """Return predictions, [b, 1]."""
        rows = as_floats(examples.inputs)
        return torch.from_numpy(
            (_design(rows, self.fitted, self.center) @ self.vertex.theta)[:, None]
        )

    def refit(self, weights: Tensor | None = None) -> QuantileModel:
        """Return the minimum under other weights of the rows."""
        if weights is None:
            return self
        if not bool((weights > 0).any()):
            raise InvalidInput("Expected at least one training row with weight. Got none.")
        vertex = self.vertex.minimum(*_bounds(self.fitted, weights.double().numpy()))
        return replace(self, weights=weights, vertex=vertex)


def quantile(
    estimator: Any, X: Any, y: Any, sample_weight: NDArray[np.float64] | None
) -> QuantileModel | None:
    """Return a fitted QuantileRegressor at its minimum, or `None` of anything else.

    Args:
        estimator: Fitted.
        X: Its training rows, [n, d].
        y: Its targets, [n].
        sample_weight: Its sample weights, or `None`.
    """
    if type(estimator) is not QuantileRegressor or is_sparse(X):
        return None
    names, answer = column_names(X), Numbers(1)
    train = encoded((X, labels_of(y)), estimator.n_features_in_, names, answer.targets)
    weights = np.ones(len(train)) if sample_weight is None else sample_weight
    rows = as_floats(train.inputs)
    center = far_center(rows, weights > 0) if estimator.fit_intercept else None
    design, d = _design(rows, estimator, center), rows.shape[1]
    level = estimator.intercept_ + (0.0 if center is None else float(estimator.coef_ @ center))
    theta = np.append(estimator.coef_, [level] * estimator.fit_intercept)
    matrix = np.vstack([design, np.eye(d, design.shape[1])])
    targets = np.append(train.targets.numpy(), np.zeros(d))
    vertex = vertex_near(matrix, targets, theta).minimum(*_bounds(estimator, weights))
    own = design @ theta
    off = float(np.abs(design @ vertex.theta - own).max())
    if off > _NEAR * float(np.ptp(train.targets.numpy())):
        return None  # another of several minima: its removals would not be the estimator's
    return QuantileModel(
        fitted=estimator,
        answer=answer,
        train=train,
        weights=torch.from_numpy(weights),
        names=names,
        reader=quantile,
        vertex=vertex,
        center=center,
    )


def _design(rows: Any, estimator: Any, center: Floats | None) -> Floats:
    """Return rows, less what is far from 0 in them, beside the constant, [b, p]."""
    rows = np.asarray(rows, dtype=np.float64) - (0.0 if center is None else center)
    return np.hstack([rows, np.ones((len(rows), int(estimator.fit_intercept)))])


def _bounds(estimator: Any, weights: Floats) -> tuple[Floats, Floats]:
    """Return the slopes of negative and of positive residuals, of rows and of coefficients."""
    penalty = np.full(estimator.n_features_in_, estimator.alpha * weights.sum())
    low = np.append((estimator.quantile - 1) * weights, -penalty)
    return low, np.append(estimator.quantile * weights, penalty)
