"""W5: retraining, many times over: the truth that every method is judged by, and what it costs.

500 leave-one-out refits of W1, and retrainings of W2's network on random halves. A row holds as
many as were measured (`n_queries`): only whence does all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.workloads import w1, w2
from benchmarks.workloads.problem import Halves, Removals

TITLE = "Retraining"
SETS = {"leave one out": 500, "halves": 120}
ASKED = {
    "leave-one-out": ("leave one out",),
    "warm refits": ("leave one out",),
    "ensemble": ("halves",),
    "one after another": ("halves",),
}


def build(bank: Path, quick: bool) -> None:
    """Build W1 and W2, whose banks these are."""
    w1.build(bank.with_name("w1"), quick)
    w2.build(bank.with_name("w2"), quick)


def problem(queries: str, bank: Path, folder: Path) -> Removals | Halves:
    """Return what an adapter is given."""
    if queries == "halves":
        network = w2.problem("200 queries", bank.with_name("w2"), folder)
        with np.load(bank.with_name("w2") / "truth.npz") as truth:
            masks = truth["masks"]
        return Halves(x=network.x, y=network.y, queries=network.queries, masks=masks)
    softmax = w1.problem("1 query", bank.with_name("w1"), folder)
    with np.load(bank.with_name("w1") / "truth.npz") as truth:
        removed = truth["removed"]
    assert softmax.params is not None
    return Removals(
        x=softmax.x.double().numpy(),
        y=softmax.y.numpy(),
        query=(softmax.queries[0].double().numpy(), softmax.queries[1].numpy()),
        coef=softmax.params,
        l2=softmax.l2,
        removed=removed,
    )


def accuracy(scores: NDArray[Any], queries: str, bank: Path, unit: bool) -> dict[str, float]:
    """Compare the refits that were done with the banks."""
    if queries == "halves":
        with np.load(bank.with_name("w2") / "truth.npz") as truth:
            same = truth["outcomes"][0, : len(scores)]
        return {"pearson with the ensemble": float(np.corrcoef(scores.ravel(), same.ravel())[0, 1])}
    with np.load(bank.with_name("w1") / "truth.npz") as truth:
        actual = truth["actual"][: len(scores)]
    return {"relative error": float(np.linalg.norm(scores - actual) / np.linalg.norm(actual))}
