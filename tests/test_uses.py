"""Every method through every use, on every kind of model: an answer, or a sentence."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

import whence
from whence.errors import WhenceError
from whence.training.run import Run

METHODS: dict[str, whence.Method] = {
    "influence": whence.Influence(),
    "newton": whence.Influence(order="newton"),
    "refined": whence.Influence(order="refined"),
    "EKFAC": whence.Influence(solver=whence.EKFAC()),
    "TracIn": whence.TracIn(),
    "gradient cosine": whence.TracIn(cosine=True),
    "LoGra": whence.Projected(size=4),
    "TRAK": whence.Projected(output="margin", projection="dense", size=32),
    "representer": whence.Representer(),
    "metagradient": whence.Metagradient(),
    "unrolled": whence.Unrolled(segments=2),
    "leave-one-out": whence.LeaveOneOut(),
}


# Models are immutable: all uses share them, and what methods compute once for a model.


@cache
def data() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    x, y = load_iris(return_X_y=True)
    rows = np.random.default_rng(0).permutation(len(x))[:36]
    return x[rows], y[rows]


@cache
def linear() -> tuple[whence.Trained, Any]:
    x, y = data()
    model = LogisticRegression(tol=1e-10, max_iter=10_000, solver="newton-cg").fit(x[6:], y[6:])
    return whence.from_sklearn(model, x[6:], y[6:]), (x[:6], y[:6])


@cache
def run() -> tuple[whence.Trained, Any]:
    torch.manual_seed(0)
    x, y = (torch.as_tensor(part) for part in data())
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    recipe = whence.Recipe(
        learning_rate=0.1, batch_size=10, epochs=5, weight_decay=0.01, dtype=torch.float64
    )
    trained = whence.train(model, whence.CrossEntropy(), (x[6:], y[6:]), recipe)
    return trained, (x[:6], y[:6])


@cache
def checkpoint() -> tuple[whence.Trained, Any]:
    trained, queries = run()
    x, y = (torch.as_tensor(part)[6:] for part in data())
    model = trained.model  # type: ignore[attr-defined]
    return whence.from_torch(model, whence.CrossEntropy(), (x, y), l2=0.01), queries


MODELS = {"linear": linear, "run": run, "checkpoint": checkpoint}


def one(queries: Any) -> Any:
    return queries[0][:1], queries[1][:1]


def explain(model: whence.Trained, queries: Any, method: whence.Method, folder: Path) -> None:
    found = whence.explain(model, one(queries), k=2, method=method)
    assert found.raising or found.lowering
    assert str(found)
    refits = model.convex or isinstance(model, Run)
    assert found.report(folder / "why.html", verify=3 if refits else 0).stat().st_size > 1000


def report(model: whence.Trained, queries: Any, method: whence.Method, folder: Path) -> None:
    page = whence.report(model, queries, folder / "many.html", k=2, method=method)
    assert page.stat().st_size > 1000


def evaluate(model: whence.Trained, queries: Any, method: whence.Method, folder: Path) -> None:
    found = whence.evaluate(model, queries, subsets=3, method=method)
    assert found.per_query.shape == (6,)


def compare(model: whence.Trained, queries: Any, method: whence.Method, folder: Path) -> None:
    found = whence.compare_influence(model, model, one(queries), method=method)
    assert found.agreement == pytest.approx(1)


def flip_set(model: whence.Trained, queries: Any, method: whence.Method, folder: Path) -> None:
    assert whence.flip_set(model, one(queries), method=method, largest=4).tried >= 0


def label_errors(model: whence.Trained, queries: Any, method: whence.Method, folder: Path) -> None:
    found = whence.find_label_errors(model, method=method, k=3)
    assert sorted(found.ranking) == list(range(30))
    assert found.report(folder / "labels.html", rows=3).stat().st_size > 1000


def mismatch(model: whence.Trained, queries: Any, method: whence.Method, folder: Path) -> None:
    halves = np.arange(30) % 2
    found = whence.domain_mismatch(model, queries, groups=halves, method=method)
    assert [len(group.positions) for group in found.groups] == [15, 15]


def strongest(model: whence.Trained, queries: Any, method: whence.Method, folder: Path) -> None:
    assert len(whence.attacks.strongest(model, one(queries), 2, method=method)) == 2


USES: dict[str, Callable[[whence.Trained, Any, whence.Method, Path], None]] = {
    "explain": explain,
    "report": report,
    "evaluate": evaluate,
    "compare": compare,
    "flip set": flip_set,
    "label errors": label_errors,
    "mismatch": mismatch,
    "strongest": strongest,
}

_NEEDS_A_RUN = {"metagradient", "unrolled"}
_FOLLOWS_INPUTS = {"influence", "newton", "refined", "EKFAC"}
_REFITS = {"evaluate", "flip set", "mismatch"}


def refused(model: str, method: str, use: str) -> bool:
    """Whether a model, a method and a use do not go together."""
    return (
        (method in _NEEDS_A_RUN and model != "run")
        or (method == "EKFAC" and model == "linear")
        or (use == "strongest" and method not in _FOLLOWS_INPUTS)
        or (model == "checkpoint" and (use in _REFITS or method == "leave-one-out"))
    )


@pytest.mark.filterwarnings("ignore::whence.errors.NotConvergedWarning")
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", MODELS)
def test_an_answer_or_a_sentence(model: str, method: str, use: str, tmp_path: Path) -> None:
    trained, queries = MODELS[model]()
    if refused(model, method, use):
        with pytest.raises(WhenceError, match=r"Expected .*Got"):
            USES[use](trained, queries, METHODS[method], tmp_path)
    else:
        USES[use](trained, queries, METHODS[method], tmp_path)
