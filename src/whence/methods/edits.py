"""A training example replaced or relabeled."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, singledispatch
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.arrays import Floats
from whence.curvature.changes import GroupChange
from whence.curvature.exact import Gradients
from whence.curvature.prepare import prepare
from whence.errors import InvalidInput, UnsupportedModel
from whence.linalg.operator import LinearOperator
from whence.linalg.solver import Inverse, Solver
from whence.methods.fit_quality import fit_quality
from whence.methods.influence import Influence
from whence.methods.method import Method
from whence.methods.own_fits import warn_beside_own_fit
from whence.methods.prediction import MeasureLike, Order, as_array, check_order, positions
from whence.methods.removals import changes_together, effects_of, follows
from whence.methods.sets import change_of, values_of
from whence.objective.losses import measure_of
from whence.objective.measures import Measure
from whence.objective.objective import Objective, objective_of
from whence.objective.statistics import Question
from whence.objective.trained import Data, Examples, Trained

_TINY = float(np.finfo(np.float64).tiny)  # in place of 0 as a divisor


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
    where, comes = _one_edit(trained, index, new)
    encoded = trained.examples(queries)
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


@edit_by_method.register
def _(
    method: Influence,
    trained: Trained,
    index: int,
    new: Any,
    queries: Data,
    order: Order | Literal["refit"] | None,
    measure: MeasureLike,
) -> Floats:
    order = order or method.order
    if order != "refit":
        check_order(order)
    objective = objective_of(trained)
    where, comes = _one_edit(objective, index, new)
    encoded = objective.examples(queries)
    if order == "refit":
        return _refitted_edit(objective, int(where[0]), comes, encoded, measure)
    c = objective.outputs(comes).shape[1]
    prepared = prepare(
        objective,
        2 * c,
        solver=method.solver,
        damping=method.damping,
        curvature=method.curvature,
    )
    fit_quality(objective, prepared)  # warns of an unfinished fit
    effects = _effects_of_edit(objective, where, comes, order, prepared.inverse, prepared.damping)
    linear = order == "first"
    return as_array(change_of(objective, encoded, measure, objective.loss, effects, linear=linear))


def _one_edit(trained: Trained, index: int, new: Any) -> tuple[NDArray[np.intp], Examples]:
    """Return the position of one example, and the one that comes in its place, encoded."""
    where, comes = positions(trained, index), trained.examples(new)
    if len(where) != 1 or len(comes) != 1:
        raise InvalidInput(
            "Expected one index to edit, and one new example. "
            f"Got {len(where)} and {len(comes)}. Edit one at a time."
        )
    return where, comes


def _effects_of_edit(
    objective: Objective,
    where: NDArray[np.intp],
    new: Examples,
    order: Order,
    inverse: Inverse,
    damping: float,
) -> Callable[[Examples, Measure], Tensor]:
    """Return what replacing an example by another does to each query's measure, as a function."""
    whole = order == "refined" and objective.statistics is not None
    if order != "first" and (whole or follows(objective, order, where)):
        edited = partial(_edited, index=int(where[0]), example=new)
        return lambda some, m: effects_of(objective, [edited], some, m, order, inverse)[:, 0]
    weight = objective.weights[where].unsqueeze(1)
    weight_of_new = weight
    if objective.statistics is not None:
        weight_of_new = objective.statistics.weights_as(where, new.targets).unsqueeze(1)
    change = GroupChange(
        objective=objective,
        parts=((objective.train.subset(where), -weight), (new, weight_of_new)),
        inverse=inverse,
    )

    def effects(some: Examples, quantity: Measure) -> Tensor:
        values = changes_together(objective, some, quantity, change, order, damping)
        if order != "first" or objective.statistics is None:
            return values
        at = int(where[0])
        return values + _through_statistics(objective, some, quantity, inverse, at, new)

    return effects


def _edited(objective: Objective, index: int, example: Examples) -> Objective:
    """Return R at θ̂ with one training example replaced."""
    if objective.statistics is None:
        raise UnsupportedModel(
            "Expected a linear or kernel model, or one that its own library fits, to fit again on "
            f"an edited example. Got {objective!r}. Use order='refined' or 'newton'."
        )
    edited: Objective = objective.statistics.edited(objective, index, example)
    return edited


