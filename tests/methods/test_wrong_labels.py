"""The number of wrong labels is estimated within its error where labels were turned by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import whence
from whence.methods import wrong_labels as module
from whence.methods.wrong_labels import wrong_labels


@pytest.mark.parametrize("share", [0.0, 0.05, 0.15])
@pytest.mark.parametrize("load", [load_breast_cancer, load_wine], ids=["cancer", "wine"])
def test_turned_labels_are_counted(load: object, share: float) -> None:
    X, y = load(return_X_y=True)  # type: ignore[operator]
    generator = np.random.default_rng(1)
    turned = generator.choice(len(y), int(share * len(y)), replace=False)
    y[turned] = (y[turned] + 1) % (y.max() + 1)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, tol=1e-6, max_iter=1000))
    errors = whence.find_label_errors(whence.from_sklearn(model.fit(X, y), X, y), k=0)
    assert errors.wrong is not None
    assert errors.wrong.n == len(y)
    assert abs(errors.wrong.count - len(turned)) <= 3 * errors.wrong.error + 2


def test_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thresholds, beliefs and shares as one writes them down, row by row."""
    generator = np.random.default_rng(0)
    p = generator.dirichlet([1, 1, 1], size=60)
    labels = generator.integers(0, 3, 60)
    threshold = [p[labels == j, j].mean() for j in range(3)]
    counts = np.zeros((3, 3))
    for row, label in zip(p, labels, strict=True):
        above = [j for j in range(3) if row[j] >= threshold[j]]
        if above:
            counts[label, max(above, key=lambda j, row=row: row[j])] += 1
    wrong = sum((1 - counts[j, j] / counts[j].sum()) * (labels == j).sum() for j in range(3))
    found = wrong_labels(p, labels)
    assert found.count == pytest.approx(wrong)
    monkeypatch.setattr(module, "_NUMBERS", 30 * 60 * 3)
    draw, counts = np.random.default_rng(0), []
    for _ in range(30):
        rows = np.repeat(np.arange(60), draw.multinomial(60, np.full(60, 1 / 60)))
        counts.append(wrong_labels(p[rows], labels[rows]).count)
    assert wrong_labels(p, labels).error == pytest.approx(np.std(counts, ddof=1))
    again = [wrong_labels(p[at], labels[at]).count for at in generator.integers(0, 60, (200, 60))]
    assert found.error == pytest.approx(np.std(again), rel=0.3)


def test_a_class_of_one_row_may_be_believed() -> None:
    """Its threshold is what its row says: another row that says more is one of it."""
    p = np.array([[0.6, 0.4], [0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
    labels = np.array([1, 0, 0, 0])
    # Thresholds (0.9 + 0.8 + 0.3)/3 and 0.4: the last row is believed to be of class 1.
    assert wrong_labels(p, labels).count == pytest.approx(3 * 1 / 3)
