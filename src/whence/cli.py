"""The command line: each command is one call of the library."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from whence.errors import WhenceError

app = typer.Typer(
    help="Trace a model's predictions back to the training data they came from.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False,
) -> None:
    """Trace a model's predictions back to the training data they came from."""
    # Read in `main`, which must know it even where parsing a command fails.


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Where the page goes.")] = Path("whence-demo.html"),
) -> None:
    """Explain a misread digit, retrain 50 times to check, and write a page.

    Example: whence demo --output why.html
    """
    from whence.demo import write_demo

    print(write_demo(output))
    print(f"wrote {output}: open it in a browser")


def main() -> None:
    """Run the command line; an error is one sentence and exit status 1."""
    try:
        app()
    except WhenceError as error:
        if "--debug" in sys.argv:
            raise
        typer.echo(f"whence: {error}", err=True)
        sys.exit(1)
