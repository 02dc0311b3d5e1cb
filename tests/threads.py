"""One model asked by eight threads at once, by every method: `make threads`.

Each thread must get what one thread gets. The counts go into docs/explanation/reliability.md.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

import whence
from benchmarks.between import between
from tests.fuzz import calls

THREADS = 8
START, END = "<!-- threads -->", "<!-- end of threads -->"
_TEXTS = [[2, 3, 4, 3], [5, 6], [2, 7, 8, 9, 2, 2], [3, 5, 9], [10]]


def forest() -> Any:
    x, y = calls.rows()
    model = RandomForestClassifier(n_estimators=4, max_depth=3, random_state=0).fit(x, y)
    return whence.from_sklearn(model, x, y)


def vote() -> Any:
    x, y = calls.rows()
    members = [(f"C {C}", LogisticRegression(C=C, tol=1e-10, max_iter=1000)) for C in (0.1, 1.0)]
    return whence.from_sklearn(VotingClassifier(members, voting="soft").fit(x, y), x, y)


def language_model() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=12, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    texts = [{"input_ids": text} for text in _TEXTS]
    return whence.from_transformers(GPT2LMHeadModel(config).double().eval(), texts)


# Made anew for each round, so that all threads meet an empty cache.
MODELS: dict[str, Callable[[], Any]] = {
    "linear": calls.linear.__wrapped__,
    "network": calls.network.__wrapped__,
    "run": calls.run.__wrapped__,
    "trees": calls.boosted.__wrapped__,
    "forest": forest,
    "vote": vote,
    "neighbors": calls.neighbors.__wrapped__,
    "texts": language_model,
}


@cache
def stored() -> whence.Index:
    return whence.Index.build(calls.network.__wrapped__(), tempfile.mkdtemp(prefix="whence-"))


METHODS: list[tuple[str, Callable[[], whence.Method]]] = [
    *(
        ("linear", lambda order=order: whence.Influence(order=order))  # type: ignore[misc]
        for order in ("first", "newton", "refined")
    ),
    ("linear", lambda: whence.Influence(normalize="parameters")),
    ("linear", whence.LeaveOneOut),
    ("vote", whence.Composition),
    ("linear", whence.Representer),
    ("linear", lambda: whence.Retrained(fits=20)),
    ("linear", lambda: whence.DataOOB(ensemble=8)),
    ("linear", lambda: whence.Semivalue(fits=20)),
    ("network", lambda: whence.Influence(solver=whence.LiSSA(depth=20), damping=0.5)),
    (
        "network",
        lambda: whence.Influence(solver=whence.CG(preconditioner=whence.EKFAC()), damping=0.1),
    ),
    ("network", lambda: whence.Influence(solver=whence.EKFAC(), order="newton")),
    ("network", lambda: whence.Projected(size=8)),
    ("network", whence.TracIn),
    ("network", whence.HiddenCosine),
    ("network", lambda: whence.Stored(stored())),
    ("run", whence.Metagradient),
    ("run", lambda: whence.Unrolled(segments=2)),
    ("run", whence.TracIn),
    ("trees", lambda: whence.Boosting(ensemble=4)),
    ("trees", whence.BoostIn),
    ("trees", whence.LeafKernel),
    ("forest", whence.ForestWeights),
    ("neighbors", whence.KNNShapley),
    ("neighbors", whence.LeaveOneOut),
    ("texts", whence.BM25),
    ("texts", whence.TfIdfCosine),
    ("texts", whence.HiddenCosine),
    ("texts", lambda: whence.Influence(solver=whence.EKFAC())),
]


def public() -> set[str]:
    """Return the methods that users can name."""
    return {
        name
        for name in whence.__all__
        if inspect.isclass(found := getattr(whence, name))
        and issubclass(found, whence.Method)
        and found is not whence.Method
    }


def queries(kind: str) -> Any:
    """Return two queries of a kind of model."""
    x, y = calls.rows()
    if kind == "trees":
        return x[:2, :2], x[:2, 2]
    if kind == "texts":
        return [{"input_ids": [3, 5, 5]}, {"input_ids": [2, 9, 11]}]
    return x[:2], y[:2]


def ask(kind: str, method: whence.Method, model: Any) -> Any:
    """Return the scores of two queries."""
    fitted = method.fit(model)
    if isinstance(method, whence.DataOOB):  # which knows no queries
        return fitted.self_scores()
    return fitted.scores(queries(kind)).values


@contextmanager
def eager() -> Iterator[None]:
    """Let threads take turns fifty times as often as usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    # Here, since threads share what warnings are caught.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            sys.setswitchinterval(usual)


def differences(kind: str, make: Callable[[], whence.Method], rounds: int) -> list[str]:
    """Return what eight threads get that one does not get, a sentence each; twice a round."""
    method = make()
    expected = ask(kind, method, MODELS[kind]())
    scale, found = np.abs(expected).max(), list[str]()
    for number in range(rounds):
        shared, answers = MODELS[kind](), list[Any]()

        def work(model: Any = shared, into: list[Any] = answers) -> None:
            try:
                into.extend([ask(kind, method, model), ask(kind, method, model)])
            except Exception as error:
                into.append(error)

        threads = [threading.Thread(target=work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for answer in answers:
            off = np.inf if isinstance(answer, Exception) else np.abs(answer - expected).max()
            if not off <= 1e-9 * scale:
                what = repr(answer) if isinstance(answer, Exception) else f"{off / scale:.1e} off"
                found.append(f"{kind}, {method!r}, round {number}: {what}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--page", type=Path, help="put the counts into this page")
    options = parser.parse_args()
    broken = []
    with eager():
        for kind, make in tqdm(METHODS):
            broken += differences(kind, make, options.rounds)
    answers = 2 * THREADS * options.rounds * len(METHODS)
    table = (
        f"{len(METHODS)} pairs of a kind of model and a method, {THREADS} threads, "
        f"{options.rounds} rounds: {answers:,} answers compared with those of one thread, "
        f"differences above 1e-9 of the largest score: {len(broken)}. Python "
        f"{sys.version.split()[0]}, torch {torch.__version__}."
    )
    print(table)
    for sentence in broken:
        print(sentence, file=sys.stderr)
    if options.page:
        text = options.page.read_text(encoding="utf-8")
        options.page.write_text(between(text, START, END, f"\n{table}\n"), encoding="utf-8")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
