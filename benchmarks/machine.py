"""What the machine is, and how fast: the floor under every timing."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

import torch

_SIZE, _REPEATS = 2500, 5


def described(threads: int, device: str = "cpu") -> dict[str, Any]:
    """Return processor, cores and memory, and the rates measured now with so many threads.

    On a GPU its name and memory are added, and the rates are its own.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_gb": round(physical_memory() / 2**30, 1),
            "float32_gflops": round(product_rate(torch.float32, device) / 1e9, 1),
            "float64_gflops": round(product_rate(torch.float64, device) / 1e9, 1),
            "bandwidth_gbs": round(bandwidth(device) / 1e9, 1),
            "torch": torch.__version__,
            **_of_device(device),
        }
    finally:
        torch.set_num_threads(before)


def product_rate(dtype: torch.dtype, device: str = "cpu") -> float:
    """Return operations per second of a large matrix product, the best of five."""
    size = _SIZE if device == "cpu" else 4 * _SIZE
    a = torch.randn(size, size, dtype=dtype, device=device)
    return float(2 * size**3 / _best(lambda: (a @ a)[0, 0].item()))


def bandwidth(device: str = "cpu") -> float:
    """Return bytes per second read by the sum of a large vector, the best of five."""
    a = torch.ones(2**26 if device == "cpu" else 2**30, device=device)
    return float(a.nbytes / _best(lambda: a.sum().item()))


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


def wait_for(device: str) -> None:
    """Wait until a device has done all that it was told; its libraries are loaded then."""
    if device == "cpu":
        return
    a = torch.ones(256, 256, device=device)
    float((a @ a).sum())
    torch.cuda.synchronize(device)


def device_peak_bytes(device: str) -> int:
    """Return the most memory that tensors took at once on a GPU, since the last such call."""
    peak = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return peak


def name_of(device: str) -> str:
    """Return the name of a GPU; nothing for the CPU."""
    return "" if device == "cpu" else torch.cuda.get_device_name(device)


def _of_device(device: str) -> dict[str, Any]:
    if device == "cpu":
        return {}
    memory = torch.cuda.get_device_properties(device).total_memory
    return {"device": name_of(device), "device_memory_gb": round(memory / 2**30, 1)}


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
