"""The boosting libraries, imported when a model of theirs is met."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from whence.errors import MissingDependency


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