def _refitted_edit(
    objective: Objective, index: int, new: Examples, encoded: Examples, measure: MeasureLike
) -> Floats:
    """Return m with one training example replaced less m, both fitted to convergence."""
    base = objective.refit()
    edited = _edited(base, index, new)
    value = partial(values_of, queries=encoded, measure=measure, loss=base.trained_loss)
    change = value(edited.refit()) - value(base)
    warn_beside_own_fit(objective, base, encoded, value, change, edited, edited.weights)
    return as_array(change)


def _through_statistics(
    objective: Objective,
    encoded: Examples,
    measure: Measure,
    inverse: LinearOperator,
    index: int,
    new: Examples,
) -> Tensor:
    """Return what an edit does to the measures through statistics, to first order, [q]."""
    assert objective.statistics is not None
    shares = torch.eye(len(encoded), dtype=objective.params.dtype)
    directions = inverse.matmat(Gradients(objective, encoded, measure).rmatmat(shares))
    question = Question(objective, encoded, measure, shares, directions)
    through = objective.statistics.effects(question, (new, index))
    return shares.new_zeros(len(encoded)) if through is None else through[:, index] - through[:, -1]


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

    (1/n) ∇m̄ᵀ H⁻¹ (w′ᵢ g(xᵢ, y′) − wᵢ g(xᵢ, yᵢ)), w′ with the weight of the other class, and what
    the weights of all others do where they follow the numbers of both classes.

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
    encoded = objective.examples(queries)
    direction = mean_s_test(objective, encoded, measure=measure, solver=solver, damping=damping)
    here = objective.train.subset(where)
    there = here.relabeled(targets)
    weights = weights_there = objective.weights[where].unsqueeze(1)
    if objective.statistics is not None:
        weights_there = objective.statistics.weights_as(where, targets).unsqueeze(1)
    change = weights_there * objective.gradient_dot(there, objective.loss, direction)
    change = change - weights * objective.gradient_dot(here, objective.loss, direction)
    gain = change.squeeze(1) / len(objective.train)
    if objective.classes and objective.statistics is not None and objective.statistics.reweights:
        quantity = measure_of(objective.loss, measure)
        gain = gain + _through_class_weights(
            objective, encoded, quantity, direction, where, targets
        )
    return as_array(gain)


def _through_class_weights(
    objective: Objective,
    queries: Examples,
    measure: Measure,
    direction: Tensor,
    where: NDArray[np.intp],
    targets: Tensor,
) -> Tensor:
    """Return the fall of m̄ through the weights of all other examples if labels change, [k].

    One row more of a class does to them what its label and its sample weight say, linearly.
    """
    statistics = objective.statistics
    assert statistics is not None
    total = direction.new_zeros(len(where))
    if not len(where):
        return total
    here = objective.train.subset(where)
    question = Question(
        objective, queries, measure, Gradients(objective, queries, measure).equal_shares, direction
    )
    one = here.subset(np.arange(1))

    def of_one_more(label: Tensor, like: int) -> Tensor:
        added = one.relabeled(label), int(where[like])
        through = statistics.effects(question, added)
        return direction.new_zeros(()) if through is None else through[0, -1]

    for sign, given in ((-1, here.targets), (1, targets)):
        labels, which = torch.unique(given, dim=0, return_inverse=True)
        for at, label in enumerate(labels.split(1)):
            weights = statistics.weights_as(where, label.expand(len(where), *label.shape[1:]))
            low, high = int(weights.argmin()), int(weights.argmax())
            least = most = of_one_more(label, low)
            if weights[high] > weights[low]:
                most = of_one_more(label, high)
            share = (weights - weights[low]) / (weights[high] - weights[low]).clamp_min(_TINY)
            total += sign * torch.where(which == at, least + share * (most - least), 0.0)
    return total


def mean_s_test(
    objective: Objective,
    queries: Examples,
    *,
    measure: MeasureLike = "loss",
    solver: Solver | None = None,
    damping: float | None = None,
) -> Tensor:
    """Return H⁻¹ ∇m̄, m̄ the mean measure of queries.

    Args:
        objective: R at θ̂.
        queries: The queries, encoded.
        measure: "loss", "margin", "probability", or a function (outputs, targets) -> [b].
        solver: What inverts the curvature; chosen by cost if `None`.
        damping: λ >= 0 added to the curvature; chosen by rule if `None`.

    Returns:
        The direction, [p, 1].

    Cost:
        One solve.

    References:
        Koh & Liang (2017), section 3.
    """
    prepared = prepare(objective, 1, solver=solver, damping=damping)
    gradients = Gradients(objective, queries, measure_of(objective.loss, measure))
    return prepared.inverse.matmat(gradients.mean())
