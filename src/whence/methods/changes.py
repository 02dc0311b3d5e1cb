"""Other questions about the training data: groups removed, rows edited, inputs moved."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from whence.curvature.changes import GroupChange
from whence.curvature.prepare import prepare
from whence.errors import InvalidInput
from whence.linalg.solver import Solver
from whence.methods.fit_quality import diagnostics
from whence.methods.influence import Influence
from whence.methods.leave_one_out import converged, refit_without
from whence.methods.method import Method
from whence.methods.prediction import (
    Floats,
    Indices,
    MeasureLike,
    Order,
    as_array,
    check_order,
    measure_changes,
    positions,
    predicted_changes,
)
from whence.objective.losses import measure_of
from whence.objective.objective import Objective
from whence.objective.trained import Data, Trained


def group_effect(
    objective: Objective,
    indices: Indices,
    queries: Any,
    *,
    order: Order | Literal["refit"] = "newton",
    measure: MeasureLike = "loss",
    solver: Solver | None = None,
    damping: float | None = None,
) -> Floats:
    """Predict how each query's measure changes if a set of training examples is removed together.

    "first" adds up single influences and misses that the examples stood in for one another;
    "newton" and "refined" take the whole group's curvature out of H; "refit" retrains.

    Args:
        objective: R at θ̂.
        indices: Positions of the group; a position given twice counts once.
        queries: (X, y) of q queries, or of one.
        order: "first", "newton", "refined" or "refit".
        measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b].
        solver: What inverts the curvature; chosen by cost if `None`.
        damping: λ >= 0 added to the curvature; chosen by rule if `None`.

    Returns:
        Changes, [q]; in nats for the loss.

    Raises:
        InvalidInput: If queries, indices or options cannot be used.
        NotPositiveDefinite: If the curvature is singular without the group.

    Cost:
        first: one solve. newton and refined: a few dozen Hessian-vector products each; with EKFAC
        or KFAC a product with the inverse for each of the group's m c outputs, in closed form
        (their curvature may be less than the group's own: no direction keeps less than the
        penalty and the damping).

    References:
        Koh, Ang, Teo & Liang (2019); Basu, You & Feizi (2020).

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.linear_model import Ridge
        >>> X, y = load_diabetes(return_X_y=True)
        >>> objective = whence.from_sklearn(Ridge().fit(X, y), X, y)
        >>> group, query = range(40), (X[:1], y[:1])
        >>> newton = whence.group_effect(objective, group, query)
        >>> refit = whence.group_effect(objective, group, query, order="refit")
        >>> bool(abs(newton - refit).max() < 1e-8)
        True
    """
    where = np.unique(positions(objective, indices))
    if order == "refit":
        base = converged(objective)
        asked = base.examples(queries)
        quantity = measure_of(base.trained_loss, measure)
        return as_array(measure_changes(base, asked, quantity, refit_without(base, where)))[:, 0]
    check_order(order)
    prepared = prepare(objective, 1, solver=solver, damping=damping)
    group = GroupChange(
        objective=objective,
        parts=((objective.train.subset(where), -objective.weights[where].unsqueeze(1)),),
        inverse=prepared.inverse,
    )
    asked = objective.examples(queries)
    diagnostics(objective, prepared)
    quantity = measure_of(objective.loss, measure)
    return as_array(predicted_changes(objective, asked, quantity, group, order))[:, 0]


def edit(
    objective: Objective,
    index: int,
    x_new: Any,
    y_new: Any,
    queries: Any,
    *,
    order: Order = "newton",
    measure: MeasureLike = "loss",
    solver: Solver | None = None,
    damping: float | None = None,
) -> Floats:
    """Predict how each query's measure changes if a training example is replaced by another.

    z = (x, y) leaves and z_δ = (x_new, y_new) comes with the same weight: an edit of any size, a
    change of label, a discrete input. To first order it is −(wᵢ/n) ∇m_qᵀ H⁻¹ (g(z_δ) − g(z)).

    Args:
        objective: R at θ̂.
        index: Position of the example in the training data.
        x_new: The new input, in the user's own form.
        y_new: The new target.
        queries: (X, y) of q queries, or of one.
        order: "first", "newton" or "refined".
        measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b].
        solver: What inverts the curvature; chosen by cost if `None`.
        damping: λ >= 0 added to the curvature; chosen by rule if `None`.

    Returns:
        Changes, [q]; in nats for the loss.

    Raises:
        InvalidInput: If the new example, queries or options cannot be used.

    Cost:
        2 c solves.

    References:
        Koh & Liang (2017), section 2.2, equation 3.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.linear_model import LogisticRegression
        >>> X, y = load_iris(return_X_y=True)
        >>> model = LogisticRegression(tol=1e-8, max_iter=1000).fit(X, y)
        >>> objective = whence.from_sklearn(model, X, y)
        >>> unchanged = whence.edit(objective, 3, X[3], y[3], (X[:1], y[:1]))
        >>> bool(abs(unchanged).max() < 1e-12)
        True
    """
    check_order(order)
    where = positions(objective, index)
    if len(where) != 1:
        raise InvalidInput(f"Expected one index to edit. Got {len(where)}. Edit one at a time.")
    new = objective.examples((x_new, y_new))
    if len(new) != 1:
        raise InvalidInput(f"Expected one new example. Got {len(new)}.")
    asked = objective.examples(queries)
    c = objective.outputs(new).shape[1]
    prepared = prepare(objective, 2 * c, solver=solver, damping=damping)
    weight = objective.weights[where].unsqueeze(1)
    change = GroupChange(
        objective=objective,
        parts=((objective.train.subset(where), -weight), (new, weight)),
        inverse=prepared.inverse,
    )
    diagnostics(objective, prepared)
    quantity = measure_of(objective.loss, measure)
    return as_array(predicted_changes(objective, asked, quantity, change, order))[:, 0]


def perturbation(
    objective: Trained,
    indices: Indices,
    query: Data,
    *,
    method: Method | None = None,
    measure: MeasureLike = "loss",
    solver: Solver | None = None,
    damping: float | None = None,
) -> Floats:
    """Return the derivative of the query's measure in each input feature of training examples.

    ∂m(θ̂)/∂xᵢ = −(wᵢ/n) ∇mᵀ H⁻¹ ∇_x ∇_θ ℓ(zᵢ, θ̂): how the prediction moves, after retraining, per
    unit of change of a training input. With several queries, of the mean of their measures.

    Args:
        objective: R at θ̂.
        indices: Positions of the k training examples.
        query: (x, y) of one query, or of several.
        method: What follows the change of an input; `whence.Influence` if `None`.
        measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b].
        solver: What inverts the curvature; chosen by cost if `None`.
        damping: λ >= 0 added to the curvature; chosen by rule if `None`.

    Returns:
        Derivatives, [k, d] in the user's own input features (or [k, *shape] for images); nats per
        unit of the feature for the loss.

    Raises:
        InvalidInput: If the query, indices or options cannot be used.

    Cost:
        One solve, and one mixed derivative for all k examples together.

    References:
        Koh & Liang (2017), section 2.2, equation 5, times wᵢ/n.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.linear_model import Ridge
        >>> X, y = load_diabetes(return_X_y=True)
        >>> objective = whence.from_sklearn(Ridge().fit(X, y), X, y)
        >>> whence.perturbation(objective, [0, 1], (X[9], y[9])).shape
        (2, 10)
    """
    chosen = Influence(solver=solver, damping=damping) if method is None else method
    found = chosen.fit(objective)
    where = positions(objective, indices)
    quantity = measure_of(objective.loss, measure)
    return as_array(found.input_gradient(objective.examples(query), quantity, where))
