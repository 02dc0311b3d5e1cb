"""A training example replaced or relabeled."""

from __future__ import annotations

from functools import singledispatch
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from whence.curvature.exact import Gradients
from whence.curvature.prepare import prepare
from whence.errors import InvalidInput
from whence.linalg.solver import Solver
from whence.methods.method import Method
from whence.methods.prediction import Floats, MeasureLike, Order, as_array, positions
from whence.methods.sets import change_of, values_of
from whence.objective.losses import measure_of
from whence.objective.objective import Objective
from whence.objective.trained import Data, Trained


@singledispatch
def edit_by_method(
    method: Method,
    trained: Trained,
    index: int,
    new: Any,
    queries: Data,
    order: Order | Literal["refit"] | None,
    measure: MeasureLike,
) -> Floats:
    """Predict how each query's measure changes if a training example is replaced by another.

    Args:
        method: What follows the edit.
        trained: The model.
        index: Position of the example that goes.
        new: (x, y) of the example that comes.
        queries: (X, y) of the q queries.
        order: `None` for the method's prediction; "refit" fits trees again on the edited data.
        measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b].

    Returns:
        Changes, [q].

    Raises:
        InvalidInput: If the new example, queries or options cannot be used.
        UnsupportedModel: If the method does not follow edits, or the model cannot be refitted.
    """
    where = positions(trained, index)
    comes, encoded = trained.examples(new), trained.examples(queries)
    if len(where) != 1 or len(comes) != 1:
        raise InvalidInput(
            "Expected one index to edit, and one new example. "
            f"Got {len(where)} and {len(comes)}. Edit one at a time."
        )
    if order is None:
        found = method.fit(trained)
        return as_array(
            change_of(
                trained,
                encoded,
                measure,
                trained.loss,
                lambda some, quantity: found.edit_effects(some, quantity, int(where[0]), comes),
                linear=False,
            )
        )
    if order != "refit":
        raise InvalidInput(
            f"Expected order='refit' or none with {method!r}. Got {order!r}, which is an order of "
            "influence."
        )
    edited = trained.refit_edited(where, comes)
    after, before = (
        values_of(model, encoded, measure, trained.loss) for model in (edited, trained.refit())
    )
    return as_array(after - before)


def relabel_gain(
    objective: Objective,
    where: NDArray[np.intp],
    targets: Tensor,
    queries: Data,
    *,
    measure: MeasureLike = "loss",
    solver: Solver | None = None,
    damping: float | None = None,
) -> Floats:
    """Predict by how much the queries' mean measure falls if examples get other labels, each alone.

    (1/n) ∇m̄ᵀ H⁻¹ (w′ᵢ g(xᵢ, y′) − wᵢ g(xᵢ, yᵢ)), w′ with the weight of the other class.

    Args:
        objective: R at θ̂.
        where: Positions of the k examples.
        targets: The other labels, encoded, [k].
        queries: (X, y) of the queries.
        measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b].
        solver: What inverts the curvature; chosen by cost if `None`.
        damping: λ >= 0 added to the curvature; chosen by rule if `None`.

    Returns:
        Falls of the mean measure, [k].

    Cost:
        One solve.

    References:
        Koh & Liang (2017), section 2.2, equation 3.

    Examples:
        >>> import torch, whence
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.linear_model import LogisticRegression
        >>> X, y = load_iris(return_X_y=True)
        >>> model = LogisticRegression(tol=1e-8, max_iter=1000).fit(X, y)
        >>> objective = whence.from_sklearn(model, X, y)
        >>> same = relabel_gain(objective, np.array([3]), torch.tensor([0]), (X, y))
        >>> float(abs(same[0]))
        0.0
    """
    examples = objective.examples(queries)
    prepared = prepare(objective, 1, solver=solver, damping=damping)
    mean = objective.params.new_full((len(examples), 1), 1 / len(examples))
    gradient = Gradients(objective, examples, measure_of(objective.loss, measure)).rmatmat(mean)
    direction = prepared.inverse.matmat(gradient)
    here = objective.train.subset(where)
    there = here.relabeled(targets)
    weights = weights_there = objective.weights[where].unsqueeze(1)
    if objective.statistics is not None:
        weights_there = objective.statistics.weights_as(where, targets).unsqueeze(1)
    change = weights_there * objective.gradient_dot(there, objective.loss, direction)
    change = change - weights * objective.gradient_dot(here, objective.loss, direction)
    return as_array(change.squeeze(1) / len(objective.train))
