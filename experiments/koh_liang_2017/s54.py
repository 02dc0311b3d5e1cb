"""Section 5.4, figure 6: finding flipped labels in a spam corpus."""

from __future__ import annotations

from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from cleanlab.rank import get_label_quality_scores
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

import whence
from experiments.datasets import Split, enron_bag_of_words
from experiments.koh_liang_2017.record import Bar, Experiment, Outcome, Request
from experiments.koh_liang_2017.resume import each

_L2, _FLIPPED, _SEEDS = 1e-4, 0.1, 40
_CHECKED = np.array([0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3])


def _fit(x: sparse.csr_array, y: np.ndarray) -> LogisticRegression:
    return LogisticRegression(C=1 / (_L2 * len(y)), tol=1e-4, max_iter=5000).fit(x, y)


def _rankings(
    x: sparse.csr_array, y: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    model = LogisticRegression(C=1 / (_L2 * len(y)), tol=1e-6, max_iter=10_000).fit(x, y)
    objective = whence.from_sklearn(model, x, y)
    errors = whence.find_label_errors(objective, method="self_influence", k=0)
    held_out = whence.find_label_errors(objective, method="held_out_loss", penalty="fitted", k=0)
    # As its documentation says: probabilities out of sample, each label's quality from them.
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    smooth = LogisticRegression(C=1 / (_L2 * len(y)), tol=1e-4, max_iter=5000)
    unseen = cross_val_predict(smooth, x, y, cv=folds, method="predict_proba")
    return {
        "self-influence": errors.self_influence,
        "self-influence, 2017 code": errors.self_influence / -np.expm1(-errors.loss),
        "held-out loss": held_out.scores,
        "training loss": errors.loss,
        "cleanlab": -get_label_quality_scores(y, unseen),
        "random": rng.random(len(y)),
    }


def _of_seed(data: Split, key: str) -> dict[str, Any]:
    """Flip labels; return by ranking what share is found, and the accuracy once they are fixed."""
    n, rng = len(data.y_train), np.random.default_rng(int(key))
    flipped = np.zeros(n, dtype=bool)
    flipped[rng.permutation(n)[: round(_FLIPPED * n)]] = True
    noisy = np.where(flipped, 1 - data.y_train, data.y_train)
    found: dict[str, list[float]] = {}
    accuracy: dict[str, list[float]] = {}
    for name, score in _rankings(data.x_train, noisy, rng).items():
        order = np.argsort(-score, kind="stable")
        found[name], accuracy[name] = [], []
        for checked in _CHECKED:
            seen = order[: round(checked * n)]
            found[name].append(float(flipped[seen].sum() / flipped.sum()))
            fixed = noisy.copy()
            fixed[seen] = data.y_train[seen]
            accuracy[name].append(_fit(data.x_train, fixed).score(data.x_test, data.y_test))
    return {"found": found, "accuracy": accuracy}


def run(request: Request) -> Outcome:
    data = enron_bag_of_words(quick=request.quick)
    n = len(data.y_train)
    clean = _fit(data.x_train, data.y_train).score(data.x_test, data.y_test)
    seeds = each(
        "s54",
        [str(seed) for seed in range(2 if request.quick else _SEEDS)],
        partial(_of_seed, data),
        settings=f"{data.name} {n} {_FLIPPED}",
        workers=request.workers,
    )
    share, score = (
        {name: np.array([seed[what][name] for seed in seeds]) for name in seeds[0][what]}
        for what in ("found", "accuracy")
    )
    gaps = share["self-influence"] - share["training loss"]
    error = gaps.std(0, ddof=1) / np.sqrt(len(gaps))
    worst = float(np.min((gaps.mean(0) + error)[1:]))
    metrics = {
        "data": data.name,
        "seeds": len(gaps),
        "clean accuracy": clean,
        "checked": _CHECKED.tolist(),
        "flips found": {name: rows.mean(0).round(4).tolist() for name, rows in share.items()},
        "test accuracy": {name: rows.mean(0).round(4).tolist() for name, rows in score.items()},
        "self-influence less training loss, flips found": gaps.mean(0).round(4).tolist(),
        "its standard error": error.round(4).tolist(),
    }
    bars = (
        Bar.at_least("self-influence less loss plus one error, worst point", worst, 0.0),
        Bar.at_least("flips found at 20 % checked", float(share["self-influence"].mean(0)[4]), 0.8),
    )
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.2), layout="constrained")
    for name in share:
        for ax, rows in ((axes[0], share[name]), (axes[1], score[name])):
            errors = rows.std(0, ddof=1) / np.sqrt(len(rows))
            ax.errorbar(100 * _CHECKED, rows.mean(0), errors, label=name, capsize=2)
    axes[0].set_ylabel("share of the flipped labels found")
    axes[1].set_ylabel("test accuracy after fixing")
    axes[1].axhline(clean, color="0.6", linestyle="--", label="clean data")
    for ax in axes:
        ax.set_xlabel("training data checked (%)")
        ax.legend()
    return Outcome(metrics=metrics, bars=bars, figure=figure)


EXPERIMENT = Experiment(
    id="s54",
    title="Fixing mislabeled examples",
    paper="influence at or above loss, both far above random",
    run=run,
)
