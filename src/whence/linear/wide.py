"""Linear models of more columns than rows, solved in the span of their training rows."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cached_property, singledispatch
from typing import final

from torch import Tensor

from whence.linear.objective import InputMap, LinearExamples, LinearObjective
from whence.objective.objective import Objective

_COORDINATES = ("train", "params", "l2", "inputs")  # the fields that depend on the coordinates of θ


@final
class _Span:
    """The coordinates of a wide model in the span of its rows, made once for all its copies."""

    def __init__(self, make: Callable[[], LinearObjective]) -> None:
        self._make, self._lock = make, threading.Lock()
        self._made: LinearObjective | None = None

    def objective(self) -> LinearObjective:
        """Return the objective in these coordinates."""
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made


@final
class WideObjective(LinearObjective):
    """The objective of a wide model, in coordinates that are made when they are first asked for.

    With K = X Xᵀ = Z Zᵀ, the rows of Z [n, r], r <= n, are features of the same model. K takes a
    sparse product, Z n r² operations; what needs K alone takes `columns` and never pays for Z.
    A penalty l2 > 0, one per output, or least squares without one, and no L1 penalty: else the
    optimum leaves the span. Copies share Z. Changed by `replace`, it is an objective in those
    coordinates like any other.

    Attributes:
        columns: The same objective in X's own d columns, if nothing was changed; else `None`.
    """

    columns: LinearObjective | None = None
    _span: _Span

    @classmethod
    def of(cls, columns: LinearObjective, narrow: Callable[[], LinearObjective]) -> LinearObjective:
        """Return the objective of a wide model.

        Args:
            columns: The objective in X's own columns.
            narrow: Called at most once: returns the same objective in the coordinates Z.

        Returns:
            An objective with Z as its features.
        """
        objective = cls.__new__(cls)
        known = {name: value for name, value in vars(columns).items() if name not in _COORDINATES}
        vars(objective).update(known, columns=columns, _span=_Span(narrow))
        return objective

    # Values that `replace` sets come before these, as instance attributes do.
    @cached_property
    def train(self) -> LinearExamples:
        """The training examples, with Z as their features."""
        return self._span.objective().train

    @cached_property
    def params(self) -> Tensor:
        """θ̂ in the coordinates Z, [p]."""
        return self._span.objective().params

    @cached_property
    def l2(self) -> Tensor:
        """The penalty per parameter, [p]."""
        return self._span.objective().l2

    @cached_property
    def inputs(self) -> InputMap:
        """How user data become features."""
        return self._span.objective().inputs


@singledispatch
def columns_of(objective: Objective) -> LinearObjective | None:
    """Return a wide model's objective in X's own columns, `None` of any other or a changed one.

    Args:
        objective: R at θ̂.
    """
    return None


@columns_of.register
def _(objective: WideObjective) -> LinearObjective | None:
    return objective.columns
