"""Which ranking finds flipped labels? Data sets, penalties and rankings side by side.

`python -m experiments.label_detection [--seeds 10]` prints a table and writes it to
`benchmarks/results/label_detection.json`: the share of the flipped labels among the first 10, 20
and 30 % of each ranking, a tenth of the labels flipped.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import scale

import whence
from experiments import datasets
from whence.errors import NotConvergedWarning

_RESULTS = Path(__file__).parents[1] / "benchmarks/results/label_detection.json"
_CHECKED = (0.1, 0.2, 0.3)
_FLIPPED = 0.1


def problems() -> Iterator[tuple[str, Any, np.ndarray, float]]:
    """Yield a name, X, y and the l2 of the fit: one too weak, or one chosen well."""
    enron = datasets.enron_bag_of_words()
    x, y = enron.x_train[:1200], enron.y_train[:1200]
    yield "Enron, 1,200 mails, too weak", x, y, 1e-4
    yield "Enron, 1,200 mails, well chosen", x, y, 1e-2
    x, y = load_digits(return_X_y=True)
    yield "digits, too weak", x[:900] / 16, y[:900], 1e-5
    yield "digits, well chosen", x[:900] / 16, y[:900], 1e-2
    x, y = load_breast_cancer(return_X_y=True)
    yield "breast cancer, too weak", scale(x), y, 1e-5
    yield "breast cancer, well chosen", scale(x), y, 1e-2


def rankings(x: Any, y: np.ndarray, l2: float) -> Iterator[tuple[str, np.ndarray, float]]:
    """Yield a name, scores and how many times the fitted penalty was asked."""
    model = LogisticRegression(C=1 / (l2 * len(y)), tol=1e-6, max_iter=20_000).fit(x, y)
    objective = whence.from_sklearn(model, x, y)
    for penalty in ("fitted", "best"):
        errors = whence.find_label_errors(objective, method="held_out_loss", penalty=penalty, k=0)
        for name, scores in (
            ("held-out loss", errors.scores),
            ("self-influence", errors.self_influence),
            ("loss", errors.loss),
        ):
            yield f"{name}, {penalty}", scores, errors.penalty


def main() -> None:
    """Print the table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    seeds = parser.parse_args().seeds
    warnings.simplefilter("ignore", NotConvergedWarning)
    results = []
    for name, x, truth, l2 in problems():
        found: dict[str, list[list[float]]] = {}
        factors: dict[str, list[float]] = {}
        for seed in range(seeds):
            rng = np.random.default_rng(1000 + seed)
            flipped = rng.permutation(len(truth)) < round(_FLIPPED * len(truth))
            classes = int(truth.max()) + 1
            other = (truth + rng.integers(1, classes, len(truth))) % classes
            y = np.where(flipped, other, truth)
            for ranking, scores, factor in rankings(x, y, l2):
                order = np.argsort(-scores, kind="stable")
                first = [order[: round(share * len(y))] for share in _CHECKED]
                shares = [float(flipped[seen].sum() / flipped.sum()) for seen in first]
                found.setdefault(ranking, []).append(shares)
                factors.setdefault(ranking, []).append(factor)
        print(f"{name} (n = {len(truth)}, l2 = {l2:g})")
        for ranking, rows in found.items():
            means = [float(mean) for mean in np.mean(rows, axis=0)]
            median = float(np.median(factors[ranking]))
            shares = "  ".join(f"{mean:.3f}" for mean in means)
            print(f"    {ranking:24}  {shares}   penalty x {median:g}", flush=True)
            results.append(
                {
                    "data": name,
                    "l2": l2,
                    "ranking": ranking,
                    "found": means,
                    "median penalty": median,
                    "seeds": seeds,
                }
            )
    _RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
