"""A map over shards: in this process, in several, or on a Ray cluster.

Retraining ensembles, index building and queries are all the same loop: one function, many
independent items, results in order. This module is that loop and nothing else, so that code above
it reads the same whatever it runs on.
"""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context
from functools import lru_cache
from itertools import islice
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from typing import Any, Literal, TypeVar, get_args

import torch
from threadpoolctl import ThreadpoolController, threadpool_limits

from whence.errors import InvalidInput, MissingDependency

Item = TypeVar("Item")
Result = TypeVar("Result")
Backend = Literal["process", "ray"]

# What takes long to import, and starts no thread then.
_LIBRARIES = ("torch", "scipy.stats", "sklearn", "pandas")
_SHARED = 2e5  # numbers of a model's input from which several threads fit it sooner than one


def map_shards(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int = 1,
    backend: Backend = "process",
) -> Iterator[Result]:
    """Yield `function(item)` for each item, in order, from one worker or several.

    One worker is this process itself: nothing is copied or pickled. More are fresh processes, each
    with the default dtype and determinism of this one and its share of the threads, so that
    together they use no more than `torch.get_num_threads()` (on Ray, what Ray gives a task).
    Results do not depend on the number of workers, as far as torch's do not on that of threads.

    At most two items per worker are under way, so `items` may be a long generator. The first
    exception that `function` raises is raised here, and items not yet begun are dropped. Ctrl-C
    drops those under way, too: processes end within a second.

    Args:
        function: Called once per item. With several workers it, the items and the results are
            pickled, and it is sent to each worker once; define it at the top of a module. A script
            that starts workers needs `if __name__ == "__main__":`.
        items: What to map over; each must be independent of the others.
        workers: Number of processes, or of Ray tasks at a time, at least 1.
        backend: `"process"` for this machine; `"ray"` for the Ray cluster that this process has
            joined, or that RAY_ADDRESS names ("auto": the one started last on this machine), or
            else one started here. Ray decides where each task runs, also for one worker.

    Returns:
        An iterator over the results. Nothing starts before it is first asked.

    Raises:
        InvalidInput: If `workers` or `backend` is out of range, `function` cannot be pickled, or
            there is no connection to the Ray cluster.
        MissingDependency: If Ray is asked for and not installed.

    Cost:
        About as long as `import torch`: on Linux once, elsewhere for each new process.

    Examples:
        >>> list(map_shards(abs, [-2, 1, -3]))
        [2, 1, 3]
    """
    if workers < 1:
        raise InvalidInput(f"workers must be at least 1. Got {workers}.")
    if backend not in get_args(Backend):
        raise InvalidInput(f"backend must be one of {get_args(Backend)}. Got {backend!r}.")
    if backend == "ray":
        return _over_ray(_import_ray(), function, items, workers)
    if workers == 1:
        return map(function, items)
    return _over_processes(_pickled(function), items, workers)


def ahead(items: Iterator[Result]) -> Iterator[Result]:
    """Yield items, each computed by another thread while the one before it is used.

    Args:
        items: The items, one computed after the other.

    Examples:
        >>> list(ahead(map(abs, [-2, 1, -3])))
        [2, 1, 3]
    """
    context = copy_context()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(context.run, _some, items)
        while found := waiting.result():
            waiting = pool.submit(context.run, _some, items)
            yield from found


def _some(items: Iterator[Result]) -> tuple[Result, ...]:
    """Return the next item, alone, or nothing at the end."""
    return tuple(islice(items, 1))


_counting = threading.Lock()
_pools, _threads = 0, 1  # that are at work, and the threads of torch before the first of them


def over_threads(function: Callable[[Item], object], items: Iterable[Item], threads: int) -> None:
    """Call a function once per item, in threads in which torch's operations take one thread each.

    For what must not depend on the number of threads, and for operations so short that torch's
    threads would wait for each other. The first exception is raised here; items not begun are
    dropped.

    Args:
        function: What it returns is dropped.
        items: What to call it with, begun in order.
        threads: How many.
    """
    global _pools, _threads
    with _counting:  # what a thread sets is for itself, but MKL and later threads take it over
        _threads = _threads if _pools else torch.get_num_threads()
        _pools += 1
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            tasks = [pool.submit(function, item) for item in items]
            try:
                for task in tasks:
                    task.result()
            finally:
                pool.shutdown(cancel_futures=True)
    finally:
        with _counting:
            _pools -= 1
        torch.set_num_threads(_threads)


def is_shared(numbers: float) -> bool:
    """Return whether several threads fit a model sooner than one.

    Args:
        numbers: The rows of the fit times their columns.

    Examples:
        >>> is_shared(1_000), is_shared(1_000_000)
        (False, True)
    """
    return numbers >= _SHARED


def threads_for(numbers: float, library: str) -> AbstractContextManager[Any]:
    """Return a context in which OpenMP has one thread if a fit is too small to be shared.

    A library that fits trees wakes its threads several times per tree. On a processor that is busy
    each of them is waited for: on 178 rows, two threads were seen to take 70 times as long as one.

    Args:
        numbers: The rows of the fit times their columns.
        library: The module or package that fits, already imported.

    Examples:
        >>> with threads_for(1_000, "sklearn.ensemble"):
        ...     pass
    """
    if is_shared(numbers):
        return nullcontext()
    one: AbstractContextManager[Any] = _openmp(library.partition(".")[0]).limit(
        limits=1, user_api="openmp"
    )
    return one


@lru_cache
def _openmp(library: str) -> ThreadpoolController:
    """Return what sets the threads of all libraries that are loaded once this one is."""
    return ThreadpoolController()


