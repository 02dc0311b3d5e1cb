"""Influence through the preprocessing, against refits of the whole pipeline. Prints a table.

Each pipeline is fitted on real rows. For each of 6 queries the 20 rows of the largest first-order
influence are removed, one by one, and `sklearn.base.clone(pipeline).fit` on the rest tells what
became of the query's output. Predicted changes are those of whence, and, for contrast, those of the
same model with its preprocessing held as fitted. A prediction is "bad" if its sign is wrong or its
size off by more than a fifth. On tables of at most 600 rows all removals are refitted, to see how
many of the true 20 the first order misses, and how many of the true 10 on each side
`whence.explain` does not show.

Run it with `python -m benchmarks.preprocessing`, some pipelines with their names behind; the data
sets of WHENCE_DATA are in its README. Results are in benchmarks/results/preprocessing.json.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    ElasticNet,
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
)
from sklearn.model_selection import KFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC, LinearSVC
from tqdm import tqdm

import whence
from whence.linear.objective import LinearObjective

Floats = NDArray[np.float64]
_QUERIES, _ROWS, _ALL, _SHOWN = 6, 20, 600, 10
_RESULTS = Path(__file__).parent / "results" / "preprocessing.json"
_DATA = Path(os.environ.get("WHENCE_DATA", Path(__file__).parent.parent.parent / "shared" / "data"))

_TIGHT = {"tol": 1e-10, "max_iter": 10_000}
_LOGISTIC = LogisticRegression(solver="newton-cholesky", **_TIGHT)
_SPARSE = LogisticRegression(C=5.0, solver="newton-cg", **_TIGHT)


def bundled(load: Callable[..., Any], n: int = 10_000) -> tuple[Any, Any]:
    """Return a bundled data set, shuffled."""
    x, y = load(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))[:n]
    return x[order], y[order]


def hospital(n: int = 1_500) -> tuple[Any, Any]:
    """Return encounters of patients with diabetes, with missing cells and codes of diagnoses."""
    frame = pd.read_csv(_DATA / "diabetes130" / "diabetic_data.csv.gz", na_values="?", nrows=40_000)
    frame = frame.sample(n, random_state=0).reset_index(drop=True)
    columns = ["race", "gender", "age", "time_in_hospital", "medical_specialty"]
    columns += ["num_lab_procedures", "num_procedures", "num_medications", "number_inpatient"]
    columns += ["number_outpatient", "number_emergency", "number_diagnoses", "diag_1", "insulin"]
    table = frame[columns].astype({"number_diagnoses": float})
    table.loc[np.random.default_rng(1).random(n) < 0.1, "number_diagnoses"] = np.nan
    for name in table.select_dtypes(exclude="number"):
        table[name] = table[name].astype(object).where(table[name].notna(), "missing")
    return table, (frame["readmitted"] != "NO").to_numpy(dtype=int)


def stays(n: int = 1_500) -> tuple[Any, Any]:
    """Return the same encounters with the days in hospital as the target."""
    table, _ = hospital(n)
    return table.drop(columns="time_in_hospital"), table["time_in_hospital"].to_numpy(dtype=float)


def reviews(n: int = 1_000) -> tuple[Any, Any]:
    """Return sentences of film reviews with their sentiment."""
    frame = pd.read_csv(_DATA / "text" / "sst2_train.tsv.gz", sep="\t", header=None, quoting=3)
    frame = frame.sample(n, random_state=0)
    return frame[0].to_numpy(dtype=object), frame[1].to_numpy(dtype=int)


def news(n: int = 800) -> tuple[Any, Any]:
    """Return news with their subject, one of four."""
    frame = pd.read_csv(_DATA / "text" / "agnews_test.csv.gz").sample(n, random_state=0)
    texts = frame["Title"] + ". " + frame["Description"]
    return texts.to_numpy(dtype=object), frame["Class Index"].to_numpy(dtype=int)


def mixed(number: Any, text: Any) -> Any:
    """Return a column transformer of numbers and text columns."""
    return make_column_transformer(
        (number, make_column_selector(dtype_include="number")),
        (text, make_column_selector(dtype_exclude="number")),
    )


_FILLED = make_pipeline(SimpleImputer(), StandardScaler())
_MEDIANS = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
_ONE_HOT = OneHotEncoder(handle_unknown="ignore")
_FOLDS = KFold(5, shuffle=True, random_state=0)

PIPELINES: dict[str, tuple[Callable[[], tuple[Any, Any]], Any]] = {
    "scale + logistic": (
        lambda: bundled(load_breast_cancer),
        make_pipeline(StandardScaler(), _LOGISTIC),
    ),
    "min-max + logistic": (
        lambda: bundled(load_breast_cancer),
        make_pipeline(MinMaxScaler(), _LOGISTIC),
    ),
    "scale + SVC": (
        lambda: bundled(load_breast_cancer, 300),
        make_pipeline(StandardScaler(), SVC(tol=1e-10)),
    ),
    "scale + linear SVC": (
        lambda: bundled(load_wine),
        make_pipeline(StandardScaler(), LinearSVC(C=0.1, tol=1e-12, max_iter=10**6)),
    ),
    "power + balanced softmax": (
        lambda: bundled(load_wine),
        make_pipeline(
            PowerTransformer(),
            LogisticRegression(class_weight="balanced", solver="newton-cg", **_TIGHT),
        ),
    ),
    "PCA(4) + least squares": (
        lambda: bundled(load_diabetes),
        make_pipeline(PCA(4), LinearRegression()),
    ),
    "scale + PCA(20) + softmax": (
        lambda: bundled(load_digits, 600),
        make_pipeline(
            StandardScaler(),
            PCA(20, svd_solver="full"),
            LogisticRegression(solver="newton-cg", **_TIGHT),
        ),
    ),
    "scale + products + ridge": (
        lambda: bundled(load_diabetes),
        make_pipeline(StandardScaler(), PolynomialFeatures(2), Ridge(alpha=10.0)),
    ),
    "quantiles + elastic net": (
        lambda: bundled(load_diabetes),
        make_pipeline(
            QuantileTransformer(n_quantiles=100),
            ElasticNet(alpha=0.05, l1_ratio=0.5, tol=1e-14, max_iter=10**6),
        ),
    ),
    "bins + logistic": (
        lambda: bundled(load_breast_cancer),
        make_pipeline(
            KBinsDiscretizer(5, quantile_method="averaged_inverted_cdf"),
            SelectKBest(k=60),
            _LOGISTIC,
        ),
    ),
    "impute + scale + one-hot + logistic": (
        hospital,
        make_pipeline(mixed(_FILLED, _ONE_HOT), _SPARSE),
    ),
    "target encoding + balanced logistic": (
        hospital,
        make_pipeline(
            mixed(_MEDIANS, TargetEncoder(cv=_FOLDS)),
            LogisticRegression(class_weight="balanced", solver="newton-cholesky", **_TIGHT),
        ),
    ),
    "impute + scale + one-hot + Poisson": (
        stays,
        make_pipeline(
            mixed(_FILLED, OneHotEncoder(handle_unknown="ignore", sparse_output=False)),
            PoissonRegressor(alpha=0.01, solver="newton-cholesky", **_TIGHT),
        ),
    ),
    "TF-IDF + logistic": (reviews, make_pipeline(TfidfVectorizer(), _SPARSE)),
    "TF-IDF + SVD(40) + logistic": (
        reviews,
        make_pipeline(
            TfidfVectorizer(min_df=2),
            TruncatedSVD(40, algorithm="arpack", random_state=0),
            _LOGISTIC,
        ),
    ),
    "TF-IDF (bigrams) + softmax": (
        news,
        make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), _SPARSE),
    ),
}


def of(rows: Any, where: NDArray[np.intp]) -> Any:
    """Return some rows of a frame or an array."""
    return rows.iloc[where] if isinstance(rows, pd.DataFrame) else rows[where]


def output(model: Any, x: Any, classes: NDArray[np.intp]) -> Floats:
    """Return what is predicted of each query: the output of one class, or the linear predictor."""
    if hasattr(model, "decision_function"):
        values: Floats = model.decision_function(x)
        return values if values.ndim == 1 else values[np.arange(len(values)), classes]
    values = model.predict(x)
    poisson = isinstance(model, Pipeline) and isinstance(model.steps[-1][1], PoissonRegressor)
    return np.asarray(np.log(values) if poisson else values)


@dataclass(frozen=True)
class Compared:
    """Predictions against refits, [q, 20] each."""

    predicted: Floats
    actual: Floats

    def row(self) -> dict[str, float]:
        """Return R, the share of right signs and of bad predictions."""
        wrong = np.sign(self.predicted) != np.sign(self.actual)
        off = np.abs(self.predicted - self.actual) > 0.2 * np.abs(self.actual)
        return {
            "R": float(np.corrcoef(self.predicted.ravel(), self.actual.ravel())[0, 1]),
            "wrong sign": float(wrong.mean()),
            "bad": float((wrong | off).mean()),
        }


def compare(name: str) -> dict[str, Any]:
    """Compare predictions with refits of one pipeline."""
    load, estimator = PIPELINES[name]
    x, y = load()
    n = len(y) - _QUERIES
    train, queries = of(x, np.arange(n)), of(x, np.arange(n, n + _QUERIES))
    model = clone(estimator).fit(train, y[:n])
    objective = whence.from_sklearn(model, train, y[:n])
    assert isinstance(objective, LinearObjective)
    asked = queries, y[n:]
    classes = getattr(model, "classes_", None)
    at = np.zeros(_QUERIES, dtype=np.intp) if classes is None else np.searchsorted(classes, y[n:])

    def measure(f: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return f[:, 0] if f.shape[1] == 1 else f.gather(1, targets.long().unsqueeze(1))[:, 0]

    started = time.perf_counter()
    first = whence.influence(objective, asked, measure=measure)
    seconds = {"first": time.perf_counter() - started}
    held = whence.influence(replace(objective, statistics=None), asked, measure=measure)
    top = first.largest(_ROWS).positions
    removed = np.arange(n) if n <= _ALL else np.unique(top)
    predicted: dict[str, Any] = {"held": held.values[:, removed], "first": first.values[:, removed]}
    for order in ("newton", "refined"):
        started = time.perf_counter()
        scores = whence.influence(
            objective, asked, order=order, measure=measure, indices=np.unique(top)
        )
        seconds[order] = time.perf_counter() - started
        predicted[order] = np.full((_QUERIES, len(removed)), np.nan)
        predicted[order][:, np.searchsorted(removed, np.unique(top))] = scores.values
    before = output(model, queries, at)
    actual = np.empty((_QUERIES, len(removed)))
    for column, i in enumerate(tqdm(removed, desc=name, disable=None)):
        rest = np.delete(np.arange(n), i)
        again = clone(estimator).fit(of(train, rest), y[rest])
        actual[:, column] = output(again, queries, at) - before
    some = np.unique(top)[:: max(1, len(np.unique(top)) // 20)]
    refit = whence.leave_one_out(objective, some, asked, measure=measure)
    error = np.abs(refit - actual[:, np.searchsorted(removed, some)]).max()
    places = np.searchsorted(removed, top)
    take = np.arange(_QUERIES)[:, None], places
    row: dict[str, Any] = {
        "pipeline": name,
        "rows": n,
        "refit error": float(error / np.abs(actual).max()),
        "seconds": seconds,
        **{
            order: Compared(values[take], actual[take]).row() for order, values in predicted.items()
        },
    }
    if n <= _ALL:
        true = np.argsort(-np.abs(actual), axis=1)[:, :_ROWS]
        for order in ("held", "first"):
            found = np.argsort(-np.abs(predicted[order]), axis=1)[:, :_ROWS]
            kept = [len(np.intersect1d(a, b)) for a, b in zip(true, found, strict=True)]
            row[order]["missed of the true 20"] = 1 - float(np.mean(kept)) / _ROWS
        row["explain"] = shown(objective, asked, measure, actual)
    return row


def shown(objective: Any, asked: tuple[Any, Any], measure: Any, actual: Floats) -> dict[str, float]:
    """Return which of the true strongest rows of each side `whence.explain` does not show."""
    missed, largest = [], 0.0
    for q, truth in enumerate(actual):
        query = of(asked[0], np.arange(q, q + 1)), asked[1][q : q + 1]
        explanation = whence.explain(objective, query, k=_SHOWN, measure=measure)
        sides = (explanation.raising, 1), (explanation.lowering, -1)
        for side, sign in sides:
            order = np.argsort(sign * truth)[:_SHOWN]
            order = order[sign * truth[order] < 0]
            gone = np.setdiff1d(order, [effect.position for effect in side])
            missed.append(len(gone) / max(1, len(order)))
            largest = max(largest, float(np.abs(truth[gone] / truth[order[:1]]).max(initial=0)))
    return {"missed of the true 10 a side": float(np.mean(missed)), "largest missed": largest}


def line(row: dict[str, Any]) -> str:
    """Return one row of the table."""
    cells = [f"{row['pipeline']:37s} {row['rows']:5d} {row['refit error']:8.0e}"]
    for order in ("held", "first", "refined"):
        found = row[order]
        cells.append(f"{found['R']:7.4f} {found['wrong sign']:5.0%} {found['bad']:5.0%}")
    return " |".join(cells) + f" | {row['seconds']['first']:6.2f} {row['seconds']['refined']:6.1f}"


def main(names: list[str]) -> None:
    """Print the table, and keep each row as it is made: an interrupted run loses no other."""
    print(f"{'':53s}|{'held: R, sign, bad':>20s} |{'first':>20s} |{'refined':>20s} | seconds")
    for name in names or list(PIPELINES):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            row = compare(name)
        print(line(row), flush=True)
        known = json.loads(_RESULTS.read_text()) if _RESULTS.exists() else []
        rows = {kept["pipeline"]: kept for kept in known} | {name: row}
        ordered = [rows[one] for one in PIPELINES if one in rows]
        _RESULTS.write_text(json.dumps(ordered, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
