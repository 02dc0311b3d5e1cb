"""Which estimators are objectives that whence knows: by type, a function that reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.kernel_ridge import KernelRidge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVR, LinearSVR

from whence.adapters.equivalents import plain
from whence.adapters.estimators import READERS, Problem
from whence.adapters.kernel_models import gaussian_process, kernel_ridge
from whence.adapters.support_vectors import (
    linear_support_vector_regression,
    support_vector_regression,
)
from whence.adapters.weights import weighted_rows
from whence.arrays import Floats
from whence.errors import UnsupportedModel
from whence.objective.derived_losses import OneVersusRest


def is_read(final: Any) -> bool:
    """Return whether an estimator of this type can be read.

    Args:
        final: The estimator, fitted or not.
    """
    return type(final) in _READERS


def reader(final: Any) -> Callable[[Any, int], Problem]:
    """Return what reads the objective off an estimator of this type.

    Args:
        final: The estimator, fitted or not.

    Returns:
        A function of the estimator and n.

    Raises:
        UnsupportedModel: If no such function exists.
    """
    if not is_read(final):
        known = ", ".join(sorted(kind.__name__ for kind in _READERS))
        raise UnsupportedModel(
            f"Expected one of {known}, or a Pipeline that ends in one. Got {type(final).__name__}."
        )
    return _READERS[type(final)]


def read(final: Any, sample: Floats) -> Problem:
    """Return what an estimator minimizes, and where.

    Args:
        final: The fitted estimator.
        sample: The sample weights it was fitted with, [n].

    Raises:
        UnsupportedModel: As `reader`; or for an option without an exact treatment.
    """
    problem = reader(final)(final, len(sample))
    if problem.support is None or not hasattr(final, "support_"):
        return problem
    return replace(problem, support=weighted_rows(problem.support, sample))


def _one_versus_rest(final: Any, n: int) -> Problem:
    """Read OneVsRestClassifier of linear classifiers: the sum of their objectives."""
    parts = [plain(each).estimator for each in final.estimators_]
    kinds = {type(part) for part in parts}
    if final.multilabel_ or len(kinds) != 1 or not kinds <= set(READERS):
        raise UnsupportedModel(
            "Expected one label per row and linear classifiers of one kind, one against the rest. "
            f"Got {type(parts[0]).__name__}."
        )
    problems = [READERS[type(part)](part, n) for part in parts]
    first = problems[0]
    weighted = any(getattr(part, "class_weight", None) is not None for part in parts)
    if first.kernel is not None or first.l1 or first.signs or weighted:
        raise UnsupportedModel(
            "Expected linear classifiers without class weights and L1 penalty, each against the "
            f"rest. Got {parts[0]!r}."
        )
    if len(problems) == 1:
        return first
    intercept = first.intercept
    if intercept is not None:
        intercept = np.concatenate([np.ravel(np.asarray(each.intercept)) for each in problems])
    return replace(
        first,
        loss=OneVersusRest(first.loss),
        coef=np.concatenate([each.coef for each in problems]),
        intercept=intercept,
    )


_READERS: dict[type, Callable[[Any, int], Problem]] = {
    **READERS,
    GaussianProcessRegressor: gaussian_process,
    KernelRidge: kernel_ridge,
    LinearSVR: linear_support_vector_regression,
    OneVsRestClassifier: _one_versus_rest,
    SVR: support_vector_regression,
}
