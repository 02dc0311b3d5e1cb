"""The command line called in the process of the tests."""

from __future__ import annotations

import contextlib
import io
import sys

from whence.cli import main


def run(*arguments: object) -> tuple[int, str, str]:
    """Run the command line in this process, and return its status with what it printed."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["whence", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as stop:
        return (stop.code if isinstance(stop.code, int) else 0), out.getvalue(), err.getvalue()
    finally:
        sys.argv = before
    return 0, out.getvalue(), err.getvalue()
