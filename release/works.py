"""What must work in every environment: a model of each kind explained, held against its own refit.

Runs with the dependencies alone: `make compat` runs it in each environment. Prints JSON.
"""

from __future__ import annotations

import importlib.util
import json
import pkgutil
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy
import sklearn
import torch
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import Lasso, LogisticRegression, PoissonRegressor, Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import nn

import whence

_REMOVED = [0, 7, 31]


def table(load: Callable[..., Any]) -> tuple[pd.DataFrame, pd.Series]:
    x, y = load(return_X_y=True, as_frame=True)
    return x.iloc[:150, :6], y[:150]


def refits(estimator: Any, load: Callable[..., Any], *, within: float) -> float:
    """Return how far removals are from the library's own refits, as a share of the largest."""
    x, y = table(load)
    fitted = clone(estimator).fit(x[10:], y[10:])
    objective = whence.from_sklearn(fitted, x[10:], y[10:])
    queries = x[:5], y[:5]
    found = whence.leave_one_out(objective, _REMOVED, queries)

    def losses(model: Any) -> Any:
        other = whence.from_sklearn(model, *kept)
        examples = other.examples(queries)
        return other.loss(other.outputs(examples), examples.targets).numpy()

    kept = x[10:], y[10:]
    before = losses(fitted)
    expected = []
    for row in _REMOVED:
        kept = x[10:].drop(index=x.index[10 + row]), y[10:].drop(index=y.index[10 + row])
        expected.append(losses(clone(estimator).fit(*kept)) - before)
    off = np.abs(np.stack(expected, 1) - found).max() / np.abs(found).max()
    assert off < within, f"{off:.2g} of the largest effect"
    return float(off)


def network() -> float:
    """Return how far CG's scores are from those of a Cholesky factorization."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x = torch.randn(40, 4, dtype=torch.float64)
    objective = whence.from_torch(model, whence.CrossEntropy(), (x, torch.arange(40) % 3), l2=0.1)
    queries = x[:3], torch.arange(3)
    exact, iterated, ekfac = (
        whence.influence(objective, queries, solver=solver, damping=0.1).values
        for solver in (whence.Cholesky(), whence.CG(rtol=1e-9), whence.EKFAC())
    )
    assert np.corrcoef(exact.ravel(), ekfac.ravel())[0, 1] > 0.7
    off = np.abs(exact - iterated).max() / np.abs(exact).max()
    assert off < 1e-6
    return float(off)


def recorded() -> float:
    """Return how far a metagradient is from a difference of trainings."""
    torch.manual_seed(0)
    x, y = torch.randn(20, 3, dtype=torch.float64), torch.arange(20) % 2
    recipe = whence.Recipe(learning_rate=0.2, batch_size=5, epochs=3, dtype=torch.float64)
    run = whence.train(nn.Linear(3, 2).double(), whence.CrossEntropy(), (x, y), recipe)
    scores = whence.metagradient(run, (x[:2], y[:2])).values[:, 0]
    weights = torch.ones(2, 20, dtype=torch.float64)
    weights[1, 0] -= 1e-5
    params = whence.retrain(run, weights)
    loss = whence.CrossEntropy()
    one, other = (loss(run.program.outputs(p, x[:2]), y[:2]).numpy() for p in params)
    off = np.abs((other - one) / 1e-5 - scores).max() / np.abs(scores).max()
    assert off < 1e-3
    return float(off)


def page() -> float:
    x, y = table(load_breast_cancer)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x[10:], y[10:])
    objective = whence.from_sklearn(model, x[10:], y[10:])
    explanation = whence.explain(objective, x[:1], k=3)
    with tempfile.TemporaryDirectory() as folder:
        path = explanation.report(Path(folder) / "why.html")
        assert len(path.read_bytes()) > 10_000
    return float(1 - explanation.verify(10).pearson)


def index() -> float:
    """Return how far the scores of an index are from those in memory."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    x, y = torch.randn(40, 4), torch.arange(40) % 3
    objective = whence.from_torch(model, whence.CrossEntropy(), (x, y))
    method = whence.Projected(moment="layers")
    known = method.fit(objective).scores((x[:2], y[:2])).values
    with tempfile.TemporaryDirectory() as folder:
        built = whence.Index.build(objective, Path(folder) / "index", method=method, rows="float32")
        hits = built.query((x[:2], y[:2]), k=40)
        assert len(hits.report(Path(folder) / "why.html").read_bytes()) > 10_000
    found = np.take_along_axis(hits.helpful.values, hits.helpful.positions.argsort(1), 1)
    off = np.abs(found - known).max() / np.abs(known).max()
    assert off < 1e-5
    return float(off)


