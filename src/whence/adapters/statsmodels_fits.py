"""Models of statsmodels fitted again by statsmodels, as estimators of scikit-learn are."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.pipeline import Pipeline

from whence.arrays import Floats
from whence.errors import UnsupportedModel

_HELD = ("missing_idx", "formula", "model_spec", "design_info", "offset", "exposure")
_SAME = 1e-5  # by how much of its range a fit to the same rows may predict otherwise
_WRAP = "Wrap fit and predict in an object, and use whence.from_sklearn."


class Refitted(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A model of statsmodels with `fit` and `predict`, as scikit-learn has them."""

    def __init__(self, kind: Any, options: Any, fit_options: Any) -> None:
        """Hold the class of the model, and the options of its constructor and fit."""
        self.kind, self.options, self.fit_options = kind, options, fit_options

    def fit(self, X: Any, y: Any) -> Refitted:
        """Fit the model."""
        made = self.kind(np.asarray(y), np.asarray(X), **self.options)
        self.results_ = made.fit(**self.fit_options)
        return self

    def predict(self, X: Any) -> Floats:
        """Return predictions of rows of the design matrix, [b]."""
        rows = np.asarray(X, dtype=np.float64)
        return np.asarray(self.results_.predict(rows, transform=False))


def fitted_again(results: Any, model: Any, transform: Pipeline | None) -> Any:
    """Return a fitted estimator that fits a model again by statsmodels.

    Args:
        results: What `fit()` returned.
        model: Its model, with its data.
        transform: From a formula's rows to the design matrix, or `None`.

    Returns:
        The estimator; a pipeline where there is a formula.

    Raises:
        UnsupportedModel: If its own fit to the same rows fails, or predicts something else: then
            not all of its options are known.

    Cost:
        One fit.
    """
    name = type(model).__name__
    kept = {key: each for key, each in model._get_init_kwds().items() if key not in _HELD}
    # A GLM without weights has ones.
    options = {
        key: each
        for key, each in kept.items()
        if each is not None and (not np.ndim(each) or np.any(each != 1))
    }
    arrays = [key for key, value in options.items() if np.ndim(value)]
    if arrays:
        raise UnsupportedModel(
            f"Expected a {name} without an array per row in its options. Got "
            f"{' and '.join(arrays)}. Use OLS, WLS, or a GLM with its family's usual link."
        )
    if name == "RLM":
        options["M"] = model.M
    estimator = Refitted(type(model), options, _fit_options(results, name))
    estimator.results_ = results
    _check_same(estimator, np.asarray(model.exog), np.asarray(model.endog), name)
    if transform is None:
        return estimator
    return Pipeline([*transform.steps, ("model", estimator)])


def _fit_options(results: Any, name: str) -> dict[str, Any]:
    """Return the options of fit() that results know of."""
    if name == "QuantReg":
        return {"q": results.q}
    if name == "RLM":
        known = results.fit_options
        return {key: known[key] for key in ("cov", "scale_est", "conv")}
    if name == "GLM":
        return {"method": results.method}
    settings = getattr(results, "mle_settings", None)
    if settings is None:
        return {}
    return {"disp": 0, "method": settings["optimizer"], "maxiter": settings["maxiter"]}


def _check_same(estimator: Refitted, X: Floats, y: Floats, name: str) -> None:
    """Raise unless a fit to the same rows predicts what the user's does."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the user's own fit has said already
            again = Refitted(estimator.kind, estimator.options, estimator.fit_options).fit(X, y)
            own, found = estimator.predict(X), again.predict(X)
    except Exception as error:  # whatever statsmodels raises
        raise UnsupportedModel(
            f"Expected a {name} that is made and fitted again from its rows and targets. Got "
            f"{type(error).__name__}: {error!s:.200}. {_WRAP}"
        ) from error
    if own.shape != (len(y),):
        raise UnsupportedModel(
            f"Expected a {name} with one prediction for each of {len(y)} rows. Got predictions of "
            f"shape {list(own.shape)}. {_WRAP}"
        )
    apart = float(np.abs(found - own).max())
    if not apart <= _SAME * float(np.ptp(own)):
        raise UnsupportedModel(
            f"Expected a {name} that fit() gives again for the same rows. Got one whose "
            f"predictions differ by {apart:.2g}: an option of its fit is not in its results. Fit "
            "with fewer options, or wrap fit and predict in an object for whence.from_sklearn."
        )
