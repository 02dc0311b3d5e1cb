"""Networks on a device other than the CPU give what they give on the CPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests import far_device


def test_a_device_gives_what_the_cpu_gives() -> None:
    """In a process of its own: a device is registered once, and for all that runs in a process."""
    done = subprocess.run(
        [sys.executable, "-m", far_device.__name__],
        cwd=Path(far_device.__file__).parent.parent,
        capture_output=True,
        text=True,
    )
    wrong = [line for line in done.stdout.splitlines() if not line.endswith(": the same")]
    assert not wrong
    assert len(done.stdout.splitlines()) == len(far_device.ASKED), done.stderr[-2000:]


def test_the_device_is_as_strict_as_a_gpu() -> None:
    """Else the test above would pass whatever whence does."""
    code = (
        "import torch\nfrom tests.far_device import register\nknown = register()\n"
        "x = torch.ones(2).to('far')\n"
        "for forbidden in (x.numpy, lambda: x + torch.ones(2)):\n"
        "    try:\n        forbidden()\n    except (TypeError, RuntimeError):\n"
        "        print('refused')\n"
        "print((x + x).cpu().tolist(), x.device)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(far_device.__file__).parent.parent,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == ["refused", "refused", "[2.0, 2.0] far:0"], done.stderr
