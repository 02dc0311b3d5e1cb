"""What scikit-learn's combinations of transformers hold."""

from __future__ import annotations

from functools import singledispatch
from types import NoneType
from typing import Any

from sklearn.compose import ColumnTransformer
from sklearn.pipeline import FeatureUnion, Pipeline


@singledispatch
def inside(transform: Any) -> list[Any] | None:
    """Return the transformers that a combination holds, in order; `None` for a single one.

    Args:
        transform: A fitted transformer, a combination of them, a word of scikit-learn's that
            stands for one ("passthrough", "drop"), or `None`.
    """
    return None


@inside.register(str)
@inside.register(NoneType)
def _nothing(transform: str | None) -> list[Any]:
    return []


@inside.register
def _steps(transform: Pipeline) -> list[Any]:
    return [step for _, step in transform.steps]


@inside.register
def _by_columns(transform: ColumnTransformer) -> list[Any]:
    return [step for _, step, _ in transform.transformers_]


@inside.register
def _of_all_columns(transform: FeatureUnion) -> list[Any]:
    return [step for _, step in transform.transformer_list]


def leaves(transform: Any) -> list[Any]:
    """Return the transformers inside a pipeline, in order, without those that combine others.

    Args:
        transform: A fitted transformer, or a combination of them.

    Returns:
        The transformers that compute something.
    """
    held = inside(transform)
    return [transform] if held is None else [leaf for step in held for leaf in leaves(step)]


@singledispatch
def final(estimator: Any) -> Any:
    """Return the last step of a pipeline; an estimator of another kind itself.

    Args:
        estimator: Any object.
    """
    return estimator


@final.register
def _last_step(estimator: Pipeline) -> Any:
    return estimator.steps[-1][1]
