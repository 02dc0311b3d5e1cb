"""How often a refit lies in the interval that an explanation states. Prints a table.

For each pipeline of `benchmarks.preprocessing`, 6 queries are explained with 5 rows a side; each
shown row is removed and `sklearn.base.clone(pipeline).fit` on the rest tells what became of the
query's output.

Run it with `python -m benchmarks.intervals`, some pipelines with their names behind; results are in
benchmarks/results/intervals.json.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import clone

import whence
from benchmarks.preprocessing import PIPELINES, of, output

_QUERIES, _SHOWN = 6, 5
_RESULTS = Path(__file__).parent / "results" / "intervals.json"


def first_output(f: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the output of one class, or the only one."""
    return f[:, 0] if f.shape[1] == 1 else f.gather(1, targets.long().unsqueeze(1))[:, 0]


def compare(name: str) -> dict[str, Any]:
    """Return how many refits of one pipeline lie in the stated intervals."""
    load, estimator = PIPELINES[name]
    x, y = load()
    n = len(y) - _QUERIES
    train = of(x, np.arange(n))
    model = clone(estimator).fit(train, y[:n])
    objective = whence.from_sklearn(model, train, y[:n])
    classes = getattr(model, "classes_", None)
    inside, widths = [], []
    refits: dict[int, Any] = {}
    for q in range(n, len(y)):
        query = of(x, np.arange(q, q + 1))
        at = np.zeros(1, dtype=np.intp) if classes is None else np.searchsorted(classes, y[[q]])
        found = whence.explain(objective, (query, y[[q]]), k=_SHOWN, measure=first_output)
        frame = found.intervals()
        before = output(model, query, at)[0]
        columns = (frame[name].tolist() for name in ("position", "effect", "low", "high"))
        for i, effect, low, high in zip(*columns, strict=True):
            if i not in refits:
                rest = np.delete(np.arange(n), i)
                refits[i] = clone(estimator).fit(of(train, rest), y[rest])
            actual = output(refits[i], query, at)[0] - before
            inside.append(low <= actual <= high)
            widths.append((high - low) / (2 * abs(effect)))
    return {
        "pipeline": name,
        "effects": len(inside),
        "refits inside": float(np.mean(inside)),
        "median half width": float(np.median(widths)),
    }


def main(names: list[str]) -> None:
    """Print the table, and keep each row as it is made: an interrupted run loses no other."""
    print(f"{'':37s} effects  inside  median half width")
    for name in names or list(PIPELINES):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            row = compare(name)
        shares = f"{row['refits inside']:6.1%}  {row['median half width']:6.1%}"
        print(f"{name:37s} {row['effects']:7d}  {shares}", flush=True)
        known = json.loads(_RESULTS.read_text()) if _RESULTS.exists() else []
        rows = {kept["pipeline"]: kept for kept in known} | {name: row}
        ordered = [rows[one] for one in PIPELINES if one in rows]
        _RESULTS.write_text(json.dumps(ordered, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
