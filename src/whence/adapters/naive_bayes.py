"""Naive Bayes of four kinds: sums of columns per class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.naive_bayes import BernoulliNB, ComplementNB, GaussianNB, MultinomialNB
from torch import Tensor

from whence.adapters.closed_form import ClosedForm, Priors, Sums, closed_form
from whence.adapters.tables import as_floats
from whence.rows import is_sparse


def naive_bayes(
    estimator: Any, X: Any, y: Any, sample_weight: NDArray[np.float64] | None
) -> ClosedForm | None:
    """Return a naive Bayes classifier in closed form, or `None` of anything else.

    Args:
        estimator: Fitted.
        X: Its training rows, [n, d].
        y: Its labels, [n].
        sample_weight: Its sample weights, or `None`.
    """
    read = _FAMILIES.get(type(estimator))
    family = None if read is None else read(estimator, X)
    if family is None:
        return None
    return closed_form(estimator, family, X, y, sample_weight, naive_bayes)


def _gaussian(estimator: Any, X: Any) -> Sums | None:
    """Read GaussianNB, which takes dense rows."""
    if is_sparse(X):
        return None
    center = torch.from_numpy(as_floats(X).mean(0))
    return _Gaussian(center, float(estimator.var_smoothing), Priors.of(estimator.priors))


def _bernoulli(estimator: Any, X: Any) -> Sums:
    """Read BernoulliNB."""
    threshold = estimator.binarize
    return _Bernoulli(_counts(estimator), None if threshold is None else float(threshold))


def _counts(estimator: Any) -> _Counts:
    """Return how counts are smoothed."""
    priors = Priors.of(estimator.class_prior, fitted=bool(estimator.fit_prior))
    alpha = torch.as_tensor(np.asarray(estimator.alpha, dtype=np.float64))
    return _Counts(alpha=alpha, priors=priors)


_FAMILIES: dict[type, Callable[[Any, Any], Sums | None]] = {
    BernoulliNB: _bernoulli,
    ComplementNB: lambda estimator, _: _Complement(_counts(estimator), bool(estimator.norm)),
    GaussianNB: _gaussian,
    MultinomialNB: lambda estimator, _: _Multinomial(_counts(estimator)),
}


@final
@dataclass(frozen=True, eq=False)
class _Gaussian(Sums):
    """A normal distribution of each column in each class.

    Args:
        center: What columns are taken relative to, so that squares do not cancel, [d].
        smoothing: The share of the largest variance that is added to all.
        priors: The prior of each class.
    """

    center: Tensor
    smoothing: float
    priors: Priors

    def parts(self, rows: Tensor) -> Tensor:
        """Return 1, x and x², [b, 1 + 2 d]."""
        x = rows - self.center
        return torch.cat([torch.ones_like(x[:, :1]), x, x.square()], 1)

    def outputs(self, sums: Tensor, rows: Tensor) -> Tensor:
        """Return log p(y) + Σⱼ log N(xⱼ; μ, σ²), [b, C]."""
        d = len(self.center)
        count, first, second = sums[:, :1], sums[:, 1 : 1 + d], sums[:, 1 + d :]
        total = sums.sum(0)
        mean = total[1 : 1 + d] / total[0]
        spread = (total[1 + d :] / total[0] - mean.square()).max()
        means = first / count
        variances = second / count - means.square() + self.smoothing * spread
        away = (rows - self.center).unsqueeze(1) - means
        logs = -0.5 * ((2 * torch.pi * variances).log() + away.square() / variances).sum(2)
        priors = self.priors(count.squeeze(1))
        return logs + priors


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class _Counts:
    """Smoothed counts.

    Args:
        alpha: What is added to each count.
        priors: The prior of each class.
    """

    alpha: Tensor
    priors: Priors


@final
@dataclass(frozen=True, eq=False)
class _Multinomial(Sums):
    """Counts of each column in each class."""

    counts: _Counts

    def parts(self, rows: Tensor) -> Tensor:
        """Return 1 and x, [b, 1 + d]."""
        return torch.cat([torch.ones_like(rows[:, :1]), rows], 1)

    def outputs(self, sums: Tensor, rows: Tensor) -> Tensor:
        """Return log p(y) + Σⱼ xⱼ log p(j | y), [b, C]."""
        smoothed = sums[:, 1:] + self.counts.alpha
        logs = smoothed.log() - smoothed.sum(1, keepdim=True).log()
        return rows @ logs.T + self.counts.priors(sums[:, 0])


@final
@dataclass(frozen=True, eq=False)
class _Complement(Sums):
    """Counts of each column in all other classes."""

    counts: _Counts
    norm: bool

    def parts(self, rows: Tensor) -> Tensor:
        """Return 1 and x, [b, 1 + d]."""
        return torch.cat([torch.ones_like(rows[:, :1]), rows], 1)

    def outputs(self, sums: Tensor, rows: Tensor) -> Tensor:
        """Return −Σⱼ xⱼ log p(j | not y), [b, C]."""
        others = sums[:, 1:].sum(0) + self.counts.alpha - sums[:, 1:]
        logs = (others / others.sum(1, keepdim=True)).log()
        return rows @ (logs / logs.sum(1, keepdim=True) if self.norm else -logs).T


@final
@dataclass(frozen=True, eq=False)
class _Bernoulli(Sums):
    """Counts of the rows of each class in which a column is on.

    Args:
        counts: How they are smoothed.
        threshold: Above which a number counts as on; `None` where columns are 0 or 1 already.
    """

    counts: _Counts
    threshold: float | None

    def _on(self, rows: Tensor) -> Tensor:
        """Return which columns are on, as numbers."""
        return rows if self.threshold is None else (rows > self.threshold).double()

    def parts(self, rows: Tensor) -> Tensor:
        """Return 1 and what is on, [b, 1 + d]."""
        return torch.cat([torch.ones_like(rows[:, :1]), self._on(rows)], 1)

    def outputs(self, sums: Tensor, rows: Tensor) -> Tensor:
        """Return log p(y) + Σⱼ log p(xⱼ | y), [b, C]."""
        on = (sums[:, 1:] + self.counts.alpha) / (sums[:, :1] + 2 * self.counts.alpha)
        off = (1 - on).log()
        logs = self._on(rows) @ (on.log() - off).T + off.sum(1)
        return logs + self.counts.priors(sums[:, 0])
