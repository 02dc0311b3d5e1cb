"""What the machine is, and how fast: the floor under every timing."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

import torch

_SIZE, _REPEATS = 2500, 5


def described(threads: int) -> dict[str, Any]:
    """Return processor, cores and memory, and the rates measured now with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_gb": round(physical_memory() / 2**30, 1),
            "float32_gflops": round(product_rate(torch.float32) / 1e9, 1),
            "float64_gflops": round(product_rate(torch.float64) / 1e9, 1),
            "bandwidth_gbs": round(bandwidth() / 1e9, 1),
            "torch": torch.__version__,
        }
    finally:
        torch.set_num_threads(before)


def product_rate(dtype: torch.dtype) -> float:
    """Return operations per second of a large matrix product, the best of five."""
    a = torch.randn(_SIZE, _SIZE, dtype=dtype)
    return float(2 * _SIZE**3 / _best(lambda: a @ a))


def bandwidth() -> float:
    """Return bytes per second read by the sum of a large vector, the best of five."""
    a = torch.ones(2**26)
    return float(a.nbytes / _best(lambda: a.sum()))


def physical_memory() -> int:
    """Return bytes of memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _best(function: Any) -> float:
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
