"""The two forms from which influence is made: gᵀ H⁻¹ g′ of many pairs, and gᵀ H⁻¹ g of many g."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from whence.curvature.exact import Gradients, blocks
from whence.curvature.inverse import KroneckerInverse
from whence.linalg.operator import LinearOperator
from whence.linalg.solver import Inverse, Solution
from whence.linear.objective import LinearExamples, LinearObjective


def bilinear(inverse: Inverse, left: Gradients, right: Gradients) -> tuple[Tensor, Solution | None]:
    """Return G H⁻¹ G′ᵀ, by a solve for each row of G unless the inverse knows a shorter way.

    Args:
        inverse: H⁻¹.
        left: G, [q, p]; few rows.
        right: G′, [b, p], perhaps of a lower precision, which the products then have.

    Returns:
        The products, [q, b], and the solve if there was one.
    """
    if isinstance(inverse, KroneckerInverse):
        if inverse.factors:
            return inverse.between(left, right), None
        return right.matmat(inverse.matmat(left.columns())).T, None
    solution = inverse.solve(left.columns())
    # In the lower precision alone, since many columns are large.
    solution = replace(solution, value=solution.value.to(right.dtype))
    return right.matmat(solution.value).T, solution


def quadratic(inverse: Inverse, gradients: Gradients) -> Tensor:
    """Return gᵀ H⁻¹ g for each row of G, by a solve each unless the inverse knows a shorter way.

    Args:
        inverse: H⁻¹.
        gradients: G, [b, p].

    Returns:
        The products, [b].
    """
    if isinstance(inverse, KroneckerInverse):
        return inverse.quadratic(gradients)
    return gradients.squares(inverse)


def leverages(
    objective: LinearObjective, inverse: LinearOperator, examples: LinearExamples
) -> Tensor:
    """Return J H⁻¹ Jᵀ of each example.

    Args:
        objective: R at θ̂.
        inverse: H⁻¹.
        examples: The b examples.

    Returns:
        Symmetric matrices, [b, c, c].
    """
    p, c = len(objective.params), objective.c
    parts = [objective.params.new_zeros(0, c, c)]
    for part in blocks(len(examples), p * c):
        parts.append(inverse.forms(objective.jacobians(examples.subset(part))))
    return torch.cat(parts)
