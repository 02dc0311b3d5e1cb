"""Wrong labels in W7: how far whence and cleanlab differ over other draws of which are wrong.

`python -m benchmarks.tree_labels "travel / catboost" 8` flips a tenth of the labels eight times,
and prints the mean difference of the two areas under the curve, with its standard error.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

import whence
from benchmarks.trees import ROWS, estimator, fitted, table


def label_errors(library: str, x: NDArray[Any], y: NDArray[Any], seed: int = 3) -> dict[str, float]:
    """Return how well flipped labels are ranked, by whence and by cleanlab on the same model."""
    from cleanlab.rank import get_label_quality_scores

    draw = np.random.default_rng(seed)
    wrong = np.zeros(len(y), dtype=bool)
    wrong[draw.choice(len(y), len(y) // 10, replace=False)] = True
    names = np.unique(y)
    labels = np.where(wrong, names[(np.searchsorted(names, y) + 1) % len(names)], y)
    found = whence.find_label_errors(fitted(library, x, labels), k=0)
    shares = cross_val_predict(
        clone(estimator(library, True)), x, labels, cv=5, method="predict_proba"
    )
    quality = get_label_quality_scores(np.searchsorted(names, labels), shares)
    return {
        "auc": float(roc_auc_score(wrong, found.scores)),
        "cleanlab": float(roc_auc_score(wrong, -quality)),
    }


def main(case: str, draws: int) -> None:
    """Print the difference of whence and cleanlab in a case."""
    name, library = case.split(" / ")
    x, y = table(name, ROWS)
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in range(draws):
            both = label_errors(library, x, y, seed)
            found.append(both["auc"] - both["cleanlab"])
    error = np.std(found, ddof=1) / np.sqrt(draws)
    print(f"{case}: {np.mean(found):+.4f} ± {error:.4f} over {draws} draws")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
