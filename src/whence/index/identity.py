"""What tells the model and the method of an index from others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import singledispatch
from pathlib import Path
from typing import Any

from torch import Tensor

from whence.curvature.kronecker import EKFAC, KFAC
from whence.errors import InvalidInput
from whence.index.format import Manifest
from whence.linalg.cholesky import Cholesky
from whence.methods.hidden import HiddenCosine
from whence.methods.influence import Influence
from whence.methods.method import Method
from whence.methods.projected import Projected
from whence.methods.tracin import TracIn
from whence.network.objective import ModuleObjective
from whence.objective.objective import objective_of
from whence.objective.trained import Trained
from whence.storage import digest

_KINDS: tuple[type, ...] = (HiddenCosine, Influence, Projected, TracIn, Cholesky, EKFAC, KFAC)
_PRECISION = "precision of gradients"  # named where it is not the model's own
_KNOWN = {kind.__name__: kind for kind in _KINDS}


def model_digests(trained: Trained) -> dict[str, str]:
    """Return digests of what makes a model's features, by the name of what they are of.

    Args:
        trained: The model.
    """
    objective = trained.differentiable()
    model = trained if objective is None else objective
    parts = [] if objective is None else [objective_of(trained).params]
    frozen, of_fit = model.frozen(), trained.identity()
    found = {
        "parameters": digest("parameters", *parts),
        "frozen weights": digest("frozen", *frozen),
        "loss or penalty": digest("loss", type(trained.loss).__name__, *of_fit),
    }
    if _rounded(model):
        found[_PRECISION] = digest("bfloat16")
    return found


@singledispatch
def _rounded(model: Trained) -> bool:
    """Return whether gradients are from passes in bfloat16."""
    return False


@_rounded.register
def _(model: ModuleObjective) -> bool:
    return model.bf16


def check_same(folder: Path, manifest: Manifest, trained: Trained, method: Method) -> None:
    """Raise unless an index was built with a model and a method.

    Args:
        folder: The index.
        manifest: What it holds.
        trained: The model.
        method: The method.

    Raises:
        InvalidInput: If a part of the model is another, which is named, or the method is.
    """
    own = model_digests(trained)
    names = {**own, **manifest.model}
    other = next((name for name in names if manifest.model.get(name) != own.get(name)), None)
    if other == _PRECISION:
        given = "bfloat16" if other in own else "that of the model"
        raise InvalidInput(
            f"Expected gradients in the precision that the index in {folder} was built with. Got "
            f"{given}. Give objective.in_bf16() in both places or in neither, or build another "
            "index."
        )
    if other is not None:
        raise InvalidInput(
            f"Expected the model that the index in {folder} was built with. Got one with another "
            f"digest of its {other}. Load the same weights, or build another index."
        )
    if manifest.method != described(method):
        raise InvalidInput(
            f"Expected the method that the index in {folder} was built with, {manifest.words}. "
            f"Got {method!r}. Leave method= out, or build another index."
        )


def described(method: Any) -> dict[str, Any]:
    """Return the class of a method, or of its solver, and its options as plain values.

    Args:
        method: The method; a dataclass.
    """
    options = {each.name: _plain(getattr(method, each.name)) for each in fields(method)}
    return {"class": type(method).__name__, "options": options}


def method_of(found: Mapping[str, Any]) -> Any:
    """Return the method, or solver, that was described.

    Args:
        found: What `described` returned, read back.

    Raises:
        InvalidInput: If its options are no plain values, or its class is not whence's.
    """
    kind, options = _KNOWN.get(found["class"]), found["options"]
    nested = {name: value for name, value in options.items() if isinstance(value, Mapping)}
    if kind is None or any(value.get("class") not in _KNOWN for value in nested.values()):
        raise InvalidInput(
            f"Expected the method of the index as method=: {found['class']} with options that a "
            "file does not hold, such as checkpoints and functions. Got none."
        )
    return kind(**options | {name: method_of(value) for name, value in nested.items()})


@singledispatch
def _plain(value: Any) -> Any:
    """Return an option as JSON knows it; tensors by their digest, functions by their name."""
    if callable(value):
        return {"function": f"{value.__module__}.{value.__qualname__}"}
    return described(value) if is_dataclass(value) else {"repr": repr(value)}


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
