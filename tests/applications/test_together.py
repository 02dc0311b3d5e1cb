"""Near-duplicates are found, and what they do together is what a refit without them does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline

import whence
from whence.methods.duplicates import near_duplicates


@pytest.fixture(scope="module")
def repeated() -> tuple[pd.DataFrame, np.ndarray, LogisticRegression]:
    """60 rows, one of them four times with a little noise, the query beside it."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4))
    y = (x[:, 0] + 0.5 * rng.normal(size=60) > 0).astype(int)
    x[:4] = [2.0, 2.5, -2.0, 1.0] + 1e-3 * rng.normal(size=(4, 4))
    y[:4] = 0
    frame = pd.DataFrame(x, columns=list("abcd"), index=[f"row {i}" for i in range(60)])
    return frame, y, LogisticRegression(tol=1e-10, max_iter=1000)


def test_a_group_is_offered_with_the_effect_of_its_refit(
    repeated: tuple[pd.DataFrame, np.ndarray, LogisticRegression], tmp_path: Path
) -> None:
    x, y, model = repeated
    fitted = clone(model).fit(x, y)
    trained = whence.from_sklearn(fitted, x, y)
    query = x.iloc[:1] + 0.1
    explanation = whence.explain(trained, (query, [0]), measure="probability", k=3)
    (group,) = explanation.groups
    assert group.positions.tolist() == [0, 1, 2, 3]
    assert group.ids == ("row 0", "row 1", "row 2", "row 3")
    without = clone(model).fit(x.iloc[4:], y[4:])
    p, q = (float(each.predict_proba(query)[0, 0]) for each in (fitted, without))
    assert group.effect == pytest.approx(q - p, rel=0.1)
    assert abs(group.effect) > 3 * abs(group.alone)
    line = "Near-duplicates of each other: row 0, row 1, row 2, row 3. Without all 4 P(0) would be"
    assert line in str(explanation)
    page = explanation.report(tmp_path / "page.html", verify=0).read_text(encoding="utf-8")
    assert "Near-duplicates of each other: row 0, row 1, row 2, row 3." in page
    assert "Copies of row" not in page


def test_two_of_three_rows_may_be_copies() -> None:
    x, y = np.array([[1.0, 2.0], [1.0, 2.0], [5.0, -3.0]]), np.array([1.0, 1.0, 2.0])
    trained = whence.from_sklearn(Ridge().fit(x, y), x, y)
    assert [g.tolist() for g in near_duplicates(trained, np.array([0]))] == [[0, 1]]
    assert near_duplicates(trained, np.array([], dtype=int)) == []
    two = whence.from_sklearn(Ridge().fit(x[:2], y[:2]), x[:2], y[:2])
    assert near_duplicates(two, np.array([0])) == []


def test_numbers_are_the_same_within_a_tenth_of_their_spread_and_two_values_if_equal() -> None:
    x = np.array([[1.0, 2.0], [1.0, 2.0], [5.0, -3.0], [0.0, 9.0]])
    for y, found in (([1.0, 1.05, 5.0, 5.0], [[0, 1]]), ([1.0, 1.05, 1.05, 1.05], [])):
        trained = whence.from_sklearn(Ridge().fit(x, y), x, np.array(y))
        assert [g.tolist() for g in near_duplicates(trained, np.array([0]))] == found


def test_what_is_near() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(50, 3)), rng.normal(size=50)
    x[7] = x[3]
    x[8] = x[3] + 1e-4
    y[[3, 7]], y[8] = 1.0, 4.0  # another target is no repetition
    trained = whence.from_sklearn(Ridge().fit(x, y), x, y)
    assert [g.tolist() for g in near_duplicates(trained, np.array([3, 20]))] == [[3, 7]]
    assert near_duplicates(trained, np.array([8, 20])) == []
    twice = whence.explain(trained, (x[:1], y[:1])).groups
    assert [group.positions.tolist() for group in twice] == [[3, 7]]

    texts = [
        " ".join(rng.choice([f"word{k}" for k in range(16)], 30)) + f" w{i} v{i}" for i in range(30)
    ]
    texts[5] = texts[4] + " the"
    model = make_pipeline(TfidfVectorizer(token_pattern=r"\w+"), LogisticRegression())
    labels = np.arange(30) // 2 % 2
    text = whence.from_sklearn(model.fit(texts, labels), texts, labels)
    assert [g.tolist() for g in near_duplicates(text, np.array([4, 11]))] == [[4, 5]]


@pytest.mark.parametrize(("copies", "shown"), [(4, True), (5, False)])
def test_more_than_half_of_the_rows_are_no_group(copies: int, shown: bool) -> None:
    x = np.r_[np.full((copies, 1), 2.0), np.linspace(-3, 0, 8 - copies)[:, None]]
    y = np.r_[np.full(copies, 5.0), np.linspace(-2, 1, 8 - copies)]
    trained = whence.from_sklearn(Ridge().fit(x, y), x, y)
    groups = whence.explain(trained, (x[:1] + 0.5, y[:1])).groups
    assert [len(group.positions) for group in groups] == ([copies] if shown else [])


def test_infinite_cells_are_as_missing_ones() -> None:
    x, y = load_iris(return_X_y=True)
    frame = pd.DataFrame(x, columns=list("abcd")).assign(far=np.r_[np.inf, np.zeros(149)])
    first = make_column_transformer(("passthrough", list("abcd")))
    model = make_pipeline(first, LogisticRegression(max_iter=1000)).fit(frame, y)
    found = near_duplicates(whence.from_sklearn(model, frame, y), np.array([0, 142]))
    assert [group.tolist() for group in found] == [[101, 142]]
