"""Votes of several estimators, and regressions of transformed targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import FunctionTransformer

from whence.adapters.composed import Composition, Made, Taken, on_all_rows
from whence.adapters.rows import labels_of
from whence.arrays import Floats
from whence.errors import UnsupportedModel


@final
@dataclass(frozen=True, eq=False)
class Mean(Composition):
    """The weighted mean of what the members predict.

    Args:
        weights: The weight of each, summing to 1, [k].
    """

    weights: Floats

    def __call__(
        self, asked: list[Floats], passed: list[Floats], rows: Any, gone: int | None
    ) -> Floats:
        """Return the mean, [q, k]."""
        return np.asarray(np.einsum("mqk,m->qk", np.stack(asked), self.weights))


@final
@dataclass(frozen=True, eq=False)
class Inverse(Composition):
    """What one member predicts, in the unit of the targets.

    Args:
        function: From transformed targets [q, 1] back to targets.
    """

    function: Callable[[Floats], Any]

    def __call__(
        self, asked: list[Floats], passed: list[Floats], rows: Any, gone: int | None
    ) -> Floats:
        """Return predictions, [q, 1]."""
        return np.asarray(self.function(asked[0]), dtype=np.float64).reshape(len(asked[0]), 1)


def voting(estimator: Any, rows: Any, y: NDArray[Any], take: Taken) -> Made:
    """Read VotingClassifier with soft votes, or VotingRegressor.

    Args:
        estimator: Fitted.
        rows: The rows it was fitted on.
        y: Their targets.
        take: Reads a member.

    Raises:
        UnsupportedModel: If votes are hard, or a member's removals are not known exactly.
    """
    classes = getattr(estimator, "classes_", None)
    if classes is not None and estimator.voting != "soft":
        raise UnsupportedModel("Expected voting='soft'. Got hard votes, which change by jumps.")
    labels = y if classes is None else np.searchsorted(classes, y)
    says = "predict" if classes is None else "predict_proba"
    kept = [each[1] != "drop" for each in estimator.estimators]
    weights = np.ones(len(kept)) if estimator.weights is None else np.asarray(estimator.weights)
    weights = weights[kept] / weights[kept].sum()
    each = [labels] * len(estimator.estimators_)
    return on_all_rows(estimator.estimators_, rows, each, says, take), Mean(weights)


def transformed_target(estimator: Any, rows: Any, y: NDArray[Any], take: Taken) -> Made:
    """Read TransformedTargetRegressor whose transformation is a function, or nothing.

    Args:
        estimator: Fitted.
        rows: The rows it was fitted on.
        y: Their targets.
        take: Reads a member.

    Raises:
        UnsupportedModel: If the transformation follows the data, or is of several targets.
    """
    if type(estimator.transformer_) is not FunctionTransformer or y.ndim > 1:
        raise UnsupportedModel(
            "Expected one target, transformed by func=. Got "
            f"{type(estimator.transformer_).__name__}, which follows the targets."
        )
    inside = labels_of(estimator.transformer_.transform(y.reshape(-1, 1)))
    members = on_all_rows([estimator.regressor_], rows, [inside], "predict", take)
    return members, Inverse(estimator.transformer_.inverse_transform)
