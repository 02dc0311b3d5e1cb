"""GaussianProcessClassifier: the mode of each removal by Newton's method, its kernel held."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from scipy.linalg import cho_solve, cholesky
from scipy.special import expit
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
        reader=process,
        process=inner,
        gram=gram,
        mode=gram @ (train.targets.numpy() - inner.pi_),
    )
