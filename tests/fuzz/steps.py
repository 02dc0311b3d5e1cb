"""A step of the fuzz: a call with an argument changed, and what must hold of its end."""

from __future__ import annotations

import inspect
import warnings
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

import whence
from tests.fuzz.calls import CALLS, OPTIONS, Array, Pair, named
from tests.fuzz.methods import METHODS
from tests.fuzz.values import OTHER, SAME, odd
from whence.errors import WhenceError


def fuzzed(examples: int) -> settings:
    """Return the settings of a short fuzz, the same in every run."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],  # what fails is short as it is, and names itself
        suppress_health_check=list(HealthCheck),
    )


def call(name: str) -> tuple[Any, Any]:
    """Return a function, or a method of a result, and what makes its arguments."""
    if name in CALLS:
        return CALLS[name]
    owner, make = METHODS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(owner(), name.rpartition(".")[2]), make


def plain(argument: Any) -> Any:
    """Return an argument as a function takes it."""
    if isinstance(argument, Array):
        return argument.numbers
    return (argument.x, argument.y) if isinstance(argument, Pair) else argument


def numbers(result: Any, depth: int = 3) -> list[np.ndarray[Any, Any]]:
    """Return the numbers of a result, in order."""
    if isinstance(result, torch.Tensor):
        return [result.detach().double().numpy()] if result.dtype != torch.bool else []
    if isinstance(result, np.ndarray):
        return [result.astype(float)] if result.dtype.kind in "fiu" else []
    if isinstance(result, float):
        return [np.array(result)]
    if isinstance(result, list | tuple) and depth:
        return [part for item in result for part in numbers(item, depth - 1)]
    if isinstance(result, whence.Trained):
        return numbers([result.weights, getattr(result, "params", None)], depth)
    if isinstance(result, whence.Scores):
        return [result.values]
    if is_dataclass(result) and not isinstance(result, whence.Examples) and depth:
        names = [field.name for field in fields(result)]
        return [part for name in names for part in numbers(getattr(result, name), depth - 1)]
    return []


def outcome(function: Any, arguments: dict[str, Any]) -> Any:
    """Return the result of a call, or the error of whence that it ends in."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return function(**{name: plain(value) for name, value in arguments.items()})
        except WhenceError as error:
            return error


class Broken(AssertionError):
    """A raw error, or a wrong result."""


def ended(name: str, function: Any, arguments: dict[str, Any], what: str) -> Any:
    try:
        found = outcome(function, arguments)
        said = str(found) if isinstance(found, WhenceError) else "something"
        assert 0 < len(said) < 2000, f"{name}({what}) says {len(said)} characters"
        return found
    except Exception as error:
        # From None: hypothesis tells failures apart by their cause.
        raise Broken(f"{name}({what}) raised {type(error).__name__}: {error!s:.300}") from error


def optional(function: Any, arguments: dict[str, Any]) -> list[str]:
    return [*arguments, *(set(inspect.signature(function).parameters) - set(arguments))]


def parts(argument: Any) -> list[str]:
    return ["x", "y"] if isinstance(argument, Pair) else ["numbers"]


def _with(argument: Any, part: str, value: Any) -> Any:
    if isinstance(argument, Array):
        return Array(value)
    return Pair(value, argument.y) if part == "x" else Pair(argument.x, value)


def odd_value(name: str, data: st.DataObject) -> None:
    """Any argument replaced by a value of another kind."""
    function, make = call(name)
    arguments = make()
    which = data.draw(st.sampled_from(sorted(optional(function, arguments))))
    label, value = data.draw(odd)
    ended(name, function, {**arguments, which: value}, f"{which}={label}")


def odd_part(name: str, data: st.DataObject) -> None:
    """An array replaced by other numbers, or by what are none."""
    function, make = call(name)
    arguments = make()
    arrays = [key for key, value in arguments.items() if isinstance(value, Array | Pair)]
    if not arrays:
        return
    which = data.draw(st.sampled_from(arrays))
    part = data.draw(st.sampled_from(parts(arguments[which])))
    known = np.asarray(getattr(arguments[which], part))
    label = data.draw(st.sampled_from([*OTHER]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            changed = OTHER[label](known)
        except (TypeError, ValueError, IndexError, NotImplementedError):
            return  # such numbers have no such form
    odd_one = _with(arguments[which], part, changed)
    result = ended(name, function, {**arguments, which: odd_one}, f"{which}.{part}: {label}")
    if isinstance(result, WhenceError):
        return
    if label in ("NaN", "infinity", "minus infinity", "pd.NA", "None inside", "complex"):
        undefined = known.dtype.kind == "b"
        assert undefined or label == "complex", f"{name}({which}.{part}: {label}) was believed"


def same_numbers(name: str, data: st.DataObject) -> None:
    """An array in another form: the same result, or a refusal."""
    function, make = call(name)
    arguments = make()
    arrays = [key for key, value in arguments.items() if isinstance(value, Array | Pair)]
    if not arrays:
        return
    which = data.draw(st.sampled_from(arrays))
    part = data.draw(st.sampled_from(parts(arguments[which])))
    label = data.draw(st.sampled_from([*SAME]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            changed = SAME[label](np.asarray(getattr(arguments[which], part)))
        except (TypeError, ValueError):
            return
    same = _with(arguments[which], part, changed)
    result = ended(name, function, {**arguments, which: same}, f"{which}.{part}: {label}")
    if not isinstance(result, WhenceError):
        expected = numbers(outcome(function, make()))
        found = numbers(result)
        assert len(found) == len(expected), f"{name}({which}.{part}: {label}) has other numbers"
        for one, other in zip(found, expected, strict=True):
            scale = np.abs(other[np.isfinite(other)]).max(initial=1e-12)
            np.testing.assert_allclose(
                one, other, rtol=1e-5, atol=1e-6 * scale, err_msg=f"{name}({which}.{part}: {label})"
            )


def option(name: str, data: st.DataObject) -> None:
    """An option of a method, a solver, a loss or a training."""
    kind, arguments = named(name), OPTIONS[name]
    which = data.draw(st.sampled_from(sorted(inspect.signature(kind).parameters)))
    label, value = data.draw(odd)
    made = ended(name, kind, {**arguments, which: value}, f"{which}={label}")
    if not isinstance(made, WhenceError):
        ended(name, lambda: hash(made), {}, f"{which}={label}; hash")


OF_CALLS = (odd_value, odd_part, same_numbers)
