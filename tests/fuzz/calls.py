"""Every public function with arguments that it takes, small enough for a thousand calls a minute.

`CALLS` has a line for each function that the reference documents; `LEFT_OUT` says which have none,
and why. An argument whose numbers count is an `Array`, or a `Pair` of two.
"""

from __future__ import annotations

import functools
import inspect
import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import statsmodels.api as sm
import torch
from lifelines import CoxPHFitter
from sklearn.datasets import load_iris
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

import whence

FOLDER = Path(tempfile.mkdtemp(prefix="whence-fuzz-"))


@dataclass(frozen=True, eq=False)
class Array:
    """An argument that is an array."""

    numbers: Any


@dataclass(frozen=True, eq=False)
class Pair:
    """An argument that is (X, y)."""

    x: Any
    y: Any


@cache
def rows() -> tuple[Any, Any]:
    x, y = load_iris(return_X_y=True)
    at = np.r_[50:62, 100:112]
    return x[at, :3], y[at] - 1


@cache
def linear() -> Any:
    x, y = rows()
    model = LogisticRegression(solver="newton-cholesky", tol=1e-10).fit(x, y)
    return whence.from_sklearn(model, x, y)


@cache
def regression() -> Any:
    x, _ = rows()
    return whence.from_sklearn(Ridge().fit(x[:, :2], x[:, 2]), x[:, :2], x[:, 2])


@cache
def neighbors() -> Any:
    x, y = rows()
    return whence.from_sklearn(KNeighborsClassifier(3).fit(x, y), x, y)


@cache
def boosted() -> Any:
    x, _ = rows()
    model = GradientBoostingRegressor(n_estimators=3, max_depth=2, random_state=0)
    return whence.from_sklearn(model.fit(x[:, :2], x[:, 2]), x[:, :2], x[:, 2])


@cache
def unpenalized() -> Any:
    x, _ = rows()
    return whence.from_sklearn(LinearRegression().fit(x[:, :2], x[:, 2]), x[:, :2], x[:, 2])


@cache
def through_zero() -> Any:
    x, _ = rows()
    model = Ridge(fit_intercept=False).fit(x[:, :2], x[:, 2])
    return whence.from_sklearn(model, x[:, :2], x[:, 2])


@cache
def ols() -> Any:
    return sm.OLS(rows()[0][:, 2], sm.add_constant(rows()[0][:, :2])).fit()


@cache
def cox() -> tuple[Any, Any]:
    frame = pd.DataFrame(rows()[0][:, :2], columns=["age", "dose"])
    frame["week"], frame["event"] = np.arange(1.0, 25.0), rows()[1]
    return CoxPHFitter(penalizer=0.1).fit(frame, "week", "event"), frame


@cache
def index() -> Any:
    return whence.Index.build(network(), FOLDER / "index")


@cache
def evaluation() -> Any:
    return whence.evaluate(linear(), (rows()[0][:2], rows()[1][:2]), subsets=4)


@functools.wraps(whence.explore)
def explored(*arguments: Any, **options: Any) -> None:
    """Open the explorer, interrupted as soon as it prints its address."""
    with (
        patch("whence.explorer.explore.print", create=True, side_effect=KeyboardInterrupt),
        suppress(KeyboardInterrupt),
    ):
        whence.explore(*arguments, **options)


def layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


@cache
def module() -> nn.Module:
    return layers().double()


@cache
def network() -> Any:
    x, y = rows()
    return whence.from_torch(module(), whence.CrossEntropy(), (torch.as_tensor(x), y), l2=0.1)


@cache
def recipe() -> Any:
    return whence.Recipe(learning_rate=0.1, batch_size=12, epochs=2)


@cache
def run() -> Any:
    x, y = rows()
    data = torch.as_tensor(x), torch.as_tensor(y)
    return whence.train(layers().double(), whence.CrossEntropy(), data, recipe())


@cache
def bert() -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=9,
        hidden_size=4,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=6,
        max_position_embeddings=6,
    )
    return BertForSequenceClassification(config).eval()


@cache
def scores() -> Any:
    return whence.influence(linear(), (rows()[0][:3], rows()[1][:3]))


