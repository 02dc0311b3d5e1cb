"""How close are the three orders to refitting? Prints the table of "Sign, unit and orders".

For breast cancer, wine and digits: half of the data standardized and fitted with scikit-learn's
defaults (to a tight tolerance, so that refits can be compared), the first 5 rows of the other half
as queries, and the 60 training examples with the largest first-order influence on them, summed over
queries. Actual changes are scikit-learn refits from scratch. R and slope (of actual on predicted)
are of all 300 pairs; the JSON also has the worst query's R. Diabetes with ridge is quadratic: there
newton is exact.

Run it with `python -m benchmarks.orders`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

import whence
from whence.evaluation import loo_correlation

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
_SETS = {"breast cancer": load_breast_cancer, "wine": load_wine, "digits": load_digits}
_QUERIES, _REMOVED = 5, 60


def halves(load: Callable[..., Any]) -> tuple[Floats, Labels, Floats, Labels]:
    """Return a standardized half for training and the rest."""
    x, y = load(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[: len(x) // 2], order[len(x) // 2 :]
    scaler = StandardScaler().fit(x[train])
    return scaler.transform(x[train]), y[train], scaler.transform(x[test]), y[test]


def logistic(x: Floats, y: Labels) -> LogisticRegression:
    """Fit scikit-learn's default logistic regression, to a tight tolerance."""
    return LogisticRegression(solver="newton-cg", tol=1e-12, max_iter=10_000).fit(x, y)


def losses(model: LogisticRegression, x: Floats, y: Labels) -> Floats:
    """Return −log p(y | x)."""
    shares = np.asarray(model.predict_log_proba(x))
    return -shares[np.arange(len(y)), np.searchsorted(model.classes_, y)]


def compare(name: str) -> dict[str, Any]:
    """Compare predicted with refitted changes on one data set."""
    x, y, x_test, y_test = halves(_SETS[name])
    model = logistic(x, y)
    objective = whence.from_sklearn(model, x, y)
    queries = x_test[:_QUERIES], y_test[:_QUERIES]
    strength = np.abs(whence.influence(objective, queries).values).sum(0)
    removed = np.argsort(-strength)[:_REMOVED]
    before = losses(model, *queries)
    refits = [
        losses(logistic(np.delete(x, i, 0), np.delete(y, i)), *queries) - before
        for i in tqdm(removed, desc=name, disable=None)
    ]
    actual = np.stack(refits, axis=1)
    ours = whence.leave_one_out(objective, removed, queries)
    row: dict[str, Any] = {"data": name, "leave_one_out": float(np.abs(ours - actual).max())}
    for order in ("first", "newton", "refined"):
        scores = whence.influence(objective, queries, order=order, indices=removed)
        agreement = loo_correlation(scores.values, actual)
        row[order] = {
            "R": agreement.pearson,
            "slope": agreement.slope,
            "worst query's R": float(agreement.pearson_per_query.min()),
        }
    return row


def ridge() -> float:
    """Return the largest difference of newton from refitting for ridge on diabetes."""
    x, y = load_diabetes(return_X_y=True)
    model = Ridge().fit(x[:221], y[:221])
    queries = x[221:226], y[221:226]
    where = np.arange(60)
    objective = whence.from_sklearn(model, x[:221], y[:221])
    predicted = whence.influence(objective, queries, order="newton", indices=where).values
    before = (model.predict(queries[0]) - queries[1]) ** 2 / 2
    worst = 0.0
    for column, i in enumerate(where):
        refit = Ridge().fit(np.delete(x[:221], i, 0), np.delete(y[:221], i))
        actual = (refit.predict(queries[0]) - queries[1]) ** 2 / 2 - before
        worst = max(worst, float(np.abs(predicted[:, column] / actual - 1).max()))
    return worst


def main() -> None:
    """Print the table, and keep the numbers."""
    rows = [compare(name) for name in _SETS]
    exact = ridge()
    print("| data | `first`: R, slope | `newton` | `refined` | `leave_one_out` less refit |")
    print("|---|---|---|---|---|")
    for row in rows:
        cells = [
            f"{row[order]['R']:.4f}, {row[order]['slope']:.3f}"
            for order in ("first", "newton", "refined")
        ]
        print(f"| {row['data']} | {' | '.join(cells)} | {row['leave_one_out']:.0e} |")
    print(f"\nRidge on diabetes: newton less refitting is {exact:.0e} of the change at most.")
    target = Path(__file__).parent / "results" / "orders.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps({"logistic": rows, "ridge": exact}, indent=1) + "\n")


if __name__ == "__main__":
    main()
