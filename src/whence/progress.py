"""Progress bars of long calls: in a terminal, and in a notebook."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar, overload

with warnings.catch_warnings():  # of a kernel without ipywidgets, which shows no bars
    warnings.simplefilter("ignore")
    from tqdm.auto import tqdm

T = TypeVar("T")
Bar: TypeAlias = "tqdm[Any]"

_DELAY = 1.0  # seconds that a call may take before it shows a bar
_TICK = 1.0  # seconds after which a clock is drawn again


@overload
def progress(
    steps: Iterable[T], *, desc: str, total: int | None = None, unit: str = "it", initial: int = 0
) -> tqdm[T]: ...


@overload
def progress(
    steps: None = None, *, desc: str, total: int | None, unit: str = "it", initial: int = 0
) -> Bar: ...


def progress(
    steps: Iterable[Any] | None = None,
    *,
    desc: str,
    total: int | None = None,
    unit: str = "it",
    initial: int = 0,
) -> Bar:
    """Return a progress bar, which appears when the work has taken a second.

    A terminal and a notebook show it; a file to which the output goes does not.

    Args:
        steps: What is iterated over; `None` for a bar that `update` moves.
        desc: What is done, such as "retraining".
        total: How many steps there are; the length of `steps`, or not known, if `None`.
        unit: What a step is.
        initial: Steps that were done before.

    Returns:
        The bar: an iterator over `steps`, and a context manager.

    Examples:
        >>> sum(progress([1, 2, 3], desc="adding"))
        6
    """
    options: dict[str, Any] = {"total": total, "unit": unit, "initial": initial, "leave": False}
    bar: Bar = tqdm(steps, desc=desc, delay=_DELAY, disable=_hidden(), **options)
    return bar


@contextmanager
def clock(desc: str) -> Iterator[None]:
    """Show how long one step takes that cannot be counted, such as the fit of a model.

    As `progress`, it appears after a second, in a terminal and in a notebook.

    Args:
        desc: What is done, such as "fitting the model".

    Examples:
        >>> with clock("adding"):
        ...     total = sum(range(10))
    """
    bar: Bar = tqdm(
        desc=desc, delay=_DELAY, disable=_hidden(), leave=False, bar_format="{desc} … {elapsed}"
    )
    done = threading.Event()

    def tick() -> None:
        while not done.wait(_TICK):
            bar.update(0)

    ticking = threading.Thread(target=tick, daemon=True)
    if not bar.disable:
        ticking.start()
    try:
        yield
    finally:
        done.set()
        if not bar.disable:
            ticking.join()
        bar.close()


def _hidden() -> bool | None:
    """Return whether tqdm hides a bar: `None` where it finds no terminal."""
    # A kernel's output is no terminal, so that `None` would hide the bar of a notebook.
    # By its name: importing `tqdm.notebook` imports IPython.
    in_notebook = any(kind.__name__ == "tqdm_notebook" for kind in tqdm.__mro__)
    return False if in_notebook else None
