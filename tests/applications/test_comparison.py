"""Two models' influence on one query, against influence computed for each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import scale
from sklearn.svm import SVC

import whence
from whence.applications.comparison import compare_influence
from whence.errors import InvalidInput

X, Y = load_breast_cancer(return_X_y=True)
X = scale(X)


def linear(columns: slice, rows: slice = slice(5, 200)) -> tuple[whence.objective.Objective, tuple]:
    x = X[:, columns]
    model = LogisticRegression(tol=1e-10, max_iter=10_000).fit(x[rows], Y[rows])
    return whence.from_sklearn(model, x[rows], Y[rows]), (x[0], Y[0])


def test_against_each_model_alone() -> None:
    (a, query_a), (b, query_b) = linear(slice(0, 10)), linear(slice(20, 30))
    comparison = compare_influence(a, b, query_a, query_b)
    first = whence.influence(a, query_a).values[0]
    second = whence.influence(b, query_b).values[0]
    np.testing.assert_allclose(comparison.a.values[0], first, atol=1e-14)
    np.testing.assert_allclose(comparison.b.values[0], second, atol=1e-14)
    assert comparison.agreement == pytest.approx(spearmanr(first, second).statistic)
    same = Y[5:200] == Y[0]
    assert (comparison.same_class == same).all()
    for scores, rank in zip((first, second), comparison.first_opposite, strict=True):
        order = sorted(range(len(scores)), key=lambda i: -scores[i])
        expected = next((r for r, i in enumerate(order, 1) if not same[i] and scores[i] > 0), None)
        assert rank == expected
    frame = comparison.to_frame()
    assert frame.sort_values("rank_b")["score_b"].is_monotonic_decreasing
    assert frame["rank_a"].tolist() == rankdata(-first).astype(int).tolist()
    assert "Spearman" in str(comparison)
    for line, scores, rank in zip(
        str(comparison).splitlines()[1:], (first, second), comparison.first_opposite, strict=True
    ):
        names = ", ".join(map(str, np.argsort(-scores, kind="stable")[:5]))
        assert line.endswith(f"helped most by {names}; first of another class: rank {rank}")
    table = comparison.card().table
    assert table is not None
    assert table["score_a"].abs().is_monotonic_decreasing
    harmful = comparison.harmful(3)[1].positions[0]
    assert harmful.tolist() == np.argsort(second, kind="stable")[:3].tolist()
    top = comparison.helpful(10)
    assert comparison.shared(10) == len(set(top[0].positions[0]) & set(top[1].positions[0]))


def test_a_model_agrees_with_itself() -> None:
    objective, query = linear(slice(0, 10))
    comparison = compare_influence(objective, objective, query)
    assert comparison.agreement == pytest.approx(1)
    assert comparison.shared(20) == 20


def test_kernel_against_linear() -> None:
    rows = slice(5, 200)
    svm = SVC(gamma=0.02).fit(X[rows], Y[rows])
    kernel = whence.from_sklearn(svm, X[rows], Y[rows])
    objective, _ = linear(slice(None))
    comparison = compare_influence(objective, kernel, (X[0], Y[0]))
    assert -1 <= comparison.agreement < 1


def test_no_helpful_opposite_is_none() -> None:
    x = np.array([[1.0], [2.0], [-1.0], [-2.0]])
    y = np.array([1, 1, 0, 0])
    model = LogisticRegression(fit_intercept=False, tol=1e-12).fit(x, y)
    objective = whence.from_sklearn(model, x, y)
    # One dimension, no intercept: every example pulls the same way, so all four help.
    assert compare_influence(objective, objective, ([1.5], 1)).first_opposite[0] in (1, 2, 3)
    against = compare_influence(objective, objective, ([-1.5], 1))
    assert against.first_opposite == (None, None)


def test_refused() -> None:
    (a, query), (other, _) = linear(slice(0, 10)), linear(slice(0, 10), slice(6, 200))
    with pytest.raises(InvalidInput, match="same examples"):
        compare_influence(a, other, query)
    with pytest.raises(InvalidInput, match="same examples"):
        compare_influence(a, a, query, (query[0], 1 - query[1]))
    with pytest.raises(InvalidInput, match="one query"):
        compare_influence(a, a, (X[:2, :10], Y[:2]))


def test_two_regressions_have_values_and_no_classes(tmp_path: Path) -> None:
    x, y = load_diabetes(return_X_y=True)
    a, b = (
        whence.from_sklearn(Ridge(alpha).fit(x[1:], y[1:]), x[1:], y[1:]) for alpha in (0.1, 10.0)
    )
    found = compare_influence(a, b, (x[:1], y[:1]))
    assert "class" not in str(found)
    page = found.report(tmp_path / "page.html").read_text("utf-8")
    assert "that push most to the value in the data" in page
    assert "Push away from the value in the data under the second model" in page
    assert '<th scope="col">value</th>' in page
    assert "the label" not in page
    assert '["Push to the value in the data under the first model","value",' in page
