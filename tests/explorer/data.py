"""A small table to explore, whose truth is known: some labels are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import whence
from whence.explorer.session import Subject

N, QUERIES, FLIPPED = 120, 30, 8


def table() -> tuple[pd.DataFrame, np.ndarray[Any, Any]]:
    """Rows with two numbers and a category, and their labels; the first labels are wrong."""
    generator = np.random.default_rng(3)
    n = N + QUERIES
    x = pd.DataFrame(
        {
            "age": generator.integers(18, 80, n),
            "fare": generator.gamma(2, 15, n).round(2),
            "sex": generator.choice(["male", "female"], n),
        },
        index=[f"p{i}" for i in range(n)],
    )
    score = 3.0 * (x["sex"] == "female") - 0.05 * (x["age"] - 50) - 1.5
    y = np.where(score + 0.3 * generator.logistic(size=n) > 0, "survived", "died")
    y[:FLIPPED] = np.where(y[:FLIPPED] == "died", "survived", "died")
    return x, y.astype(object)


def pipeline() -> Pipeline:
    """A model of it, not fitted."""
    columns = ColumnTransformer(
        [("numbers", StandardScaler(), ["age", "fare"]), ("levels", OneHotEncoder(), ["sex"])]
    )
    return make_pipeline(columns, LogisticRegression(tol=1e-10, max_iter=5000))


def fitted(x: pd.DataFrame, y: Any) -> whence.Trained:
    """The model fitted on some rows."""
    return whence.from_sklearn(pipeline().fit(x, y), x, y)


def subject(**options: Any) -> Subject:
    """What the tests explore."""
    x, y = table()
    trained = fitted(x[:N], y[:N])
    told: dict[str, Any] = {
        "queries": trained.examples((x[N:], y[N:])),
        "names": tuple(f"row {name}" for name in x.index[N:]),
        "labeled": True,
        "about": ("ship.csv",),
        "origin": "",
        "command": "whence explore",
    }
    return Subject(trained=trained, **{**told, **options})


def written(folder: Path) -> Path:
    """The same as a CSV file."""
    x, y = table()
    path = folder / "ship.csv"
    x.assign(outcome=y).to_csv(path, index=False)
    return path
