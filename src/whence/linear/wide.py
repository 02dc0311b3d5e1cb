"""Linear models of more columns than rows, solved in the span of their training rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from whence.linear.objective import LinearObjective
from whence.objective.objective import Objective

_COORDINATES = ("train", "params", "l2", "inputs")  # what depends on the coordinates of θ


@final
class WideObjective(LinearObjective):
    """The objective of a wide model, in coordinates that are made when they are first asked for.

    With K = X Xᵀ = Z Zᵀ, the rows of Z [n, r], r <= n, are features of the same model. K takes a
    sparse product, Z n r² operations; what needs K alone asks `columns` and never pays for Z.
    A penalty l2 > 0, one per output, and no L1 penalty: else the optimum leaves the span.
    Changed by `replace`, it is an objective in those coordinates like any other.

    Attributes:
        columns: The same objective in X's own d columns, if nothing was changed; else `None`.
    """

    columns: LinearObjective | None = None
    _narrow: Callable[[], LinearObjective]

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
        vars(objective).update(known, columns=columns, _narrow=narrow)
        return objective

    def __getattr__(self, name: str) -> Any:
        """Make the coordinates; called for attributes that are not there."""
        if name not in _COORDINATES or "_narrow" not in vars(self):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        narrow = self._narrow()
        vars(self).update({name: getattr(narrow, name) for name in _COORDINATES})
        return vars(self)[name]


def columns_of(objective: Objective) -> LinearObjective | None:
    """Return a wide model's objective in X's own columns, `None` of any other or a changed one.

    Args:
        objective: R at θ̂.
    """
    return objective.columns if isinstance(objective, WideObjective) else None
