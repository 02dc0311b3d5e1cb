"""The options that several commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

_PAGES = ("", ".html", ".htm")  # endings of names that browsers show as pages


class Interrupted(Exception):
    """Ctrl-C stopped a command; the message says what is kept and how to go on."""


def possible(path: Any) -> Any:
    """Return a path as it came, or refuse a name that no file of this machine can have."""
    try:
        if path is not None:
            os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass  # said by the command, which knows what it wants with the file
    except OSError as error:
        raise _no_name(path, error.strerror) from error
    except ValueError as error:
        raise _no_name(path, str(error)) from error
    return path


def _no_name(path: Any, reason: str | None) -> typer.BadParameter:
    """Return why a path is no name of a file."""
    shown = f"{str(path)[:40]!r}{' ...' if len(str(path)) > 40 else ''}"
    return typer.BadParameter(f"Expected the name of a file. Got {shown}: {reason}.")


def writable(path: Path | None) -> Path | None:
    """Return the path of a page to write, refused before the work if none can lie there."""
    from whence.storage import file_to_write

    possible(path)
    if path is not None and (path.name == "-" or path.suffix.lower() not in _PAGES):
        raise typer.BadParameter(
            f"Expected the name of a page, which ends in .html. Got {path}. --json prints data."
        )
    return None if path is None else file_to_write(path)


Where = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A file of rows (CSV, TSV, Excel, Parquet; - is standard input), a folder with one "
        "folder of images per class, or package.module:function, which returns a model of whence "
        "or (model, queries).",
        show_default=False,
        callback=possible,
    ),
]
Row = Annotated[
    str | None,
    typer.Option(
        help="What is asked about: the row of a table by what --ids names it, else by its number "
        "from 0; an image of a folder or a query of a function by its number from 0.",
        show_default=False,
    ),
]
Against = Annotated[
    str | None,
    typer.Option(
        help="Another answer to the same question, a label of a table or of a folder of images, or "
        "a query of a function by its number from 0: why this answer and not that? Scores are of "
        "the difference.",
        show_default=False,
    ),
]
Image = Annotated[
    Path | None,
    typer.Option(
        help="The image that is asked about, in the folder or elsewhere.", callback=possible
    ),
]
Rows = Annotated[
    int | None,
    typer.Option(
        help="Rows to hold out and ask about, spread evenly. Default: 100 for report and explore, "
        "20 elsewhere; a quarter of a small table.",
        show_default=False,
    ),
]
Answer = Annotated[
    Literal["loss", "margin", "probability", "prediction"] | None,
    typer.Option(
        "--measure",
        help="What the examples are scored by. Default: what the model answers, the probability of "
        "the label, the margin or the predicted number.",
        show_default=False,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Write a page to this file.", callback=writable),
]
Page = Annotated[
    Path, typer.Option("--output", "-o", help="Where the page goes.", callback=writable)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def one(row: str | None, image: Path | None) -> dict[str, Any]:
    """Return what is asked about, which must be one thing."""
    if (row is None) == (image is None):
        got = "neither" if row is None else "both"
        raise typer.BadParameter(
            f"Expected what is asked about, --row ROW or --image FILE. Got {got}."
        )
    return {"row": row, "image": image}
