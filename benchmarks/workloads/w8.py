"""W8: ten real tables, as packages ship them; what does each row mean for twenty predictions?

A logistic or a ridge regression of scikit-learn, fitted to its minimum, on columns prepared once
for all libraries. The truth is scikit-learn itself: the model refitted without each row, or without
each of 500 random ones where a table has more than 1,000.
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import LogisticRegression, Ridge

from benchmarks.workloads.agreement import against
from benchmarks.workloads.problem import Rows

TITLE = "Ten real tables"
QUERIES = 20
_REFITTED = 1_000, 500  # all rows up to the first, else so many
_LEVELS = 20  # a column of words with more is a name


@dataclass(frozen=True)
class Table:
    """A table and what is predicted in it.

    Attributes:
        frame: Reads it.
        target: The column of the target.
        positive: Which of its values are the class 1; `None` where it is a number.
    """

    frame: Callable[[], pd.DataFrame]
    target: str
    positive: Callable[[Any], Any] | None = None


def _shipped(*path: str) -> Callable[[], pd.DataFrame]:
    """A table that statsmodels ships: between commas or tabulators, its names quoted either way."""
    file = importlib.resources.files("statsmodels.datasets").joinpath(*path)

    def frame() -> pd.DataFrame:
        return pd.read_csv(str(file), sep=None, engine="python").rename(columns=_unquoted)

    return frame


def _unquoted(name: str) -> str:
    return name.strip("'")


def _vega(file: str) -> Callable[[], pd.DataFrame]:
    """A table that vega_datasets ships."""

    def frame() -> pd.DataFrame:
        path = importlib.resources.files("vega_datasets") / "_data" / file
        text = path.read_text("utf-8")
        return pd.DataFrame(json.loads(text)) if file.endswith("json") else pd.read_csv(str(path))

    return frame


def _titanic() -> pd.DataFrame:
    return pd.read_csv(Path(__file__).parents[2] / "examples" / "titanic.csv")


TABLES = {  # small ones first: what takes too long for one is not tried on the next
    "star98": Table(_shipped("star98", "star98.csv"), "PR50M"),
    "cars": Table(_vega("cars.json"), "Miles_per_Gallon"),
    "origin of cars": Table(_vega("cars.json"), "Origin", lambda values: values == "USA"),
    "diabetes": Table(lambda: load_diabetes(as_frame=True).frame, "target"),
    "breast cancer": Table(
        lambda: load_breast_cancer(as_frame=True).frame, "target", lambda values: values == 1
    ),
    "titanic": Table(_titanic, "survived", lambda values: values == 1),
    "anes96": Table(_shipped("anes96", "anes96.csv"), "vote", lambda values: values == 1),
    "seattle weather": Table(_vega("seattle-weather.csv"), "temp_max"),
    "fair": Table(_shipped("fair", "fair.csv"), "affairs", lambda values: values > 0),
    "randhie": Table(_shipped("randhie", "randhie.csv"), "mdvis"),
}
SETS = dict.fromkeys(TABLES, QUERIES)


def columns(frame: pd.DataFrame) -> NDArray[np.float64]:
    """Return standardized numbers and indicators of levels; a missing number is the mean."""
    numbers = frame.select_dtypes("number").astype(float)
    numbers = numbers.fillna(numbers.mean())
    numbers = numbers.loc[:, numbers.std() > 0]
    words = frame.select_dtypes(exclude="number").astype(str)
    words = words.loc[:, words.nunique() <= _LEVELS]
    both = pd.concat([(numbers - numbers.mean()) / numbers.std(ddof=0), words], axis=1)
    return np.ascontiguousarray(pd.get_dummies(both, dtype=float).to_numpy(np.float64))


def estimator(classifies: bool) -> Any:
    """Return the model that is fitted to every table, not fitted."""
    if classifies:
        return LogisticRegression(solver="newton-cholesky", tol=1e-10, max_iter=1_000)
    return Ridge(alpha=1.0)


def losses(model: Any, x: NDArray[np.float64], y: NDArray[Any]) -> NDArray[np.float64]:
    """Return the loss of each row: −log p of its class, or half the squared error."""
    if hasattr(model, "predict_proba"):
        shares: NDArray[np.float64] = model.predict_log_proba(x)
        return np.asarray(-shares[np.arange(len(y)), y])
    return np.asarray(0.5 * (model.predict(x) - y) ** 2)


def build(bank: Path, quick: bool) -> None:
    """Prepare the tables, and refit; half a minute."""
    if (bank / "done").exists():
        return
    bank.mkdir(parents=True, exist_ok=True)
    for name, table in TABLES.items():
        frame = table.frame()
        frame = frame[frame[table.target].notna()]
        given = frame[table.target]
        y = (given if table.positive is None else table.positive(given).astype(int)).to_numpy()
        x = columns(frame.drop(columns=table.target))
        order = np.random.default_rng(0).permutation(len(y))[: 200 if quick else None]
        asked, kept = order[:QUERIES], order[QUERIES:]
        queries, x, y = (x[asked], y[asked]), x[kept], y[kept]
        most, some = _REFITTED
        removed = np.arange(len(y))
        if len(y) > most:
            removed = np.sort(np.random.default_rng(1).permutation(len(y))[:some])
        model = estimator(table.positive is not None).fit(x, y)
        before, actual = losses(model, *queries), np.empty((QUERIES, len(removed)))
        for j, row in enumerate(removed):
            others = np.delete(np.arange(len(y)), row)
            actual[:, j] = losses(clone(model).fit(x[others], y[others]), *queries) - before
        np.savez(
            bank / f"{name}.npz",
            x=x, y=y, x_queries=queries[0], y_queries=queries[1], removed=removed, actual=actual,
        )  # fmt: skip
    (bank / "done").touch()


def problem(queries: str, bank: Path, folder: Path) -> Rows:
    """Return what an adapter is given."""
    with np.load(bank / f"{queries}.npz") as data:
        x, y = data["x"], data["y"]
        asked = data["x_queries"], data["y_queries"]
    classifies = TABLES[queries].positive is not None
    return Rows(x=x, y=y, queries=asked, model=estimator(classifies).fit(x, y), folder=folder)


def accuracy(scores: NDArray[Any], queries: str, bank: Path, unit: bool) -> dict[str, float]:
    """Compare with the refits."""
    with np.load(bank / f"{queries}.npz") as data:
        removed, actual = data["removed"], data["actual"]
    return against(scores[:, removed], actual, unit=unit)
