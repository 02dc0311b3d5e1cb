"""A model as its own `refit` gives it, from which removals are measured."""

from __future__ import annotations

from functools import singledispatch

from whence.curvature.minimum import at_minimum
from whence.objective.cache import cached
from whence.objective.objective import Objective
from whence.objective.trained import Trained
from whence.training.run import Run


@singledispatch
def converged(trained: Trained) -> Trained:
    """Return the model as its own `refit` gives it: itself where that is known to be the same.

    Args:
        trained: The model.

    Returns:
        The model at its optimum; a recorded training as it is.

    Raises:
        UnsupportedModel: If the model cannot be fitted again.
    """
    return trained.refit()


@converged.register
def _(trained: Run) -> Trained:
    return trained


@converged.register
def minimum(trained: Objective) -> Objective:
    """Return an objective at its minimum.

    Args:
        trained: R at θ̂.

    Returns:
        Itself where θ̂ is the minimum; else its refit, made once.

    Raises:
        UnsupportedModel: If R is not known to be convex.
    """
    smooth = trained.convex and trained.slope is None and trained.trained_loss == trained.loss
    if smooth and at_minimum(trained):
        return trained
    return cached(trained, minimum, lambda twin: twin.refit())