@cache
def frozen() -> Any:
    x, y = rows()
    images = torch.as_tensor(x).reshape(-1, 1, 1, 3)
    top = LogisticRegression(tol=1e-10).fit(x, y)
    return whence.from_frozen(nn.Flatten(), top, images, y), images


def pair(q: int = 2) -> Pair:
    return Pair(rows()[0][:q], rows()[1][:q])


def operator() -> Any:
    matrix = torch.diag(torch.arange(1.0, 7.0, dtype=torch.float64))
    return whence.linalg.Dense(matrix)


def evaluated() -> dict[str, Any]:
    generator = np.random.default_rng(0)
    return {
        "scores": generator.normal(size=(2, 6)),
        "masks": np.eye(6, dtype=bool)[:5] ^ True,
        "outcomes": generator.normal(size=(2, 5, 2)),
    }


def _retrain(weights: torch.Tensor, seed: int) -> torch.Tensor:
    return weights.double()[:2] + seed


_LOSS = [[0.0, 0.1, 0.2], [0.1, 0.2, 0.3]]
_EXTRA: dict[str, Callable[[], Any]] = {
    "solver": lambda: whence.linalg.Cholesky(),
    "damping": lambda: 0.01,
    "indices": lambda: Array(np.array([1, 2, 5])),
}


def _fresh(name: str) -> Path:
    return Path(tempfile.mkdtemp(dir=FOLDER)) / name


