"""What exact influence costs for linear models: MNIST softmax and Enron bag of words.

MNIST: 55,000 x 784 pixels, 10 classes, p = 7,840, l2 0.01, no intercept, fitted with scikit-learn.
Each number of queries is asked in a process of its own, preparation included, with the process's
peak memory, and compared with conjugate gradients in float64 to 1e-10 on the first ten queries.
Beside wall times stand the processor seconds of all threads, which other work on the machine
changes little, and their floor: the floating-point operations at the float32 matrix-product rate
measured in the same process. Enron: 4,137 messages x all 39,918 words, sparse. Needs WHENCE_DATA.

Run it with `python -m benchmarks.linear`; about 4 minutes on two cores.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

import whence
from experiments import datasets
from whence.adapters.sklearn import linear_objective
from whence.linalg import CG
from whence.linear.objective import LinearObjective

T = TypeVar("T")
Row = dict[str, object]

_N, _D, _C = 55_000, 784, 10
_COMPARED = 10  # queries with a float64 answer to compare with
_REFITS = 3  # of scikit-learn, whose mean stands for all 500


@dataclass(frozen=True)
class Seconds:
    """What something took.

    Args:
        wall: Time on the clock.
        cpu: Processor time of all threads.
    """

    wall: float
    cpu: float

    def row(self, name: str) -> Row:
        """Return both under a name."""
        return {f"{name}, s": self.wall, f"{name}, processor s": self.cpu}


def timed(function: Callable[[], T]) -> tuple[T, Seconds]:
    """Return a function's result and its seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    return result, Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def product_rate(dtype: torch.dtype) -> float:
    """Return operations per processor second of a large matrix product, the best of five."""
    a = torch.randn(2500, 2500, dtype=dtype)
    return 2 * 2500**3 / min(timed(lambda: a @ a)[1].cpu for _ in range(5))


def peak_gigabytes() -> float:
    """Return the process's peak memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def relative_error(values: np.ndarray, truth: np.ndarray) -> float:
    """Return the largest relative error of any query's scores."""
    return float(np.max(np.linalg.norm(values - truth, axis=1) / np.linalg.norm(truth, axis=1)))


def fitted(folder: Path) -> tuple[LinearObjective, datasets.Split]:
    """Return the MNIST objective that `fit` left in the folder, and the data."""
    model = pickle.loads((folder / "model.pkl").read_bytes())
    mnist = datasets.mnist()
    return linear_objective(model, mnist.x_train, mnist.y_train), mnist


def fit(folder: Path) -> Row:
    """Fit MNIST softmax, and keep the model."""
    mnist = datasets.mnist()
    model = LogisticRegression(C=1 / (0.01 * _N), fit_intercept=False, tol=1e-7, max_iter=2000)
    _, seconds = timed(lambda: model.fit(mnist.x_train, mnist.y_train))
    (folder / "model.pkl").write_bytes(pickle.dumps(model))
    rates = {dtype: product_rate(dtype) / 1e9 for dtype in (torch.float32, torch.float64)}
    return {
        **seconds.row("scikit-learn's fit"),
        "float32 rate, GFLOP per processor second": rates[torch.float32],
        "float64 rate, GFLOP per processor second": rates[torch.float64],
    }


def reference(folder: Path) -> Row:
    """Keep the float64 answer of the first queries."""
    objective, mnist = fitted(folder)
    queries = mnist.x_test[:_COMPARED], mnist.y_test[:_COMPARED]
    truth, seconds = timed(lambda: whence.influence(objective, queries, solver=CG(rtol=1e-10)))
    np.save(folder / "truth.npy", truth.values)
    return seconds.row(f"{_COMPARED} queries in float64 by conjugate gradients to 1e-10")


def ask(folder: Path, k: int) -> Row:
    """Measure k queries, preparation included, in a fresh process."""
    objective, mnist = fitted(folder)
    scores, seconds = timed(
        lambda: whence.influence(objective, (mnist.x_test[:k], mnist.y_test[:k]))
    )
    peak = peak_gigabytes()
    assert scores.diagnostics is not None
    truth = np.load(folder / "truth.npy")
    name = f"{k:,} {'query' if k == 1 else 'queries'}"
    return {
        **seconds.row(name),
        f"{name}, peak memory, GB": peak,
        f"{name}, relative error": relative_error(scores.values[:_COMPARED], truth[:k]),
        f"{name}, residual": scores.diagnostics.residual,
        f"{name}, steps": scores.diagnostics.iterations,
        f"{name}, solver": scores.diagnostics.solver,
    }


