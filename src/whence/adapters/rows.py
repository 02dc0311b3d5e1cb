"""Rows of a user's table with their targets, for models that are asked for predictions alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.adapters.tables import as_rows, pair
from whence.checked import labels as checked_labels
from whence.errors import InvalidInput
from whence.objective.trained import Data, Examples
from whence.rows import put, take


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RowExamples(Examples):
    """Rows with their targets.

    Args:
        inputs: The user's rows: a frame, an array, a sparse matrix or texts, [b].
        targets: Encoded targets, [b] or [b, c].
        ids: The user's names of the rows, [b].
    """

    inputs: Any
    targets: Tensor
    ids: NDArray[Any]

    def subset(self, indices: NDArray[np.intp]) -> RowExamples:
        """Return the rows at these positions."""
        return RowExamples(
            inputs=take(self.inputs, indices),
            targets=self.targets[torch.as_tensor(indices)],
            ids=self.ids[indices],
        )

    def replaced(self, where: NDArray[np.intp], new: Examples) -> RowExamples:
        """Return the rows with some of them replaced, under the names they have.

        Args:
            where: Positions of the k rows that go.
            new: The k rows that come.
        """
        inputs, targets = self.inputs, self.targets.clone()
        for place, index in enumerate(where.tolist()):
            inputs = put(inputs, index, new.subset(np.array([place])).inputs)
        targets[torch.as_tensor(where)] = new.targets
        return RowExamples(inputs=inputs, targets=targets, ids=self.ids)


def width_of(rows: Any) -> int | None:
    """Return how many columns rows have; `None` of texts.

    Args:
        rows: A user's X.
    """
    return int(np.shape(rows)[1]) if np.ndim(rows) > 1 else None


def encoded(
    data: Data,
    width: int | None,
    names: tuple[str, ...] | None,
    targets: Callable[[NDArray[Any]], Tensor],
) -> RowExamples:
    """Check and encode a user's (X, y).

    Args:
        data: (X, y) of one row or of many; or rows encoded before.
        width: How many columns there are.
        names: Their names, or `None`.
        targets: Encodes targets, and refuses those that the model cannot have.

    Returns:
        The rows with their targets.

    Raises:
        InvalidInput: If they are not of the model's columns, or not as many of both.
    """
    if isinstance(data, RowExamples):
        return data
    inputs, given = pair(data)
    rows, ids = as_rows(inputs, width, names)
    labels = labels_of(given)
    if rows.shape[0] == 1 and labels.shape[:1] != (1,):
        labels = labels_of(labels.reshape(1, -1))  # one row, with its target or targets
    if labels.shape[:1] != rows.shape[:1]:
        raise InvalidInput(
            f"Expected one target per row. Got {rows.shape[0]} rows and {labels.size} targets."
        )
    return RowExamples(inputs=rows, targets=targets(labels), ids=ids)


def labels_of(y: Any) -> NDArray[Any]:
    """Return targets as an array, [n] or [n, k].

    Args:
        y: As a user passes them; a structured array of survival times becomes (time, event).
    """
    if getattr(getattr(y, "dtype", None), "names", None):
        return _durations(y)
    labels = checked_labels("targets", y)
    return labels.reshape(-1) if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _durations(y: Any) -> NDArray[np.float64]:
    """Return time and event, [n, 2], of a structured array that has both."""
    y = np.atleast_1d(np.asarray(y))
    names: tuple[str, ...] = y.dtype.names or ()
    events = [name for name in names if y.dtype[name].kind == "b"]
    if len(names) != 2 or len(events) != 1:
        raise InvalidInput(
            "Expected targets as numbers or labels, or a structured array of an event, true or "
            f"false, and a time. Got fields {', '.join(names)}. Name one: y[{names[0]!r}]."
        )
    time = next(name for name in names if name != events[0])
    return np.stack([y[time].astype(np.float64), y[events[0]].astype(np.float64)], -1)
