"""The command line: each command is one call of the library."""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import suppress
from typing import Annotated, Any

import typer

from whence.cli import explorer, indexing, many, one, repository
from whence.cli.flags import Command, Group
from whence.cli.options import Interrupted
from whence.cli.usage import UsageError, sentence
from whence.errors import WhenceError
from whence.version import __version__

app = typer.Typer(
    cls=Group,
    help="Trace a model's predictions back to the training data they came from.\n\n"
    "SOURCE is a file of rows such as CSV, Excel or Parquet (with --target), a folder with one "
    "folder of images per class, or a Python function package.module:function.\n\n"
    "Exit status: 0 done; 1 data or a model that cannot be used; 2 wrong usage; 3 a bar of "
    "`whence paper` that was missed; 130 interrupted.",
    invoke_without_command=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
for command in (
    repository.demo,
    one.explain,
    one.influence,
    one.verify,
    one.flip_set,
    one.attack,
    many.report,
    many.label_errors,
    many.evaluate,
    many.diagnose,
    explorer.explore,
    repository.paper,
):
    app.command(name=command.__name__.replace("_", "-"), cls=Command)(command)
app.add_typer(indexing.app, name="index")


def _version(asked: bool) -> None:
    """Print the version, if asked."""
    if asked:
        typer.echo(f"whence {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and stop.", callback=_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Trace a model's predictions back to the training data they came from."""
    # --debug is read in `main`, which must know it even where parsing a command fails.
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Run the command line; an error is one sentence and exit status 1."""
    _print_anything()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            status = app(standalone_mode=False)
    except WhenceError as error:
        if "--debug" in sys.argv:
            raise
        typer.echo(f"whence: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        if "--debug" in sys.argv:
            raise
        what = error.filename or "the output"
        reason = error.strerror or type(error).__name__
        typer.echo(
            f"whence: Expected to be able to read and write. Got {what}: {reason}.", err=True
        )
        _drop_output()
        sys.exit(1)
    except Interrupted as stop:
        typer.echo(f"whence: interrupted. {stop}", err=True)
        sys.exit(130)
    except UsageError as error:
        if "--debug" in sys.argv:
            raise
        typer.echo(f"whence: {sentence(error, sys.argv[1:])}", err=True)
        sys.exit(2)
    if status == 130:
        typer.echo("whence: interrupted. Nothing was written.", err=True)
    sys.exit(status or 0)


def _print_anything() -> None:
    """Let a terminal or file whose encoding lacks a character get its number, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # closed, or no file
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _drop_output() -> None:
    """Let what is not written yet go nowhere: Python would try again as it ends, and complain."""
    with suppress(AttributeError, OSError, ValueError):  # closed, or none
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning as a sentence."""
    typer.echo(f"note: {message}", err=True)
