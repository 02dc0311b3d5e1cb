"""tree-influence beside whence in W7: its own code, on the same models, refits and queries.

`python -m benchmarks.tree_influence` measures what benchmarks/results/w7_tree_influence.jsonl has
not, a case of W7 at a time. `--only NAME` takes the cases whose name holds NAME; `--slow` adds the
two methods that take a minute, LeafInfluence and LeafRefit; `--again` measures again.

tree-influence 0.1.7 runs in its own Python (`requirements/tree_influence.txt`) and is given the
trees of W7's models in its own form (`peers/tree_influence.py`). Its scores are changes of the
query's loss, so that the measure is the loss here, for whence's default method too. Each is judged
by 48 refits on random halves, and by 240 where there are fewer than 200 rows (wine): these refits
are cheap, and leads are small there. `lead` is the mean over queries of whence's rank correlation
less another's, with the standard error over resamples of queries and refits. Methods that retrain
(LOO, SubSample, DShap) are left out, as is InputSim, which knows no model.

`speed`: LeafInfluence at 5,000 rows of 100 rounds, 100 queries, stopped after a minute.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

import whence
from benchmarks.environments import python_of
from benchmarks.rows import by_case
from benchmarks.trees import LIBRARIES, QUERIES, ROWS, TABLES, fitted, refits, table
from whence.evaluation.correlation import spearman
from whence.trees.leaves import NewtonLeaves
from whence.trees.model import BoostedModel

RESULTS = Path(__file__).parent / "results" / "w7_tree_influence.jsonl"
QUICK = ("BoostIn", "BoostInW1", "BoostInW2", "LeafInfluenceSP", "LeafSim", "TreeSim", "Trex")
SLOW = ("LeafInfluence", "LeafRefit")
CASES = [f"{name} / {library}" for name in TABLES for library in LIBRARIES]
SPEED = "speed"
_REFITS, _RESAMPLES = 48, 100
_SMALL, _MORE = 200, 240  # rows below which there are so many refits
_LIMIT = 60  # processor seconds of LeafInfluence
# What the package multiplies the softmax's curvature with, by its readers.
_FACTORS = {"lightgbm": 1.5, "xgboost": 2.0, "sklearn": 1.0, "catboost": 1.5}  # of three classes

Floats: TypeAlias = NDArray[np.float64]


def export(trained: BoostedModel, asked: Any, library: str, path: Path) -> None:
    """Write a model, its rows and queries for the peer."""
    trees, queries = trained.trees, trained.examples(asked)
    c, rule = trees.outputs, trees.rule
    l2 = np.max(rule.l2[np.isfinite(rule.l2)]) if isinstance(rule, NewtonLeaves) else rule.l2  # type: ignore[attr-defined]
    leaves = trees.leaves_of(queries.inputs)
    kind = "multiclass" if c > 1 else "binary" if trained.loss.classifies else "regression"
    np.savez(
        path,
        leaves=trees.leaves,
        queries=leaves,
        values=trees.replay.values,
        counts=np.maximum(trees.table.leaves(), leaves.max(axis=2) + 1),
        start=trees.replay.start[0],
        rate=rule.rates[0],  # type: ignore[attr-defined]
        l2=l2,
        factor=_FACTORS[library] if c > 1 else 0.0,
        objective=kind,
        targets=trees.targets,
        asked=queries.targets.numpy(),
    )


def scores_of(
    methods: tuple[str, ...], model: Path, limit: int | None = None
) -> dict[str, tuple[Floats | None, Any]]:
    """Return each method's scores, [q, n], with its processor seconds; or `None` and why not."""
    out = model.with_name("scores.npz")
    script = Path(__file__).parent / "peers" / "tree_influence.py"
    # Isolated: the script's folder has files of the package's name.
    command = [str(python_of("tree_influence")), "-I", str(script), str(model), str(out), *methods]
    cap = partial(resource.setrlimit, resource.RLIMIT_CPU, (limit, limit)) if limit else None
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=cap)
    if done.returncode > 0:
        raise RuntimeError(done.stderr)
    words = dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
    found = np.load(out) if done.returncode == 0 else {}  # below 0: stopped at the limit
    return {each: (found[each].T if each in found else None, words.get(each)) for each in methods}


def lead(ours: Floats, theirs: Floats, actual: Floats) -> list[float]:
    """Return the mean lead of the first predictions [b, q], and its error over resamples."""
    draw = np.random.default_rng(0)
    (b, q), found = actual.shape, []
    for at in range(_RESAMPLES + 1):
        rows = draw.choice(b, b) if at else np.arange(b)
        some = draw.choice(q, q) if at else np.arange(q)
        each = [_lds(of[rows][:, some], actual[rows][:, some]) for of in (ours, theirs)]
        found.append(each[0] - each[1])
    return [found[0], float(np.std(found[1:]))]


def _lds(predicted: Floats, actual: Floats) -> float:
    """Return the mean rank correlation over queries."""
    return float(np.nan_to_num(spearman(predicted, actual)).mean())


def measured(case: str, methods: tuple[str, ...], row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with some methods added."""
    name, library = case.split(" / ")
    x, y = table(name, ROWS)
    trained = fitted(library, x[QUERIES:], y[QUERIES:])
    asked = x[:QUERIES], y[:QUERIES]
    count = _MORE if len(x) < _SMALL else _REFITS
    out, actual = refits(trained, trained.examples(asked), trained.loss, count)
    scores = whence.Boosting().fit(trained).scores(asked)
    ours = out @ np.asarray(scores.values.T, dtype=np.float64)
    row = {"case": case, "refits": count, "whence": _lds(ours, actual), **row}
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.npz"
        export(trained, asked, library, model)
        for method, (theirs, words) in scores_of(methods, model).items():
            if theirs is None:
                row[method] = {"refused": words}
                continue
            predicted = out @ np.nan_to_num(theirs).T
            ahead = lead(ours, predicted, actual)
            row[method] = {"lds": _lds(predicted, actual), "lead": ahead, "cpu_seconds": words}
    return row


def speed() -> dict[str, Any]:
    """Return how long LeafInfluence runs at 5,000 rows, up to the limit."""
    x, y = table("hospital", 5_100)
    trained = fitted("lightgbm", x[100:], y[100:], 100)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.npz"
        export(trained, (x[:100], y[:100]), "lightgbm", model)
        _, seconds = scores_of(("LeafInfluence",), model, _LIMIT)["LeafInfluence"]
    return {"case": SPEED, "limit": _LIMIT, "cpu_seconds": seconds}


def known() -> dict[str, dict[str, Any]]:
    """Return the rows that were measured before."""
    return by_case(RESULTS)


def main(arguments: list[str]) -> None:
    """Measure what is missing, and print each case."""
    only = arguments[arguments.index("--only") + 1] if "--only" in arguments else ""
    methods = QUICK + SLOW if "--slow" in arguments else QUICK
    for case in [*CASES, SPEED]:
        row = {} if "--again" in arguments else known().get(case, {})
        missing = tuple(method for method in methods if method not in row)
        if only not in case or (row and (case == SPEED or not missing)):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            row = speed() if case == SPEED else measured(case, missing, row)
        print(row, flush=True)
        rows = known() | {case: row}  # others may have measured in the meantime
        kept = [json.dumps(rows[one]) + "\n" for one in [*CASES, SPEED] if one in rows]
        RESULTS.write_text("".join(kept))


if __name__ == "__main__":
    main(sys.argv[1:])