CALLS: dict[str, tuple[Callable[..., Any], Callable[[], dict[str, Any]]]] = {
    "influence": (whence.influence, lambda: {"objective": linear(), "queries": pair()}),
    "influence of a network": (
        whence.influence,
        lambda: {"objective": network(), "queries": pair(), "solver": whence.EKFAC()},
    ),
    "leave_one_out": (
        whence.leave_one_out,
        lambda: {"objective": linear(), "indices": Array(np.array([1, 5])), "queries": pair()},
    ),
    "leave_one_out of neighbors": (
        whence.leave_one_out,
        lambda: {"objective": neighbors(), "indices": Array(np.array([1, 5])), "queries": pair()},
    ),
    "group_effect": (
        whence.group_effect,
        lambda: {"objective": linear(), "indices": Array(np.array([1, 5])), "queries": pair()},
    ),
    "edit": (
        whence.edit,
        lambda: {
            "objective": linear(),
            "index": 3,
            "x_new": Array(rows()[0][4]),
            "y_new": 1,
            "queries": pair(),
        },
    ),
    "edit of a network": (
        whence.edit,
        lambda: {
            "objective": network(),
            "index": 3,
            "x_new": Array(rows()[0][4]),
            "y_new": 1,
            "queries": pair(),
            "solver": whence.EKFAC(),
        },
    ),
    "perturbation": (
        whence.perturbation,
        lambda: {"objective": linear(), "indices": Array(np.array([1, 5])), "query": pair(1)},
    ),
    "self_influence": (whence.self_influence, lambda: {"objective": linear()}),
    "influence_on_parameters": (
        whence.influence_on_parameters,
        lambda: {"objective": linear(), "indices": Array(np.array([1, 5]))},
    ),
    "projected": (
        whence.projected,
        lambda: {"objective": network(), "queries": pair(), "size": 8},
    ),
    "representer": (whence.representer, lambda: {"objective": linear(), "queries": pair()}),
    "tracin": (whence.tracin, lambda: {"objective": network(), "queries": pair()}),
    "explain": (whence.explain, lambda: {"trained": linear(), "query": pair(1), "k": 2}),
    "explain boosted trees": (
        whence.explain,
        lambda: {
            "trained": boosted(),
            "query": Pair(rows()[0][:1, :2], rows()[0][:1, 2]),
            "k": 2,
            "method": whence.BoostIn(),
        },
    ),
    "report": (
        whence.report,
        lambda: {"trained": linear(), "queries": pair(), "path": _fresh("page.html"), "k": 2},
    ),
    "find_label_errors": (whence.find_label_errors, lambda: {"objective": linear(), "k": 3}),
    "flip_set": (whence.flip_set, lambda: {"objective": linear(), "query": pair(1), "largest": 4}),
    "compare_influence": (
        whence.compare_influence,
        lambda: {"objective_a": linear(), "objective_b": network(), "query": pair(1)},
    ),
    "domain_mismatch": (
        whence.domain_mismatch,
        lambda: {"objective": linear(), "queries": pair(6), "columns": [0], "order": "first"},
    ),
    "evaluate": (
        whence.evaluate,
        lambda: {"objective": linear(), "queries": pair(), "subsets": 4},
    ),
    "removal_curve": (
        whence.removal_curve,
        lambda: {"objective": linear(), "queries": pair(8), "fractions": (0.1, 0.2)},
    ),
    "stability": (
        whence.stability,
        lambda: {"models": [network(), network()], "queries": pair(), "k": 2},
    ),
    "stability of one training": (
        whence.stability,
        lambda: {"models": run(), "queries": pair(), "seeds": [1], "method": whence.TracIn()},
    ),
    "diagnose": (whence.diagnose, lambda: {"objective": linear(), "iterations": 4}),
    "spectrum": (
        whence.spectrum,
        lambda: {"objective": linear(), "iterations": 4, "probes": 2},
    ),
    "average": (whence.average, lambda: {"scores": [scores(), scores()]}),
    "from_sklearn": (
        whence.from_sklearn,
        lambda: {
            "estimator": LogisticRegression(solver="newton-cholesky", tol=1e-10).fit(*rows()),
            "X": Array(rows()[0]),
            "y": Array(rows()[1]),
            "sample_weight": Array(np.ones(24)),
        },
    ),
    "from_sklearn of neighbors": (
        whence.from_sklearn,
        lambda: {
            "estimator": KNeighborsClassifier(3).fit(*rows()),
            "X": Array(rows()[0]),
            "y": Array(rows()[1]),
        },
    ),
    "from_torch": (
        whence.from_torch,
        lambda: {
            "model": module(),
            "loss": whence.CrossEntropy(),
            "dataset": Pair(rows()[0], rows()[1]),
            "weights": Array(np.ones(24)),
            "batch_size": 7,
        },
    ),
    "from_transformers": (
        whence.from_transformers,
        lambda: {
            "model": bert(),
            "dataset": [
                {"input_ids": [1, 2, 3], "labels": 0},
                {"input_ids": [4, 5, 6], "labels": 1},
            ],
            "weights": Array(np.ones(2)),
            "batch_size": 2,
        },
    ),
    "from_frozen": (
        whence.from_frozen,
        lambda: {
            "extractor": nn.Flatten(),
            "estimator": LogisticRegression(tol=1e-10).fit(*rows()),
            "inputs": Array(rows()[0].reshape(-1, 1, 1, 3)),
            "y": Array(rows()[1]),
            "sample_weight": Array(np.ones(24)),
            "batch_size": 5,
        },
    ),
    "train": (
        whence.train,
        lambda: {
            "model": layers().double(),
            "loss": whence.CrossEntropy(),
            "dataset": Pair(rows()[0], rows()[1]),
            "recipe": recipe(),
            "weights": Array(np.ones(24)),
            "memory": 2**20,
        },
    ),
    "retrain": (
        whence.retrain,
        lambda: {"run": run(), "weights": Array(np.ones((2, 24))), "together": 2},
    ),
    "metagradient": (
        whence.metagradient,
        lambda: {"run": run(), "queries": pair(), "together": 2},
    ),
    "metasmoothness": (
        whence.metasmoothness,
        lambda: {"run": run(), "directions": 2, "fraction": 0.1},
    ),
    "unrolled": (whence.unrolled, lambda: {"run": run(), "queries": pair(), "segments": 2}),
    "attacks.attack": (
        whence.attacks.attack,
        lambda: {
            "objective": frozen()[0],
            "queries": Pair(frozen()[1][:1].numpy(), rows()[1][:1]),
            "n_images": 1,
            "steps": 1,
        },
    ),
    "attacks.strongest": (
        whence.attacks.strongest,
        lambda: {
            "objective": frozen()[0],
            "queries": Pair(frozen()[1][:1].numpy(), rows()[1][:1]),
            "m": 2,
        },
    ),
    "attacks.as_predicted": (
        whence.attacks.as_predicted,
        lambda: {
            "objective": frozen()[0],
            "queries": Pair(frozen()[1][:1].numpy(), rows()[1][:1]),
        },
    ),
    "attacks.resume": (
        whence.attacks.resume,
        lambda: {
            "objective": frozen()[0],
            "queries": Pair(frozen()[1][:1].numpy(), rows()[1][:1]),
            "path": _saved(),
        },
    ),
    "evaluation.lds": (
        whence.evaluation.lds,
        lambda: {
            **{name: Array(value) for name, value in evaluated().items()},
            "resamples": 5,
        },
    ),
    "evaluation.noise_ceiling": (
        whence.evaluation.noise_ceiling,
        lambda: {"outcomes": Array(evaluated()["outcomes"])},
    ),
    "evaluation.loo_correlation": (
        whence.evaluation.loo_correlation,
        lambda: {
            "predicted": Array(evaluated()["scores"]),
            "actual": Array(evaluated()["scores"] * 2),
            "resamples": 5,
        },
    ),
    "evaluation.brittleness_curve": (
        whence.evaluation.brittleness_curve,
        lambda: {
            "removed": Array(np.array([0, 2])),
            "outcomes": Array(np.random.default_rng(0).normal(size=(2, 2, 3))),
            "resamples": 5,
        },
    ),
    "evaluation.detection_curve": (
        whence.evaluation.detection_curve,
        lambda: {
            "ranking": Array(np.array([2, 0, 1, 3])),
            "flipped": Array(np.array([True, False, True, False])),
        },
    ),
    "evaluation.retraining_ensemble": (
        whence.evaluation.retraining_ensemble,
        lambda: {
            "retrain": _retrain,
            "n": 4,
            "subsets": 2,
            "seeds": 1,
            "fingerprint": "fuzz",
            "directory": _fresh("ensemble"),
        },
    ),
    "evaluation.load_ensemble": (
        whence.evaluation.load_ensemble,
        lambda: {"directory": _ensemble(), "fingerprint": "fuzz"},
    ),
    "evaluation.top_k_removal": (
        whence.evaluation.top_k_removal,
        lambda: {
            "run": run(),
            "scores": Array(np.random.default_rng(0).normal(size=(2, 24))),
            "queries": pair(),
            "removed": [0, 1],
        },
    ),
    "linalg.lanczos": (whence.linalg.lanczos, lambda: {"A": operator(), "steps": 2}),
    "linalg.extreme_eigenvalues": (
        whence.linalg.extreme_eigenvalues,
        lambda: {"A": operator(), "iterations": 3},
    ),
    "linalg.spectral_density": (
        whence.linalg.spectral_density,
        lambda: {"A": operator(), "probes": 2, "iterations": 3},
    ),
    "linalg.materialize": (whence.linalg.materialize, lambda: {"A": operator(), "block": 2}),
    "linalg.eigendecompose": (
        whence.linalg.eigendecompose,
        lambda: {"matrix": torch.eye(3, dtype=torch.float64)},
    ),
    "trainer_callback": (
        whence.trainer_callback,
        lambda: {"directory": _fresh("callback"), "every": 2},
    ),
    "lightning_callback": (
        whence.lightning_callback,
        lambda: {"directory": _fresh("callback"), "every": 2},
    ),
    "select": (whence.select, lambda: {"index": index(), "targets": pair(), "k": 2}),
    "explore": (explored, lambda: {"trained": linear(), "queries": pair()}),
    "from_lifelines": (
        whence.from_lifelines,
        lambda: {"fitter": cox()[0], "frame": cox()[1]},
    ),
    "from_statsmodels": (whence.from_statsmodels, lambda: {"results": ols()}),
    "regression_diagnostics": (
        whence.regression_diagnostics,
        lambda: {"objective": unpenalized()},
    ),
    "error_bound": (
        whence.error_bound,
        lambda: {"objective": through_zero(), "queries": Pair(rows()[0][:2, :2], rows()[0][:2, 2])},
    ),
    "report_evaluation": (
        whence.report_evaluation,
        lambda: {"score": evaluation(), "path": _fresh("evaluation.html")},
    ),
    "attacks.flip_labels": (
        whence.attacks.flip_labels,
        lambda: {"objective": linear(), "queries": pair(1), "most": 2},
    ),
    "attacks.change_cells": (
        whence.attacks.change_cells,
        lambda: {
            "objective": linear(),
            "queries": pair(1),
            "bounds": {0: (4.0, 7.0)},
            "indices": Array(np.array([1, 5, 7])),
            "most": 1,
        },
    ),
    "plot.leverage_and_residuals": (
        whence.plot.leverage_and_residuals,
        lambda: {"diagnostics": whence.regression_diagnostics(unpenalized()), "k": 2},
    ),
    "plot.by_row": (
        whence.plot.by_row,
        lambda: {"diagnostics": whence.regression_diagnostics(unpenalized()), "k": 2},
    ),
    "plot.input_attribution": (
        whence.plot.input_attribution,
        lambda: {"image": Array(np.zeros((3, 3))), "derivative": Array(np.ones((3, 3)))},
    ),
}

