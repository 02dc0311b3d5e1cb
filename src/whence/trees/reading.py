"""From a fitted model of a library to whence's form, checked against the library's predictions."""

from __future__ import annotations

from typing import Any

import numpy as np

from whence.arrays import Floats
from whence.checked import class_positions, finite_numbers
from whence.errors import UnsupportedModel
from whence.trees.form import BoostedTrees, NotRecomputed
from whence.trees.libraries import library_of

_TOLERANCE = 1e-5  # of the range of the raw predictions


def is_boosting(model: Any) -> bool:
    """Return whether a model is one of the boosting libraries that whence reads.

    Args:
        model: Any object.
    """
    return library_of(model) is not None


def read_boosting(model: Any, x: Any, y: Any, sample_weight: Any = None) -> BoostedTrees:
    """Return a fitted boosting model in whence's form, after recomputing its predictions.

    Args:
        model: A fitted HistGradientBoosting* or GradientBoosting* of scikit-learn, or a model of
            LightGBM, XGBoost or CatBoost.
        x: The rows that it was fitted on, as they were passed to it.
        y: Their targets, [n].
        sample_weight: Their sample weights, [n]; 1 each if `None`.

    Returns:
        The trees, whose recomputed raw predictions equal the library's to 1e-5 of their range.

    Raises:
        UnsupportedModel: If the objective is not followed, or the predictions differ.
        InvalidInput: If a target is not among the classes.

    Cost:
        One prediction of leaves by the library, and O(n T c) for the recomputation.

    Examples:
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.ensemble import HistGradientBoostingRegressor
        >>> X, y = load_diabetes(return_X_y=True)
        >>> trees = read_boosting(HistGradientBoostingRegressor(max_iter=20).fit(X, y), X, y)
        >>> trees.leaves.shape
        (20, 1, 442)
    """
    targets = encode(classes_of(model), y)
    n = len(targets)
    weights = np.ones(n) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    trees = _read(model, x, targets, weights)
    _check(trees, x, type(model).__name__)
    return trees


def classes_of(model: Any) -> tuple[Any, ...]:
    """Return the classes of a model in the order of its outputs; none for a regression.

    Args:
        model: A fitted model; a Booster, which has no names of classes, has none.

    Raises:
        UnsupportedModel: If it has classes of several targets.
    """
    found = getattr(model, "classes_", None)
    if getattr(model, "n_outputs_", 1) > 1 and found is not None:
        raise UnsupportedModel(
            f"Expected a label per row. Got several targets, {model.n_outputs_}. Fit a tree model "
            "for each of them."
        )
    return () if found is None else tuple(np.asarray(found).tolist())


def encode(classes: tuple[Any, ...], y: Any) -> Floats:
    """Return targets as numbers: positions among the classes, or the numbers themselves.

    Args:
        classes: The classes; none for a regression.
        y: The targets, [n].

    Raises:
        InvalidInput: If a target is not among the classes, or no finite number.
    """
    labels = np.asarray(y).ravel()
    if classes:
        return class_positions(classes, labels).astype(np.float64)
    return finite_numbers(labels)


def _read(model: Any, x: Any, y: Floats, weights: Floats) -> BoostedTrees:
    """Return the model as its library's reader has it; only that library is imported."""
    library = library_of(model)
    if library == "hist":
        from whence.trees.hist import read_hist

        return read_hist(model, x, y, weights)
    if library == "gradient_boosting":
        from whence.trees.gradient_boosting import read_gradient_boosting

        return read_gradient_boosting(model, x, y, weights)
    if library == "lightgbm":
        from whence.trees.lightgbm import read_lightgbm

        return read_lightgbm(model, x, y, weights)
    if library == "xgboost":
        from whence.trees.xgboost import read_xgboost

        return read_xgboost(model, x, y, weights)
    if library == "catboost":
        from whence.trees.catboost import read_catboost

        return read_catboost(model, x, y, weights)
    raise UnsupportedModel(
        "Expected a boosting model of scikit-learn, LightGBM, XGBoost or CatBoost. Got "
        f"{type(model).__name__}."
    )


def _check(trees: BoostedTrees, x: Any, name: str) -> None:
    """Raise unless the recomputed raw predictions are the library's."""
    theirs, ours = trees.predict(x), trees.replay.outputs
    if theirs.shape == ours.shape:
        difference = float(np.abs(theirs - ours).max() / (np.ptp(theirs) or 1.0))
        if difference <= _TOLERANCE:
            return
        got = f"a difference of {difference:.1e}"
    else:
        got = f"shape {theirs.shape}, not {ours.shape}"
    options = " or ".join(trees.untreated)
    cause = (
        f"The likely cause is {options}, which whence does not follow: fit without it, or score "
        "the model by retraining."
        if options
        else "The likely cause is that X, y or sample_weight are not those it was fitted on, in "
        "the same order; a custom objective or callback; or what only its fit was given, as "
        "init_score or base_margin, which from_sklearn takes as fit_params= of the scikit-learn "
        "interface."
    )
    kind = UnsupportedModel if options else NotRecomputed
    raise kind(
        f"Expected to recompute the raw predictions of {name} from its leaves to {_TOLERANCE:g} "
        f"of their range. Got {got}. {cause}"
    )
