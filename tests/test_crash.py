"""The short form of `make crash`: each fault once, at each of the works in turn."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.crash import mounting


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked and killed")
def test_each_fault_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHENCE_MOUNTS", "")  # which `mounting` sets, and which ends with the test
    command = [*mounting(), sys.executable, "-m", "tests.crash", "--points", "12", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    assert "Violations: 0." in done.stdout
