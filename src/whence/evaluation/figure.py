"""The axes of a plot: the caller's, or those of a new figure."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from whence.checked import shown
from whence.errors import InvalidInput, MissingDependency

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INCHES = 4.8, 3.6


def axes(ax: Axes | None) -> Axes:
    """Return `ax`, or the axes of a new figure.

    A notebook shows the figure below its cell. Elsewhere it is outside pyplot's global state.

    Args:
        ax: Axes to draw on, or `None` for a new figure (`.figure.savefig(...)` writes it).

    Returns:
        Matplotlib axes.

    Raises:
        MissingDependency: If matplotlib is not installed.
    """
    if ax is not None:
        if not hasattr(ax, "imshow"):
            raise InvalidInput(f"Expected ax as matplotlib Axes. Got {shown(ax)}.")
        return ax
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        message = "plot() needs matplotlib. Got no such package; run: pip install matplotlib"
        raise MissingDependency(message) from error
    if in_notebook():
        from matplotlib import pyplot

        return pyplot.figure(figsize=_INCHES, layout="constrained").subplots()
    return Figure(figsize=_INCHES, layout="constrained").subplots()


def in_notebook() -> bool:
    """Return whether the program runs in the kernel of a notebook."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)
    return hasattr(get_ipython(), "kernel")
