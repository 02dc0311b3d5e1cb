"""The models of the paper, fitted with scikit-learn to full convergence."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from whence.adapters.sklearn import linear_objective
from whence.linear.objective import LinearObjective


def logistic(x: Any, y: NDArray[Any], *, l2: float, **options: Any) -> LinearObjective:
    """Return softmax or binary logistic regression of mean loss plus (l2/2)‖θ‖², no intercept."""
    model = LogisticRegression(
        C=1 / (l2 * len(y)), fit_intercept=False, **{"tol": 1e-8, "max_iter": 5000, **options}
    )
    return linear_objective(model.fit(x, y), x, y)


def pearson(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return Pearson's correlation of two vectors."""
    return float(np.corrcoef(a, b)[0, 1])


def slope(predicted: NDArray[Any], actual: NDArray[Any]) -> float:
    """Return the least-squares slope of actual on predicted."""
    return float(np.polyfit(predicted, actual, 1)[0])
