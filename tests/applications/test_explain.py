"""One explanation: what it ranks, verifies, prints and writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import whence
from whence.applications.explain import Explanation
from whence.errors import InvalidInput


@pytest.fixture(scope="module")
def explanation() -> Explanation:
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    X.index = [f"patient {i}" for i in range(len(X))]
    model = make_pipeline(StandardScaler(), LogisticRegression(solver="newton-cholesky"))
    objective = whence.from_sklearn(model.fit(X[:200], y[:200]), X[:200], y[:200])
    return whence.explain(objective, (X[205:206], y[205:206]), k=4)


def test_helpful_and_harmful_are_sorted_and_signed(explanation: Explanation) -> None:
    helpful = [effect.effect for effect in explanation.helpful]
    harmful = [effect.effect for effect in explanation.harmful]
    assert len(helpful) == len(harmful) == 4
    assert helpful == sorted(helpful, reverse=True)
    assert harmful == sorted(harmful)
    assert min(helpful) > 0 > max(harmful)
    assert str(explanation.helpful[0].id).startswith("patient ")


def test_in_a_notebook_names_are_escaped(explanation: Explanation) -> None:
    objective = explanation.objective
    names = np.array([f"<b>{name}</b>" for name in objective.train.ids], dtype=object)
    train = replace(objective.train, ids=names)  # type: ignore[type-var]
    hostile = whence.explain(replace(objective, train=train), explanation.query, k=2)  # type: ignore[type-var]
    shown = hostile._repr_html_()
    assert shown.startswith("<p>The model says")
    assert "&lt;b&gt;patient" in shown
    assert "<b>" not in shown


def test_effects_are_what_retraining_does(explanation: Explanation) -> None:
    shown = [*explanation.helpful, *explanation.harmful]
    where = [effect.position for effect in shown]
    actual = whence.leave_one_out(explanation.objective, where, explanation.query)[0]
    np.testing.assert_allclose([effect.effect for effect in shown], actual, rtol=0.02)


def test_verification(explanation: Explanation) -> None:
    verification = explanation.verify(10)
    assert len(verification.ids) == 10
    assert verification.r > 0.999
    assert f"R = {verification.r:.4f}" in str(verification)


def test_frame(explanation: Explanation) -> None:
    frame = explanation.to_frame()
    assert list(frame.columns) == ["id", "position", "effect", "first"]
    assert len(frame) == 8
    assert frame.effect.is_monotonic_decreasing


def test_words(explanation: Explanation) -> None:
    text = str(explanation)
    assert "The model says" in text
    assert f"without {explanation.helpful[0].id}, helpful" in text


def test_page(explanation: Explanation, tmp_path: Path) -> None:
    page = explanation.report(tmp_path / "why.html", verify=5, title="Why <this>?")
    text = page.read_text()
    assert "Why &lt;this&gt;?" in text
    assert "patient" in text
    with pytest.raises(InvalidInput, match="Create it first"):
        explanation.report(tmp_path / "nowhere" / "why.html", verify=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["why.html"]


def test_bad_requests(explanation: Explanation) -> None:
    objective, query = explanation.objective, explanation.query
    with pytest.raises(InvalidInput, match="Got 0"):
        whence.explain(objective, query, k=0)
    two = objective.train.subset(np.array([0, 1]))
    with pytest.raises(InvalidInput, match="Got 2"):
        whence.explain(objective, two)
