"""The reference of the command line says what --help says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import typer

from tests.command_line import run
from whence.cli import app

_REPOSITORY = Path(__file__).parent.parent


def test_page_is_what_the_commands_say() -> None:
    command = [sys.executable, "-m", "typer", "whence.cli", "utils", "docs"]
    made = subprocess.run(
        [*command, "--name", "whence"], cwd=_REPOSITORY, capture_output=True, text=True, check=True
    )
    page = (_REPOSITORY / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    assert page.split() == made.stdout.split(), "run `make docs`"


def test_lines_of_help_fit_a_terminal() -> None:
    """Typer keeps the ends of lines: a longer one is broken twice on a terminal of 80 columns."""
    group: Any = typer.main.get_command(app)
    commands = {**group.commands, **group.commands["index"].commands}
    for name, command in commands.items():
        for paragraph in (command.help or "").split("\n\n")[1:]:
            lines = paragraph.replace("\\[", "[").splitlines()
            assert len(lines) == 1 or max(map(len, lines)) <= 78, name


def test_an_extra_in_brackets_is_shown() -> None:
    """Brackets are markup to what prints the help, unless they are escaped."""
    words = " ".join(run("explore", "--help")[1].split())
    assert "pip install 'whence-attribution[explore]'" in words


def test_what_is_to_be_installed_is_this_package() -> None:
    """`whence` on the package index is another project."""
    pages = [_REPOSITORY / "README.md", *(_REPOSITORY / "docs").rglob("*.md")]
    sources = (_REPOSITORY / "src").rglob("*.py")
    for path in (*pages, *sources):
        text = path.read_text(encoding="utf-8").replace("\\", "")
        for named, quoted in re.findall(r"pip install ([\"']?)(whence\S*)", text):
            assert quoted.startswith("whence-attribution["), f"{path}: pip install {quoted}"
            assert named, f"{path}: a shell may read the brackets of {quoted}"