def modules() -> float:
    """Import every module, but those for a package that is not there."""
    for module in pkgutil.walk_packages(whence.__path__, "whence."):
        if module.name == "whence.__main__":
            continue
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if importlib.util.find_spec(str(error.name).split(".")[0]) is not None:
                raise
    return 0.0


def command() -> float:
    with tempfile.TemporaryDirectory() as folder:
        x, y = table(load_breast_cancer)
        x.assign(y=y).to_csv(Path(folder) / "train.csv", index=False)
        asked = ["explain", "train.csv", "--target", "y", "--row", "3", "--json"]
        call = [sys.executable, "-m", "whence", *asked]
        done = subprocess.run(call, cwd=folder, capture_output=True, text=True, check=True)
        call[-1:] = ["-k", "two"]
        wrong = subprocess.run(call, cwd=folder, capture_output=True, text=True, check=False)
    assert json.loads(done.stdout)["scores"]
    assert "Expected -k to be a whole number from 1. Got 'two'." in wrong.stderr, wrong.stderr
    return 0.0


_FOREST = {"n_estimators": 5, "max_depth": 3, "random_state": 0}
_TIGHT = {"tol": 1e-10, "max_iter": 10_000}

CHECKS: dict[str, Callable[[], float]] = {
    "Ridge": lambda: refits(Ridge(), load_diabetes, within=1e-6),
    "LogisticRegression in a pipeline": lambda: refits(
        make_pipeline(StandardScaler(), LogisticRegression(**_TIGHT)),
        load_breast_cancer,
        within=1e-3,
    ),
    "Lasso": lambda: refits(Lasso(alpha=0.05, **_TIGHT), load_diabetes, within=1e-4),
    "PoissonRegressor": lambda: refits(
        PoissonRegressor(solver="newton-cholesky", **_TIGHT), load_diabetes, within=1e-4
    ),
    "SVC": lambda: refits(
        make_pipeline(StandardScaler(), SVC(tol=1e-10)), load_breast_cancer, within=1e-3
    ),
    "KNeighborsRegressor": lambda: refits(KNeighborsRegressor(40), load_diabetes, within=1e-9),
    "HistGradientBoostingClassifier": lambda: refits(
        HistGradientBoostingClassifier(max_iter=5, random_state=0), load_breast_cancer, within=1e-6
    ),
    "GradientBoostingRegressor": lambda: refits(
        GradientBoostingRegressor(**_FOREST), load_diabetes, within=1e-6
    ),
    "RandomForestClassifier": lambda: refits(
        RandomForestClassifier(**_FOREST), load_breast_cancer, within=1e-3
    ),
    "network": network,
    "recorded training": recorded,
    "index": index,
    "page and verification": page,
    "command line": command,
    "all modules": modules,
}


def main() -> int:
    warnings.simplefilter("ignore")
    found: dict[str, Any] = {}
    began = time.monotonic()
    for name, check in CHECKS.items():
        try:
            found[name] = check()
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error!s:.300}"
    modules = (np, pd, scipy, sklearn, torch)
    versions = {module.__name__: module.__version__ for module in modules}
    print(
        json.dumps(
            {
                "python": platform.python_version(),
                "versions": versions,
                "checks": found,
                "seconds": round(time.monotonic() - began, 1),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
