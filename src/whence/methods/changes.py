"""Effects of other changes of the training data: groups removed, rows edited, inputs perturbed."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import numpy as np
from torch import Tensor

from whence.arrays import Floats
from whence.checked import checked
from whence.curvature.changes import GroupChange
from whence.curvature.damping import CurvatureName
from whence.curvature.prepare import prepare
from whence.errors import InvalidInput
from whence.linalg.solver import Solver
from whence.methods.choose import chosen
from whence.methods.converged import converged
from whence.methods.edits import edit_by_method
from whence.methods.fit_quality import fit_quality
from whence.methods.leave_one_out import refit_without
from whence.methods.method import Method
from whence.methods.own_fits import warn_beside_own_fit
from whence.methods.prediction import Indices, MeasureLike, Order, as_array, check_order, positions
from whence.methods.removals import changes_together, effects_of, follows, without
from whence.methods.sets import asked_of_set, change_of, values_of
from whence.objective.losses import measure_of
from whence.objective.measures import Measure
from whence.objective.objective import objective_of
from whence.objective.removed import weights_without
from whence.objective.sets.measure import Along
from whence.objective.trained import Data, Examples, Trained
from whence.rows import typed_row


@checked
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
    curvature: CurvatureName = "auto",
) -> Floats:
    """Predict how each query's measure changes if a set of training examples is removed together.

    "first" adds up single influences and misses that the examples stood in for one another;
    "newton" and "refined" take the whole group's curvature out of H; "refit" retrains.

    Args:
        objective: R at θ̂.
        indices: Positions of the group; a position given twice counts once.
        queries: (X, y) of q queries, or of one.
        order: "first", "newton", "refined" or "refit"; "newton" if `None`.
        measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b]; or one
            number of all queries, as those of `whence.measures`.
        method: Another method than influence, whose scores add up: `order` is then "first" or
            "refit", "first" if `None`.
        solver: What inverts the curvature; chosen by cost if `None`.
        damping: λ >= 0 added to the curvature; chosen by rule if `None`.
        curvature: "hessian", "ggn" (the Gauss–Newton matrix) or "auto": the exact Hessian of a
            convex objective or at a strict minimum, elsewhere the damped Gauss–Newton matrix.

    Returns:
        Changes, [q]; in nats for the loss. [1] for a measure of all queries.

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
    smooth_default = method is None and objective.differentiable() is not None
    order = order or ("newton" if smooth_default else "first")
    if order == "refit":
        base = converged(objective)
        examples, loss = base.examples(queries), base.trained_loss
        value = partial(values_of, queries=examples, measure=measure, loss=loss)
        moved = value(refit_without(base, where)) - value(base)
        rest = weights_without(objective.weights, where)
        warn_beside_own_fit(objective, base, examples, value, moved, objective, rest)
        return as_array(moved)
    check_order(order)
    encoded = objective.examples(queries)
    if method is not None or order == "first":
        if order != "first":
            raise InvalidInput(
                f"Expected order='first' or 'refit' with method={method!r}, whose scores add up. "
                f"Got {order!r}, which is an order of influence."
            )
        found = chosen(objective, method, solver, damping, curvature).fit(objective)
        return as_array(
            change_of(
                objective,
                encoded,
                measure,
                found.loss,
                lambda some, quantity: found.values(some, quantity, where)[0].sum(1),
                linear=found.linear,
            )
        )
    smooth = objective_of(objective)
    prepared = prepare(smooth, 1, solver=solver, damping=damping, curvature=curvature)
    fit_quality(smooth, prepared)  # warns of an unfinished fit
    step, change = order, partial(without, where=where)

    def afresh(some: Examples, quantity: Measure) -> Tensor:
        return effects_of(smooth, [change], some, quantity, step, prepared.inverse)[:, 0]

    group = GroupChange(
        objective=smooth,
        parts=((smooth.train.subset(where), -smooth.weights[where].unsqueeze(1)),),
        inverse=prepared.inverse,
    )

    def together(some: Examples, quantity: Measure) -> Tensor:
        again = partial(afresh, some, quantity)
        return changes_together(smooth, some, quantity, group, step, prepared.damping, again)

    effects = afresh if follows(smooth, order, where) else together
    return as_array(change_of(smooth, encoded, measure, smooth.loss, effects, linear=False))


