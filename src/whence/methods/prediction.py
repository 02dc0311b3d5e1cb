"""Changes of measures from changes of parameters, for all orders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence import checked
from whence.arrays import Floats
from whence.curvature.changes import Changes
from whence.errors import InvalidInput
from whence.methods.sets import MeasureLike as MeasureLike
from whence.objective.measures import Measure
from whence.objective.measures import measure_name as measure_name
from whence.objective.objective import Objective
from whence.objective.trained import Examples, Trained

Order = Literal["first", "newton", "refined"]
Indices = Sequence[int] | NDArray[np.integer] | int

ORDERS: dict[Order, str] = {
    "first": "influence, first order (Koh & Liang 2017, equation 2)",
    "newton": "one Newton step without the example, evaluated",
    "refined": "a Newton step without the example and two more with fresh gradients, evaluated",
}


def check_order(order: str) -> None:
    """Raise `InvalidInput` unless the order is one of the three."""
    if order not in ORDERS:
        raise InvalidInput(f"Expected order to be one of {', '.join(ORDERS)}. Got {order!r}.")


def positions(trained: Trained, indices: Indices | None) -> NDArray[np.intp]:
    """Return checked positions in the training data; all of them for `None`.

    Args:
        trained: The model.
        indices: One position, several, or `None`.

    Returns:
        Positions, [k].

    Raises:
        InvalidInput: If there is none, or one is no position.
    """
    n = len(trained.weights)
    return np.arange(n) if indices is None else checked.positions("indices", indices, n)


def deltas_of(change: Changes, order: Order) -> Tensor:
    """Return the predicted change of the parameters in each column, [p, k].

    Args:
        change: The changed objectives.
        order: How to predict.

    Returns:
        θ′ − θ̂.
    """
    if order == "first":
        return change.first()
    newton = change.newton()
    return newton if order == "newton" else change.refine(change.refine(newton))


def predicted_changes(
    objective: Objective, queries: Examples, measure: Measure, change: Changes, order: Order
) -> Tensor:
    """Return the predicted change of each query's measure in each column, [q, k].

    First order is linear in everything; the others evaluate the measure at θ̂ + Δ.

    Args:
        objective: R at θ̂.
        queries: The q queries.
        measure: What is predicted.
        change: The changed objectives.
        order: How to predict.

    Returns:
        Changes, [q, k].
    """
    deltas = deltas_of(change, order)
    if order == "first":
        return objective.gradient_dot(queries, measure, deltas)
    return measure_changes(objective, queries, measure, deltas)


def measure_changes(
    objective: Objective, queries: Examples, measure: Measure, deltas: Tensor
) -> Tensor:
    """Return m(θ̂ + δ) − m(θ̂), evaluated and not linearized.

    Args:
        objective: R at θ̂.
        queries: The q queries.
        measure: What is predicted.
        deltas: Displacements, [p, k].

    Returns:
        Changes, [q, k].
    """
    q, k = len(queries), deltas.shape[1]
    before = measure(objective.outputs(queries), queries.targets)
    outputs = objective.outputs_at(queries, deltas)
    flat = outputs.movedim(-1, 1).flatten(0, 1)
    targets = queries.targets.repeat_interleave(k, dim=0)
    return measure(flat, targets).reshape(q, k) - before.unsqueeze(1)


def as_array(tensor: Tensor) -> Floats:
    """Return a tensor as a float64 array."""
    return tensor.detach().to("cpu", torch.float64).numpy()
