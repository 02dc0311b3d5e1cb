"""Fitted models of statsmodels as the objectives they minimized: least squares and likelihoods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from whence.adapters.anything import anything
from whence.adapters.estimators import Problem
from whence.adapters.fitted import Fitted
from whence.adapters.statistics import objective_of
from whence.adapters.statsmodels_fits import fitted_again
from whence.adapters.weights import Weights
from whence.arrays import Floats
from whence.checked import checked
from whence.errors import UnsupportedModel
from whence.objective.losses import CrossEntropy, Logistic, Loss, SquaredError, Tweedie
from whence.objective.trained import Trained
from whence.rows import column_names, row_names
from whence.workers import Backend

_AT_NO_OFFSET = (
    "Targets and predictions are at an offset of 0: targets of training rows are divided by their "
    "exposure, and so must those of queries be."
)
_FEW = 3  # rows by which the columns that a formula reads are told from others


@checked
def from_statsmodels(results: Any, *, workers: int = 1, backend: Backend = "process") -> Trained:
    r"""Return a fitted model of statsmodels, with the data it holds, as a model that methods score.

    OLS, WLS, GLS with a variance for each row, Logit, MNLogit, Poisson and GLM (normal, binomial,
    Poisson, gamma and Tweedie families with their usual links) are the objective that they
    minimized,

        R(θ) = (1/n) Σ wᵢ ℓ(xᵢᵀθ, yᵢ),

    without a penalty, with the weights of WLS, or the frequency and variance weights of GLM. An
    offset o or the logarithm of an exposure in a logarithmic link is the same objective of rates,
    y e^−o with weights e^((2 − p) o), p the power of the variance; in a normal model that of y − o.
    Targets and predictions are then those at an offset of 0, as in `results.predict(X)`. Any
    other model with `predict`, such as QuantReg, RLM or Probit, is known by its predictions and
    fitted again by statsmodels.

    Queries are rows of the design matrix, the constant included if there is one; frames with the
    columns of the formula where the model was made of one.

    Args:
        results: What `fit()` returned.
        workers: Processes that fit it again at a time, where it is known by its predictions alone.
        backend: "process" for this machine, "ray" for tasks of a Ray cluster.

    Returns:
        The model: an `Objective` for those named first.

    Raises:
        UnsupportedModel: If these are no results of a model with `predict`, or the fit had a
            penalty, constraints, correlated rows, an offset in a logistic or another link, or
            targets that are shares; or if statsmodels' own fit to the same rows predicts
            something else.

    Cost:
        None; one fit where the model is known by its predictions alone.

    References:
        McCullagh & Nelder (1989), section 2.5: the fit by weighted least squares.

    Examples:
        >>> import statsmodels.api as sm, whence
        >>> data = sm.datasets.anes96.load_pandas()
        >>> X = sm.add_constant(data.exog[["age", "educ"]])
        >>> objective = whence.from_statsmodels(sm.Logit(data.data["vote"], X).fit(disp=0))
        >>> whence.influence(objective, (X[:2], data.data["vote"][:2])).values.shape
        (2, 944)
    """
    model = getattr(results, "model", None)
    if model is None or not hasattr(results, "params") or not hasattr(model, "exog_names"):
        raise UnsupportedModel(
            "Expected what the fit() of a model of statsmodels returned, with its data. Got "
            f"{type(results).__name__}. Pass the results, as in whence.from_statsmodels("
            "sm.OLS(y, X).fit())."
        )
    _check(results, model)
    stopped = _stopped(results, type(model).__name__)
    design = _design(results, model)
    read = _READERS.get(type(model).__name__)
    read_as = None if read is None else read(results, model)
    offset = _offset(model)
    if offset is not None:
        read_as = _at_no_offset(read_as, offset, type(model).__name__)
    if read_as is None:
        note = f"{type(model).__name__} is known by its predictions alone."
        notes = (note, *([f"{stopped}."] if stopped else []))
        estimator = fitted_again(results, model, design.transform)
        targets = np.asarray(model.endog)
        return anything(
            estimator, design.rows, targets, workers=workers, backend=backend, notes=notes
        )
    fitted = _fitted(model, design, read_as).noted()
    if offset is not None:
        fitted = replace(fitted, notes=(*fitted.notes, _AT_NO_OFFSET))
    return objective_of(fitted, stopped)


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class _Read:
    """What a model minimized.

    Args:
        loss: ℓ.
        coef: W, [c, d].
        weights: wᵢ, [n].
        classes: The classes; `None` for a regression.
        labels: yᵢ, [n].
    """

    loss: Loss
    coef: Floats
    weights: Floats
    labels: NDArray[Any]
    classes: NDArray[Any] | None = None


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class _Design:
    """The rows as a user has them, and the way to the design matrix.

    Args:
        rows: A frame for a formula, else the design matrix, as a frame where it was one.
        transform: From frames to the design matrix, or `None`.
    """

    rows: Any
    transform: Pipeline | None


def _check(results: Any, model: Any) -> None:
    """Raise of fits that have no treatment."""
    name = type(model).__name__
    if getattr(results, "regularized", False):
        raise UnsupportedModel(
            f"Expected a fit to columns that are given. Got {name}.fit_regularized(refit=True), "
            "which chose them by a penalty, and might choose others without a row. Fit "
            f"{name} to the columns with nonzero coefficients to hold them as chosen."
        )
    kind = type(getattr(results, "_results", results)).__name__
    if "Regularized" in kind or kind.startswith("L1"):
        raise UnsupportedModel(
            f"Expected {name} without a penalty. Got fit_regularized. Fit scikit-learn's Lasso, "
            "Ridge or LogisticRegression, and use whence.from_sklearn."
        )
    if getattr(results, "constraints", None) is not None:
        raise UnsupportedModel(
            f"Expected {name} without constraints. Got fit_constrained. Fit without, or with "
            "columns in which the constraints hold."
        )
    if model.endog is None:
        raise UnsupportedModel(
            f"Expected results of a {name} that hold its data. Got none, as after remove_data(). "
            "Fit again, and pass what fit() returns."
        )


def _stopped(results: Any, name: str) -> str:
    """Return that a fit stopped before it converged, or nothing."""
    told = getattr(results, "mle_retvals", None) or {}
    converged = told.get("converged", getattr(results, "converged", True))
    return "" if converged else f"{name} stopped before it converged"


def _offset(model: Any) -> Floats | None:
    """Return the offset of each row with the logarithm of its exposure, [n]; `None` if zero."""
    given = [getattr(model, option, None) for option in ("offset", "exposure")]
    total = sum(np.asarray(each, dtype=np.float64) for each in given if each is not None)
    return np.broadcast_to(total, len(model.endog)) if np.any(total) else None


def _design(results: Any, model: Any) -> _Design:
    """Return the rows of a model."""
    missing = getattr(model.data, "missing_row_idx", None)  # known where some are dropped
    if getattr(model, "formula", None) is None:
        names = column_names(model.data.orig_exog)
        labels = model.data.row_labels
        if names is None and missing:  # rows keep the numbers that they have among the user's
            labels = np.setdiff1d(np.arange(len(model.exog) + len(missing)), missing)
        rows = pd.DataFrame(model.exog, columns=names, index=labels)
        return _Design(rows=model.exog if labels is None else rows, transform=None)
    frame = model.data.frame
    if missing:
        frame = frame.iloc[np.setdiff1d(np.arange(len(frame)), missing)]
    if len(frame) != len(model.endog):
        raise UnsupportedModel(
            f"Expected a row of the frame for each of {len(model.endog)} rows of the model. Got "
            f"{len(frame)}. Fit to a frame without missing values."
        )

    def columns(rows: Any) -> Floats:
        try:
            matrix, _ = results._transform_predict_exog(rows, transform=True)
        except Exception as error:  # whatever the formula's own library raises
            raise ValueError(f"the formula cannot read the rows: {error}") from error
        return np.asarray(matrix, dtype=np.float64)

    frame = frame[_read_by(columns, frame.head(_FEW)) or list(frame.columns)]
    step = FunctionTransformer(columns, validate=False).fit(frame)
    step.feature_names_in_ = np.asarray(frame.columns, dtype=object)
    return _Design(rows=frame, transform=Pipeline([("formula", step)]))


def _read_by(columns: Callable[[pd.DataFrame], Floats], few: pd.DataFrame) -> list[Any]:
    """Return the columns of a frame without which a formula gives no rows, or others."""
    whole = columns(few)

    def reads(name: Any) -> bool:
        try:
            without = columns(few.drop(columns=[name]))
        except ValueError:
            return True
        return not np.array_equal(without, whole, equal_nan=True)

    return [name for name in few.columns if reads(name)]


def _fitted(model: Any, design: _Design, read: _Read) -> Fitted:
    """Return a model as linear models are held."""
    n = len(read.labels)
    at = None if read.classes is None else np.searchsorted(read.classes, read.labels)
    return Fitted(
        final=model,
        transform=design.transform,
        problem=Problem(loss=read.loss, l2=0.0, coef=read.coef, intercept=None),
        rows=design.rows,
        ids=row_names(design.rows, n),
        labels=read.labels,
        classes=read.classes,
        matrix=np.asarray(model.exog, dtype=np.float64),
        weights=Weights(
            sample=torch.from_numpy(read.weights),
            frequencies=bool(np.any(getattr(model, "freq_weights", 1) != 1)),
            labels=None if at is None else torch.from_numpy(at),
        ),
        kept=np.ones(n, dtype=bool),
        weighted=False,
        crossed=True,
        width=design.rows.shape[1],
        names=column_names(design.rows),
        temperature=0.001,
    )


def _at_no_offset(read: _Read | None, offset: Floats, name: str) -> _Read:
    """Return the same objective of targets at an offset of 0."""
    if read is not None and read.loss == SquaredError():
        return replace(read, labels=read.labels - offset)
    power = None if read is None else getattr(read.loss, "power", None)
    if read is None or power is None:
        raise UnsupportedModel(
            f"Expected an offset or exposure in a normal model or a logarithmic link. Got a {name} "
            "of another. Fit without it, or with the offset among the columns."
        )
    weights = read.weights * np.exp((2 - power) * offset)
    return replace(read, labels=read.labels * np.exp(-offset), weights=weights)


def _numbers(results: Any, model: Any, loss: Loss, weights: Any = None) -> _Read:
    """Return a regression on numbers."""
    labels = np.asarray(model.endog, dtype=np.float64)
    given = np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=np.float64)
    coef = np.asarray(results.params, dtype=np.float64).reshape(1, -1)
    return _Read(
        loss=loss, coef=coef, weights=np.broadcast_to(given, len(labels)).copy(), labels=labels
    )


def _least_squares(results: Any, model: Any) -> _Read:
    """Σ wᵢ (f − y)²."""
    return _numbers(results, model, SquaredError(), getattr(model, "weights", None))


def _uncorrelated(results: Any, model: Any) -> _Read:
    """Least squares with weights 1 / σᵢ², where σᵢ² are given."""
    variances = model.sigma
    if variances is None:
        return _least_squares(results, model)
    if np.ndim(variances) > 1:
        raise UnsupportedModel(
            "Expected rows whose errors are independent, with sigma as a variance for each row. "
            "Got GLS with a covariance of rows: its entries for the rows that stay are not known "
            "to a refit. Wrap fit and predict in an object, and use whence.from_sklearn."
        )
    return _numbers(results, model, SquaredError(), 1 / np.asarray(variances))


def _two_classes(results: Any, model: Any, weights: Any = None) -> _Read:
    """The logistic likelihood of 0 and 1."""
    read = _numbers(results, model, Logistic(), weights)
    if not np.isin(model.endog, (0, 1)).all():
        raise UnsupportedModel(
            f"Expected targets of 0 and 1 in {type(model).__name__}. Got shares. Give each success "
            "and failure a row of its own, with freq_weights."
        )
    return replace(read, classes=np.array([0, 1]), labels=read.labels.astype(int))


def _several_classes(results: Any, model: Any) -> _Read:
    """The multinomial likelihood; the first class has coefficients of 0."""
    free = np.asarray(results.params, dtype=np.float64).T
    codes = np.asarray(model.endog).astype(int)
    given = np.asarray(model.data.orig_endog).ravel()
    # The codes of a categorical column follow its categories, which may be in any order.
    _, first = np.unique(codes, return_index=True)
    names = given[first] if len(given) == len(codes) else np.arange(len(first))
    order = np.argsort(names)
    return _Read(
        loss=CrossEntropy(),
        coef=np.vstack([np.zeros((1, free.shape[1])), free])[order],
        weights=np.ones(len(codes)),
        labels=names[codes],
        classes=names[order],
    )


def _counts(results: Any, model: Any) -> _Read:
    """The Poisson likelihood with a logarithmic link."""
    return _numbers(results, model, Tweedie(power=1.0))


def _generalized(results: Any, model: Any) -> _Read | None:
    """The likelihood of a GLM; `None` where the link has no treatment of its own."""
    family, link = type(model.family).__name__, type(model.family.link).__name__
    weights = np.asarray(model.freq_weights) * np.asarray(model.var_weights)
    if (family, link) == ("Binomial", "Logit"):
        if not np.all(model.n_trials == 1):
            weights = None  # shares: refused by their targets
        return _two_classes(results, model, weights)
    losses: dict[tuple[str, str], Loss] = {
        ("Gaussian", "Identity"): SquaredError(),
        ("Poisson", "Log"): Tweedie(power=1.0),
        ("Gamma", "Log"): Tweedie(power=2.0),
        ("InverseGaussian", "Log"): Tweedie(power=3.0),
        ("Tweedie", "Log"): Tweedie(power=float(getattr(model.family, "var_power", 1.0))),
    }
    loss = losses.get((family, link))
    return None if loss is None else _numbers(results, model, loss, weights)


_READERS: dict[str, Callable[[Any, Any], _Read | None]] = {
    "GLM": _generalized,
    "GLS": _uncorrelated,
    "Logit": _two_classes,
    "MNLogit": _several_classes,
    "OLS": _least_squares,
    "Poisson": _counts,
    "WLS": _least_squares,
}
