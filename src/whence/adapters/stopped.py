"""What an estimator says of its own fit: that it took as many iterations as it was allowed."""

from __future__ import annotations

from typing import Any

import numpy as np


def stopped_early(estimator: Any) -> str:
    """Return that a fit stopped at its largest number of iterations, or nothing.

    scikit-learn warns of such a fit where it is made, which may be long ago and elsewhere; the
    estimator still says so by `n_iter_`.

    Args:
        estimator: A fitted estimator.

    Examples:
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.linear_model import Lasso, Ridge
        >>> X, y = load_iris(return_X_y=True)
        >>> stopped_early(Ridge().fit(X, y))
        ''
        >>> stopped_early(Lasso(alpha=1e-3, max_iter=300, tol=1e-3).fit(X, y))
        ''
    """
    limit, taken = getattr(estimator, "max_iter", None), getattr(estimator, "n_iter_", None)
    if limit is None or taken is None or not 0 < limit <= np.max(taken, initial=0):
        return ""
    return f"{type(estimator).__name__} stopped at its max_iter of {limit:,}"
