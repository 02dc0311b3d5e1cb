"""An estimator with a user's settings, not fitted."""

from __future__ import annotations

from copy import copy, deepcopy
from typing import Any

from sklearn.base import clone

from whence.preprocessing.containers import final, parts
from whence.trees.libraries import library_of
from whence.workers import is_shared


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


def for_rows(estimator: Any, numbers: float) -> Any:
    """Return an estimator that is not fitted with as many threads as a fit has work for.

    LightGBM's estimators ask for threads by number, which no limit of OpenMP's lowers.

    Args:
        estimator: An estimator that is nobody else's, as `unfitted` returns it: it is changed.
        numbers: The rows of the fit times their columns.
    """
    for part in () if is_shared(numbers) else parts(estimator):
        if library_of(part) == "lightgbm" and hasattr(part, "n_jobs"):
            part.set_params(n_jobs=1)
    return estimator
