"""The map over shards: order, laziness, independence of the number of workers, and its refusals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from whence.errors import InvalidInput, MissingDependency
from whence.workers import ahead, map_shards, threads_for


def started_by(item: int) -> tuple[int, str | None]:
    """Return the process that started this one, and a variable of its environment."""
    return os.getppid(), os.environ.get("WHENCE_TEST_CALL")


def spectrum(seed: int) -> tuple[int, Tensor, tuple[int, torch.dtype, bool]]:
    """Return who computes, a result of real arithmetic, and what was taken over from the parent."""
    torch.manual_seed(seed)
    deterministic = torch.are_deterministic_algorithms_enabled()
    settings = torch.get_num_threads(), torch.get_default_dtype(), deterministic
    return os.getpid(), torch.linalg.svdvals(torch.randn(20, 20)), settings


def refuse_three(item: int) -> int:
    """Return the item, unless it is 3."""
    if item == 3:
        raise ArithmeticError("three")
    return item


def vanish(item: int) -> int:
    """End the process without a word, as the system does when memory runs out."""
    os._exit(item)


@pytest.fixture
def unusual_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A parent process with four threads, float64 by default, and deterministic algorithms."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True)
    yield
    torch.set_default_dtype(torch.float32)
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("unusual_settings")
def test_results_do_not_depend_on_the_number_of_workers() -> None:
    """Two processes return what this one does, bit for bit and in order, with half the threads."""
    alone = list(map_shards(spectrum, range(6)))
    shared = list(map_shards(spectrum, range(6), workers=2))
    assert {pid for pid, _, _ in alone} == {os.getpid()}
    assert os.getpid() not in {pid for pid, _, _ in shared}
    for (_, mine, _), (_, theirs, settings) in zip(alone, shared, strict=True):
        assert torch.equal(mine, theirs)
        assert mine.dtype == torch.float64
        assert settings == (2, torch.float64, True)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each worker imports for itself")
def test_one_server_imports_for_all_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """And each call has the environment of its own time, not of the server's start."""
    servers = set()
    for call in ("first", "second"):
        monkeypatch.setenv("WHENCE_TEST_CALL", call)
        found = list(map_shards(started_by, [1, 2], workers=2))
        assert {variable for _, variable in found} == {call}
        servers |= {server for server, _ in found}
    assert len(servers) == 1
    assert os.getpid() not in servers


@pytest.mark.parametrize("workers", [1, 2])
def test_items_are_asked_for_as_needed_until_one_fails(workers: int) -> None:
    """A long generator of items is not drawn ahead, and a failing item loses none before it."""
    drawn = []

    def naturals() -> Iterator[int]:
        """Yield 0, 1, 2, … and keep account."""
        for item in range(1000):
            drawn.append(item)
            yield item

    results = map_shards(refuse_three, naturals(), workers=workers)
    assert not drawn
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ArithmeticError, match="three"):
        next(results)
    assert len(drawn) <= 3 + 1 + 2 * workers


def test_dead_worker_is_named_with_its_usual_causes() -> None:
    """A process that dies says nothing itself, so the message must."""
    with pytest.raises(BrokenProcessPool, match="memory.*__main__"):
        list(map_shards(vanish, [1], workers=2))


_INTERRUPTED = """
import signal, sys
from tests.test_workers import slept
from whence.workers import map_shards

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        list(map_shards(slept, [sys.argv[1], sys.argv[1]] * 3, workers=2))
    except KeyboardInterrupt:
        print("stopped", flush=True)
"""


def slept(folder: str) -> None:
    path = Path(folder) / str(os.getpid())
    path.touch()
    try:
        time.sleep(600)
    finally:
        path.unlink()


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="this system has no groups of processes")
@pytest.mark.parametrize("everywhere", [True, False], ids=["a terminal's", "of one process"])
def test_ctrl_c_ends_all_processes_without_a_word(everywhere: bool, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_INTERRUPTED)
    items = tmp_path / "items"
    items.mkdir()
    root = Path(__file__).parent.parent
    paths = os.pathsep.join([str(root / "src"), str(root)])
    with subprocess.Popen(
        [sys.executable, script, items],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        late = threading.Timer(200, os.killpg, [process.pid, signal.SIGKILL])
        late.start()
        while len(list(items.iterdir())) < 2 and process.poll() is None:
            time.sleep(0.05)
        (os.killpg if everywhere else os.kill)(process.pid, signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.read() == "stopped\n"  # its workers hold this open until they end
        late.cancel()
    assert list(items.iterdir()) == []


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


def test_a_cluster_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**options: Any) -> None:
        raise ConnectionError("Failed to connect to Ray cluster")

    fake = ModuleType("ray")
    fake.is_initialized, fake.init = lambda: False, init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(InvalidInput, match=r"cluster at 10.0.0.1:6379. Got .* RAY_AUTH_MODE=token"):
        list(map_shards(abs, [1], backend="ray"))


@pytest.mark.parametrize("address", ["", "10.0.0.1:6379"])
def test_no_address_is_left_to_ray(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """By itself it takes that of a cluster which may have been killed since, and waits for it."""
    joined: list[str] = []

    def init(address: str, **options: Any) -> None:
        joined.append(address)
        raise ConnectionError

    fake = ModuleType("ray")
    fake.is_initialized, fake.init = lambda: False, init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InvalidInput):
        list(map_shards(abs, [1], backend="ray"))
    assert joined == [address or "local"]


def test_ray_order_and_single_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for Ray: results in order, function stored once, few tasks in flight."""
    puts: list[Any] = []
    flying: set[int] = set()
    most = 0

    class Task:
        """What `ray.remote` makes of a function."""

        def __init__(self, function: Any) -> None:
            self.function = function

        def remote(self, shared: list[Any], settings: Any, item: int) -> tuple[int, Any]:
            """Begin a task."""
            nonlocal most
            flying.add(item)
            most = max(most, len(flying))
            return item, self.function(shared[0], settings, item)

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


@pytest.mark.parametrize(("numbers", "threads"), [(1_000, 1), (1_000_000, 2)])
def test_a_small_fit_has_one_thread_of_openmp(numbers: int, threads: int) -> None:
    libraries = ThreadpoolController().select(user_api="openmp")
    with libraries.limit(limits=2), threads_for(numbers, "sklearn.ensemble"):
        assert {each["num_threads"] for each in libraries.info()} == {threads}


def test_the_next_item_is_computed_while_one_is_used() -> None:
    begun = [threading.Event() for _ in range(3)]

    def compute(item: int) -> int:
        begun[item].set()
        return item

    for item in ahead(map(compute, range(3))):
        assert item == 2 or begun[item + 1].wait(10)
    assert list(ahead(iter(()))) == []
    with pytest.raises(ZeroDivisionError):
        list(ahead(1 // item for item in [1, 0]))
