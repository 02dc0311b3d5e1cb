"""Other questions about the training data: groups removed, rows edited, inputs moved."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from whence.curvature.changes import GroupChange
from whence.curvature.exact import Gradients
from whence.curvature.prepare import prepare
from whence.errors import InvalidInput
from whence.linalg.solver import Solver
from whence.methods.choose import chosen, default_method
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
    positions,
    predicted_changes,
)
from whence.objective.losses import measure_of
from whence.objective.objective import Objective, objective_of
from whence.objective.trained import Data, Trained


def group_effect(
    objective: Trained,
    indices: Indices,
    queries: Data,
    *,
    order: Order | Literal["refit"] | None = None,
    measure: MeasureLike = "loss",
    method: Method | None = None,
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
        order: "first", "newton", "refined" or "refit"; "newton" if `None`.
        measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b].
        method: Another method than influence, whose scores add up: `order` is then "first" or
            "refit", "first" if `None`.
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
    smooth_default = method is None and isinstance(default_method(objective), Influence)
    order = order or ("newton" if smooth_default else "first")
    if order == "refit":
        base = converged(objective)
        examples = base.examples(queries)
        quantity = measure_of(base.trained_loss, measure)
        before, after = (
            quantity(model.outputs(examples), examples.targets)
            for model in (base, refit_without(base, where))
        )
        return as_array(after - before)
    check_order(order)
    if method is not None or order == "first":
        if order != "first":
            raise InvalidInput(
                f"Expected order='first' or 'refit' with method={method!r}, whose scores add up. "
                f"Got {order!r}, which is an order of influence."
            )
        found = chosen(objective, method, solver, damping).fit(objective)
        scores = found.scores(queries, measure=measure, indices=where)
        return np.asarray(scores.values.sum(1), dtype=np.float64)
    smooth = objective_of(objective)
    prepared = prepare(smooth, 1, solver=solver, damping=damping)
    group = GroupChange(
        objective=smooth,
        parts=((smooth.train.subset(where), -smooth.weights[where].unsqueeze(1)),),
        inverse=prepared.inverse,
    )
    diagnostics(smooth, prepared)
    quantity = measure_of(smooth.loss, measure)
    return as_array(predicted_changes(smooth, smooth.examples(queries), quantity, group, order))[
        :, 0
    ]


def edit(
    objective: Trained,
    index: int,
    x_new: Any,
    y_new: Any,
    queries: Data,
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
    objective = objective_of(objective)
    where = positions(objective, index)
    if len(where) != 1:
        raise InvalidInput(f"Expected one index to edit. Got {len(where)}. Edit one at a time.")
    new = objective.examples((x_new, y_new))
    if len(new) != 1:
        raise InvalidInput(f"Expected one new example. Got {len(new)}.")
    encoded = objective.examples(queries)
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
    return as_array(predicted_changes(objective, encoded, quantity, change, order))[:, 0]


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

    (wᵢ/n) ∇m̄ᵀ H⁻¹ (g(xᵢ, y′) − g(xᵢ, yᵢ)).

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
    change = objective.gradient_dot(there, objective.loss, direction) - objective.gradient_dot(
        here, objective.loss, direction
    )
    return as_array(change.squeeze(1) * objective.weights[where] / len(objective.train))


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
    found = chosen(objective, method, solver, damping).fit(objective)
    where = positions(objective, indices)
    quantity = measure_of(objective.loss, measure)
    return as_array(found.input_gradient(objective.examples(query), quantity, where))
