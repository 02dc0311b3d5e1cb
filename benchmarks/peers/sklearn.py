"""scikit-learn: refit with its default solver from the full fit, one example without weight."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from benchmarks.workloads.problem import Ask, Removals

_REFITS = 5  # of all 500; each starts from the same fit, so that they cost about the same


def warm_refits(problem: Removals, setting: float | None) -> Ask:
    """Prepare refits in a loop, warm-started; an example is removed by a weight of zero."""
    model = LogisticRegression(
        C=1 / (problem.l2 * len(problem.y)),
        fit_intercept=False,
        tol=1e-6,
        max_iter=2000,
        warm_start=True,
    )
    x, label = problem.query

    def loss() -> float:
        return float(-model.predict_log_proba(x)[0, label[0]])

    def start() -> None:
        model.classes_ = np.arange(len(problem.coef))
        model.coef_, model.intercept_ = problem.coef.copy(), np.zeros(len(problem.coef))
        model.n_features_in_ = problem.x.shape[1]

    start()
    before = loss()

    def ask() -> Any:
        changes = []
        for i in problem.removed[:_REFITS]:
            weights = np.ones(len(problem.y))
            weights[i] = 0.0
            start()
            model.fit(problem.x, problem.y, sample_weight=weights)
            changes.append(loss() - before)
        return np.array(changes)

    return ask


METHODS = {"warm refits": warm_refits}
