"""Progress bars of long calls: in a terminal, and in a notebook."""

from __future__ import annotations

import sys
import threading
import time
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
_LONG = 60.0  # seconds of a call that is announced
_KNOWN = 10.0  # seconds after which the pace of the first step alone is believed


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

    A terminal and a notebook show it; a file to which the output goes does not. Of a call that will
    take more than a minute one line says how long, to standard error, whatever that is.

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
    return _Announcing(steps, desc=desc, delay=_DELAY, disable=_hidden(), **options)


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


class _Announcing(tqdm):  # type: ignore[type-arg]
    """A bar that says once how long the work will take, where that is more than a minute."""

    def __init__(self, steps: Any, *, desc: str, initial: int, **options: Any) -> None:
        """Start to watch the pace.

        Args:
            steps: What is iterated over, or `None`.
            desc: What is done.
            initial: Steps that were done before.
            options: Of the bar.
        """
        self._what, self._initial = desc, initial
        self._start, self._done, self._silent = time.monotonic(), 0.0, True
        self._first: tuple[float, float] | None = None  # the seconds and steps of the first count
        super().__init__(steps, desc=desc, initial=initial, **options)

    def __iter__(self) -> Iterator[Any]:
        """Yield the steps, each counted when it has been taken."""
        with self:
            for step in self.iterable:
                yield step
                self.update()

    def update(self, n: float | None = 1) -> bool | None:
        """Count steps, and say how long all will take where they are seen to be slow."""
        self._done += n or 0
        if self._silent and self.total and self._done:
            steps = self.total - self._initial
            expected = self._expected(time.monotonic() - self._start, steps)
            if expected > _LONG and self._done < steps:
                self._silent = False
                said = f"{self._what}: about {expected / 60:.0f} min for {steps:,.0f}."
                self.write(said, file=sys.stderr)
        return super().update(n)

    def _expected(self, passed: float, steps: float) -> float:
        """Return the seconds that all steps will take, 0 as long as that is not known.

        The first count may have something to load: the pace is that of the others.
        """
        seconds, first = self._first = self._first or (passed, self._done)
        if self._done > first:
            pace = (passed - seconds) / (self._done - first)
            return seconds + pace * (steps - first) if passed > _DELAY else 0.0
        return passed * steps / first if passed > _KNOWN else 0.0


def _hidden() -> bool | None:
    """Return whether tqdm hides a bar: `None` where it finds no terminal."""
    # A kernel's output is no terminal, so that `None` would hide the bar of a notebook.
    # By its name: importing `tqdm.notebook` imports IPython.
    in_notebook = any(kind.__name__ == "tqdm_notebook" for kind in tqdm.__mro__)
    return False if in_notebook else None
