"""A signature that is held: arguments arrive in the types that are written in it."""

from __future__ import annotations

import functools
import inspect
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, TypeVar

import numpy as np

from whence.checked.scalars import path, real, require, shown, text, truth, whole
from whence.errors import InvalidInput, with_article

_Checked = TypeVar("_Checked", bound=Callable[..., Any])


def checked(function: _Checked) -> _Checked:
    """Return a function, or a class of options, that checks and converts its arguments.

    Args:
        function: The function or class; what its signature says is what it takes.

    Returns:
        The same, with checks: arguments arrive in the types that are written, or `InvalidInput` is
        raised.

    Examples:
        >>> @checked
        ... def first(k: int = 10, damping: float | None = None) -> tuple[int, float | None]:
        ...     return k, damping
        >>> first(np.int64(3), np.array(0.5))
        (3, 0.5)
        >>> first("3")
        Traceback (most recent call last):
        ...
        whence.errors.InvalidInput: Expected k as a whole number. Got '3'.
        >>> first(2, float("nan"))
        Traceback (most recent call last):
        ...
        whence.errors.InvalidInput: Expected damping as a finite number. Got nan.
    """
    if inspect.isclass(function):
        kind: Any = function
        kind.__init__ = _wrapped(kind.__init__, kind)
        return function
    return typing.cast(_Checked, _wrapped(function, function))


def _wrapped(function: Callable[..., Any], typed: Any) -> Callable[..., Any]:
    """Return a function that converts its arguments, whose types stand there, before it runs."""
    signature = inspect.signature(function)

    @functools.cache  # the types may be imported after the function is defined
    def hints() -> dict[str, Any]:
        return _types(typed)

    @functools.wraps(function)
    def checking(*given: Any, **named: Any) -> Any:
        try:
            arguments = signature.bind(*given, **named)
        except TypeError as error:
            raise TypeError(f"{error}. Call {typed.__name__}({_listed(signature)}).") from None
        for name, value in arguments.arguments.items():
            if name in hints():
                arguments.arguments[name] = converted(name, value, hints()[name])
        return function(*arguments.args, **arguments.kwargs)

    return checking


def _types(typed: Any) -> dict[str, Any]:
    """Return the types in a signature, without those imported for type checkers alone."""
    try:
        return typing.get_type_hints(typed)
    except NameError:
        found = {}
        for name, words in typed.__annotations__.items():
            with suppress(NameError):
                found[name] = eval(words, typed.__globals__)
        return found


def converted(name: str, value: Any, hint: Any) -> Any:
    """Return a value in the type that a signature says.

    Args:
        name: What the argument is called.
        value: What came.
        hint: The type.

    Raises:
        InvalidInput: If the value is none of that type.
    """
    origin, members = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _one_of(name, value, members)
    if origin is Literal:
        return _choice(name, value, members)
    if hint in _PLAIN:
        return _PLAIN[hint](name, value)
    if origin is os.PathLike or hint is os.PathLike:
        return path(name, value)
    if origin is tuple and members[-1] is not ...:
        items = _items(name, value, members)
        return value if set(members) == {Any} else items  # two rows of a data set stay a list
    if origin in (Sequence, tuple):
        items = _items(name, value, None)
        return tuple(converted(f"each of {name}", item, members[0]) for item in items)
    kind = origin or hint
    if kind.__module__ == "torch" and kind.__name__ == "Tensor":
        listed = hasattr(value, "shape") or isinstance(value, list | tuple)
        require(name, listed, "a tensor", value)
        return value
    if getattr(kind, "_is_protocol", False):
        return value  # said by the model, which knows what it reads
    if kind is Callable:
        require(name, callable(value) and not inspect.isclass(value), "a function", value)
    elif inspect.isclass(kind) and not _related(value, kind):
        raise InvalidInput(
            f"Expected {name} as {with_article(kind.__name__)}. Got {shown(value)}."
            f"{_MADE.get(kind.__name__, '')}"
        )
    return value


def _listed(signature: inspect.Signature) -> str:
    """Return the arguments that a function takes, without their types and defaults."""
    own = [each for each in signature.parameters.values() if each.name != "self"]
    plain = [each.replace(annotation=each.empty, default=each.empty) for each in own]
    return str(inspect.Signature(plain))[1:-1]


def _one_of(name: str, value: Any, members: tuple[Any, ...]) -> Any:
    """Return a value in the first of several types that it has."""
    rest = [member for member in members if member is not types.NoneType]
    if value is None and len(rest) < len(members):
        return None
    if any(member is os.PathLike or typing.get_origin(member) is os.PathLike for member in rest):
        return path(name, value)
    if any(typing.get_origin(member) is np.ndarray for member in rest):
        return value  # positions and other arrays: checked with the model
    errors = []
    for member in rest:
        try:
            return converted(name, value, member)
        except InvalidInput as error:
            errors.append(error.with_traceback(None))  # which would keep the arguments alive
    raise errors[0] if len(errors) == 1 else InvalidInput(_joined(errors))


def _joined(errors: list[InvalidInput]) -> str:
    """Return what several types expected, and what came, in one sentence."""
    expected = [str(error).split(". Got ")[0] for error in errors]
    first, *rest = dict.fromkeys(expected)
    found = str(errors[0]).split(". Got ", 1)[1]
    subject = first.partition(" as ")[0] + " as "
    more = "".join(f" or {each.removeprefix(subject).removeprefix('Expected ')}" for each in rest)
    return f"{first}{more}. Got {found}"


def _choice(name: str, value: Any, options: tuple[Any, ...]) -> Any:
    """Return a word that is one of several."""
    if not (isinstance(value, str) and value in options):
        words = ", ".join(map(repr, options))
        raise InvalidInput(f"Expected {name} to be one of {words}. Got {shown(value)}.")
    return value


def _items(name: str, value: Any, members: tuple[Any, ...] | None) -> tuple[Any, ...]:
    """Return the items of a sequence, as many as there are types."""
    try:
        listed = not isinstance(value, str | bytes | Mapping) and len(value) >= 0
        items = tuple(value) if listed else None
    except (TypeError, RuntimeError, NotImplementedError):
        items = None
    if items is None or (members is not None and len(items) != len(members)):
        many = "several values" if members is None else f"{len(members)} values"
        raise InvalidInput(f"Expected {name} as a list of {many}. Got {shown(value)}.")
    if members is None:
        return items
    return tuple(
        converted(f"each of {name}", item, member)
        for item, member in zip(items, members, strict=True)
    )


def _related(value: Any, kind: type) -> bool:
    """Return whether a value is of a kind, or of one so close that the function can say more."""
    if isinstance(value, kind):
        return True
    ours = {base for base in kind.__mro__ if base.__module__.startswith("whence")}
    ours = {base for base in ours if base.__module__ != "whence.result"}  # how any result is shown
    return bool(ours & set(type(value).__mro__))


_MADE = {
    "Trained": " whence.from_sklearn(model, X, y) makes one of a fitted model; from_torch and "
    "from_statsmodels do too.",
    "Loss": " Pass an object, such as whence.CrossEntropy().",
    "Solver": " Pass an object, such as whence.EKFAC().",
    "Method": " Pass an object, such as whence.TracIn().",
}
_PLAIN: dict[Any, Callable[[str, Any], Any]] = {
    bool: truth,
    int: whole,
    float: real,
    str: text,
    Any: lambda name, value: value,
    types.NoneType: lambda name, value: value,
}
