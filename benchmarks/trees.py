"""W7: boosted trees, ten tables by four libraries: accuracy, time, memory.

`python -m benchmarks.trees` measures what benchmarks/results/w7.jsonl has not, one case at a time
in a process of its own, and prints the table. Interrupted, the same command goes on. `--only NAME`
takes the cases whose name holds NAME; `--again` measures them again.

A case is a table and a library: 40 queries, the rest (at most 400 rows) for training, 40 rounds.

- `finite`: the correlation of the derivative with central differences of the recomputed model, for
  8 rows and all queries.
- `lds`, `boostin`, `kernel`: rank correlation with 24 refits on random halves, of the default
  method, of BoostIn (the best of tree-influence on its own tables) and of LeafKernel.
- `estimate`: what the default's own retrainings say of its LDS.
- `slope`: of the refits' outcomes in the scores: 2^a where scores have the size of removals.
- `seconds`: of 40 queries, retrainings included.
- `curve`: the rise of the loss of other queries after removing the tenth with the highest scores,
  less that after random removals, over the spread of the latter.

`speed / …`: 5,000 rows beside CatBoost's own `get_object_importance`, of one tree at a time
(SinglePoint) and of all (AllPoints, which the derivative equals), and 100,000 rows.
BoostIn and the leaf kernel are whence's; `python -m benchmarks.tree_influence` runs
tree-influence's own code on the same models, and `python -m benchmarks.tree_labels` ranks labels.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

import whence
from benchmarks.rows import by_case
from whence.evaluation.correlation import spearman
from whence.methods.halves import halves_of
from whence.methods.mean_derivative import derivatives_of
from whence.methods.response import response_of
from whence.objective.losses import measure_of
from whence.trees.model import BoostedModel

Table = tuple[NDArray[Any], NDArray[Any]]

RESULTS = Path(__file__).parent / "results" / "w7.jsonl"
LIBRARIES = ("sklearn", "lightgbm", "xgboost", "catboost")
QUERIES, _ROWS, _ROUNDS, _REFITS = 40, 400, 40, 24
ROWS = _ROWS + QUERIES  # of a table at most
_COLUMNS = ("finite", "lds", "estimate", "boostin", "kernel", "slope", "curve")
_LIMIT = 60  # processor seconds that CatBoost's AllPoints may take, its fit included
_STEP = 1e-4  # of the weight of a row, for central differences


def _study(name: str, target: str) -> Table:
    """Return a table of statsmodels' own package."""
    from statsmodels import datasets

    frame = getattr(datasets, name).load_pandas().data.astype(float)
    return frame.drop(columns=target).to_numpy(), frame[target].to_numpy()


def _stays() -> Table:
    """Return hospital stays: counts, and the codes of categories; readmitted within 30 days."""
    import io

    from experiments.datasets.files import read

    stays = pd.read_csv(
        io.BytesIO(read("diabetes130/diabetic_data.csv.gz")), dtype=str, keep_default_na=False
    )
    y = (stays.pop("readmitted") == "<30").to_numpy().astype(int)
    stays = stays.drop(columns=["encounter_id", "patient_nbr"])
    numbers = stays.apply(lambda column: pd.factorize(column, sort=True)[0])
    for name in ("time_in_hospital", "num_lab_procedures", "num_medications", "number_inpatient"):
        numbers[name] = stays[name].astype(int)
    return numbers.to_numpy(float), y


def _visits() -> Table:
    x, y = _study("randhie", "mdvis")
    return x, np.log1p(y)


def _schools() -> Table:
    x, above = _study("star98", "NABOVE")
    below = x[:, 0]
    return x[:, 1:], above / (above + below)


def _affairs() -> Table:
    x, y = _study("fair", "affairs")
    return x, (y > 0).astype(int)


def _digits() -> Table:
    x, y = load_digits(return_X_y=True)
    return x, y % 2


def _whole(name: str, target: str) -> Table:
    x, y = _study(name, target)
    return x, y.astype(int)


TABLES: dict[str, Any] = {
    "breast cancer": lambda: load_breast_cancer(return_X_y=True),
    "diabetes": lambda: load_diabetes(return_X_y=True),
    "digits, odd or even": _digits,
    "wine": lambda: load_wine(return_X_y=True),
    "hospital": _stays,
    "affairs": _affairs,
    "doctor visits": _visits,
    "votes": lambda: _whole("anes96", "vote"),
    "schools": _schools,
    "travel": lambda: _whole("modechoice", "choice"),
}


def table(name: str, rows: int) -> Table:
    """Return at most so many rows of a table, in a random order."""
    x, y = TABLES[name]()
    order = np.random.default_rng(0).permutation(len(x))[:rows]
    return np.ascontiguousarray(x[order], dtype=float), np.asarray(y)[order]