def _pickled(function: Callable[..., Any]) -> bytes:
    """Return the pickled function, once for all workers."""
    try:
        return pickle.dumps(function)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InvalidInput(
            "Several workers need a function that can be pickled: defined at the top of a module, "
            "not a lambda or a function inside another, and holding no open file or generator. "
            f"Got: {error}. Move it, or use workers=1."
        ) from error


def _over_processes(payload: bytes, items: Iterable[Item], workers: int) -> Iterator[Any]:
    """Yield results in order from a pool of fresh processes."""
    threads = max(1, torch.get_num_threads() // workers)
    context = _fresh()
    until, stop = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        workers,
        mp_context=context,
        initializer=_start,
        initargs=(payload, threads, _settings(), dict(os.environ), until),
    )
    try:
        yield from _in_order(
            lambda item: pool.submit(_call, item), lambda task: task.result(), items, 2 * workers
        )
    except BrokenProcessPool as error:
        raise BrokenProcessPool(
            "A worker process ended before its result. Usual causes: it ran out of memory (use "
            "fewer workers), or it could not import the function's module or the main script "
            '(put the script\'s own steps under `if __name__ == "__main__":`).'
        ) from error
    except (KeyboardInterrupt, GeneratorExit):
        stop.close()  # workers do not end what they are at
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        stop.close()
        until.close()


def _fresh() -> BaseContext:
    """Return how processes start: as fresh ones, for a fork of one with OpenMP threads may hang.

    On Linux they are forks of a server without such threads. It has imported the libraries that
    this process has, so that its forks, of all pools, need not.
    """
    if sys.platform != "linux":
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload([name for name in _LIBRARIES if name in sys.modules])
    return context


def _over_ray(
    ray: Any, function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """Yield results in order from Ray tasks."""
    if not ray.is_initialized():
        _join_ray(ray)
    shared, settings = ray.put(function), _settings()
    task = ray.remote(_apply)
    yield from _in_order(lambda item: task.remote(shared, settings, item), ray.get, items, workers)


def _join_ray(ray: Any) -> None:
    """Join the Ray cluster at RAY_ADDRESS, or start one on this machine.

    Without an address Ray by itself takes that of the cluster that was started here last, from the
    file ray_current_cluster. If that was killed, the file is still there, and Ray waits for
    minutes. So no address is left to Ray.
    """
    address = os.environ.get("RAY_ADDRESS") or "local"
    try:
        ray.init(address=address, log_to_driver=False, include_dashboard=False)
    except ConnectionError as error:
        raise InvalidInput(
            f"Expected a Ray cluster at {address}. Got no connection: {error}. Check RAY_ADDRESS, "
            "or unset it to start a cluster on this machine; where Ray says InvalidAuthToken, set "
            "RAY_AUTH_MODE=token and copy the ~/.ray/auth_token of its head."
        ) from error


def _in_order(
    submit: Callable[[Item], Any], result: Callable[[Any], Any], items: Iterable[Item], ahead: int
) -> Iterator[Any]:
    """Yield results in the order of the items, with at most `ahead` submitted and not yielded."""
    waiting = iter(items)
    tasks = deque(submit(item) for item in islice(waiting, ahead))
    while tasks:
        value = result(tasks.popleft())
        tasks.extend(submit(item) for item in islice(waiting, 1))
        yield value


def _settings() -> tuple[torch.dtype, int]:
    """Return what makes results differ from process to process: dtype and determinism."""
    return torch.get_default_dtype(), torch.get_deterministic_debug_mode()


def _adopt(settings: tuple[torch.dtype, int]) -> None:
    """Make this process compute as the one that the settings come from."""
    dtype, deterministic = settings
    torch.set_default_dtype(dtype)
    torch.set_deterministic_debug_mode(deterministic)


# The function of a worker process: set once by `_start`, because sending it with each item would
# send the training data that it holds with each item.
_function: Callable[[Any], Any] | None = None


def _start(
    payload: bytes,
    threads: int,
    settings: tuple[torch.dtype, int],
    environment: dict[str, str],
    until: Connection,
) -> None:
    """Initialize a worker process: its environment, its share of threads and its function."""
    global _function
    # A terminal sends Ctrl-C to all of its processes: the one that started this tells when to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    os.environ.clear()  # the server of a fork has the environment of its own start
    os.environ.update(environment)
    torch.set_num_threads(threads)
    _adopt(settings)
    threading.Thread(target=_end_with_parent, args=(until,), daemon=True).start()
    _function = pickle.loads(payload)
    # After unpickling, which has imported the libraries that the function uses.
    threadpool_limits(threads)


def _end_with_parent(until: Connection) -> None:
    """End this process when its parent does, however that ended, or closes a connection.

    Of a parent that lives, an item under way has half a second to remove what it half wrote.
    """
    parent = parent_process()
    if parent is not None:
        if parent.sentinel not in wait([parent.sentinel, until]):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.5)
        os._exit(1)


class _Left(SystemExit):
    """This process was told to end."""


def _leave(*_: object) -> None:
    """End this process by way of what is to be cleared up."""
    raise _Left(1)


def _call(item: Any) -> Any:
    """Apply the function of this worker process."""
    assert _function is not None
    try:
        return _function(item)
    except _Left:  # which the pool would pass on, and begin the next item
        os._exit(1)


def _apply(
    function: Callable[[Item], Result], settings: tuple[torch.dtype, int], item: Item
) -> Result:
    """Apply a function that Ray has fetched from its object store."""
    _adopt(settings)
    return function(item)


def _import_ray() -> Any:
    """Return the ray package."""
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise MissingDependency(
            'backend="ray" needs the ray package. Got no such package; run: pip install ray, '
            'or use backend="process" on this machine.'
        ) from error
