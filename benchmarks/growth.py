"""How do time and memory grow with training examples, parameters and queries?

`python -m benchmarks growth`: influence of a softmax regression of 10 classes on random rows, by
conjugate gradients, by a Cholesky factor, by EKFAC, by projected gradients, and by an index of
them that is built and asked; the scores of boosted trees, 4 retrainings on halves included; each
point in a process of its own, best of two, one size changed and the others held at n = 8,000,
p = 1,280 and 10 queries. Then rows that stay on disk, up to ten times the memory that the process
may take: a logistic regression, exactly, EKFAC of a network, and a query of an index. A quarter of
an hour, and 10 GB of disk for a while; `--only boosting index` measures these methods again.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from tqdm import tqdm

import whence
from benchmarks import machine
from benchmarks.child import peak_bytes
from benchmarks.index import written
from whence.index.format import Manifest
from whence.index.scan import scan
from whence.linalg import Cholesky
from whence.linalg.solver import Solver

Floats = NDArray[np.float64]

CLASSES, THREADS, REPEATS = 10, 2, 2
BASE = {"training examples": 8_000, "parameters": 1_280, "queries": 10}
SIZES = {
    "training examples": (4_000, 16_000, 64_000, 256_000),
    "parameters": (320, 1_280, 2_560, 5_120),
    "queries": (10, 100, 1_000, 4_000),
}
DISK, GIGABYTES, LIMIT_GB, WIDTH, INDEX_WIDTH = "gigabytes on disk", (1, 3, 10), 1, 1_000, 1_024
Run = Callable[["Problem"], Callable[[], object]]  # what is timed, of a problem that is not
BOTH_WAYS = ("training examples", "queries")  # of methods that do not see parameters


@dataclass(frozen=True)
class Problem:
    """Random rows, queries, and a softmax regression that is not fitted to them."""

    rows: tuple[Floats, NDArray[np.intp]]
    queries: tuple[Floats, NDArray[np.intp]]
    coef: Floats

    @classmethod
    def of(cls, sizes: dict[str, int]) -> Problem:
        """Return the problem of these sizes, the same at every call."""
        rng = np.random.default_rng(0)
        n, q, d = sizes["training examples"], sizes["queries"], sizes["parameters"] // CLASSES
        return cls(
            rows=(rng.normal(size=(n, d)) / np.sqrt(d), rng.integers(CLASSES, size=n)),
            queries=(rng.normal(size=(q, d)) / np.sqrt(d), rng.integers(CLASSES, size=q)),
            coef=rng.normal(size=(CLASSES, d)),
        )

    def model(self) -> LogisticRegression:
        """Return the regression as scikit-learn has it."""
        n, d = self.rows[0].shape
        model = LogisticRegression(C=1 / (0.01 * n), fit_intercept=False)
        model.classes_, model.coef_ = np.arange(CLASSES), self.coef
        model.intercept_, model.n_features_in_ = np.zeros(CLASSES), d
        return model

    def layer(self) -> Any:
        """Return the objective of the regression as a network."""
        layer = torch.nn.Linear(self.coef.shape[1], CLASSES, bias=False)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(self.coef))
        return whence.from_torch(layer, whence.CrossEntropy(), tensors(self.rows), l2=0.01)


def tensors(rows: tuple[Floats, NDArray[np.intp]]) -> tuple[Tensor, Tensor]:
    """Return rows as a network reads them."""
    return torch.from_numpy(rows[0]).float(), torch.from_numpy(rows[1])


def by_solver(solver: Solver) -> Run:
    """Return what times influence of the linear model by a solver."""

    def run(problem: Problem) -> Callable[[], object]:
        objective = whence.from_sklearn(problem.model(), *problem.rows)
        return lambda: whence.influence(objective, problem.queries, solver=solver, damping=0.0)

    return run


def by_ekfac(problem: Problem) -> Callable[[], object]:
    """Return what times influence of the network by EKFAC."""
    objective, queries = problem.layer(), tensors(problem.queries)
    return lambda: whence.influence(objective, queries, solver=whence.EKFAC(), damping=0.0)


def projected(problem: Problem) -> Callable[[], object]:
    """Return what times scores of the network by projected gradients."""
    objective, queries = problem.layer(), tensors(problem.queries)
    return lambda: whence.Projected().fit(objective).scores(queries).values


def index(problem: Problem) -> Callable[[], object]:
    """Return what times an index of the network's projected gradients, built and asked once."""
    objective, queries = problem.layer(), tensors(problem.queries)

    def built_and_asked() -> None:
        with tempfile.TemporaryDirectory() as folder:
            whence.Index.build(objective, folder).query(queries, k=10)

    return built_and_asked


