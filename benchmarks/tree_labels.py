"""Wrong labels in W7: how well whence and cleanlab rank them, over draws of which are wrong.

`python -m benchmarks.tree_labels` measures what benchmarks/results/w7_labels.jsonl has not, a table
and a library at a time: a tenth of the labels of a classification is flipped in each of four draws,
and the area under the curve of both rankings is kept for each. `--only NAME` takes the cases whose
name holds NAME; `--again` measures them again.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

import whence
from benchmarks.rows import by_case
from benchmarks.trees import LIBRARIES, ROWS, TABLES, estimator, fitted, table

RESULTS = Path(__file__).parent / "results" / "w7_labels.jsonl"
_DRAWS = 4
_NUMBERS = ("diabetes", "doctor visits", "schools")  # tables of regressions
CASES = [f"{name} / {each}" for name in TABLES if name not in _NUMBERS for each in LIBRARIES]


def label_errors(library: str, x: NDArray[Any], y: NDArray[Any], seed: int) -> tuple[float, float]:
    """Return the areas under the curve of whence and of cleanlab on the same model."""
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
    return float(roc_auc_score(wrong, found.scores)), float(roc_auc_score(wrong, -quality))


def known() -> dict[str, dict[str, Any]]:
    """Return the rows that were measured before."""
    return by_case(RESULTS)


def difference(row: dict[str, Any]) -> tuple[float, float]:
    """Return the mean lead of whence in area under the curve, and its standard error."""
    lead = np.subtract(row["whence"], row["cleanlab"])
    return float(lead.mean()), float(lead.std(ddof=1) / np.sqrt(len(lead)))


def main(arguments: list[str]) -> None:
    """Measure what is missing, and print the lead of each case."""
    only = arguments[arguments.index("--only") + 1] if "--only" in arguments else ""
    for case in CASES:
        if only not in case or (case in known() and "--again" not in arguments):
            continue
        name, library = case.split(" / ")
        x, y = table(name, ROWS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = [label_errors(library, x, y, seed) for seed in range(_DRAWS)]
        ours, theirs = zip(*found, strict=True)
        rows = known() | {case: {"case": case, "whence": ours, "cleanlab": theirs}}
        mean, error = difference(rows[case])
        print(f"{case}: {mean:+.4f} ± {error:.4f} over {_DRAWS} draws", flush=True)
        RESULTS.write_text("".join(json.dumps(rows[one]) + "\n" for one in CASES if one in rows))


if __name__ == "__main__":
    main(sys.argv[1:])
