"""One model asked by eight threads, by every method: each gets what one thread gets."""

from __future__ import annotations

import inspect
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

import whence
from tests.fuzz import calls

_THREADS = 8


def forest() -> Any:
    x, y = calls.rows()
    model = RandomForestClassifier(n_estimators=4, max_depth=3, random_state=0).fit(x, y)
    return whence.from_sklearn(model, x, y)


# Made anew for each test, so that all threads meet an empty cache.
MODELS: dict[str, Callable[[], Any]] = {
    "linear": calls.linear.__wrapped__,
    "network": calls.network.__wrapped__,
    "run": calls.run.__wrapped__,
    "trees": calls.boosted.__wrapped__,
    "forest": forest,
    "neighbors": calls.neighbors.__wrapped__,
}
METHODS: list[tuple[str, whence.Method]] = [
    *(("linear", whence.Influence(order=order)) for order in ("first", "newton", "refined")),
    ("linear", whence.Influence(normalize="parameters")),
    ("linear", whence.LeaveOneOut()),
    ("linear", whence.Representer()),
    ("linear", whence.Retrained(fits=20)),
    ("linear", whence.DataOOB(ensemble=8)),
    ("network", whence.Influence(solver=whence.LiSSA(depth=20), damping=0.5)),
    ("network", whence.Influence(solver=whence.CG(preconditioner=whence.EKFAC()), damping=0.1)),
    ("network", whence.Influence(solver=whence.EKFAC(), order="newton")),
    ("network", whence.Projected(size=8)),
    ("network", whence.TracIn()),
    ("run", whence.Metagradient()),
    ("run", whence.Unrolled(segments=2)),
    ("run", whence.TracIn()),
    ("trees", whence.Boosting(ensemble=4)),
    ("trees", whence.BoostIn()),
    ("trees", whence.LeafKernel()),
    ("forest", whence.ForestWeights()),
    ("neighbors", whence.KNNShapley()),
    ("neighbors", whence.LeaveOneOut()),
]


# Of texts, of an index, and newer than this table.
ELSEWHERE = {"BM25", "HiddenCosine", "Semivalue", "Stored", "TfIdfCosine"}


def test_every_method_is_here() -> None:
    public = {
        name
        for name in whence.__all__
        if inspect.isclass(found := getattr(whence, name))
        and issubclass(found, whence.Method)
        and found is not whence.Method
    }
    assert {type(method).__name__ for _, method in METHODS} == public - ELSEWHERE


@pytest.fixture
def eager() -> Iterator[None]:
    """Let threads take turns fifty times as often as usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(
    ("kind", "method"), METHODS, ids=[f"{kind} {type(method).__name__}" for kind, method in METHODS]
)
def test_threads_get_what_one_thread_gets(kind: str, method: whence.Method) -> None:
    x, y = calls.rows()
    queries = (x[:2, :2], x[:2, 2]) if kind == "trees" else (x[:2], y[:2])

    def ask(model: Any) -> Any:
        fitted = method.fit(model)
        if isinstance(method, whence.DataOOB):  # which knows no queries
            return fitted.self_scores()
        return fitted.scores(queries).values

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # here, since threads share what warnings are caught
        expected, shared = ask(MODELS[kind]()), MODELS[kind]()
        found: list[Any] = []

        def work() -> None:
            try:
                found.extend([ask(shared), ask(shared)])
            except Exception as error:
                found.append(error)

        threads = [threading.Thread(target=work) for _ in range(_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 2 * _THREADS, found
    scale = np.abs(expected).max()
    for values in found:
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-9 * scale)
