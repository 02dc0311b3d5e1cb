"""The reference of the command line says what --help says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_REPOSITORY = Path(__file__).parent.parent


def test_page_is_what_the_commands_say() -> None:
    command = [sys.executable, "-m", "typer", "whence.cli", "utils", "docs"]
    made = subprocess.run(
        [*command, "--name", "whence"], cwd=_REPOSITORY, capture_output=True, text=True, check=True
    )
    page = (_REPOSITORY / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    assert page.split() == made.stdout.split(), "run `make docs`"
