"""Linear and quadratic discriminant analysis, and nearest centroids: means and scatter by class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.discriminant_analysis import (
    LinearDiscriminantAnalysis,
    QuadraticDiscriminantAnalysis,
)
from sklearn.neighbors import NearestCentroid
from torch import Tensor

from whence.adapters.closed_form import ClosedForm, Sums, closed_form
from whence.adapters.tabular import as_floats
from whence.rows import is_sparse

_COLUMNS = 64  # up to which the products of all pairs of columns are kept for each row

Scatter = Literal["pooled", "of each class", "diagonal"]


def discriminant(
    estimator: Any, X: Any, y: Any, sample_weight: NDArray[np.float64] | None
) -> ClosedForm | None:
    """Return a discriminant analysis in closed form, or `None` of anything else.

    Args:
        estimator: Fitted.
        X: Its training rows, [n, d].
        y: Its labels, [n].
        sample_weight: Its sample weights; it takes none.
    """
    kinds = (LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis, NearestCentroid)
    if type(estimator) not in kinds or is_sparse(X) or sample_weight is not None:
        return None
    rows = as_floats(X)
    if rows.shape[1] > _COLUMNS or not hasattr(estimator, "predict_proba"):
        return None
    for family in _families(estimator, torch.from_numpy(rows.mean(0))):
        found = closed_form(estimator, family, X, y, None)
        if found is not None:
            return found
    return None


def _families(estimator: Any, center: Tensor) -> list[_Normal]:
    """Return what an estimator may compute: versions of scikit-learn differ in the divisor."""
    if isinstance(estimator, NearestCentroid):
        if estimator.metric != "euclidean" or estimator.shrink_threshold:
            return []
        uniform, given = estimator.priors == "uniform", estimator.priors
        if isinstance(given, str):
            return [_Normal(center, "diagonal", None, uniform)]
        return [_Normal(center, "diagonal", torch.as_tensor(np.asarray(given)).log(), False)]
    priors = estimator.priors
    logs = None if priors is None else torch.as_tensor(np.asarray(priors, dtype=np.float64)).log()
    if getattr(estimator, "shrinkage", None) is not None:
        return []
    if getattr(estimator, "covariance_estimator", None) is not None:
        return []
    if isinstance(estimator, QuadraticDiscriminantAnalysis):
        mixed = float(estimator.reg_param)
        return [_Normal(center, "of each class", logs, False, mixed, less) for less in (0, 1)]
    return [_Normal(center, "pooled", logs, False, 0.0, less) for less in (0, 1)]


@final
@dataclass(frozen=True, eq=False)
class _Normal(Sums):
    """A normal distribution of each class.

    Args:
        center: What columns are taken relative to, so that squares do not cancel, [d].
        scatter: Which covariance.
        priors: The log prior of each class, or `None` for its share of the rows.
        uniform: Whether all classes have the same prior.
        mixed: How much of a covariance is replaced by the identity.
        less: What is taken off the number of rows, per class, in the divisor of a covariance.
    """

    center: Tensor
    scatter: Scatter
    priors: Tensor | None
    uniform: bool
    mixed: float = 0.0
    less: int = 0

    def parts(self, rows: Tensor) -> Tensor:
        """Return 1, x and the products of its columns, [b, 1 + d + d²]; squares if diagonal."""
        x = rows - self.center
        products = x.square() if self.scatter == "diagonal" else _outer(x).flatten(1)
        return torch.cat([torch.ones_like(x[:, :1]), x, products], 1)

    def outputs(self, sums: Tensor, rows: Tensor) -> Tensor:
        """Return log p(y) − ½ (x − μ)ᵀ Σ⁻¹ (x − μ) − ½ log |Σ|, [b, C]."""
        d, count = len(self.center), sums[:, :1]
        x, means = rows - self.center, sums[:, 1 : 1 + d] / count
        logs = self._log_priors(count.squeeze(1))
        if self.scatter == "diagonal":
            within = (sums[:, 1 + d :] - count * means.square()).sum(0)
            sizes = (within / (count.sum() - len(count))).clamp_min(0)
            sizes = torch.where(sizes > 0, sizes, torch.ones_like(sizes))
            away = (x.unsqueeze(1) - means).square() / sizes
            return -away.sum(2) + 2 * logs
        scatter = sums[:, 1 + d :].reshape(-1, d, d) - count.unsqueeze(2) * _outer(means)
        if self.scatter == "of each class":
            covariance = scatter / (count.unsqueeze(2) - self.less)
            eye = torch.eye(d, dtype=covariance.dtype)
            covariance = (1 - self.mixed) * covariance + self.mixed * eye
        else:
            divisor = count.sum() - self.less * len(count)
            covariance = (scatter.sum(0) / divisor).expand(len(count), d, d)
        inverse = torch.linalg.pinv(covariance, hermitian=True)
        away = x.unsqueeze(1) - means
        distance = torch.einsum("bci,cij,bcj->bc", away, inverse, away)
        if self.scatter == "of each class":
            distance = distance + torch.linalg.slogdet(covariance)[1]
        return logs - distance / 2

    def _log_priors(self, count: Tensor) -> Tensor:
        """Return the log prior of each class, [C]."""
        if self.priors is not None and len(self.priors) == len(count):
            return self.priors
        count = torch.ones_like(count) if self.uniform else count
        return (count / count.sum()).log()


def _outer(x: Tensor) -> Tensor:
    """Return x xᵀ of each row, [b, d, d]."""
    return x.unsqueeze(2) * x.unsqueeze(1)
