"""Every command with wrong options and wrong files, in this process.

`COMMANDS` has a line that works for each command; `LEFT_OUT` says which have none, and why.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from unittest.mock import patch

import click
import typer
from hypothesis import strategies as st

from tests.fuzz.calls import FOLDER, index, rows
from tests.fuzz.steps import Broken
from whence.cli import app, main
from whence.errors import NotConvergedWarning

TABLE, ENTRY = "train.csv", "asked_by_fuzz:make"
_ONE = ("--target", "y", "--row", "3")

COMMANDS: dict[str, tuple[str, ...]] = {
    "explain": (TABLE, *_ONE, "-k", "2"),
    "influence": (TABLE, *_ONE, "-k", "2"),
    "verify": (TABLE, *_ONE),
    "flip-set": (TABLE, *_ONE),
    "attack": ("pictures", "--row", "1", "--steps", "1"),
    "report": (TABLE, "--target", "y", "--rows", "2", "-o", "page.html"),
    "label-errors": (TABLE, "--target", "y", "-k", "2"),
    "evaluate": (TABLE, "--target", "y", "--rows", "2", "--subsets", "4"),
    "diagnose": (TABLE, "--target", "y"),
    "explore": (TABLE, "--target", "y", "--no-browser"),
    "index build": (ENTRY, "--index", "built"),
    "index append": (ENTRY, "--index", "index", "--data", "more.jsonl"),
    "index remove": (ENTRY, "--index", "index", "--id", "3"),
    "index query": (ENTRY, "--index", "index", "-k", "2"),
    "index info": ("index",),
    "index verify": (ENTRY, "--index", "index"),
}
LEFT_OUT = {
    "demo": "takes a file to write alone; tests/test_demo.py runs it",
    "paper": "runs for minutes; tests/experiments run it",
}

# What a person, or a script of theirs, writes where something else belongs.
TEXTS = (
    *("", " ", "-1", "0", "1", "2.5", "1e400", "nan", "inf", "None", "true", "[1, 2]"),
    *("three", "y", "x0", "nothing.csv", ".", "..", "/", "index", "noise.bin", "page.html"),
    *("a" * 300, "é\u0301", "\ud800", "\u202e", "%s{0}", "<script>", "no_module:make", ":", "a:b"),
    *("--", "-", "loss", "linear", "99999999999999999999", "TracIn", "projected", "os:getcwd"),
)

# Files in place of the table: what a person has that is none, or nearly none.
FILES: dict[str, bytes] = {
    "empty": b"",
    "a header": b"x0,x1,y\n",
    "one row": b"x0,x1,y\n1,2,a\n",
    "one class": b"x0,x1,y\n" + b"1,2,a\n2,1,a\n" * 9,
    "no feature": b"y\n" + b"a\nb\n" * 9,
    "constant columns": b"x0,x1,y\n" + b"1,1,a\n1,1,b\n" * 9,
    "a class of one": b"x0,x1,y\n" + b"1,2,a\n2,3,a\n" * 9 + b"5,6,b\n",
    "missing targets": b"x0,x1,y\n" + b"1,2,\n2,3,a\n4,1,b\n" * 9,
    "nothing but missing": b"x0,x1,y\n" + b",,\n" * 9,
    "infinities": b"x0,x1,y\n" + b"inf,2,a\n-inf,3,b\n" * 9,
    "huge numbers": b"x0,x1,y\n" + b"1e308,2,a\n-1e308,3,b\n" * 9,
    "ragged": b"x0,x1,y\n" + b"1,2,a,7\n2\n" * 9,
    "names twice": b"x,x,y\n" + b"1,2,a\n2,3,b\n" * 9,
    "no names": b",,y\n" + b"1,2,a\n2,3,b\n" * 9,
    "null bytes": b"x0,x1,y\n" + b"1,\x00,a\n2,3,b\n" * 9,
    "an open quote": b'x0,x1,y\n"1,2,a\n' + b"2,3,b\n" * 9,
    "no UTF": b"x0,x1,y\n" + b"\xff\xfe,2,a\n\x80,3,b\n" * 9,
    "noise": bytes(range(256)) * 4,
    "JSON": b'{"x0": [1, 2], "y": ["a", "b"]}',
    "a page": b"<html><table><tr><td>x0<td>y</table>",
    "a zip": b"PK\x03\x04" + b"\0" * 40,
    "gzip": b"\x1f\x8b\x08\x00" + b"\0" * 40,
    "a long field": b"x0,x1,y\n" + b"a" * 200_000 + b",2,a\n" + b"2,3,b\n" * 9,
    "text": b"x0,y\n" + b"the cat sat on a mat,a\nthe dog ran in the park,b\n" * 9,
}


@cache
def files() -> Path:
    """Return a folder in which every command of `COMMANDS` works."""
    folder = FOLDER / "commands"
    folder.mkdir()
    x, y = rows()
    lines = [",".join([*map(str, row), "ab"[label]]) for row, label in zip(x, y, strict=True)]
    (folder / TABLE).write_text("x0,x1,x2,y\n" + "\n".join(lines) + "\n")
    (folder / "noise.bin").write_bytes(FILES["noise"])
    (folder / "more.jsonl").write_text('{"x": [0.1, 1, 0], "y": 1}\n')
    (folder / "asked_by_fuzz.py").write_text(
        "from tests.fuzz.calls import network, rows\n"
        "def make():\n"
        "    x, y = rows()\n"
        "    return network(), (x[:2], y[:2])\n"
    )
    pictures(folder / "pictures")
    index().path.rename(folder / "index")
    return folder


def pictures(folder: Path) -> None:
    from PIL import Image

    for number in range(8):
        place = folder / ("dark", "light")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        shade = 30 + 5 * number + 120 * (number % 2)
        Image.new("RGB", (8, 8), (shade, shade, shade)).save(place / f"{number}.png")


def commands() -> dict[str, click.Command]:
    """Return every command by its name, those of a group with its name before."""

    def below(group: click.Group, name: str) -> Iterator[tuple[str, click.Command]]:
        for word, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from below(command, f"{name}{word} ")
            else:
                yield f"{name}{word}", command

    return dict(below(typer.main.get_command(app), ""))


def ended(arguments: list[str], statuses: tuple[int, ...] = (0, 1, 2, 130)) -> None:
    """Run a command, which must end with a status, and with a sentence where it failed."""
    out, error = io.StringIO(), io.StringIO()
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(out))
        stack.enter_context(redirect_stderr(error))
        stack.enter_context(patch.object(sys, "argv", ["whence", *arguments]))
        stack.enter_context(patch("whence.explorer.explore.print", create=True, side_effect=_stop))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("default", NotConvergedWarning)  # which is printed as a note
        before = Path.cwd()
        stack.callback(os.chdir, before)
        os.chdir(files())
        try:
            main()
            status: object = 0
        except SystemExit as stop:
            status = stop.code or 0
        except Exception as raw:
            raise Broken(f"{arguments} raised {type(raw).__name__}: {raw!s:.300}") from raw
    said = error.getvalue()
    if status not in statuses:
        raise Broken(f"{arguments} ended with {status}: {said:.300}")
    if status and not (said + out.getvalue()).strip():
        raise Broken(f"{arguments} ended with {status} without a word")
    if "Traceback" in said or len(said) > 4000:
        raise Broken(f"{arguments} said: {said[:300]}")


def _stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def odd_option(name: str, data: st.DataObject) -> None:
    """An option more, or an argument replaced, with a text of another kind."""
    arguments = list(COMMANDS[name])
    options = [parameter for parameter in commands()[name].params if parameter.name != "help"]
    parameter = data.draw(st.sampled_from(options), label="parameter")
    text = data.draw(st.one_of(st.sampled_from(TEXTS), st.text(max_size=4)), label="text")
    text = text.replace("\0", "")  # which no command line can hold
    if parameter.param_type_name == "argument":
        arguments[0] = text
    elif getattr(parameter, "is_flag", False):
        arguments.append(parameter.opts[0])
    else:
        arguments += [max(parameter.opts, key=len), text]
    ended([*name.split(" "), *arguments])


def odd_file(name: str, data: st.DataObject) -> None:
    """The file of the command replaced by one that is none."""
    label = data.draw(st.sampled_from([*FILES]), label="file")
    suffix = data.draw(st.sampled_from((".csv", ".tsv", ".xlsx", ".parquet", ".csv.gz", ".jsonl")))
    path = files() / f"odd{suffix}"
    path.write_bytes(FILES[label])
    arguments = [path.name if part in (TABLE, "more.jsonl") else part for part in COMMANDS[name]]
    try:
        ended([*name.split(" "), *arguments])
    except Broken as error:
        raise Broken(f"{label}: {error}") from error


OF_COMMANDS: tuple[Callable[[str, st.DataObject], None], ...] = (odd_option, odd_file)
