"""What finishing a fit would change: to first order, or by finishing it.

To first order it moves the parameters by −H⁻¹ ∇R and a query's measure by −∇mᵀ H⁻¹ ∇R.
"""

from __future__ import annotations

from torch import Tensor

from whence.curvature.minimum import decrement, gradient
from whence.curvature.prepare import Prepared
from whence.linalg.solver import Solution
from whence.methods.converged import minimum
from whence.objective.cache import cached
from whence.objective.measures import Measure
from whence.objective.objective import Objective, with_penalty
from whence.objective.trained import Examples


def finishing_step(objective: Objective, prepared: Prepared) -> Tensor:
    """Return H⁻¹ ∇R(θ̂), [p, 1]: finishing the fit moves the parameters by its negative.

    Args:
        objective: R at θ̂.
        prepared: The inverse curvature.

    Returns:
        The step, computed once per inverse.
    """
    return cached(
        objective,
        (finishing_step, prepared),
        lambda twin: prepared.inverse.unchecked(gradient(twin).unsqueeze(1))[0],
    )


def finishing_effect(
    objective: Objective,
    prepared: Prepared,
    queries: Examples,
    measure: Measure,
    solution: Solution | None = None,
) -> Tensor:
    """Return ∇mᵀ H⁻¹ ∇R(θ̂) of each query, [q].

    Args:
        objective: R at θ̂.
        prepared: The inverse curvature.
        queries: The q queries.
        measure: m.
        solution: H⁻¹ ∇m of the queries, [p, q], where it is known: then no solve is needed.

    Returns:
        What finishing the fit changes each query's measure by, with the opposite sign.
    """
    if solution is not None:
        return solution.value.T @ gradient(objective).to(solution.value.dtype)
    return objective.gradient_dot(queries, measure, finishing_step(objective, prepared)).squeeze(1)


def finishing_change(
    objective: Objective,
    prepared: Prepared,
    queries: Examples,
    measure: Measure,
    *,
    exact: bool = False,
) -> Tensor:
    """Return the size of what finishing the fit changes each query's measure by, [q].

    A fit that is further from its minimum than a typical removal is far is finished and the measure
    evaluated, where it is convex: there the first order may say a tenth of the change, or less.

    Args:
        objective: R at θ̂.
        prepared: The inverse curvature.
        queries: The q queries.
        measure: m.
        exact: Whether to finish it in any case.

    Returns:
        The sizes >= 0.

    Cost:
        Nine columns solved, and a refit where the fit is far from its minimum.
    """
    smooth = objective.convex and objective.trained_loss == objective.loss
    if exact or (smooth and decrement(objective, prepared.inverse).in_examples > 1):
        before, after = (
            measure(model.outputs(queries), queries.targets)
            for model in (objective, minimum(objective))
        )
        return (after - before).abs()
    return finishing_effect(objective, prepared, queries, measure).abs()


def finishing_by_sums(
    objective: Objective, prepared: Prepared, queries: Examples, measure: Measure, total: Tensor
) -> Tensor:
    """Return ∇mᵀ H⁻¹ ∇R(θ̂) of each query from scores, without a pass over the training data.

    ∇R is the sum of (wᵢ/n) gᵢ and the gradient of the penalty.

    Args:
        objective: R at θ̂.
        prepared: The inverse curvature.
        queries: The q queries.
        measure: m.
        total: The sum of the first-order scores of all training examples, [q].

    Returns:
        What finishing the fit changes each query's measure by, with the opposite sign.
    """
    penalty = with_penalty(objective, objective.params.new_zeros(len(objective.params), 1))
    if not penalty.any():
        return total
    step = cached(
        objective,
        (finishing_by_sums, prepared),
        lambda _: prepared.inverse.unchecked(penalty.unsqueeze(1))[0],
    )
    return total + objective.gradient_dot(queries, measure, step).squeeze(1)
