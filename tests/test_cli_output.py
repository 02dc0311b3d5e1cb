"""What a terminal or a file cannot show is no traceback, and no number reads as nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.command_line import run


def _table(path: Path, scale: float) -> Path:
    """A table of fifty rows with classes that only a wide encoding can write."""
    rng = np.random.default_rng(5)
    frame = pd.DataFrame(rng.normal(size=(50, 2)), columns=["Größe", "κ"])
    frame["price"] = scale * (frame.sum(axis=1) + rng.normal(size=50))
    frame["kind"] = np.where(frame["price"] > 0, "ναι", "όχι")
    frame.to_csv(path, index=False)
    return path


def test_characters_that_the_output_lacks(tmp_path: Path) -> None:
    table = _table(tmp_path / "t.csv", 1.0)
    command = [sys.executable, "-m", "whence", "explain", str(table), "--row", "3", "-k", "1"]
    for options in (["-t", "kind", "--against"], ["-t", "price"]):
        if options[-1] == "--against":
            options.append("όχι" if pd.read_csv(table)["kind"][3] == "ναι" else "ναι")
        done = subprocess.run(
            [*command, *options],
            env={**os.environ, "PYTHONIOENCODING": "cp1252"},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert b"Traceback" not in done.stderr
        assert b"\\u2212" not in done.stdout  # a minus is one everywhere


@pytest.mark.parametrize("scale", [1e-9, 1e12])
def test_influence_shows_three_digits_at_any_scale(tmp_path: Path, scale: float) -> None:
    table = _table(tmp_path / "t.csv", scale)
    code, out, _ = run("influence", table, "-t", "price", "--row", 3, "-k", 2)
    assert code == 0
    shown = [line.split()[1] for line in out.splitlines() if "pushes it" in line]
    assert len(shown) == 4
    assert all(len(text) <= len("+1.234e+11") for text in shown)
    assert all(abs(float(text)) > scale / 1e4 for text in shown)


def test_standard_input_and_pipes_are_read(tmp_path: Path) -> None:
    """A table that can be read but once gives what the file gives."""
    table = _table(tmp_path / "t.csv", 1.0)
    ask = ["-t", "price", "--row", "3", "-k", "1"]
    expected = run("explain", table, *ask)[1]
    script = (
        "import sys, tempfile; from whence.cli import main\n"
        f"tempfile.tempdir = {str(tmp_path)!r}\n"
        f"sys.argv = ['whence', 'explain', sys.argv[1], *{ask!r}]\nmain()"
    )
    for source in ("-", "/dev/stdin"):
        with table.open("rb") as file:
            done = subprocess.run(
                [sys.executable, "-c", script, source],
                input=file.read(),
                capture_output=True,
                check=False,
            )
        assert done.returncode == 0, done.stderr
        assert done.stdout.decode() == expected
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]  # nothing is left behind


def test_a_number_where_rows_have_names_says_what_goes_by_number(tmp_path: Path) -> None:
    table = _table(tmp_path / "t.csv", 1.0)
    frame = pd.read_csv(table)
    frame.insert(0, "name", [f"N{i}" for i in range(len(frame))])
    frame.to_csv(table, index=False)
    ask = ("explain", table, "-t", "kind", "--ids", "name", "--row")
    code, _, err = run(*ask, 3)
    assert code == 1
    assert "such as 'N0'. Got '3'. Leave out --ids, if it was given, to go by numbers" in err
    assert "Leave out" not in run(*ask, "Nx")[2]
