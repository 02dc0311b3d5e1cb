"""An estimator with a user's settings, not fitted."""

from __future__ import annotations

from copy import copy, deepcopy
from typing import Any

from sklearn.base import clone

from whence.preprocessing.containers import final
from whence.trees.libraries import library_of


def unfitted(estimator: Any) -> Any:
    """Return an estimator with the same settings, not fitted.

    CatBoost copies the lists among its settings, which `sklearn.base.clone` takes for an error.

    Args:
        estimator: An estimator, a Pipeline that ends in one, or an object without settings, which
            is copied.
    """
    last = final(estimator)
    if library_of(last) != "catboost":
        return clone(estimator, safe=False)
    again = type(last)().set_params(**deepcopy(last.get_params()))
    if last is estimator:
        return again
    pipeline = copy(estimator)
    steps = [(name, clone(step, safe=False)) for name, step in estimator.steps[:-1]]
    pipeline.steps = [*steps, (estimator.steps[-1][0], again)]
    return pipeline
