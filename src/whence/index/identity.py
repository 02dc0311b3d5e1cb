"""What tells the model and the method of an index from others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import singledispatch
from typing import Any

from torch import Tensor

from whence.errors import InvalidInput
from whence.methods.hidden import HiddenCosine
from whence.methods.method import Method
from whence.methods.projected import Projected
from whence.methods.tracin import TracIn
from whence.objective.objective import objective_of
from whence.objective.trained import Trained
from whence.storage import digest

_INDEXED: tuple[type[Method], ...] = (HiddenCosine, Projected, TracIn)
_KNOWN = {kind.__name__: kind for kind in _INDEXED}


def model_digest(trained: Trained) -> str:
    """Return a digest of a model's parameters and loss.

    Args:
        trained: The model.
    """
    parts = [] if trained.differentiable() is None else [objective_of(trained).params]
    return digest("model", type(trained.loss).__name__, *parts, *trained.identity())


def described(method: Method) -> dict[str, Any]:
    """Return the class of a method and its options as plain values.

    Args:
        method: The method; a dataclass.
    """
    options = {each.name: _plain(getattr(method, each.name)) for each in fields(method)}  # type: ignore[arg-type]
    return {"class": type(method).__name__, "options": options}


def method_of(found: Mapping[str, Any]) -> Method:
    """Return the method that was described.

    Args:
        found: What `described` returned, read back.

    Raises:
        InvalidInput: If its options are no plain values, or its class is not whence's.
    """
    kind, options = _KNOWN.get(found["class"]), found["options"]
    if kind is None or any(isinstance(value, Mapping) for value in options.values()):
        raise InvalidInput(
            f"Expected the method of the index as method=: {found['class']} with options that a "
            "file does not hold, such as checkpoints and functions. Got none."
        )
    return kind(**options)


@singledispatch
def _plain(value: Any) -> Any:
    """Return an option as JSON knows it; tensors by their digest, functions by their name."""
    if callable(value):
        return {"function": f"{value.__module__}.{value.__qualname__}"}
    return {"repr": repr(value)}


@_plain.register(type(None))
@_plain.register(str)
@_plain.register(int)
@_plain.register(float)
def _same(value: float | str | None) -> float | str | None:
    return value


@_plain.register(Sequence)
def _each(value: Sequence[Any]) -> Any:
    if all(isinstance(each, Tensor) for each in value):
        return {"tensors": len(value), "digest": digest(*value)}
    return [_plain(each) for each in value]