def one(folder: Path) -> Row:
    """Measure one query."""
    return ask(folder, 1)


def hundred(folder: Path) -> Row:
    """Measure 100 queries."""
    return ask(folder, 100)


def thousand(folder: Path) -> Row:
    """Measure 1,000 queries, beside their floor."""
    row = ask(folder, 1000)
    p = _D * _C
    used = 717  # columns of MNIST that are not zero everywhere
    hessian = _C * (_C - 1) // 2 * _N * used * used  # symmetric: half of 2 n d² each
    scores = 2 * _N * used * (_C - 1) * 1000
    floor = (hessian + p**3 / 3 + 2 * p * p * 1000 + scores) / product_rate(torch.float32)
    seconds = row["1,000 queries, processor s"]
    assert isinstance(seconds, float)
    return {
        **row,
        "1,000 queries, floor, processor s": floor,
        "1,000 queries, times the floor": seconds / floor,
    }


def retrainings(folder: Path) -> Row:
    """Measure 500 leave-one-out retrainings beside scikit-learn's, and each order's accuracy."""
    objective, mnist = fitted(folder)
    query = mnist.x_test[8:9], mnist.y_test[8:9]
    where = whence.influence(objective, query).largest(500).positions[0]
    fresh, _ = fitted(folder)  # nothing prepared: the factor is paid again
    actual, seconds = timed(lambda: whence.leave_one_out(fresh, where, query))
    row = seconds.row("500 retrainings") | {"500 retrainings, peak memory, GB": peak_gigabytes()}
    for order in ("first", "newton", "refined"):
        predicted = whence.influence(fresh, query, order=order, indices=where).values[0]
        row[f"{order}: R"] = float(np.corrcoef(predicted, actual[0])[0, 1])
        row[f"{order}: slope"] = float(np.polyfit(predicted, actual[0], 1)[0])
    refits: list[Seconds] = []
    gaps = []
    for column, i in enumerate(where[:_REFITS]):
        model = pickle.loads((folder / "model.pkl").read_bytes())
        model.set_params(warm_start=True)
        before = _loss(model, query)
        x, y = np.delete(mnist.x_train, i, 0), np.delete(mnist.y_train, i)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            refits.append(timed(partial(model.fit, x, y))[1])
        gaps.append(abs(_loss(model, query) - before - actual[0, column]) / abs(actual[0, column]))
    wall, cpu = (
        float(np.mean([getattr(each, kind) for each in refits])) for kind in ("wall", "cpu")
    )
    return {
        **row,
        **Seconds(wall, cpu).row("scikit-learn's refit from a warm start at tol 1e-7"),
        "scikit-learn's refits, largest relative difference of the change": float(max(gaps)),
        "500 retrainings, times fewer processor s than scikit-learn's": 500 * cpu / seconds.cpu,
    }


def _loss(model: LogisticRegression, query: tuple[np.ndarray, np.ndarray]) -> float:
    """Return a model's loss on one query."""
    x, y = query
    return float(-model.predict_log_proba(x)[0, int(np.searchsorted(model.classes_, y[0]))])


def enron(folder: Path) -> Row:
    """Measure self-influence of all Enron training messages, sparse."""
    del folder
    data = datasets.enron_bag_of_words(min_documents=1)
    x, y = data.x_train, data.y_train
    model = LogisticRegression(C=1 / (1e-4 * len(y)), tol=1e-8, max_iter=10_000).fit(x, y)
    _, seconds = timed(lambda: whence.self_influence(whence.from_sklearn(model, x, y)))
    return {"Enron shape": list(x.shape), **seconds.row("Enron self-influence of all")}


TASKS: dict[str, Callable[[Path], Row]] = {
    task.__name__: task for task in (enron, fit, reference, one, hundred, thousand, retrainings)
}


def main() -> None:
    """Run each task in a process of its own; print the numbers and keep them."""
    rows: Row = {"threads": torch.get_num_threads(), "load before": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as folder:
        for task in TASKS:
            command = [sys.executable, "-m", "benchmarks.linear", task, folder]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            row = json.loads(output)
            for name, value in row.items():
                number = f"{value:.6g}" if isinstance(value, float) else value
                print(f"{name:<70} {number}", flush=True)
            rows.update(row)
    target = Path(__file__).parent / "results" / "linear.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(TASKS[sys.argv[1]](Path(sys.argv[2]))))
    else:
        main()
