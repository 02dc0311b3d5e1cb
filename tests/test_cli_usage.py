"""Wrong usage of the command line is answered in the words of all other errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_line import run


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table that is there; no command gets so far as to read it."""
    path = tmp_path / "t.csv"
    path.write_text("a,y\n1,2\n3,4\n")
    return path


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("explain t -k two", "Expected -k to be a whole number from 1. Got 'two'."),
        ("explain t -ktwo", "Expected -k to be a whole number from 1. Got 'two'."),
        (
            "explain t --measure=los",
            "Expected --measure to be loss, margin, probability or prediction. Got 'los'. "
            "Did you mean loss?",
        ),
        (
            "influence t --order second",
            "Expected --order to be first, newton or refined. Got 'second'.",
        ),
        ("explain t --target-kind x", "Expected --target-kind to be label or quantity. Got 'x'."),
        ("evaluate t --fraction half", "Expected --fraction to be a number. Got 'half'."),
        ("index query a:b -i x -k 0", "Expected -k to be a whole number from 1. Got '0'."),
        ("explain t -k 0", "Expected -k to be a whole number from 1. Got '0'."),
        ("evaluate t --subsets 2", "Expected --subsets to be a whole number from 3. Got '2'."),
        ("explain t --outptu x", "Expected an option of whence explain. Got --outptu. Did you"),
        ("explain t --zzz x", "Got --zzz. `whence explain --help` lists them."),
        ("expain t", "Expected a command of whence. Got expain. Did you mean explain?"),
        ("zzz", "Expected a command of whence. Got zzz. `whence --help` lists them."),
        ("index", "Expected a command of whence index. Got nothing. `whence index --help` lists"),
        ("explain", "Expected SOURCE after whence explain. Got nothing."),
        ("index build a:b", "Expected --index after whence index build. Got nothing."),
        ("explain t -k", "Expected a value after -k. Got nothing."),
        ("explain t --json=3", "Expected --json without a value. Got '3'."),
        ("explain t u", "Expected whence explain as its help has it. Got unexpected extra"),
        ("explain t --row 1", "Expected --target COLUMN, the column to predict. Got t"),
        ("explain t -t y", "Expected what is asked about, --row ROW or --image FILE. Got neither."),
        ("explain t -t y --row 1 -o -", "Expected the name of a page, which ends in .html. Got -."),
        ("label-errors t -t y -o a.csv", "Got a.csv. --json prints data."),
        ("explain t -t y --row 1 --verify 3", "Expected --verify with --output FILE, whose page"),
        ("explain t -t y --row 1 --trust", "Expected --trust with --model FILE only. Got it alone"),
    ],
)
def test_wrong_usage_is_one_sentence(table: Path, command: str, said: str) -> None:
    words = [str(table) if word == "t" else word for word in command.split()]
    code, out, err = run(*words)
    assert code == 2
    assert not out
    assert err.startswith("whence: Expected ")
    assert said.replace("Got t", f"Got {table}") in err
    assert "Value error" not in err
    assert "Input should be" not in err
    assert err.count("\n") == 1


def test_help_and_version_are_no_errors() -> None:
    assert run("--version")[0] == 0
    assert run("explain", "--help")[0] == 0
    assert "explain" in run()[1]


def test_help_shows_flags_without_a_value() -> None:
    for command in ("explain", "label-errors", "index build"):
        assert "<bool>" not in run(*command.split(), "--help")[1]
    for group in ((), ("index",)):
        assert "<bool>" not in run(*group, "--help")[1]


_IMPORTED = """
import json, sys
from tests.command_line import run
for command in json.loads(sys.argv[1]):
    status, _, error = run(*command)
    assert status in (1, 2), error
    assert not {"torch", "sklearn"} & set(sys.modules), command
"""


def test_mistakes_are_answered_before_anything_slow_is_imported(table: Path) -> None:
    asked = [
        ["explain", "t", "-t", "y"],
        ["explain", "t", "-t", "z", "--row", "0"],
        ["explain", "t", "-t", "y", "--row", "9"],
        ["verify", "t", "-t", "y", "--row", "0", "-k", "0"],
        ["report", "t", "-t", "y", "--rows", "9"],
        ["label-errors", "t", "-t", "z"],
        ["diagnose", "no_such_module:function"],
        ["index", "build", "no_such_module:function", "--index", "i"],
    ]
    commands = [[str(table) if word == "t" else word for word in each] for each in asked]
    subprocess.run([sys.executable, "-c", _IMPORTED, json.dumps(commands)], check=True)
