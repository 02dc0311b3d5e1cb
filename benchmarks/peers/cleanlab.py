"""cleanlab: label quality from probabilities out of sample, as its tutorial for text does."""

from __future__ import annotations

from cleanlab.rank import get_label_quality_scores
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from benchmarks.workloads.problem import Ask, Suspects


def label_quality(problem: Suspects, setting: float | None) -> Ask:
    """Prepare five-fold predictions of the same model; ask for the quality of the labels."""
    model = LogisticRegression(C=1 / (problem.l2 * len(problem.y)), tol=1e-4, max_iter=5000)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    unseen = cross_val_predict(model, problem.x, problem.y, cv=folds, method="predict_proba")
    return lambda: -get_label_quality_scores(problem.y, unseen)


METHODS = {"label quality": label_quality}
