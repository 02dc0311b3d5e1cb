"""How do time and memory grow with training examples, parameters and queries?

`python -m benchmarks growth`: influence of a softmax regression of 10 classes on random rows, by
conjugate gradients, by a Cholesky factor and by EKFAC; each point in a process of its own, best of
two, one size changed and the others held at n = 8,000, p = 1,280 and 10 queries. Minutes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
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


def measured() -> dict[str, Any]:
    """Measure all points, each in its own process."""
    series = []
    points = [(method, axis) for method in SOLVERS for axis in SIZES]
    for method, axis in tqdm(points, desc="growth", disable=None):
        found = []
        for size in SIZES[axis]:
            spec = json.dumps({"method": method, "sizes": {**BASE, axis: size}})
            command = [sys.executable, "-W", "ignore", "-m", "benchmarks.growth", spec]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
        series.append(
            {
                "method": method,
                "axis": axis,
                "sizes": list(SIZES[axis]),
                "seconds": [item["seconds"] for item in found],
                "peak_mb": [item["peak_mb"] for item in found],
            }
        )
    return {"machine": machine.described(THREADS), "base": BASE, "series": series}


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
    print(json.dumps(point(asked["method"], asked["sizes"])))
