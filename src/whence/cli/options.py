"""What the commands share: the options that name data and a model, and how answers are printed."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer


class Interrupted(Exception):
    """Ctrl-C stopped a command; the message says what is kept and how to go on."""


Where = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A CSV or Parquet file, a folder with one folder of images per class, or "
        "package.module:function, which returns an objective or (objective, queries).",
        show_default=False,
    ),
]
Target = Annotated[str, typer.Option(help="Of a table: the column to predict.")]
Row = Annotated[
    int | None,
    typer.Option(help="The row, image or query that is asked about, from 0.", show_default=False),
]
Image = Annotated[
    Path | None,
    typer.Option(help="The image that is asked about, in the folder or elsewhere."),
]
Rows = Annotated[int, typer.Option(help="Rows to hold out and ask about, spread evenly.")]
Model = Annotated[
    Path | None,
    typer.Option(help="Of a table: a fitted scikit-learn model saved by joblib."),
]
Trust = Annotated[
    bool, typer.Option(help="Load --model although loading runs the code in the file.")
]
Network = Annotated[
    str | None,
    typer.Option(
        help="Of images: package.module:function, which returns a torch module from images to "
        "features; the colors of blocks of 4 x 4 pixels by default."
    ),
]
Size = Annotated[int, typer.Option(help="Of images: the pixels of a side that they are cut to.")]
Output = Annotated[Path | None, typer.Option(help="Write a page to this file.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def source(
    where: str,
    target: str,
    *,
    row: int | None = None,
    image: Path | None = None,
    rows: int | None = None,
    model: Path | None = None,
    trust: bool = False,
    network: str | None = None,
    size: int = 64,
) -> Any:
    """Return the `Source` that the options name."""
    from whence.sources import entry

    asked = entry.Asked(row=row, image=image, spread=rows)
    if entry.is_entry(where):
        return entry.from_entry(where, asked=asked)
    if Path(where).is_dir():
        return entry.from_folder(Path(where), asked=asked, network=network, size=size)
    if not target:
        raise typer.BadParameter(f"name the column to predict in {where} with --target")
    return entry.from_table(Path(where), target, asked=asked, model=model, trust=trust)


def one(row: int | None, image: Path | None) -> dict[str, Any]:
    """Return what is asked about, which must be one thing."""
    if (row is None) == (image is None):
        raise typer.BadParameter("name what is asked about: --row N, or --image FILE")
    return {"row": row, "image": image}


def typed() -> str:
    """Return what the user typed, so that a page says what makes it again."""
    return shlex.join(["whence", *sys.argv[1:]])


def say(notes: tuple[str, ...]) -> None:
    """Print what was done to the data, apart from the answer."""
    for note in notes:
        typer.echo(f"note: {note}", err=True)


def wrote(path: Path | None) -> None:
    """Print where the page is, if there is one."""
    if path is not None:
        typer.echo(f"wrote {path}: open it in a browser")


def print_json(content: dict[str, Any]) -> None:
    """Print plain JSON; frames become lists of records."""

    def plain(value: Any) -> Any:
        if hasattr(value, "to_dict"):
            rows = value.astype(object).where(value.notna(), None)  # JSON has no NaN
            return rows.to_dict(orient="records")
        return value.tolist() if hasattr(value, "tolist") else str(value)

    typer.echo(json.dumps(content, default=plain, indent=1))
