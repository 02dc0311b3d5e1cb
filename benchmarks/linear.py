"""What exact influence costs for linear models: MNIST softmax and Enron bag of words.

MNIST: 55,000 x 784 pixels, 10 classes, p = 7,840, l2 0.01, no intercept, fitted with scikit-learn.
Times are set beside the floor of their floating-point operations at the matrix-product rate that
was measured in the same run. Enron: 4,137 messages x all 39,918 words, sparse. Needs WHENCE_DATA.

Run it with `python -m benchmarks.linear`; about 6 minutes on two cores.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

import whence
from experiments import datasets
from whence.linalg import CG
from whence.objective.linear import LinearObjective

T = TypeVar("T")


def timed(function: Callable[[], T]) -> tuple[T, float]:
    """Return a function's result and its wall time in seconds."""
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def product_rate() -> float:
    """Return float64 operations per second of a large matrix product, the best of five."""
    a = torch.randn(2500, 2500, dtype=torch.float64)
    return 2 * 2500**3 / min(timed(lambda: a @ a)[1] for _ in range(5))


def peak_gigabytes() -> float:
    """Return the process's peak memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def fitted() -> tuple[LinearObjective, datasets.Split]:
    """Return MNIST softmax as fitted by scikit-learn, polished to its optimum."""
    mnist = datasets.mnist()
    n = len(mnist.x_train)
    model = LogisticRegression(C=1 / (0.01 * n), fit_intercept=False, tol=1e-7, max_iter=2000)
    model.fit(mnist.x_train, mnist.y_train)
    return whence.from_sklearn(model, mnist.x_train, mnist.y_train), mnist


def mnist_rows() -> dict[str, object]:
    """Measure the MNIST questions."""
    objective, mnist = fitted()
    n, d, c = 55_000, 784, 10
    p = d * c
    row: dict[str, object] = {}

    def queries(k: int) -> tuple[np.ndarray, np.ndarray]:
        return mnist.x_test[:k], mnist.y_test[:k]

    one = mnist.x_test[8:9], mnist.y_test[8:9]
    scores, row["one query, s"] = timed(lambda: whence.influence(objective, one))
    row["one query, solver"] = scores.diagnostics.solver if scores.diagnostics else ""
    some, row["100 queries, s"] = timed(lambda: whence.influence(objective, queries(100)))
    rate = product_rate()
    many, seconds = timed(lambda: whence.influence(objective, queries(1000)))
    operations = c * (c + 1) * n * d * d + p**3 / 3 + 2 * p * p * 1000 + 2 * n * p * 1000
    row["1,000 queries, s"] = seconds
    row["1,000 queries, floor at the measured rate, s"] = operations / rate
    row["1,000 queries, times the floor"] = seconds * rate / operations
    row["float64 rate, GFLOP/s"] = rate / 1e9
    exact = whence.influence(objective, one)  # by the factor that is kept now
    error = np.linalg.norm(scores.values - exact.values) / np.linalg.norm(exact.values)
    row["one query, relative error against the factor"] = float(error)
    independent = whence.influence(objective, queries(3), solver=CG(rtol=1e-11)).values
    error = np.linalg.norm(many.values[:3] - independent) / np.linalg.norm(independent)
    row["1,000 queries, relative error against conjugate gradients at 1e-11"] = float(error)
    error = np.linalg.norm(some.values - many.values[:100]) / np.linalg.norm(some.values)
    row["100 queries, relative error against the factor"] = float(error)
    del many, some
    where = exact.largest(500).positions[0]
    objective = objective.at(objective.params)  # nothing prepared: the factor is paid again
    actual, row["500 retrainings, s"] = timed(lambda: whence.leave_one_out(objective, where, one))
    for order in ("first", "newton", "refined"):
        predicted = whence.influence(objective, one, order=order, indices=where).values
        row[f"{order}: R"] = float(np.corrcoef(predicted[0], actual[0])[0, 1])
        row[f"{order}: slope"] = float(np.polyfit(predicted[0], actual[0], 1)[0])
    row["peak memory, GB"] = peak_gigabytes()
    return row


def enron_row() -> dict[str, object]:
    """Measure self-influence of all Enron training messages, sparse."""
    enron = datasets.enron_bag_of_words(min_documents=1)
    x, y = enron.x_train, enron.y_train
    model = LogisticRegression(C=1 / (1e-4 * len(y)), tol=1e-8, max_iter=10_000).fit(x, y)
    _, seconds = timed(lambda: whence.self_influence(whence.from_sklearn(model, x, y)))
    return {"Enron shape": list(x.shape), "Enron self-influence of all, s": seconds}


def main() -> None:
    """Print the numbers and keep them."""
    rows = {**enron_row(), **mnist_rows()}
    for name, value in rows.items():
        print(f"{name:<70} {value:.6g}" if isinstance(value, float) else f"{name:<70} {value}")
    target = Path(__file__).parent / "results" / "linear.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps({"threads": torch.get_num_threads(), **rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