def estimator(library: str, classes: bool, rounds: int = _ROUNDS) -> Any:
    """Return a boosting model of a library, its defaults but for the number of rounds
    (and the depth of CatBoost, 4)."""
    if library == "sklearn":
        kind = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
        return kind(max_iter=rounds, early_stopping=False, random_state=0)
    if library == "lightgbm":
        import lightgbm

        kind = lightgbm.LGBMClassifier if classes else lightgbm.LGBMRegressor
        return kind(n_estimators=rounds, verbose=-1, n_jobs=1, random_state=0)
    if library == "xgboost":
        import xgboost

        kind = xgboost.XGBClassifier if classes else xgboost.XGBRegressor
        return kind(n_estimators=rounds, n_jobs=1, random_state=0)
    import catboost

    kind = catboost.CatBoostClassifier if classes else catboost.CatBoostRegressor
    return kind(
        iterations=rounds,
        depth=4,
        thread_count=1,
        random_state=0,
        verbose=0,
        allow_writing_files=False,
    )


def fitted(library: str, x: NDArray[Any], y: NDArray[Any], rounds: int = _ROUNDS) -> BoostedModel:
    """Return a fitted model as whence takes it."""
    model = estimator(library, bool(np.issubdtype(y.dtype, np.integer)), rounds).fit(x, y)
    trained = whence.from_sklearn(model, x, y)
    assert isinstance(trained, BoostedModel), trained.notes
    return trained


def finite_differences(trained: BoostedModel, queries: Any, measure: Any) -> float:
    """Return the correlation of the derivative with central differences of the recomputed model."""
    rows = np.random.default_rng(1).choice(len(trained.train), 8, replace=False)
    trees, leaves = trained.trees, trained.trees.leaves_of(queries.inputs)
    found = derivatives_of(trees, leaves, measure, queries.targets, rows)
    actual = np.empty_like(found)
    for column, row in enumerate(rows):
        ends = []
        for sign in (1, -1):
            weights = trees.weights.copy()
            weights[row] += sign * _STEP
            outputs = trees.reweighted(weights).replay.predict(leaves)
            ends.append(measure(torch.from_numpy(outputs), queries.targets).numpy())
        actual[:, column] = (ends[0] - ends[1]) / (2 * _STEP)
    return float(np.corrcoef(found.ravel(), actual.ravel())[0, 1])


def refits(
    trained: BoostedModel, queries: Any, measure: Any, count: int = _REFITS
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return which rows each refit left out, [b, n], and the measures after it, [b, q]."""
    n = len(trained.train)
    draw = np.random.default_rng(7)
    out = np.zeros((count, n), dtype=bool)
    for row in out:
        row[draw.choice(n, n // 2, replace=False)] = True
    weights = trained.weights * torch.from_numpy(~out)
    found = [
        measure(model.outputs(queries), queries.targets).numpy()
        for model in trained.refits(weights)
    ]
    return out, np.stack(found)


def accuracy(name: str, library: str) -> dict[str, Any]:
    """Return what is measured of a table and a library."""
    x, y = table(name, ROWS)
    classes = bool(np.issubdtype(y.dtype, np.integer))
    trained = fitted(library, x[QUERIES:], y[QUERIES:])
    asked = x[:QUERIES], y[:QUERIES]
    kind = "margin" if classes else "prediction"
    queries, measure = trained.examples(asked), measure_of(trained.loss, kind)
    row: dict[str, Any] = {"rows": len(x) - QUERIES, "measure": kind}
    row["finite"] = finite_differences(trained, queries, measure)
    out, actual = refits(trained, queries, measure)
    methods = {"lds": whence.Boosting(), "boostin": whence.BoostIn(), "kernel": whence.LeafKernel()}
    for key, method in methods.items():
        start = time.perf_counter()
        scores = method.fit(trained).scores(asked, measure=kind)
        row["seconds" if key == "lds" else f"{key}_seconds"] = time.perf_counter() - start
        predicted = out @ np.asarray(scores.values.T, dtype=np.float64)
        row[key] = float(np.nan_to_num(spearman(predicted, actual)).mean())
        if key != "lds":
            continue
        assert scores.diagnostics is not None
        note = scores.diagnostics.notes[-1]
        row["estimate"] = float(note.split("estimated at ")[1].split(" ")[0])
        response = response_of(trained, halves_of(trained, None, 0), measure)
        p, a = predicted - predicted.mean(0), actual - actual.mean(0)
        row["slope"] = float((p * a).sum() / np.square(p).sum())
        row["response"] = None if response is None else [response.factor, response.decay]
    curve = whence.removal_curve(trained, asked, fractions=(0.1,))
    spread = curve.random[:, -1].std(ddof=1)
    row["curve"] = float((curve.helpful[-1] - curve.random[:, -1].mean()) / spread)
    return row


def beside_catboost() -> dict[str, Any]:
    """Return processor seconds of the derivative and of CatBoost's own importance."""
    import catboost

    x, y = table("hospital", 5_100)
    trained = fitted("catboost", x[100:], y[100:], 100)
    queries = trained.examples((x[:100], y[:100]))
    where = np.arange(5_000)
    leaves = trained.trees.leaves_of(queries.inputs)

    def derivative() -> float:
        start = time.process_time()
        derivatives_of(trained.trees, leaves, trained.loss, queries.targets, where)
        return time.process_time() - start

    before, theirs_all = derivative(), all_points(5_000)  # in turns: a machine has slow minutes
    own = (before + derivative()) / 2
    model = estimator("catboost", True, 100).fit(x[100:], y[100:])
    start = time.process_time()
    model.get_object_importance(
        catboost.Pool(x[:10], y[:10]),
        catboost.Pool(x[100:], y[100:]),
        thread_count=1,
    )
    theirs = time.process_time() - start
    return {
        "rows": 5_000,
        "queries": 100,
        "seconds": own,
        "catboost_10_queries": theirs,
        "all_points_10_queries": theirs_all,
        "all_points_limit": _LIMIT,
    }


def all_points(rows: int) -> float | None:
    """Return processor seconds of CatBoost's AllPoints, ten queries; `None` past the limit."""
    command = [sys.executable, "-m", "benchmarks.trees", "--all-points", str(rows)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (_LIMIT, _LIMIT)),
    )
    if done.returncode > 0:
        raise RuntimeError(done.stderr)
    return float(done.stdout.split()[-1]) if done.returncode == 0 else None  # killed at the limit


