"""How close are measures of a whole set to refitting, and how long do regression diagnostics take?

Gaussian problems of the sizes that pyinfluence 0.5 tests its functionals on: 150 training rows and
200 queries for the AUROC, 400 and 400 for the gaps, 100 and 80 for a ridge. The group moves the
first column. Actual changes are scikit-learn refits without each row; R is of all rows, the slope
that of actual on predicted. Then `whence.regression_diagnostics` of 50,000 rows and 20 columns:
seconds of processor time on one thread, the median of five.

Run it with `OMP_NUM_THREADS=1 python -m benchmarks.measures`.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from tqdm import tqdm

import whence
from whence import measures
from whence.methods.prediction import Order

_ORDERS: tuple[Order, ...] = ("first", "newton", "refined")
_LOGISTIC = LogisticRegression(tol=1e-10, max_iter=5000)
Array = NDArray[Any]


def problem(n: int, p: int, q: int, *, classes: bool) -> tuple[Array, Array, Array, Array, Array]:
    """Return training rows, targets, queries, their targets and their groups."""
    rng = np.random.default_rng(0)
    beta = rng.normal(size=p)
    group = (rng.uniform(size=n + q) < 0.4).astype(int)
    x = rng.normal(size=(n + q, p))
    x[:, 0] += group
    y = x @ beta + rng.normal(size=n + q)
    y = (y > np.median(y)).astype(int) if classes else y
    return x[:n], y[:n], x[n:], y[n:], group[n:]


def compare(model: Any, data: tuple[Array, ...], asked: dict[str, Any]) -> dict[str, Any]:
    """Return R and slope of each measure and order."""
    x, y, x_test, y_test, _ = data
    objective = whence.from_sklearn(clone(model).fit(x, y), x, y)
    whole = objective.outputs(objective.examples((x_test, y_test)))
    targets = objective.examples((x_test, y_test)).targets
    refits = []
    for i in tqdm(range(len(x)), desc="refits", disable=None):
        kept = np.delete(np.arange(len(x)), i)
        other = whence.from_sklearn(clone(model).fit(x[kept], y[kept]), x[kept], y[kept])
        refits.append(other.outputs(other.examples((x_test, y_test))))
    found = {}
    for name, measure in asked.items():
        before = float(measure.value(whole, targets, objective.loss))
        actual = np.array([float(measure.value(f, targets, objective.loss)) for f in refits])
        actual -= before
        row = {}
        for order in _ORDERS:
            scores = whence.influence(objective, (x_test, y_test), measure=measure, order=order)
            predicted = scores.values[0]
            r = float(np.corrcoef(predicted, actual)[0, 1])
            row[order] = {"R": r, "slope": float(predicted @ actual / (predicted @ predicted))}
        found[name] = row
        print(f"  {name:<24}", "  ".join(f"{o} {row[o]['R']:.5f}" for o in _ORDERS))
    return found


def seconds(n: int, p: int, repeats: int = 5) -> float:
    """Return the processor time of the diagnostics of least squares, the median."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, p))
    y = x @ rng.normal(size=p) + rng.normal(size=n)
    objective = whence.from_sklearn(LinearRegression().fit(x, y), x, y)
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        whence.regression_diagnostics(objective)
        taken.append(time.process_time() - start)
    return float(np.median(taken))


def main() -> None:
    """Print and write the numbers."""
    results: dict[str, Any] = {}
    data = problem(150, 5, 200, classes=True)
    results["logistic, 150 rows"] = compare(
        _LOGISTIC, data, {"AUROC": measures.AUROC(), "mean loss": measures.Mean()}
    )
    data = problem(400, 6, 400, classes=True)
    gaps = {
        "demographic parity": measures.DemographicParity(data[4]),
        "equal opportunity": measures.EqualOpportunity(data[4]),
        "false positives": measures.EqualOpportunity(data[4], outcome=0),
        "calibration": measures.Calibration(data[4]),
        "worst group": measures.WorstGroup(data[4]),
        "Cohen's d": measures.CohensD(data[4]),
    }
    results["logistic, 400 rows"] = compare(_LOGISTIC, data, {**gaps, "AUROC": measures.AUROC()})
    data = problem(100, 4, 80, classes=False)
    results["ridge, 100 rows"] = compare(
        Ridge(), data, {"Cohen's d": measures.CohensD(data[4]), "mean loss": measures.Mean()}
    )
    results["regression diagnostics, 50,000 rows, 20 columns, s"] = seconds(50_000, 20)
    print(f"  regression diagnostics: {list(results.values())[-1]:.3f} s")
    path = Path(__file__).parent / "results" / "measures.json"
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
