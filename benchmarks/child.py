"""One method in a process of its own: `python -m benchmarks.child '{"workload": "w1", ...}'`.

Writes the scores and the measurements where it is told; the parent compares with the truth, so that
neither its memory nor its time is counted.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import device_peak_bytes, wait_for


def main() -> None:
    """Measure, and write."""
    asked: dict[str, Any] = json.loads(sys.argv[1])
    torch.set_num_threads(asked["threads"])
    if asked["memory_mb"]:
        limit = int(asked["memory_mb"]) * 2**20
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    workload = import_module(f"benchmarks.workloads.{asked['workload']}")
    adapter = import_module(f"benchmarks.peers.{asked['library']}")
    out = Path(asked["out"])
    problem = workload.problem(asked["queries"], Path(asked["bank"]), Path.cwd())
    device = asked["device"]
    if device != "cpu":
        problem = problem.on(device)
    wait_for(device)  # its start is no method's time
    torch.manual_seed(0)
    start = time.perf_counter()
    ask = adapter.METHODS[asked["method"]](problem, asked["setting"])
    del problem  # what the method did not keep is not charged to it
    wait_for(device)
    prepared = time.perf_counter()
    scores = ask()
    answered = time.perf_counter()
    found = {
        "prepare_s": prepared - start,
        "query_s": answered - prepared,
        "peak_mb": peak_bytes() / 2**20,
        "device_peak_mb": device_peak_bytes(device) / 2**20 if device != "cpu" else None,
    }
    np.save(out / "scores.npy", np.asarray(scores))
    (out / "found.json").write_text(json.dumps(found))


def peak_bytes() -> float:
    """Return the most memory that was resident at once.

    On Linux from the kernel's high-water mark of this program: `ru_maxrss` begins with what the
    parent had when it started this process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text().splitlines()
        return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(size if sys.platform == "darwin" else 1024 * size)


if __name__ == "__main__":
    main()
