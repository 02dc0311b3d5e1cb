"""GaussianProcessClassifier: the mode of each removal by Newton's method, its kernel held."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.gaussian_process import GaussianProcessClassifier
from torch import Tensor

from whence.adapters.answered import Answered
from whence.adapters.answers import Classes
from whence.adapters.rows import encoded, labels_of
from whence.adapters.tables import as_floats
from whence.arrays import Floats
from whence.errors import InvalidInput
from whence.objective.losses import Loss
from whence.rows import column_names, is_sparse

_MOST = 1_000  # rows: a removal is a few factors of their kernel matrix
_STEPS = 100  # of Newton's method
_CONVERGED = 1e-12  # share of f that the last step moves


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


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Process(Answered):
    """A fitted Gaussian process of two classes with its rows, the kernel held.

    f maximizes Σ log σ(±fᵢ) − ½ fᵀ K⁻¹ f; the probability of a row is the mean of σ over the normal
    distribution of its f that Laplace's approximation gives.

    Args:
        process: What predicts: the process of scikit-learn at this mode.
        gram: K of all rows, [n, n].
        mode: f, [n].
    """

    process: Any
    gram: Floats
    mode: Floats

    @property
    def loss(self) -> Loss:
        """−log of the probability of the class."""
        return self.answer.of_scores

    @property
    def instant(self) -> bool:
        """True: a removal takes a few steps from the mode."""
        return True

    def outputs(self, examples: Any) -> Tensor:
        """Return the log odds of the mean probability, [b, 1]."""
        shares = self.process.predict_proba(as_floats(examples.inputs))[:, 1]
        shares = np.clip(shares, 1e-12, 1 - 1e-12)
        return torch.from_numpy(np.log(shares / (1 - shares))[:, None])

    def refit(self, weights: Tensor | None = None) -> Process:
        """Return the process of the rows with weight, 1 or 0."""
        weights = self.weights if weights is None else weights.double()
        kept = np.flatnonzero(weights.numpy())
        labels = self.train.targets.numpy()[kept]
        if len(np.unique(labels)) < 2:
            raise InvalidInput("Expected training rows of both classes to stay. Got rows of one.")
        if not bool((weights[kept] == 1).all()):
            raise InvalidInput("Expected weights of 0 or 1: a Gaussian process takes no others.")
        gram, f = self.gram[np.ix_(kept, kept)], self.mode[kept]
        for _ in range(_STEPS):
            before = f
            slope, root, factor = _curved(gram, f, labels)
            b = root**2 * f + slope
            a = b - root * cho_solve((factor, True), root * (gram @ b))
            f = gram @ a
            if np.abs(f - before).max() <= _CONVERGED * max(1.0, np.abs(f).max()):
                break
        slope, root, factor = _curved(gram, f, labels)
        process = copy(self.process)
        process.X_train_, process.y_train_ = as_floats(self.train.inputs)[kept], labels
        process.pi_, process.W_sr_, process.L_ = labels - slope, root, factor
        mode = self.gram[:, kept] @ slope
        return replace(self, weights=weights, process=process, mode=mode)


def _curved(gram: Floats, f: Floats, labels: Floats) -> tuple[Floats, Floats, Floats]:
    """Return y − σ(f) [n], √W of W = σ (1 − σ) [n], and L of I + √W K √W = L Lᵀ, [n, n]."""
    share = expit(f)
    root = np.sqrt(share * (1 - share))
    factor = cholesky(np.eye(len(f)) + root[:, None] * gram * root, lower=True)
    return labels - share, root, factor


def process(estimator: Any, X: Any, y: Any, sample_weight: Floats | None) -> Process | None:
    """Return a fitted GaussianProcessClassifier of two classes, its kernel held, or `None`.

    Args:
        estimator: Fitted; as `held` gives it.
        X: Its training rows, [n, d].
        y: Its labels, [n].
        sample_weight: It takes none.
    """
    known = type(estimator) is GaussianProcessClassifier and sample_weight is None
    if not known or len(estimator.classes_) != 2 or is_sparse(X) or np.shape(X)[0] > _MOST:
        return None
    labels, names = labels_of(y), column_names(X)
    classes = np.asarray(estimator.classes_)
    answer = Classes(labels=classes, says="predict_proba", floor=1e-12)
    train = encoded((X, labels), estimator.n_features_in_, names, answer.targets)
    inner = estimator.base_estimator_
    gram = np.asarray(inner.kernel_(as_floats(train.inputs)), dtype=np.float64)
    return Process(
        fitted=estimator,
        answer=answer,
        train=train,
        weights=torch.ones(len(train), dtype=torch.float64),
        names=names,
        process=inner,
        gram=gram,
        mode=gram @ (train.targets.numpy() - inner.pi_),
    )
