"""The page about many predictions: what it holds is what the scores say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression, Ridge

import whence
from whence.errors import InvalidInput


def data_of(page: Path) -> dict[str, object]:
    text = page.read_text(encoding="utf-8")
    found = re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_rows_are_the_scores(tmp_path: Path) -> None:
    x, y = load_iris(return_X_y=True)
    model = LogisticRegression(tol=1e-8, max_iter=1000).fit(x[::2], y[::2])
    objective = whence.from_sklearn(model, x[::2], y[::2])
    queries = x[1::2], y[1::2]
    page = whence.report(objective, queries, tmp_path / "many.html", k=2)
    text = page.read_text(encoding="utf-8")
    scores = whence.influence(objective, queries)
    wrong = int(np.flatnonzero(model.predict(queries[0]) != queries[1])[0])
    best = scores.top(1).ids[wrong, 0]
    assert f"Query {wrong}" in text
    assert f"Training example {best}" in text
    rows = json.dumps(data_of(page))
    assert f"{scores.top(1).values[wrong, 0]:.3g}"[:5] in rows


def test_a_hostile_column_is_shown_not_run(tmp_path: Path) -> None:
    x, y = load_iris(return_X_y=True)
    frame = pd.DataFrame(x, columns=["a", "b", "<script>alert(1)</script>", "d"])
    model = LogisticRegression(tol=1e-8, max_iter=1000).fit(frame, y)
    objective = whence.from_sklearn(model, frame, y)
    page = whence.report(objective, (frame[:3], y[:3]), tmp_path / "many.html")
    assert "<script>alert(1)" not in page.read_text(encoding="utf-8")


def test_a_regression_has_no_right_answer(tmp_path: Path) -> None:
    x, y = load_iris(return_X_y=True)
    objective = whence.from_sklearn(Ridge().fit(x, y), x, y)
    page = whence.report(objective, (x[:3], y[:3]), tmp_path / "many.html", k=1)
    assert "Query 2" in page.read_text(encoding="utf-8")


def test_refusals(tmp_path: Path) -> None:
    x, y = load_iris(return_X_y=True)
    objective = whence.from_sklearn(Ridge().fit(x, y), x, y)
    with pytest.raises(InvalidInput, match="Got 0"):
        whence.report(objective, (x[:3], y[:3]), tmp_path / "many.html", k=0)
    assert not list(tmp_path.iterdir())