# Options of methods, solvers, losses and trainings: each argument of each constructor.
OPTIONS: dict[str, dict[str, Any]] = {
    "CG": {},
    "Cholesky": {},
    "EKFAC": {},
    "KFAC": {},
    "LiSSA": {"depth": 3},
    "Influence": {},
    "TracIn": {},
    "Projected": {},
    "Unrolled": {},
    "Metagradient": {},
    "Retrained": {"fits": 4},
    "Boosting": {"ensemble": 2},
    "DataOOB": {"ensemble": 2},
    "KNNShapley": {},
    "Recipe": {"learning_rate": 0.1, "batch_size": 4, "epochs": 1},
    "Tweedie": {"power": 1.5},
    "SmoothHinge": {},
    "CrossEntropy": {},
    "BM25": {},
    "HiddenCosine": {},
    "SavedCurvature": {"path": "curvature.safetensors"},
    "Semivalue": {"fits": 3},
    "linalg.Arnoldi": {"rank": 2},
    "linalg.Nystrom": {"rank": 2},
    "linalg.Direct": {},
    "measures.AUROC": {},
    "measures.Accuracy": {},
    "measures.Calibration": {"groups": [0, 1]},
    "measures.CohensD": {"groups": [0, 1]},
    "measures.DemographicParity": {"groups": [0, 1]},
    "measures.EqualOpportunity": {"groups": [0, 1]},
    "measures.Mean": {},
    "measures.OfSet": {"function": torch.sum},
    "measures.WorstGroup": {"groups": [0, 1]},
}

