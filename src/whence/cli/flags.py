"""Commands whose help shows a flag as a flag: typer 0.29 prints `<bool>` behind each."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup


class Command(TyperCommand):
    """A command whose flags, `--help` among them, take no value in its help."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options and arguments."""
        return _without_values(super().get_params(ctx))


class Group(TyperGroup):
    """A group of commands whose own flags take no value in its help."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options and arguments."""
        return _without_values(super().get_params(ctx))


def _without_values(parameters: list[Any]) -> list[Any]:
    """Return parameters, where flags name no value."""
    for each in parameters:
        if getattr(each, "is_flag", False):
            each.metavar = ""
    return parameters
