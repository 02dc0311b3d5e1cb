"""Wrong usage in one sentence: what was expected, what came, and what to do.

Typer's own messages differ between its versions. What an option takes is read from the command's
annotations, and what came from the command line itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer

from whence.errors import closest

# Of every wrong usage; typer does not name it.
UsageError: type[Exception] = typer.BadParameter.__bases__[0]

_NUMBERS = {int: "a whole number", float: "a number"}
_SHOWN = 60  # characters of a value that came


def sentence(error: Any, arguments: Sequence[str]) -> str:
    """Return what is wrong with a command line.

    Args:
        error: What typer raised.
        arguments: The command line as typed, without the program's name.
    """
    message, context = str(error.message), error.ctx
    if message.startswith("Expected"):  # a command's own check of a value
        return message
    path = _path(context)
    see = f"`{path} --help` lists them."
    parameter, option = getattr(error, "param", None), getattr(error, "option_name", None)
    if parameter is not None:
        name = _named(parameter)
        if not message:
            return f"Expected {name} after {path}. Got nothing. See `{path} --help`."
        return _value(name, _takes(context, parameter.name), _typed(parameter.opts, arguments))
    if option is not None and hasattr(error, "possibilities"):
        options = (name for each in context.command.params for name in each.opts)
        near = _near(str(option), options)
        return f"Expected an option of {path}. Got {option}. {near or see}"
    if option is not None:
        came = _typed([str(option)], arguments)
        if came is None:
            return f"Expected a value after {option}. Got nothing. See `{path} --help`."
        return f"Expected {option} without a value. Got {came!r}. Leave it out."
    commands = getattr(getattr(context, "command", None), "commands", None)
    if commands and message.startswith("Missing command"):
        return f"Expected a command of {path}. Got nothing. {see}"
    if commands and message.startswith("No such command"):
        typed = next((each for each in arguments if f"'{each}'" in message), "")
        return f"Expected a command of {path}. Got {typed}. {_near(typed, commands) or see}"
    return f"Expected {path} as its help has it. {message.rstrip('.')}. See `{path} --help`."


def _path(context: Any) -> str:
    """Return the command that was typed, however the program was started."""
    names: list[str] = []
    while context is not None and context.parent is not None:
        names.insert(0, context.info_name)
        context = context.parent
    return " ".join(["whence", *names])


def _value(name: str, takes: tuple[str, tuple[str, ...]], typed: str | None) -> str:
    """Return what is wrong with the value of an option."""
    words, choices = takes
    got = "another value" if typed is None else repr(typed[:_SHOWN])
    near = "" if typed is None else _near(typed, choices)
    return f"Expected {name} to be {words}. Got {got}. {near}".strip()


def _takes(context: Any, name: str) -> tuple[str, tuple[str, ...]]:
    """Return what an option takes, in words, and its choices where they are few."""
    # Typer wraps a command; from Python 3.14 on a wrapper has no annotations of its own.
    command = inspect.unwrap(context.command.callback)
    hint = get_type_hints(command, include_extras=True)[name]
    kind, *rest = get_args(hint)
    parts = [kind, *(part for each in get_args(kind) for part in (each, *get_args(each)))]
    choices = [
        str(choice) for part in parts if get_origin(part) is Literal for choice in get_args(part)
    ]
    if choices:
        listed = dict.fromkeys(choices)
        *first, last = listed
        return f"{', '.join(first)} or {last}" if first else last, tuple(listed)
    words = next((_NUMBERS[part] for part in parts if part in _NUMBERS), "of another form")
    least = next((each.min for each in rest if getattr(each, "min", None) is not None), None)
    return words if least is None else f"{words} from {least}", ()


def _named(parameter: Any) -> str:
    """Return an option as it is typed in full, or an argument as the help names it."""
    longest = max(parameter.opts, key=len)
    return longest if longest.startswith("-") else str(parameter.metavar or longest).upper()


def _typed(names: Iterable[str], arguments: Sequence[str]) -> str | None:
    """Return the last value of an option on the command line, or `None` if it is not found."""
    found = None
    for at, argument in enumerate(arguments):
        for name in names:
            if argument == name and at + 1 < len(arguments):
                found = arguments[at + 1]
            elif name.startswith("--") and argument.startswith(f"{name}="):
                found = argument[len(name) + 1 :]
            elif len(name) == 2 and argument.startswith(name) and len(argument) > 2:
                found = argument[2:]
    return found


def _near(typed: str, known: Iterable[str]) -> str:
    """Return a question that names what was probably meant, or nothing."""
    near = closest(typed, known)
    return f"Did you mean {near}?" if near else ""
