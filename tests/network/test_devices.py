"""Networks on a device other than the CPU give what they give on the CPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import far_device

_ASKED = f"""
import torch
from {far_device.__name__} import main, register
register()
x = torch.ones(2).to('far')
for forbidden in (x.numpy, lambda: x + torch.ones(2)):
    try:
        forbidden()
    except (TypeError, RuntimeError):
        print('refused')
print((x + x).cpu().tolist(), x.device, flush=True)
main()
"""


@pytest.fixture(scope="module")
def printed() -> list[str]:
    """In a process of its own: a device is registered once, and for all that runs in a process."""
    done = subprocess.run(
        [sys.executable, "-c", _ASKED],
        cwd=Path(far_device.__file__).parent.parent,
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 3 + len(far_device.ASKED), done.stderr[-2000:]
    return lines


def test_the_device_is_as_strict_as_a_gpu(printed: list[str]) -> None:
    """Else the test below would pass whatever whence does."""
    assert printed[:3] == ["refused", "refused", "[2.0, 2.0] far:0"]


def test_a_device_gives_what_the_cpu_gives(printed: list[str]) -> None:
    assert not [line for line in printed[3:] if not line.endswith(": the same")]
