"""The libraries of boosted trees: which one a model is of, and its import when one is met."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from whence.errors import MissingDependency

OUTSIDE = ("lightgbm", "xgboost", "catboost")  # packages of their own


def library_of(model: Any) -> str | None:
    """Return the library of boosted trees that a model's class, or one it derives from, is of.

    Args:
        model: Any object.

    Returns:
        "lightgbm", "xgboost", "catboost", or scikit-learn's "hist" or "gradient_boosting"; `None`
        of anything else.

    Examples:
        >>> from sklearn.ensemble import HistGradientBoostingRegressor
        >>> library_of(HistGradientBoostingRegressor())
        'hist'
    """
    for each in type(model).__mro__:
        root, *path = each.__module__.split(".")
        if root in OUTSIDE:
            return root
        if root == "sklearn" and path[:2] == ["ensemble", "_hist_gradient_boosting"]:
            return "hist"
        if root == "sklearn" and path[:2] == ["ensemble", "_gb"]:
            return "gradient_boosting"
    return None


def imported(library: str) -> Any:
    """Return a boosting library.

    Args:
        library: "lightgbm", "xgboost" or "catboost".

    Raises:
        MissingDependency: If it is not installed.

    Examples:
        >>> imported("xgboost").__name__
        'xgboost'
    """
    try:
        return import_module(library)
    except ImportError as error:
        raise MissingDependency(
            f"Expected the package {library}, of which the model is. Got no such package; run: "
            "pip install 'whence-attribution[trees]'."
        ) from error
