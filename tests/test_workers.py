"""The map over shards: order, laziness, independence of the number of workers, and its refusals."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from whence.errors import InvalidInput, MissingDependency
from whence.workers import map_shards


def spectrum(seed: int) -> tuple[int, Tensor]:
    """Return a number that takes real arithmetic, and the process that found it."""
    torch.manual_seed(seed)
    return os.getpid(), torch.linalg.svdvals(torch.randn(20, 20))


def environment(_: int) -> tuple[int, torch.dtype, bool]:
    """Return what a worker takes over from its parent."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    return torch.get_num_threads(), torch.get_default_dtype(), deterministic


def refuse_three(item: int) -> int:
    """Return the item, unless it is 3."""
    if item == 3:
        raise ArithmeticError("three")
    return item


def vanish(item: int) -> int:
    """End the process without a word, as the system does when memory runs out."""
    os._exit(item)


def test_results_do_not_depend_on_the_number_of_workers() -> None:
    """Two processes return what this one does, bit for bit and in order."""
    alone = list(map_shards(spectrum, range(6)))
    shared = list(map_shards(spectrum, range(6), workers=2))
    assert {pid for pid, _ in alone} == {os.getpid()}
    assert os.getpid() not in {pid for pid, _ in shared}
    for (_, mine), (_, theirs) in zip(alone, shared, strict=True):
        assert torch.equal(mine, theirs)


def test_workers_share_threads_and_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads are divided, never below one; dtype and determinism are those of the parent."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True)
    try:
        assert list(map_shards(environment, [0], workers=2)) == [(2, torch.float64, True)]
    finally:
        torch.set_default_dtype(torch.float32)
        torch.use_deterministic_algorithms(False)


def test_items_are_asked_for_as_needed() -> None:
    """An endless generator of items is no obstacle, in this process or in several."""

    def naturals() -> Iterator[int]:
        """Yield 0, 1, 2, …; more than 50 would mean that nothing holds them back."""
        for item in range(50):
            yield item
        pytest.fail("items were drawn far ahead of the results")

    for workers in (1, 2):
        results = map_shards(abs, naturals(), workers=workers)
        assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
        if workers > 1:
            results.close()  # type: ignore[attr-defined]


def test_first_exception_is_raised_after_earlier_results() -> None:
    """A failing item does not lose those before it."""
    results = map_shards(refuse_three, range(10), workers=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ArithmeticError, match="three"):
        next(results)


def test_dead_worker_is_named_with_its_usual_causes() -> None:
    """A process that dies says nothing itself, so the message must."""
    with pytest.raises(BrokenProcessPool, match="memory.*__main__"):
        list(map_shards(vanish, [1], workers=2))


def test_no_items_no_results() -> None:
    """Nothing to do is done."""
    assert list(map_shards(abs, [])) == []
    assert list(map_shards(abs, [], workers=2)) == []


def test_refusals() -> None:
    """Options out of range, and functions that cannot travel, are refused before any work."""
    with pytest.raises(InvalidInput, match="workers must be at least 1. Got 0"):
        map_shards(abs, [1], workers=0)
    with pytest.raises(InvalidInput, match="backend must be one of"):
        map_shards(abs, [1], backend="thread")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="lambda or a function inside another"):
        map_shards(lambda item: item, [1], workers=2)


def test_missing_ray_is_a_kind_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for Ray without having it says what to install, and what to use instead."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependency, match='pip install ray, or use backend="process"'):
        map_shards(abs, [1], backend="ray")


def test_ray_order_and_single_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for Ray: results in order, function stored once, few tasks in flight."""
    puts: list[Any] = []
    flying: set[int] = set()
    most = 0

    class Task:
        """What `ray.remote` makes of a function."""

        def __init__(self, function: Any) -> None:
            self.function = function

        def remote(self, shared: list[Any], item: int) -> tuple[int, Any]:
            """Begin a task."""
            nonlocal most
            flying.add(item)
            most = max(most, len(flying))
            return item, self.function(shared[0], item)

    def get(task: tuple[int, Any]) -> Any:
        """Wait for a task."""
        flying.remove(task[0])
        return task[1]

    def put(thing: Any) -> list[Any]:
        """Store a thing."""
        puts.append(thing)
        return [thing]

    fake = ModuleType("ray")
    for name, value in (
        ("is_initialized", lambda: True),
        ("put", put),
        ("get", get),
        ("remote", Task),
    ):
        setattr(fake, name, value)
    monkeypatch.setitem(sys.modules, "ray", fake)
    assert list(map_shards(abs, range(-7, 0), workers=3, backend="ray")) == [7, 6, 5, 4, 3, 2, 1]
    assert puts == [abs]
    assert most == 3


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
@pytest.mark.filterwarnings("ignore")
def test_ray_equals_this_process() -> None:
    """A real Ray returns what this process does."""
    ray = pytest.importorskip("ray")
    try:
        theirs = list(map_shards(spectrum, range(4), workers=2, backend="ray"))
    finally:
        ray.shutdown()
    for (_, mine), (_, other) in zip(map_shards(spectrum, range(4)), theirs, strict=True):
        assert torch.equal(mine, other)
