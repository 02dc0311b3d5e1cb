"""The methods of results and of an index that take arguments, as `calls` has the functions.

`METHODS` has for each what it is a method of, and arguments that it takes.
"""

from __future__ import annotations

import inspect
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import whence
from tests.fuzz.calls import (
    FOLDER,
    Array,
    documented,
    frozen,
    linear,
    named,
    network,
    pair,
    rows,
    scores,
)
from whence.result import Result


def _query() -> tuple[Any, Any]:
    return rows()[0][:1], rows()[1][:1]


@cache
def index() -> Any:
    return whence.Index.build(network(), FOLDER / "methods")


def copied() -> Any:
    """An index of its own, which may be changed."""
    folder = Path(tempfile.mkdtemp(dir=FOLDER)) / "index"
    shutil.copytree(index().path, folder)
    return whence.Index.open(folder, network())


@cache
def hits() -> Any:
    return index().query(_query(), k=3)


@cache
def explanation() -> Any:
    return whence.explain(linear(), _query(), k=2)


@cache
def comparison() -> Any:
    return whence.compare_influence(linear(), linear(), _query())


@cache
def attack() -> Any:
    return whence.attacks.attack(frozen()[0], (frozen()[1][:1], rows()[1][:1]), steps=1)


@cache
def stability() -> Any:
    return whence.stability([network(), network()], _query(), k=2)


@cache
def diagnosis() -> Any:
    return whence.diagnose(linear(), iterations=4)


@cache
def mismatch() -> Any:
    return whence.domain_mismatch(linear(), _query(), columns=[0], order="first")


@cache
def flip_set() -> Any:
    return whence.flip_set(linear(), _query())


@cache
def label_errors() -> Any:
    return whence.find_label_errors(linear())


def kind() -> type[whence.Index]:
    return whence.Index


def page() -> dict[str, Any]:
    return {"path": FOLDER / "page.html"}


Make = Callable[[], Any]
METHODS: dict[str, tuple[Make, Make]] = {
    "Attack.report": (attack, page),
    "Attack.save": (attack, lambda: {"path": FOLDER / "a.npz"}),
    "Comparison.harmful": (comparison, lambda: {"k": 2}),
    "Comparison.helpful": (comparison, lambda: {"k": 2}),
    "Comparison.report": (comparison, page),
    "Comparison.shared": (comparison, lambda: {"k": 2}),
    "Diagnosis.report": (diagnosis, page),
    "DomainMismatch.report": (mismatch, page),
    "Explanation.report": (explanation, lambda: {**page(), "verify": 0}),
    "Explanation.verify": (explanation, lambda: {"k": 2}),
    "FlipSet.report": (flip_set, page),
    "Hits.bottom": (hits, lambda: {"k": 2}),
    "Hits.report": (hits, page),
    "Hits.top": (hits, lambda: {"k": 2}),
    "Index.append": (copied, lambda: {"data": pair(), "name": "more"}),
    "Index.build": (kind, lambda: {"trained": network(), "path": tempfile.mkdtemp(dir=FOLDER)}),
    "Index.open": (kind, lambda: {"path": index().path, "trained": network()}),
    "Index.query": (index, lambda: {"queries": pair(), "k": 3}),
    "Index.remove": (copied, lambda: {"ids": Array([1, 2])}),
    "Index.verify": (index, lambda: {"queries": pair(), "k": 3}),
    "LabelErrors.report": (label_errors, page),
    "Scores.against": (scores, lambda: {"other": scores()}),
    "Scores.at": (scores, lambda: {"positions": Array([0, 1])}),
    "Scores.bottom": (scores, lambda: {"k": 2}),
    "Scores.largest": (scores, lambda: {"k": 2}),
    "Scores.top": (scores, lambda: {"k": 2}),
    "Stability.to_frame": (stability, lambda: {"query": 0}),
}
_LEFT_OUT = {  # they take axes of the user's
    "Agreement.plot",
    "LDS.plot",
    "RemovalCurve.plot",
}


def public_methods() -> set[str]:
    """Return the methods with arguments of the results that the reference documents."""
    found = set()
    for path in documented():
        each = _of(path)
        if (
            inspect.isclass(each)
            and issubclass(each, Result)
            and not issubclass(each, whence.Trained)
        ):
            found |= {f"{each.__name__}.{method}" for method in _with_arguments(each)} - _LEFT_OUT
    return found


def _of(path: str) -> Any:
    try:
        return named(path)
    except AttributeError:  # of a module that is not public itself
        module, _, name = path.rpartition(".")
        return getattr(import_module(f"whence.{module}"), name)


def _with_arguments(each: type) -> list[str]:
    members = {name: getattr(each, name) for name in dir(each) if not name.startswith("_")}
    return [
        name
        for name, method in members.items()
        if callable(method) and inspect.signature(method).parameters.keys() - {"self"}
    ]
