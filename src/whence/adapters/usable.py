"""What cannot be explained, and the better call."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClusterMixin
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from whence.arrays import Floats
from whence.errors import InvalidInput, NotFitted, UnsupportedModel, warn_user
from whence.preprocessing.containers import final, holds_frozen, parts
from whence.preprocessing.refit import fit_again, same_features
from whence.rows import is_sparse, take
from whence.tiles import spread

_HELD = ("X_fit_", "X_train_", "_fit_X")  # all rows of a fit, where an estimator keeps them
_LOOKED_AT = 50  # rows whose features by two fits of the transformers are compared


def check_usable(estimator: Any) -> None:
    """Raise unless an object is a fitted model of single rows and their targets.

    Args:
        estimator: What a user passed.

    Raises:
        NotFitted: If it has not been fitted.
        UnsupportedModel: If it is no estimator, or knows no targets.
    """
    name = type(estimator).__name__
    if isinstance(estimator, type):
        raise NotFitted(f"Expected a fitted estimator. Got the class {estimator.__name__} itself.")
    if not hasattr(estimator, "fit"):
        raise UnsupportedModel(
            f"Expected an estimator with fit and predict. Got {name}. For a torch module use "
            "whence.from_torch."
        )
    if isinstance(estimator, ClusterMixin):
        raise UnsupportedModel(
            f"Expected a model that predicts targets from rows. Got {name}, which makes clusters. "
            "Fit a classifier to its labels: LogisticRegression().fit(X, clusters.labels_)."
        )
    if name.endswith("Ranker"):
        raise UnsupportedModel(
            f"Expected a model of single rows. Got {name}, which ranks the rows of a group. Fit "
            "the regressor of the same library to the relevance."
        )
    _check_kept(estimator)
    try:
        check_is_fitted(estimator)
    except NotFittedError as error:
        raise NotFitted(
            f"Expected a fitted estimator. Got {name} before .fit(X, y). Fit it, and pass the "
            "same X and y."
        ) from error
    except (AttributeError, TypeError):
        pass  # no estimator of scikit-learn's: its first prediction will tell


def check_rows(estimator: Any, n: int) -> None:
    """Raise if an estimator says that it was fitted on another number of rows.

    Neighbors, forests and bagged models do. Steps that draw rows again, as imbalanced-learn's,
    leave another number to the model behind them.

    Args:
        estimator: What a user passed, or the best of a search.
        n: How many rows the user passed with it.

    Raises:
        InvalidInput: If they are another number.
    """
    if any(hasattr(step, "fit_resample") for _, step in getattr(estimator, "steps", ())):
        return
    last = final(estimator)
    fitted = getattr(last, "n_samples_fit_", getattr(last, "_n_samples", n))
    if fitted != n:
        raise InvalidInput(
            f"Expected the {fitted:,} rows that {type(last).__name__} was fitted on. Got {n:,}. "
            "Pass the X and y of its fit; rows to ask about go to whence.explain."
        )


def check_held(estimator: Any, matrix: Any, sample: Floats) -> None:
    """Raise if the rows that an estimator keeps of its fit are not among those given.

    Support vector machines, kernel ridges, Gaussian processes and neighbors keep some.

    Args:
        estimator: Fitted, without the transformers before it.
        matrix: The rows as it was fitted on them, [n, d].
        sample: Their sample weights, [n].

    Raises:
        InvalidInput: If they are others.
    """
    there = np.flatnonzero(sample > 0)
    if hasattr(estimator, "support_vectors_"):
        held, where = estimator.support_vectors_, estimator.support_
    else:
        held = next((getattr(estimator, name) for name in _HELD if hasattr(estimator, name)), None)
        there = where = np.arange(matrix.shape[0])
    if held is None or is_sparse(held) != is_sparse(matrix):
        return
    known = not len(where) or int(where.max()) < len(there)
    if not known or not same_features(take(matrix, there[where]), held):
        raise InvalidInput(
            f"Expected the rows that {type(estimator).__name__} was fitted on, some of which it "
            "keeps. Got others, or the same in another order. Pass the X and y of its fit; rows to "
            "ask about go to whence.explain."
        )


def warn_of_other_rows(
    transform: Pipeline, rows: Any, labels: NDArray[Any], sample: Floats | None
) -> None:
    """Warn if transformers, fitted again to the rows given, do something else to them.

    Args:
        transform: The fitted transformers, which draw nothing.
        rows: The rows given, [n].
        labels: Their targets, [n].
        sample: The sample weights that they were fitted with, or `None`.

    Cost:
        A fit of the transformers.
    """
    few = take(rows, spread(len(labels), _LOOKED_AT))
    try:
        fresh, _ = fit_again(transform, rows, labels, sample)
        same = same_features(fresh.transform(few), transform.transform(few))
    except (InvalidInput, ValueError):  # rows that they cannot be fitted on, or read
        same = False
    if not same:
        warn_user(
            "Expected the rows that the preprocessing was fitted on. Got rows that it treats "
            "otherwise when it is fitted to them, so that a refit is another model's. Pass the X "
            "and y of the fit, and its sample_weight; or freeze what was fitted to other rows, as "
            "FrozenEstimator does."
        )


def _check_kept(estimator: Any) -> None:
    """Raise if a refit would lose what was fitted before: `clone` keeps no fit."""
    for part in parts(estimator):
        name = type(part).__name__
        if name.startswith("Stacking") and str(part.cv) == "prefit":
            got = f"{name}(cv='prefit')"
        elif name == "SelectFromModel" and part.prefit:
            got = f"{name}(prefit=True)"
        else:
            continue
        raise UnsupportedModel(
            f"Expected what was fitted before as FrozenEstimator(...), which refits keep. Got "
            f"{got}, whose copies are not fitted. Wrap it so, without prefit, and fit again."
        )


def check_fitted_here(estimator: Any) -> None:
    """Raise if a part of an estimator was fitted before, which its own fit leaves as it is.

    Args:
        estimator: Fitted.

    Raises:
        UnsupportedModel: If it has a FrozenEstimator among its parts.
    """
    if holds_frozen(estimator):
        raise UnsupportedModel(
            "Expected members that are fitted to the same rows. Got FrozenEstimator, which refits "
            "leave as it is."
        )


def check_steps(transform: Pipeline | None) -> None:
    """Raise if a step before the model makes other rows for the fit, as a sampler does.

    Args:
        transform: The steps before the model, or `None`.

    Raises:
        UnsupportedModel: If a step does not transform rows.
    """
    for _, step in [] if transform is None else transform.steps:
        if not hasattr(step, "transform"):
            raise UnsupportedModel(
                "Expected steps that transform each row. Got "
                f"{type(step).__name__}, which makes other rows for the fit."
            )


def check_predicts(estimator: Any) -> None:
    """Raise unless an estimator has something to predict with.

    Args:
        estimator: Fitted.

    Raises:
        UnsupportedModel: If it only transforms.
    """
    ways = ("predict_proba", "decision_function", "predict")
    if not any(hasattr(estimator, way) for way in ways):
        raise UnsupportedModel(
            f"Expected a model that predicts. Got {type(estimator).__name__}, which transforms "
            "rows. Put it into a Pipeline before an estimator, and pass the pipeline."
        )
