"""Gaussian processes of classes with the kernels that their fits chose, as estimators."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.gaussian_process import GaussianProcessClassifier

from whence.arrays import Floats


class ProcessPerClass(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A Gaussian process for each class against the rest, each with a kernel of its own.

    Args:
        classes: The names of the classes.
        kernels: The kernel of each, held.
    """

    def __init__(self, classes: Any = (), kernels: Any = ()) -> None:
        """Hold the kernels."""
        self.classes = classes
        self.kernels = kernels

    def fit(self, X: Any, y: Any) -> ProcessPerClass:
        """Fit a process to each class that is there."""
        there = np.isin(self.classes, y)
        self.classes_ = np.asarray(self.classes)[there]
        self.n_features_in_ = np.shape(X)[1]
        self.estimators_ = [
            GaussianProcessClassifier(kernel, optimizer=None).fit(X, np.asarray(y) == name)
            for name, kernel, found in zip(self.classes, self.kernels, there, strict=True)
            if found
        ]
        return self

    def predict_proba(self, X: Any) -> Floats:
        """Return the share of each class in the sum of its probabilities, [b, C]."""
        each = np.stack([one.predict_proba(X)[:, 1] for one in self.estimators_], 1)
        return np.asarray(each / each.sum(1, keepdims=True))

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the class with the largest share, [b]."""
        found: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(1)]
        return found


def held(estimator: GaussianProcessClassifier) -> Any:
    """Return a fitted process with its kernel held; one for each class, of more than two.

    Args:
        estimator: Fitted; of more than two classes one against the rest.
    """
    if estimator.n_classes_ == 2:
        return copy(estimator).set_params(kernel=estimator.kernel_, optimizer=None)
    inner = estimator.base_estimator_.estimators_
    parts = []
    for one in inner:
        part = GaussianProcessClassifier(one.kernel_, optimizer=None)
        part.base_estimator_, part.classes_, part.n_classes_ = one, np.array([False, True]), 2
        part.n_features_in_ = estimator.n_features_in_
        parts.append(part)
    made = ProcessPerClass(estimator.classes_.tolist(), [one.kernel_ for one in inner])
    made.estimators_, made.classes_ = parts, estimator.classes_
    for name in ("n_features_in_", "feature_names_in_"):
        if hasattr(estimator, name):
            setattr(made, name, getattr(estimator, name))
    return made