def boosting(problem: Problem) -> Callable[[], object]:
    """Return what times scores of boosted trees, 4 retrainings on halves included."""
    x, y = problem.rows
    model = HistGradientBoostingClassifier(max_iter=20, early_stopping=False, random_state=0)
    trained = whence.from_sklearn(model.fit(x, y % 2), x, y % 2)
    queries = problem.queries[0], problem.queries[1] % 2
    return lambda: whence.Boosting(ensemble=4).fit(trained).scores(queries).values


METHODS: dict[str, tuple[Run, tuple[str, ...]]] = {
    "CG": (by_solver(whence.CG(rtol=1e-6)), tuple(SIZES)),
    "Cholesky": (by_solver(Cholesky()), tuple(SIZES)),
    "EKFAC": (by_ekfac, tuple(SIZES)),
    "projected": (projected, tuple(SIZES)),
    "index": (index, tuple(SIZES)),
    "boosting": (boosting, BOTH_WAYS),
}


def point(method: str, sizes: dict[str, int]) -> dict[str, float]:
    """Measure one point in this process."""
    torch.set_num_threads(THREADS)
    run, times = METHODS[method][0], []
    for _ in range(REPEATS):
        timed = run(Problem.of(sizes))
        start = time.perf_counter()
        timed()
        times.append(time.perf_counter() - start)
    return {"seconds": min(times), "peak_mb": peak_bytes() / 2**20}


def limited(method: str, gigabytes: int, place: Path) -> dict[str, float]:
    """Measure a method on data on disk, in this process, which may not take more than a limit."""
    torch.set_num_threads(THREADS)
    limit = LIMIT_GB * 10**9
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    timed = STREAMED[method].run(gigabytes, place)
    start = time.perf_counter()
    with _anonymous_peak() as peak:
        timed()
    return {"seconds": time.perf_counter() - start, "peak_mb": max(peak)}


def rows_on_disk(gigabytes: int, place: Path) -> NDArray[Any]:
    """Return the first rows of a file, none of them in memory."""
    whole = np.load(place / "rows.npy", mmap_mode="r")
    part: NDArray[Any] = whole[: gigabytes * 10**9 // (WIDTH * whole.itemsize)]
    return part


def exact_on_disk(gigabytes: int, place: Path) -> Callable[[], object]:
    """Return what times the exact influence of a logistic regression."""
    x = rows_on_disk(gigabytes, place)
    y = np.random.default_rng(0).integers(2, size=len(x))
    model = LogisticRegression(C=1 / (0.01 * len(x)))
    model.classes_, model.coef_ = np.arange(2), np.zeros((1, WIDTH))
    model.intercept_, model.n_features_in_ = np.zeros(1), WIDTH
    objective = whence.from_sklearn(model, x, y)
    return lambda: whence.influence(objective, (x[:10].copy(), y[:10]))


def ekfac_on_disk(gigabytes: int, place: Path) -> Callable[[], object]:
    """Return what times influence of a network by EKFAC."""
    x = rows_on_disk(gigabytes, place)
    y = np.random.default_rng(0).integers(CLASSES, size=len(x))
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Linear(WIDTH, 64), torch.nn.Tanh(), torch.nn.Linear(64, CLASSES)
    )
    objective = whence.from_torch(network, whence.CrossEntropy(), (x, y), l2=0.01)
    return lambda: whence.influence(objective, (x[:10].copy(), y[:10]), solver=whence.EKFAC())


