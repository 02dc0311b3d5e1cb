"""The command that opens the explorer."""

from __future__ import annotations

from typing import Annotated

import typer

from whence.cli.answers import say, told, typed
from whence.cli.methods import MethodOption, method_of
from whence.cli.options import Rows
from whence.cli.sources import KINDS, Chosen, reads


@reads(*KINDS)
def explore(
    source: Chosen,
    rows: Rows = None,
    method: MethodOption = None,
    port: Annotated[int, typer.Option(help="Where it is served; a free port if 0.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
) -> None:
    r"""Explore a model in the browser: predictions, the rows behind them, and what changes them.

    The page is served to this machine alone, at an address with a secret token.
    Needs the extra `explore`: pip install 'whence-attribution\[explore]'.

    Example: whence explore train.csv --target y
    """
    found = source.load(rows=rows, most=100)
    from whence.explorer.explore import serve
    from whence.explorer.session import Subject

    say(found.notes)
    serve(
        Subject(
            trained=found.objective,
            queries=found.objective.examples(found.queries),
            names=found.names,
            labeled=found.labeled,
            about=told(source, found),
            origin=_origin(source, len(found.names)),
            command=typed(),
            method=method_of(method),
        ),
        port=port,
        browser=browser,
    )


def _origin(source: Chosen, rows: int) -> str:
    """Return Python lines that make the model and the queries again."""
    kind = type(source.options).__name__
    return (
        "from pathlib import PosixPath, WindowsPath\n\n"
        f"from whence.cli.sources import Asked, {kind}\n\n"
        f"found = {source.options!r}.load({source.where!r}, Asked(rows={rows}))\n"
        "model, queries = found.objective, found.objective.examples(found.queries)"
    )
