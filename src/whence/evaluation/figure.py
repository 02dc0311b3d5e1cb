"""The axes of a plot: the caller's, or those of a new figure outside pyplot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whence.errors import MissingDependency

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def axes(ax: Axes | None) -> Axes:
    """Return `ax`, or the axes of a new figure outside pyplot's global state.

    Args:
        ax: Axes to draw on, or `None` for a new figure (`.figure.savefig(...)` writes it).

    Returns:
        Matplotlib axes.

    Raises:
        MissingDependency: If matplotlib is not installed.
    """
    if ax is not None:
        return ax
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        message = "plot() needs matplotlib. Got no such package; run: pip install matplotlib"
        raise MissingDependency(message) from error
    return Figure(figsize=(4.8, 3.6), layout="constrained").subplots()
