"""The solution of least norm among those that predict the same, as least squares returns it."""

from __future__ import annotations

import torch

from whence.objective.losses import SquaredError
from whence.objective.objective import AnyObjective


def least_norm(objective: AnyObjective) -> AnyObjective:
    """Return unpenalized least squares at its solution with the smallest coefficients.

    Where columns depend on each other the training data leave θ free along some directions. Least
    squares, as scikit-learn and LAPACK solve it, takes the coefficients of least norm; on rows
    outside the span of the training rows other predictions follow from other solutions.

    Args:
        objective: R at a minimum.

    Returns:
        R at the minimum whose coefficients, the intercept aside, have the least norm; the objective
        itself where the minimum is unique or the loss another.

    References:
        Golub & Van Loan (2013), section 5.5.

    Examples:
        >>> import numpy as np, whence
        >>> from sklearn.linear_model import LinearRegression
        >>> X, y = np.c_[np.arange(4.0), np.arange(4.0)], np.array([0.0, 1.0, 1.0, 3.0])
        >>> objective = whence.from_sklearn(LinearRegression().fit(X, y), X, y)
        >>> shifted = objective.at(objective.params + torch.tensor([0.5, -0.5, 0.0]).double())
        >>> bool(torch.allclose(least_norm(shifted).params, objective.params))
        True
    """
    if objective.loss != SquaredError() or not objective.dependent_columns:
        return objective
    flat = objective.flat_directions()
    end = len(flat) - objective.intercepts
    along = torch.linalg.lstsq(flat[:end], objective.params[:end].unsqueeze(1), driver="gelsd")
    return objective.at(objective.params - flat @ along.solution.squeeze(1))
