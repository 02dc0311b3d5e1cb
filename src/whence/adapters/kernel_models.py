"""Kernel ridge regression and Gaussian processes: squared error in a kernel's span of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics.pairwise import pairwise_kernels

from whence.adapters.estimators import Problem
from whence.adapters.kernel import Kernel
from whence.arrays import Floats
from whence.errors import UnsupportedModel
from whence.objective.losses import SquaredError
from whence.rows import dense

_LEAST = 1e-8  # of the largest eigenvalue: a smaller noise leaves no digits for single rows


@dataclass(frozen=True)
class KernelFunction(Kernel):
    """Any kernel, by a function; without its derivative.

    Args:
        function: From rows [a, d] and [b, d] to [a, b].
    """

    function: Callable[[Any, Any], Any] | None = None

    def __call__(self, a: Any, b: Any) -> Floats:
        """Return k(aᵢ, bⱼ), [a, b]."""
        assert self.function is not None
        return np.asarray(self.function(a, b), dtype=np.float64)

    def gradient(self, weights: Floats, centers: Floats, x: Floats) -> Floats:
        """Raise: the function is not differentiated."""
        raise UnsupportedModel(
            f"Expected a linear, rbf or poly kernel for derivatives in inputs. Got {self.name!r}."
        )


def kernel_ridge(final: Any, n: int) -> Problem:
    """Read KernelRidge: Σ sᵢ (f − y)² + α‖f‖² in the kernel's space.

    Args:
        final: Fitted.
        n: The number of rows.

    Raises:
        UnsupportedModel: If the kernel was given as a matrix.
    """
    name = {"polynomial": "poly"}.get(final.kernel, final.kernel)
    if name == "precomputed":
        raise UnsupportedModel(
            "Expected a kernel of rows. Got kernel='precomputed'. Pass kernel= and the rows."
        )
    width = final.X_fit_.shape[1]
    gamma = 1 / width if final.gamma is None else float(final.gamma)
    if name in ("linear", "rbf", "poly"):
        kernel = Kernel(name, gamma, float(final.degree), float(final.coef0))
    else:
        kernel = KernelFunction(name=str(name), function=_pairwise(final, gamma))
    coef = np.atleast_2d(dense(np.asarray(final.dual_coef_).T))
    alpha = np.broadcast_to(np.asarray(final.alpha, dtype=np.float64), len(coef))
    return Problem(
        loss=SquaredError(),
        l2=alpha / n,
        coef=coef,
        intercept=None,
        kernel=kernel,
        centers=final.X_fit_,
        support=np.arange(n),
    )


def gaussian_process(final: Any, n: int) -> Problem:
    """Read GaussianProcessRegressor: its mean minimizes Σ (f − y)² + σ²‖f‖², the kernel held.

    Args:
        final: Fitted.
        n: The number of rows.

    Raises:
        UnsupportedModel: If the targets were standardized, or the noise differs from row to row or
            is too small.
    """
    if final.normalize_y:
        raise UnsupportedModel(
            "Expected targets as they are. Got normalize_y=True. Standardize y before the fit."
        )
    rows, kernel = final.X_train_, final.kernel_
    noise = np.diag(kernel(rows)) - np.diag(kernel(rows, rows)) + np.asarray(final.alpha)
    largest = float(np.linalg.norm(kernel(rows, rows), 2))
    if np.ptp(noise) > 1e-9 * noise.max() or noise.min() < _LEAST * largest:
        raise UnsupportedModel(
            f"Expected the same noise >= {_LEAST * largest:.2g} for all rows. Got "
            f"{noise.min():.2g} to {noise.max():.2g}. Add a WhiteKernel, or raise alpha."
        )
    return Problem(
        loss=SquaredError(),
        l2=float(noise[0]) / n,
        coef=np.atleast_2d(np.asarray(final.alpha_, dtype=np.float64).T),
        intercept=None,
        kernel=KernelFunction(name=str(kernel), function=kernel),
        centers=rows,
        support=np.arange(n),
    )


def _pairwise(final: Any, gamma: float) -> Callable[[Any, Any], Any]:
    """Return a kernel that scikit-learn knows by name, or the user's own function, of rows."""
    options: dict[str, Any] = dict(final.kernel_params or {})
    if not callable(final.kernel):
        options = {"gamma": gamma, "degree": final.degree, "coef0": final.coef0}

    def function(a: Any, b: Any) -> Any:
        return pairwise_kernels(a, b, metric=final.kernel, filter_params=True, **options)

    return function
