"""The two forms from which influence is made: gᵀ H⁻¹ g′ of many pairs, and gᵀ H⁻¹ g of many g."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from whence.curvature.exact import Gradients
from whence.curvature.separable import KroneckerInverse
from whence.linalg.solver import Inverse, Solution


def bilinear(
    inverse: Inverse,
    left: Gradients,
    right: Gradients,
    product: Callable[[Gradients, Tensor], Tensor] = Gradients.matmat,
) -> tuple[Tensor, Solution | None]:
    """Return G H⁻¹ G′ᵀ, by a solve for each row of G unless the inverse knows a shorter way.

    Args:
        inverse: H⁻¹.
        left: G, [q, p]; few rows.
        right: G′, [b, p], perhaps of a lower precision, which the products then have.
        product: (G′, V) ↦ G′ V, for who wants to see that pass over the examples.

    Returns:
        The products, [q, b], and the solve if there was one.
    """
    if isinstance(inverse, KroneckerInverse):
        if inverse.factors:
            return inverse.between(left, right), None
        return product(right, inverse.matmat(left.columns())).T, None
    solution = inverse.solve(left.columns())
    return product(right, solution.value.to(right.dtype)).T, solution


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
