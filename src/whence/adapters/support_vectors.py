"""Support vector regression: the ε-insensitive loss, by its active set."""

from __future__ import annotations

from typing import Any

import numpy as np

from whence.adapters.estimators import Problem, of_support_vectors
from whence.errors import UnsupportedModel
from whence.objective.losses import Loss
from whence.objective.robust_losses import Insensitive, SquaredInsensitive


def support_vector_regression(final: Any, n: int) -> Problem:
    """Read SVR: ½‖w‖² + C Σ sᵢ max(0, |f − y| − ε) in the kernel's feature space.

    Args:
        final: Fitted.
        n: The number of rows.

    Raises:
        UnsupportedModel: If the kernel is another than linear, rbf and poly.
    """
    if final.kernel not in ("linear", "rbf", "poly"):
        raise UnsupportedModel(
            f"Expected kernel='linear', 'rbf' or 'poly' in SVR. Got {final.kernel!r}."
        )
    return of_support_vectors(final, n, Insensitive(epsilon=float(final.epsilon)))


def linear_support_vector_regression(final: Any, n: int) -> Problem:
    """Read LinearSVR: ½‖(w, b)‖² + C Σ sᵢ ℓᵢ; liblinear penalizes its scaled intercept.

    Args:
        final: Fitted.
        n: The number of rows.
    """
    epsilon, strength = float(final.epsilon), 1 / (n * final.C)
    loss: Loss = Insensitive(epsilon=epsilon)
    if final.loss == "squared_epsilon_insensitive":
        loss = SquaredInsensitive(epsilon=epsilon)
    return Problem(
        loss=loss,
        l2=strength,
        coef=np.atleast_2d(np.asarray(final.coef_, dtype=np.float64)),
        intercept=np.atleast_1d(final.intercept_) if final.fit_intercept else None,
        intercept_l2=strength,
        constant=float(final.intercept_scaling),
    )
