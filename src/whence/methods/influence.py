"""Influence of training examples on queries, on themselves and on the parameters."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.curvature.changes import SingleChanges, single_changes, tiles
from whence.curvature.dual import dual_leverages, in_columns
from whence.curvature.exact import Gradients
from whence.curvature.forms import bilinear, quadratic
from whence.curvature.prepare import Prepared, prepare
from whence.linalg.operator import LinearOperator
from whence.linalg.solver import Solver
from whence.methods.fit_quality import (
    diagnostics,
    fit_in_passing,
    fit_quality,
    product_and_fit,
)
from whence.methods.prediction import (
    ORDERS,
    Floats,
    Indices,
    MeasureLike,
    Order,
    as_array,
    check_order,
    deltas_of,
    measure_changes,
    measure_name,
    positions,
)
from whence.methods.relatif import PER, Normalize, check_normalize, relative
from whence.objective.losses import measure_of
from whence.objective.objective import Objective
from whence.scores import Scores


def influence(
    objective: Objective,
    queries: Any,
    *,
    order: Order = "first",
    measure: MeasureLike = "loss",
    indices: Indices | None = None,
    solver: Solver | None = None,
    damping: float | None = None,
    normalize: Normalize = "none",
) -> Scores:
    """Predict how each query's measure changes if each training example is removed.

    first:   (wᵢ/n) ∇m_qᵀ H⁻¹ gᵢ, the paper's influence, linear in everything;
    newton:  m_q(θ̂ + Δᵢ) − m_q(θ̂), Δᵢ one Newton step of the objective without example i;
    refined: the same after two more steps, each with a fresh gradient.

    Args:
        objective: R at θ̂.
        queries: (X, y) of q queries, or of one.
        order: "first", "newton" or "refined".
        measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b].
        indices: Positions of the candidates in the training data; all n if `None`.
        solver: What inverts the curvature; chosen by cost if `None`, and then a linear model above
            4,000 parameters may be solved and scored in float32, to a relative residual of 1e-5
            that is measured in float64. A solver that is passed works in the model's precision.
        damping: λ >= 0 added to the curvature; chosen by rule if `None`.
        normalize: RelatIF, for the first order: ∇m_qᵀ H⁻¹ gᵢ over √(gᵢᵀ H⁻¹ gᵢ) ("loss") or
            over ‖H⁻¹ gᵢ‖ ("parameters"), without wᵢ/n. `scores.measure` names the changed unit.

    Returns:
        Scores with values [q, n], or [q, k] for k candidates; in nats for the loss.

    Raises:
        InvalidInput: If queries, indices or options cannot be used.
        NotPositiveDefinite: If the curvature is singular or indefinite.

    Warns:
        NotConvergedWarning: If the fit or a solve has not converged.

    Cost:
        first: q solves and one product of the training gradients with [p, q].
        newton: k c solves for k candidates. refined: 2 k more, and four passes over the data
        for each. normalize: k solves.

    References:
        Koh & Liang (2017), section 2.1, equation 2; Barshan et al. (2020) for normalize.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.linear_model import LogisticRegression
        >>> X, y = load_iris(return_X_y=True)
        >>> model = LogisticRegression(tol=1e-8, max_iter=1000).fit(X[1:], y[1:])
        >>> objective = whence.from_sklearn(model, X[1:], y[1:])
        >>> scores = whence.influence(objective, (X[:1], y[:1]))
        >>> scores.values.shape
        (1, 149)
    """
    check_order(order)
    check_normalize(normalize, order)
    asked = objective.examples(queries)
    quantity = measure_of(objective.loss, measure)
    where = positions(objective, indices)
    solution = None
    if order == "first":
        prepared = prepare(objective, len(asked), solver=solver, damping=damping)
        model = prepared.scored or objective
        candidates = model.train if indices is None else model.train.subset(where)
        gradients = Gradients(model, candidates, model.loss)
        fit = fit_in_passing(objective, prepared.inverse, gradients)
        dots, solution = bilinear(
            prepared.inverse,
            Gradients(objective, asked, quantity),
            gradients,
            partial(product_and_fit, objective),
            fit.add if fit else None,
        )
        if fit:
            fit.note()
        if normalize == "none":
            values = dots.mul_(model.weights[where] / len(model.train))
        else:
            whole = objective.train.subset(where)
            values = relative(dots, objective, whole, prepared.inverse, normalize)
    else:
        c = objective.outputs(asked).shape[1]
        prepared = prepare(objective, len(where) * c, solver=solver, damping=damping)
        parts = []
        for tile in tiles(objective, len(where), c):
            change = removal(objective, prepared.inverse, where[tile])
            parts.append(measure_changes(objective, asked, quantity, deltas_of(change, order)))
        values = torch.cat(parts, 1)
    return Scores(
        values=values.numpy() if prepared.scored else as_array(values),
        query_ids=asked.ids,
        train_ids=objective.train.ids[where],
        positions=where,
        n=len(objective.train),
        method=ORDERS[order],
        measure=measure_name(measure) + PER[normalize],
        diagnostics=diagnostics(objective, prepared, solution),
    )


def self_influence(
    objective: Objective,
    *,
    indices: Indices | None = None,
    solver: Solver | None = None,
    damping: float | None = None,
) -> Floats:
    """Predict how far each training example's own loss rises when it is removed, first order.

    (wᵢ/n) gᵢᵀ H⁻¹ gᵢ: large where the model fits an example only because it was trained on it,
    which is what a wrong label looks like.

    Args:
        objective: R at θ̂.
        indices: Positions in the training data; all n if `None`.
        solver: What inverts the curvature; chosen by cost if `None`.
        damping: λ >= 0 added to the curvature; chosen by rule if `None`.

    Returns:
        Self-influence in nats, [n] or [k]; never negative.

    Raises:
        InvalidInput: If the indices are no positions.
        NotPositiveDefinite: If the curvature is singular or indefinite.

    Cost:
        One solve per example, in blocks. For a wide linear model of one output with an L2 penalty
        the products of its rows, their factor and a half solve of n numbers per example.

    References:
        Koh & Liang (2017), section 5.4.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.linear_model import Ridge
        >>> X, y = load_diabetes(return_X_y=True)
        >>> whence.self_influence(whence.from_sklearn(Ridge().fit(X, y), X, y)).shape
        (442,)
    """
    columns = in_columns(objective) if solver is None else None
    if columns is not None:
        where = positions(columns, indices)
        some = columns.train.subset(where)
        slopes = columns.loss.gradient(columns.outputs(some), some.targets).flatten()
        squares = slopes.square() * dual_leverages(columns, where, damping)
        fit_quality(objective)
    else:
        where = positions(objective, indices)
        prepared = prepare(objective, len(where), solver=solver, damping=damping)
        squares = own_squares(objective, where, prepared)
        diagnostics(objective, prepared)
    return as_array(squares * objective.weights[where] / len(objective.weights))


def own_squares(objective: Objective, where: NDArray[np.intp], prepared: Prepared) -> Tensor:
    """Return gᵢᵀ H⁻¹ gᵢ of training examples by solves.

    Args:
        objective: R at θ̂.
        where: Positions of the k examples.
        prepared: H⁻¹.

    Returns:
        The squares, [k].
    """
    gradients = Gradients(objective, objective.train.subset(where), objective.loss)
    return quadratic(prepared.inverse, gradients)


def influence_on_parameters(
    objective: Objective,
    indices: Indices,
    *,
    order: Order = "first",
    solver: Solver | None = None,
    damping: float | None = None,
) -> Floats:
    """Predict how the fitted parameters change if each training example is removed.

    first: θ̂₋ᵢ − θ̂ ≈ (wᵢ/n) H⁻¹ gᵢ = −(wᵢ/n) I_up,params.

    Args:
        objective: R at θ̂.
        indices: Positions of the k examples.
        order: "first", "newton" or "refined".
        solver: What inverts the curvature; chosen by cost if `None`.
        damping: λ >= 0 added to the curvature; chosen by rule if `None`.

    Returns:
        Changes of the user's own parameters, [k, p]: for scikit-learn `coef_` row by row, then
        `intercept_`.

    Raises:
        InvalidInput: If the indices are no positions.
        NotPositiveDefinite: If the curvature is singular or indefinite.

    Cost:
        k c solves.

    References:
        Koh & Liang (2017), section 2.1, equation 1.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.linear_model import Ridge
        >>> X, y = load_diabetes(return_X_y=True)
        >>> objective = whence.from_sklearn(Ridge().fit(X, y), X, y)
        >>> whence.influence_on_parameters(objective, [0, 5]).shape
        (2, 11)
    """
    check_order(order)
    where = positions(objective, indices)
    c = objective.outputs(objective.train.subset(where[:1])).shape[1]
    prepared = prepare(objective, len(where) * c, solver=solver, damping=damping)
    parts = []
    for tile in tiles(objective, len(where), c):
        deltas = deltas_of(removal(objective, prepared.inverse, where[tile]), order)
        parts.append(objective.lift(deltas).T)
    diagnostics(objective, prepared)
    return as_array(torch.cat(parts))


def removal(
    objective: Objective, inverse: LinearOperator, where: NDArray[np.intp]
) -> SingleChanges:
    """Return the removals of the examples at some positions, one per column.

    Args:
        objective: R at θ̂.
        inverse: H⁻¹.
        where: Positions, [m].

    Returns:
        The changes, each with weight −wᵢ.
    """
    removed: Tensor = objective.weights[where]
    return single_changes(objective, inverse, objective.train.subset(where), -removed)
