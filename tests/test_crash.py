"""The short form of `make crash`: each fault once, at each of the works in turn."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked and killed")
def test_each_fault_once() -> None:
    command = [sys.executable, "-m", "tests.crash", "--points", "12", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    assert "Violations: 0." in done.stdout