@checked
def edit(
    objective: Trained,
    index: int,
    x_new: Any,
    y_new: Any,
    queries: Data,
    *,
    order: Order | Literal["refit"] | None = None,
    measure: MeasureLike = "loss",
    method: Method | None = None,
    solver: Solver | None = None,
    damping: float | None = None,
    curvature: CurvatureName = "auto",
) -> Floats:
    """Predict how each query's measure changes if a training example is replaced by another.

    z = (x, y) leaves and z_δ = (x_new, y_new) comes with its sample weight, and the weight of its
    own class: an edit of any size, a change of label, a discrete input. To first order it is
    −(1/n) ∇m_qᵀ H⁻¹ (w_δ g(z_δ) − wᵢ g(z)), and what both do through the preprocessing.

    Args:
        objective: R at θ̂.
        index: Position of the example in the training data.
        x_new: The new input, in the user's own form.
        y_new: The new target.
        queries: (X, y) of q queries, or of one.
        order: "first", "newton" or "refined", "newton" if `None`; "refit" fits again on the edited
            data. Models without derivatives take "refit", trees that or `None`; of those that are
            fitted again at once, as neighbors, `None` is "refit" too.
        measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b]; or one
            number of all queries, as those of `whence.measures`.
        method: What follows the edit; influence if `None`, and for trees their own method.
        solver: What inverts the curvature; chosen by cost if `None`.
        damping: λ >= 0 added to the curvature; chosen by rule if `None`.
        curvature: "hessian", "ggn" (the Gauss–Newton matrix) or "auto": the exact Hessian of a
            convex objective or at a strict minimum, elsewhere the damped Gauss–Newton matrix.

    Returns:
        Changes, [q]; in nats for the loss. [1] for a measure of all queries.

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
    named = chosen(objective, method, solver, damping, curvature)
    if method is None and objective.differentiable() is not None:
        order = order or "newton"
    elif method is None and objective.instant:
        order = order or "refit"
    new = typed_row(objective.train.inputs, x_new), y_new
    return edit_by_method(named, objective, index, new, queries, order, measure)


@checked
def perturbation(
    objective: Trained,
    indices: Indices,
    query: Data,
    *,
    method: Method | None = None,
    measure: MeasureLike = "loss",
    solver: Solver | None = None,
    damping: float | None = None,
    curvature: CurvatureName = "auto",
) -> Floats:
    """Return the derivative of the query's measure in each input feature of training examples.

    ∂m(θ̂)/∂xᵢ = −(wᵢ/n) ∇mᵀ H⁻¹ ∇_x ∇_θ ℓ(zᵢ, θ̂): how the prediction moves, after retraining, per
    unit of change of a training input. With several queries, of the mean of their measures.

    Args:
        objective: R at θ̂.
        indices: Positions of the k training examples.
        query: (x, y) of one query, or of several.
        method: What follows the change of an input; `whence.Influence` if `None`.
        measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b]; or one
            number of all queries, as those of `whence.measures`.
        solver: What inverts the curvature; chosen by cost if `None`.
        damping: λ >= 0 added to the curvature; chosen by rule if `None`.
        curvature: "hessian", "ggn" (the Gauss–Newton matrix) or "auto": the exact Hessian of a
            convex objective or at a strict minimum, elsewhere the damped Gauss–Newton matrix.

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
    found = chosen(objective, method, solver, damping, curvature).fit(objective)
    where, queries = positions(objective, indices), objective.examples(query)
    of_set = asked_of_set(objective, queries, measure)
    if of_set is None:
        quantity = measure_of(objective.loss, measure)
        return as_array(found.input_gradient(queries, quantity, where))
    slopes = of_set.gradient(objective.outputs(queries), queries.targets, objective.loss)
    moved = found.input_gradient(queries.relabeled(slopes), Along(), where)
    return as_array(len(queries) * moved)
