"""Numbers on pages are, to the digits shown, those of refits of a clone of the user's model.

The pages about many predictions and about labels: tests/applications/test_report.py and
test_label_errors.py.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import whence

_ROWS = 120


@pytest.fixture(scope="module")
def tumors() -> tuple[Any, pd.DataFrame, pd.Series[Any]]:
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    X = X.iloc[:, [0, 1, 4, 8, 9]].assign(large=(X["mean area"] > 600).astype(int))
    y = y.map({0: "malignant", 1: "benign"})
    model = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-10, solver="newton-cholesky"))
    return model.fit(X[:_ROWS], y[:_ROWS]), X, y


def refit(tumors: tuple[Any, pd.DataFrame, pd.Series[Any]], gone: list[int]) -> Any:
    model, X, y = tumors
    keep = ~np.isin(np.arange(_ROWS), gone)
    return clone(model).fit(X[:_ROWS][keep], y[:_ROWS][keep])


def data_of(page: Path) -> Any:
    found = re.search(r'id="data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def share(model: Any, query: pd.DataFrame, name: str) -> float:
    return 100 * float(model.predict_proba(query)[0, list(model.classes_).index(name)])


def near(shown: str, expected: float) -> bool:
    """Return whether a number is another to its last digit, or to the one before by rounding."""
    number = float(shown)
    decimals = len(shown.partition(".")[2])
    return abs(number - expected) <= 1.01 * 10.0**-decimals


def test_one_prediction(tumors: tuple[Any, pd.DataFrame, pd.Series[Any]], tmp_path: Path) -> None:
    model, X, y = tumors
    trained = whence.from_sklearn(model, X[:_ROWS], y[:_ROWS])
    query, label = X[135:136], str(y[135])
    page = whence.explain(trained, (query, y[135:136]), k=3).report(tmp_path / "why.html", verify=6)
    head, own, *rows = data_of(page)
    at, again = head.index(f"without it, P({label}) is"), head.index("retrained")
    assert near(own[at].removesuffix(" %"), share(model, query, label))
    assert len(rows) == 6
    for row in rows:
        without = share(refit(tumors, [int(row[1])]), query, label)
        assert near(row[at].removesuffix(" %"), without)
        assert near(row[again].removesuffix(" %"), without)


def test_a_flip_set(tumors: tuple[Any, pd.DataFrame, pd.Series[Any]], tmp_path: Path) -> None:
    model, X, y = tumors
    trained = whence.from_sklearn(model, X[:_ROWS], y[:_ROWS])
    query = X[135:136]
    found = whence.flip_set(trained, (query, y[135:136]))
    page = found.report(tmp_path / "flip.html").read_text("utf-8")
    shown = re.findall(r'<strong dir="auto">“(\w+)” (\d+) %</strong>', page)
    assert len(shown) == 4
    for fitted, shares in (
        (model, shown[:2]),
        (refit(tumors, found.positions.tolist()), shown[2:]),
    ):
        for name, text in shares:
            assert near(text, share(fitted, query, name))
    assert f"{len(found.positions)} of {_ROWS}" in page


def test_groups(tumors: tuple[Any, pd.DataFrame, pd.Series[Any]], tmp_path: Path) -> None:
    model, X, y = tumors
    trained = whence.from_sklearn(model, X[:_ROWS], y[:_ROWS])
    queries, labels = X[_ROWS:160], y[_ROWS:160]
    found = whence.domain_mismatch(trained, (queries, labels), columns="large")
    data = data_of(found.report(tmp_path / "groups.html"))
    names = [column["name"] for column in data["columns"]]
    before = log_loss(labels, model.predict_proba(queries))
    assert len(data["rows"]) == 2
    for row in data["rows"]:
        level = int(data["items"][row[0]]["title"].removeprefix("large = "))
        gone = np.flatnonzero(X["large"][:_ROWS] == level).tolist()
        saved = before - log_loss(labels, refit(tumors, gone).predict_proba(queries))
        assert row[names.index("Loss saved without it")] == pytest.approx(saved, rel=1e-4)
