"""The estimator's own fit to some of its rows, with the coefficients that its solver ends at."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.linear_model import SGDClassifier, SGDRegressor

from whence.adapters.fitted import Fitted
from whence.adapters.readers import read
from whence.adapters.refitting import template_of
from whence.rows import take

_STOPPED_BY_CHANCE = {SGDClassifier, SGDRegressor}  # a few epochs without a fall of a noisy loss
_CHOOSING = {GaussianProcessRegressor}  # whose fits choose what whence holds


def stops_by_chance(final: Any) -> bool:
    """Return whether one fit may stop early where that without another row reaches its minimum.

    Args:
        final: The estimator.
    """
    return type(final) in _STOPPED_BY_CHANCE


def own_fit(fitted: Fitted) -> Fitted | None:
    """Return what an estimator's own fit gives on the rows that are there.

    Args:
        fitted: The estimator on changed data, its transformers fitted again.

    Returns:
        The same with the coefficients where the solver stops; `None` where the fit fails, or
        chooses more than coefficients.

    Cost:
        One fit by the estimator's library.
    """
    where = np.flatnonzero(fitted.kept)
    if type(fitted.final) in _CHOOSING:
        return None
    template, _ = template_of(fitted.final, len(where))
    sample = fitted.weights.sample.numpy()[where]
    given = {} if (sample == 1).all() else {"sample_weight": sample}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the user's own fit has said already
        try:
            final = template.fit(take(fitted.matrix, where), fitted.labels[where], **given)
        except Exception:  # whatever a library raises: there is nothing to compare with
            return None
    found = read(final, sample)
    problem = replace(
        fitted.problem,
        coef=found.coef,
        intercept=found.intercept,
        kernel=found.kernel,
        centers=found.centers,
        support=None if found.support is None else where[found.support],
    )
    return replace(fitted, final=final, problem=problem)
