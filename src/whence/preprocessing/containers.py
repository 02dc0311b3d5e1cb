"""What scikit-learn's combinations of transformers hold."""

from __future__ import annotations

from functools import singledispatch
from types import NoneType
from typing import Any

from sklearn import get_config
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


def settings(estimator: Any) -> dict[str, Any]:
    """Return what a fit of an estimator follows: what it and its members are set to, by name.

    A FrozenEstimator among them is one of these, and what it holds is not: no fit changes it.

    Args:
        estimator: Any object.
    """
    params = estimator.get_params(deep=True) if hasattr(estimator, "get_params") else {}
    held = tuple(f"{name}__" for name, value in params.items() if is_frozen(value))
    return {name: value for name, value in params.items() if not name.startswith(held)}


def parts(estimator: Any) -> list[Any]:
    """Return an estimator and what it is set to: its members, their settings, and so on.

    Args:
        estimator: Any object.
    """
    return [estimator, *settings(estimator).values()]


def is_frozen(estimator: Any) -> bool:
    """Return whether an object is a FrozenEstimator, which a fit leaves as it is.

    Args:
        estimator: Any object.
    """
    return type(estimator).__name__ == "FrozenEstimator"


def holds_frozen(estimator: Any) -> bool:
    """Return whether an estimator is a FrozenEstimator or has one among its members.

    Args:
        estimator: Any object.
    """
    return any(is_frozen(each) for each in parts(estimator))


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


@singledispatch
def last_of_all(estimator: Any) -> Any:
    """Return the last step of a pipeline, or of the pipeline that is its last step.

    Args:
        estimator: Any object.
    """
    return estimator


@last_of_all.register
def _last_of_last(estimator: Pipeline) -> Any:
    return last_of_all(estimator.steps[-1][1])


@singledispatch
def before(estimator: Any) -> Pipeline | None:
    """Return the steps before the last of a pipeline, without those that do nothing.

    Args:
        estimator: Any object.

    Returns:
        The steps as a pipeline, or `None` if there are none.
    """
    return None


@before.register
def _first_steps(estimator: Pipeline) -> Pipeline | None:
    steps = [step for step in estimator.steps[:-1] if step[1] not in (None, "passthrough")]
    return Pipeline(steps) if steps else None


def is_routed() -> bool:
    """Return whether arguments go by scikit-learn's metadata routing: to the steps that ask."""
    return bool(get_config().get("enable_metadata_routing", False))


@singledispatch
def argument(estimator: Any, name: str) -> str:
    """Return the keyword by which the fit of an estimator hands an argument to its last step.

    Args:
        estimator: Any object.
        name: What the last step calls the argument.
    """
    return name


@argument.register
def _argument_of_last(estimator: Pipeline, name: str) -> str:
    if is_routed():
        return name
    step, last = estimator.steps[-1]
    return f"{step}__{argument(last, name)}"


@singledispatch
def with_final(estimator: Any, last: Any) -> Any:
    """Return a pipeline that ends in another estimator; in place of a single one that other.

    Args:
        estimator: Not fitted; a pipeline is changed in place.
        last: The other.
    """
    return last


@with_final.register
def _pipeline_to(estimator: Pipeline, last: Any) -> Pipeline:
    estimator.steps[-1] = (estimator.steps[-1][0], last)
    return estimator