def timed_all_points(rows: int) -> float:
    """Return processor seconds of CatBoost's AllPoints in this process, ten queries."""
    import catboost

    x, y = table("hospital", rows + 100)
    model = estimator("catboost", True, 100).fit(x[100:], y[100:])
    pools = catboost.Pool(x[:10], y[:10]), catboost.Pool(x[100:], y[100:])
    start = time.process_time()
    model.get_object_importance(*pools, thread_count=1, update_method="AllPoints")
    return time.process_time() - start


def large() -> dict[str, Any]:
    """Return the seconds of the default method on 100,000 rows, its retrainings included."""
    x, y = table("hospital", 100_100)
    trained = fitted("lightgbm", x[100:], y[100:], 100)
    clock, start = time.perf_counter(), time.process_time()
    halves_of(trained, None, 0)
    refitted = time.process_time() - start
    start = time.process_time()
    whence.Boosting().fit(trained).scores((x[:100], y[:100]))
    return {
        "rows": 100_000,
        "queries": 100,
        "retrainings": refitted,
        "seconds": time.process_time() - start,
        "wall": time.perf_counter() - clock,
    }


CASES: dict[str, Any] = {
    f"{name} / {library}": (accuracy, name, library) for name in TABLES for library in LIBRARIES
} | {"speed / catboost": (beside_catboost,), "speed / 100,000 rows": (large,)}


def measured(case: str) -> dict[str, Any]:
    """Return a row of the results."""
    function, *given = CASES[case]
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        row = function(*given)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"case": case, **row, "cpu_seconds": time.process_time() - start, "peak_mb": peak}


def line(row: dict[str, Any]) -> str:
    """Return one row of the table."""
    cells = [row["case"]]
    for key in _COLUMNS:
        value = row.get(key)
        cells.append("" if value is None else f"{value:.6f}" if key == "finite" else f"{value:.3f}")
    cells += [f"{row['seconds']:.1f}", f"{row['peak_mb']:.0f}"]
    return "| " + " | ".join(cells) + " |"


def known() -> dict[str, dict[str, Any]]:
    """Return the rows that were measured before."""
    return by_case(RESULTS)


def main(arguments: list[str]) -> None:
    """Measure what is missing, each case in a process of its own, and print the table."""
    if arguments[:1] == ["--case"]:
        print(json.dumps(measured(arguments[1])))
        return
    if arguments[:1] == ["--all-points"]:
        print(timed_all_points(int(arguments[1])))
        return
    only = arguments[arguments.index("--only") + 1] if "--only" in arguments else ""
    for case in CASES:
        rows = known()
        if only not in case or (case in rows and "--again" not in arguments):
            continue
        command = [sys.executable, "-m", "benchmarks.trees", "--case", case]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(case, done.stderr.strip().splitlines()[-1], flush=True)
            continue
        rows[case] = json.loads(done.stdout.splitlines()[-1])
        print(line(rows[case]), flush=True)
        kept = [json.dumps(rows[one]) + "\n" for one in CASES if one in rows]
        temporary = RESULTS.with_suffix(".tmp")
        temporary.write_text("".join(kept))
        temporary.replace(RESULTS)


if __name__ == "__main__":
    main(sys.argv[1:])