def index_on_disk(gigabytes: int, place: Path) -> Callable[[], object]:
    """Return what times a query of an index of synthetic rows."""
    whole = Manifest.read(place)
    rows = gigabytes * 10**9 // (2 * INDEX_WIDTH)
    shards = tuple(shard for shard in whole.shards if shard.first + shard.rows <= rows)
    manifest = replace(whole, shards=shards)
    queries = torch.randn(10, INDEX_WIDTH, generator=torch.Generator().manual_seed(1))
    return lambda: scan(place, manifest, queries, 100, np.empty(0, dtype=np.intp))


def file_of(dtype: type) -> Callable[[Path], None]:
    """Return what writes rows of random numbers to disk, the same block again and again."""

    def write(place: Path) -> None:
        shape = max(GIGABYTES) * 10**9 // (WIDTH * np.dtype(dtype).itemsize), WIDTH
        rows = np.lib.format.open_memmap(place / "rows.npy", mode="w+", dtype=dtype, shape=shape)
        rng = np.random.default_rng(0)
        block = rng.standard_normal((10_000, WIDTH), dtype=np.float32).astype(dtype) / WIDTH**0.5
        for start in range(0, len(rows), len(block)):
            rows[start : start + len(block)] = block[: len(rows) - start]
        rows.flush()

    return write


def index_files(place: Path) -> None:
    """Write an index of synthetic rows."""
    written(place, "float16", max(GIGABYTES) * 10**9 // (2 * INDEX_WIDTH), INDEX_WIDTH)


@dataclass(frozen=True)
class OnDisk:
    """What is written to disk, and what is timed on the first gigabytes of it."""

    write: Callable[[Path], None]
    run: Callable[[int, Path], Callable[[], object]]


STREAMED = {
    "exact": OnDisk(file_of(np.float64), exact_on_disk),
    "EKFAC": OnDisk(file_of(np.float32), ekfac_on_disk),
    "index": OnDisk(index_files, index_on_disk),
}


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


def measured(names: Sequence[str], known: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Measure all points of the named methods, each in its own process; keep the other series."""
    found = {(each["method"], each["axis"]): each for each in known}
    points = [(name, axis) for name, (_, axes) in METHODS.items() for axis in axes if name in names]
    for name, axis in tqdm(points, desc="growth", disable=None):
        each = [_apart({"method": name, "sizes": {**BASE, axis: size}}) for size in SIZES[axis]]
        found[name, axis] = _series(name, axis, SIZES[axis], each)
    for name in [name for name in STREAMED if name in names]:
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            STREAMED[name].write(Path(folder))
            os.sync()  # else the disk goes on writing while it is read
            each = [
                _apart({"method": name, "gigabytes": size, "place": folder}) for size in GIGABYTES
            ]
        found[name, DISK] = _series(name, DISK, GIGABYTES, each)
    axes = (*SIZES, DISK)
    return {
        "machine": machine.described(THREADS),
        "base": BASE,
        "limit_gb": LIMIT_GB,
        "series": sorted(found.values(), key=lambda each: axes.index(each["axis"])),
    }


def main(arguments: Sequence[str]) -> int:
    """Measure and keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks growth", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=sorted({*METHODS, *STREAMED}))
    asked = parser.parse_args(arguments)
    path = Path(__file__).parent / "results" / "growth.json"
    known = json.loads(path.read_text())["series"] if asked.only and path.exists() else []
    path.write_text(
        json.dumps(measured(asked.only or [*METHODS, *STREAMED], known), indent=1) + "\n"
    )
    print(f"Wrote {path}.")
    return 0


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    if "place" in asked:
        print(json.dumps(limited(asked["method"], asked["gigabytes"], Path(asked["place"]))))
    else:
        print(json.dumps(point(asked["method"], asked["sizes"])))
