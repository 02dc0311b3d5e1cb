"""W4: 4,137 Enron mails x all 39,918 words, sparse; which of the labels were flipped?

Logistic regression, l2 1e-4. A tenth of the labels is flipped, three times over.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from benchmarks.workloads.problem import Suspects

TITLE = "Enron, mislabeled mails"
L2, FLIPPED = 1e-4, 0.1
SETS = {"flips 0": 0, "flips 1": 1, "flips 2": 2}
_CHECKED = (0.1, 0.2, 0.3)


def build(bank: Path, quick: bool) -> None:
    """Flip and fit; seconds."""
    from sklearn.linear_model import LogisticRegression

    from experiments import datasets

    if (bank / "done").exists():
        return
    bank.mkdir(parents=True, exist_ok=True)
    enron = datasets.enron_bag_of_words(min_documents=5 if quick else 1, quick=quick)
    rows = 400 if quick else len(enron.y_train)
    x, y = enron.x_train[:rows], enron.y_train[:rows]
    sparse.save_npz(bank / "x.npz", sparse.csr_array(x))
    for name, seed in [*SETS.items(), ("tuning", 100)]:
        flipped = np.zeros(len(y), dtype=bool)
        chosen = np.random.default_rng(seed).permutation(len(y))[: round(FLIPPED * len(y))]
        flipped[chosen] = True
        noisy = np.where(flipped, 1 - y, y)
        model = LogisticRegression(C=1 / (L2 * len(y)), tol=1e-6, max_iter=10_000).fit(x, noisy)
        np.savez(
            bank / f"{name}.npz",
            y=noisy,
            flipped=flipped,
            coef=model.coef_[0],
            intercept=model.intercept_[0],
        )
    (bank / "done").touch()


def problem(queries: str, bank: Path, folder: Path) -> Suspects:
    """Return what an adapter is given."""
    x = sparse.load_npz(bank / "x.npz")
    with np.load(bank / f"{queries}.npz") as data:
        return Suspects(
            x=sparse.csr_array(x),
            y=data["y"],
            coef=data["coef"],
            intercept=float(data["intercept"]),
            l2=L2,
            folder=folder,
        )


def accuracy(scores: NDArray[Any], queries: str, bank: Path, unit: bool) -> dict[str, float]:
    """Return the share of the flipped labels found among the most suspect."""
    with np.load(bank / f"{queries}.npz") as data:
        flipped = data["flipped"]
    order = np.argsort(-scores, kind="stable")
    return {
        f"found at {share:.0%}": float(flipped[order[: round(share * len(order))]].sum())
        / float(flipped.sum())
        for share in _CHECKED
    }
