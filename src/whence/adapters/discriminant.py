"""Linear and quadratic discriminant analysis, and nearest centroids: means and scatter by class."""

from __future__ import annotations

from collections.abc import Callable
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

from whence.adapters.closed_form import ClosedForm, Priors, Sums, closed_form
from whence.adapters.tables import as_floats
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
    families = _FAMILIES.get(type(estimator))
    if families is None or is_sparse(X) or sample_weight is not None:
        return None
    rows = as_floats(X)
    if rows.shape[1] > _COLUMNS or not hasattr(estimator, "predict_proba"):
        return None
    for family in families(estimator, torch.from_numpy(rows.mean(0))):
        found = closed_form(estimator, family, X, y, None, discriminant)
        if found is not None:
            return found
    return None


def _centroids(estimator: Any, center: Tensor) -> list[_Normal]:
    """Return what a NearestCentroid may compute."""
    if estimator.metric != "euclidean" or estimator.shrink_threshold:
        return []
    if np.ndim(estimator.priors) == 0:  # "uniform" or "empirical"
        shares = Priors(None, estimator.priors == "empirical")
        return [_Normal(center, "diagonal", shares)]
    return [_Normal(center, "diagonal", Priors.of(estimator.priors))]


def _pooled(estimator: Any, center: Tensor) -> list[_Normal]:
    """Return what a LinearDiscriminantAnalysis may compute: versions differ in the divisor."""
    if estimator.shrinkage is not None or estimator.covariance_estimator is not None:
        return []
    priors = Priors.of(estimator.priors)
    return [_Normal(center, "pooled", priors, 0.0, less) for less in (0, 1)]


def _of_each_class(estimator: Any, center: Tensor) -> list[_Normal]:
    """Return what a QuadraticDiscriminantAnalysis may compute: versions differ in the divisor."""
    if getattr(estimator, "shrinkage", None) is not None:
        return []
    if getattr(estimator, "covariance_estimator", None) is not None:
        return []
    priors, mixed = Priors.of(estimator.priors), float(estimator.reg_param)
    return [_Normal(center, "of each class", priors, mixed, less) for less in (0, 1)]


_FAMILIES: dict[type, Callable[[Any, Tensor], list[_Normal]]] = {
    LinearDiscriminantAnalysis: _pooled,
    NearestCentroid: _centroids,
    QuadraticDiscriminantAnalysis: _of_each_class,
}


@final
@dataclass(frozen=True, eq=False)
class _Normal(Sums):
    """A normal distribution of each class.

    Args:
        center: What columns are taken relative to, so that squares do not cancel, [d].
        scatter: Which covariance.
        priors: The prior of each class.
        mixed: How much of a covariance is replaced by the identity.
        less: What is taken off the number of rows, per class, in the divisor of a covariance.
    """

    center: Tensor
    scatter: Scatter
    priors: Priors
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
        logs = self.priors(count.squeeze(1))
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


def _outer(x: Tensor) -> Tensor:
    """Return x xᵀ of each row, [b, d, d]."""
    return x.unsqueeze(2) * x.unsqueeze(1)
