"""How do time and memory grow with training examples, parameters and queries?

`python -m benchmarks growth`: influence of a softmax regression of 10 classes on random rows, by
conjugate gradients, by a Cholesky factor and by EKFAC; each point in a process of its own, best of
two, one size changed and the others held at n = 8,000, p = 1,280 and 10 queries. Then rows that
stay on disk, up to ten times the memory that the process may take: a logistic regression, exactly,
and EKFAC of a network. Minutes, and 10 GB of disk for a while.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

import whence
from benchmarks import machine
from benchmarks.child import peak_bytes
from whence.linalg import Cholesky

CLASSES, THREADS, REPEATS = 10, 2, 2
BASE = {"training examples": 8_000, "parameters": 1_280, "queries": 10}
SIZES = {
    "training examples": (4_000, 16_000, 64_000, 256_000),
    "parameters": (320, 1_280, 2_560, 5_120),
    "queries": (10, 100, 1_000, 4_000),
}
STREAMED, GIGABYTES, LIMIT_GB, WIDTH = "gigabytes on disk", (1, 3, 10), 1, 1_000
SOLVERS = {"CG": whence.CG(rtol=1e-6), "Cholesky": Cholesky(), "EKFAC": whence.EKFAC()}


def point(method: str, sizes: dict[str, int]) -> dict[str, float]:
    """Measure one point in this process."""
    torch.set_num_threads(THREADS)
    rng = np.random.default_rng(0)
    n, q, d = sizes["training examples"], sizes["queries"], sizes["parameters"] // CLASSES
    x, y = rng.normal(size=(n, d)) / np.sqrt(d), rng.integers(CLASSES, size=n)
    asked = rng.normal(size=(q, d)) / np.sqrt(d), rng.integers(CLASSES, size=q)
    coef = rng.normal(size=(CLASSES, d))
    times = []
    for _ in range(REPEATS):
        if method == "EKFAC":
            layer = torch.nn.Linear(d, CLASSES, bias=False)
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(coef))
            data = torch.from_numpy(x).float(), torch.from_numpy(y)
            queries: Any = torch.from_numpy(asked[0]).float(), torch.from_numpy(asked[1])
            objective: Any = whence.from_torch(layer, whence.CrossEntropy(), data, l2=0.01)
        else:
            model = LogisticRegression(C=1 / (0.01 * n), fit_intercept=False)
            model.classes_, model.coef_ = np.arange(CLASSES), coef
            model.intercept_, model.n_features_in_ = np.zeros(CLASSES), d
            objective, queries = whence.from_sklearn(model, x, y), asked
        start = time.perf_counter()
        whence.influence(objective, queries, solver=SOLVERS[method], damping=0.0)
        times.append(time.perf_counter() - start)
    return {"seconds": min(times), "peak_mb": peak_bytes() / 2**20}


def streamed(method: str, gigabytes: int, path: Path) -> dict[str, float]:
    """Measure influence of rows on disk, in this process, which may not take more than a limit."""
    torch.set_num_threads(THREADS)
    limit = LIMIT_GB * 10**9
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    whole = np.load(path, mmap_mode="r")
    x = whole[: gigabytes * 10**9 // (WIDTH * whole.itemsize)]
    rng = np.random.default_rng(0)
    classes = 2 if method == "exact" else CLASSES
    y, asked = rng.integers(classes, size=len(x)), x[:10].copy()
    if method == "exact":
        model = LogisticRegression(C=1 / (0.01 * len(x)))
        model.classes_, model.coef_ = np.arange(2), np.zeros((1, WIDTH))
        model.intercept_, model.n_features_in_ = np.zeros(1), WIDTH
        objective: Any = whence.from_sklearn(model, x, y)
    else:
        torch.manual_seed(0)
        network = torch.nn.Sequential(
            torch.nn.Linear(WIDTH, 64), torch.nn.Tanh(), torch.nn.Linear(64, CLASSES)
        )
        objective = whence.from_torch(network, whence.CrossEntropy(), (x, y), l2=0.01)
    solver = None if method == "exact" else whence.EKFAC()
    start = time.perf_counter()
    with _anonymous_peak() as peak:
        whence.influence(objective, (asked, y[:10]), solver=solver)
    return {"seconds": time.perf_counter() - start, "peak_mb": max(peak)}


@contextmanager
def _anonymous_peak() -> Iterator[list[float]]:
    """Watch the memory, in MB, that is the process's own: pages of files can be dropped."""
    seen, stop = [0.0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            lines = Path("/proc/self/status").read_text().splitlines()
            seen.append(
                next(int(line.split()[1]) for line in lines if line[:7] == "RssAnon") / 1024
            )

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def _written(path: Path, dtype: type, gigabytes: int) -> None:
    """Write rows of random numbers to disk."""
    shape = gigabytes * 10**9 // (WIDTH * np.dtype(dtype).itemsize), WIDTH
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    rng = np.random.default_rng(0)
    block = rng.standard_normal((10_000, WIDTH), dtype=np.float32).astype(dtype) / WIDTH**0.5
    for start in range(0, len(rows), len(block)):
        rows[start : start + len(block)] = block[: len(rows) - start]
    rows.flush()


def _apart(spec: dict[str, Any]) -> dict[str, float]:
    """Measure a point in a new process."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.growth", json.dumps(spec)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _series(method: str, axis: str, sizes: Sequence[int], found: Any) -> dict[str, Any]:
    return {
        "method": method,
        "axis": axis,
        "sizes": list(sizes),
        "seconds": [item["seconds"] for item in found],
        "peak_mb": [item["peak_mb"] for item in found],
    }


def measured() -> dict[str, Any]:
    """Measure all points, each in its own process."""
    series = []
    points = [(method, axis) for method in SOLVERS for axis in SIZES]
    for method, axis in tqdm(points, desc="growth", disable=None):
        found = [_apart({"method": method, "sizes": {**BASE, axis: size}}) for size in SIZES[axis]]
        series.append(_series(method, axis, SIZES[axis], found))
    for method, dtype in (("exact", np.float64), ("EKFAC", np.float32)):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.npy"
            _written(path, dtype, max(GIGABYTES))
            found = [
                _apart({"method": method, "gigabytes": size, "path": str(path)})
                for size in GIGABYTES
            ]
        series.append(_series(method, STREAMED, GIGABYTES, found))
    return {
        "machine": machine.described(THREADS),
        "base": BASE,
        "limit_gb": LIMIT_GB,
        "series": series,
    }


def main(arguments: Sequence[str]) -> int:
    """Measure and keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks growth", description=__doc__)
    parser.parse_args(arguments)
    path = Path(__file__).parent / "results" / "growth.json"
    path.write_text(json.dumps(measured(), indent=1) + "\n")
    print(f"Wrote {path}.")
    return 0


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    if "path" in asked:
        print(json.dumps(streamed(asked["method"], asked["gigabytes"], Path(asked["path"]))))
    else:
        print(json.dumps(point(asked["method"], asked["sizes"])))
