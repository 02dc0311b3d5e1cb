"""Options as they are written in code: what a result says it was made with."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from whence.checked.scalars import shown


def written(options: Any) -> str:
    """Return the call that makes an instance of a data class, functions by their names.

    An address in memory, as Python shows a function, would tell a reader nothing, and two processes
    would say that they did different things.

    Args:
        options: The instance.

    Examples:
        >>> from dataclasses import dataclass
        >>> @dataclass(repr=False)
        ... class Options:
        ...     k: int
        ...     of: object
        >>> written(Options(3, lambda x: x))
        'Options(k=3, of=<lambda>)'
    """
    kind = type(options)
    shown = [f"{each.name}={_value(getattr(options, each.name))}" for each in fields(options)]
    return f"{kind.__qualname__}({', '.join(shown)})"


def _value(value: Any) -> str:
    """Return a value as code, data by their type and shape, or the name of what has no form."""
    if hasattr(value, "shape") or type(value) in (list, tuple):
        return shown(value)
    text = repr(value)
    return str(getattr(value, "__qualname__", type(value).__name__)) if " at 0x" in text else text