LEFT_OUT = {
    "evaluation.replays": "reads its queries when it is called, by evaluation.retraining_ensemble",
    "plot.effects": "its arguments are results",
    "plot.predicted_against_actual": "its arguments are results",
    "influence_by_token": "takes a language model, which tests/methods/test_tokens.py has",
    "evaluation.digest": "a digest of whatever it is given",
    "evaluation.fingerprint": "a digest of whatever it is given",
    "errors.warn_user": "says what it is given",
}


@cache
def _saved() -> Path:
    path = FOLDER / "attack.npz"
    x, y = frozen()[1][:1], rows()[1][:1]
    whence.attacks.attack(frozen()[0], (x, y), steps=1).save(path)
    return path


@cache
def _ensemble() -> Path:
    whence.evaluation.retraining_ensemble(
        _retrain, 4, subsets=2, seeds=1, fingerprint="fuzz", directory=FOLDER / "kept"
    )
    return FOLDER / "kept"


def named(name: str) -> Any:
    """Return a public name of whence by its dotted path."""
    value: Any = whence
    for part in name.split("."):
        value = getattr(value, part)
    return value


def documented() -> set[str]:
    """Return the names that the reference documents."""
    pages = (Path(__file__).parents[2] / "docs" / "reference").rglob("*.md")
    entry = re.compile(r"^`whence\.([\w.]+)`$", re.MULTILINE)
    return {name for page in pages for name in entry.findall(page.read_text(encoding="utf-8"))}


def public_functions() -> set[str]:
    """Return the functions that the reference documents."""
    found = set()
    for name in documented():
        with suppress(AttributeError):  # of modules that are not public themselves
            if inspect.isfunction(named(name)):
                found.add(name)
    return found
