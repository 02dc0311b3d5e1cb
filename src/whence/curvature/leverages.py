r"""Leverages J H⁻¹ Jᵀ of the rows of a linear model, from an inverse of H or products of rows.

A wide model with one output needs no factor of H. With A = ηI + Xᵀ S X, S = diag(s), s = w ℓ″/n,
K = X Xᵀ and B = I + S½ K S½/η [n, n], Woodbury's identity gives xᵢᵀ A⁻¹ xᵢ in two ways,

```
(1 − (B⁻¹)ᵢᵢ)/sᵢ                          from the inverse of one triangle for all i,
(Kᵢᵢ − vᵢᵀ B⁻¹ vᵢ)/η,  v = S½ K/√η        a half solve each, where the first one cancels
```

An intercept of value κ and penalty η₀ adds uᵢ²/(η₀ + κ² rᵀ t), r = S½ 1, t = B⁻¹ r, where
uᵢ = κ (1 − tᵀ vᵢ/√η) = κ tᵢ/rᵢ. No gradient of d numbers is formed. The same factor solves for one
vector: A⁻¹ v = (v − Xᵀ S½ B⁻¹ S½ X v/η)/η.
"""

from __future__ import annotations

from functools import singledispatch

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg.blas import dtrsm, dtrsv
from scipy.linalg.lapack import dpotrf, dtrtri
from torch import Tensor

from whence.curvature.changes import SINGULAR
from whence.curvature.dual import DualInverse
from whence.curvature.exact import blocks
from whence.curvature.intercepts import held
from whence.curvature.prepare import prepare
from whence.errors import InvalidInput, NotPositiveDefinite
from whence.linalg.cholesky import CholeskyInverse
from whence.linalg.operator import LinearOperator
from whence.linear.objective import LinearExamples, LinearObjective
from whence.linear.wide import columns_of
from whence.objective.losses import output_hessian
from whence.objective.objective import Objective

_FEW = 2  # outputs up to which half solves are as quick as the inverse matrix
_WEAK = 1e-5  # sᵢ Kᵢᵢ/η below which 1 − (B⁻¹)ᵢᵢ would lose more than five of sixteen digits


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

    Cost:
        c half solves for each example. From a factor, for many examples of many outputs, the
        inverse matrix and 2 p² operations for each example.
    """
    c, p = objective.c, len(objective.params)
    parts = [objective.params.new_zeros(0, c, c)]
    many = c > _FEW and c * len(examples) > p and objective.free is None
    matrix = _matrix(inverse) if many else None
    if matrix is not None:
        return _by_matrix(matrix, objective, examples)
    for part in blocks(len(examples), p * c):
        parts.append(_forms(inverse, objective, examples.subset(part)))
    return torch.cat(parts)


@singledispatch
def _matrix(inverse: LinearOperator) -> Tensor | None:
    """Return the inverse as a matrix, or `None` where its products are the shorter way."""
    return None


@_matrix.register
def _(inverse: CholeskyInverse) -> Tensor | None:
    exact = not inverse.refine and inverse.factor.dtype == inverse.dtype
    return torch.cholesky_inverse(inverse.factor) if exact else None


def _by_matrix(matrix: Tensor, objective: LinearObjective, examples: LinearExamples) -> Tensor:
    """Return J H⁻¹ Jᵀ with J = I ⊗ x: H⁻¹ contracted with x twice, no gradient formed."""
    c, constant = objective.c, objective.constant
    place = torch.arange(len(matrix))
    if constant is None:
        place = place.view(c, -1)
    else:  # from the order of θ to output by output
        place = torch.cat([place[:-c].view(c, -1), place[-c:].unsqueeze(1)], 1)
    d, flat = place.shape[1], place.flatten()
    by_column = matrix[flat][:, flat].view(c, d, c, d).transpose(0, 1).reshape(d, -1)
    parts = [matrix.new_zeros(0, c, c)]
    for part in blocks(len(examples), c * c * d):
        rows = examples.features.rows(part).dense()
        if constant is not None:
            rows = torch.cat([rows, rows.new_full((len(rows), 1), constant)], 1)
        once = (rows @ by_column).view(-1, c, c, d)
        parts.append((once @ rows.view(-1, 1, d, 1)).squeeze(3))
    return torch.cat(parts)


@singledispatch
def _forms(inverse: LinearOperator, objective: LinearObjective, examples: LinearExamples) -> Tensor:
    """Return J H⁻¹ Jᵀ of a block of examples."""
    return inverse.forms(objective.jacobians(examples))


@_forms.register
def _(inverse: DualInverse, objective: LinearObjective, examples: LinearExamples) -> Tensor:
    return inverse.of_rows(examples.features)


@singledispatch
def determines_itself(objective: Objective, where: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return which training examples alone determine their own prediction: those of leverage 1.

    Only least squares without a penalty has such examples: the only row of a category, or every row
    where there are more columns than rows. Without one of them predictions are not unique in the
    direction that it determined, and the fit takes the coefficients of least norm.

    Args:
        objective: R at θ̂.
        where: Positions of the k examples.

    Returns:
        Whether the leverage wᵢ J H⁻¹ Jᵀ/n is 1 up to rounding, [k].
    """
    return np.zeros(len(where), dtype=bool)


@determines_itself.register
def _(objective: LinearObjective, where: NDArray[np.intp]) -> NDArray[np.bool_]:
    if not objective.unpenalized_least_squares:
        return np.zeros(len(where), dtype=bool)
    inverse = prepare(objective, len(where)).inverse
    one = leverages(objective, inverse, objective.train.subset(where))[:, 0, 0]
    shares = objective.weights[where] / len(objective.train)
    return np.asarray((1 - shares * one < SINGULAR).numpy())


def in_columns(objective: Objective) -> LinearObjective | None:
    """Return the objective in X's own columns if `dual_leverages` takes it, else `None`.

    Args:
        objective: R at θ̂.

    Returns:
        A wide objective of one output with a penalty, or `None`.
    """
    columns = columns_of(objective)
    if columns is None or columns.c > 1 or not float(columns.l2[0]) > 0:
        return None
    return columns


def dual_leverages(
    objective: LinearObjective,
    where: NDArray[np.intp],
    damping: float | None,
    right: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return J H⁻¹ Jᵀ of training examples of a wide model with one output, and H⁻¹ v.

    Args:
        objective: R at θ̂, of one output, one penalty l2 > 0 on its coefficients.
        where: Positions of the k examples.
        damping: λ >= 0 added to H; none if `None`, since R is convex.
        right: v, [p].

    Returns:
        The leverages, [k], and the solution, [p].

    Raises:
        InvalidInput: If the damping is negative or not finite.
        NotPositiveDefinite: If no example tells the intercept.

    Cost:
        K, a factor of n³/3 operations and its inverse of as many, n² more for each example of
        next to no curvature; n² numbers.

    References:
        Hager (1989) for the identity; Rasmussen & Williams (2006), section 3.4.3, for B.
    """
    objective, amount = held(objective), damping or 0.0
    if not 0 <= amount < float("inf"):
        raise InvalidInput(f"Expected damping >= 0. Got {damping}.")
    train, n = objective.train, len(objective.train)
    eta = float(objective.l2[0]) + amount
    curvature = output_hessian(objective.loss, objective.outputs(train), train.targets).flatten()
    s = (objective.weights * curvature / n).numpy()
    root = np.sqrt(s)
    products = train.features.similarities().numpy()
    own = products.diagonal()[where].copy()
    weak = s[where] * own <= _WEAK * eta
    sides = products[where[weak]] * (root / np.sqrt(eta))
    products *= root
    products *= root[:, None] / eta
    products[np.diag_indices(n)] += 1
    # LAPACK goes by columns, to which the transpose is the matrix itself: no copy.
    factor, failed = dpotrf(products.T, overwrite_a=1)
    if failed:
        raise NotPositiveDefinite("Expected finite outputs and weights. Got others.")
    t = dtrsv(factor, dtrsv(factor, root, trans=1))
    v = right if objective.constant is None else right[:-1]
    z = root * train.features.matmul(v.unsqueeze(1)).squeeze(1).numpy()
    y = dtrsv(factor, dtrsv(factor, z, trans=1))
    halves = dtrsm(1.0, factor, sides.T, trans_a=1)
    leverage, shift = np.empty(len(where)), np.empty(len(where))
    leverage[weak] = (own[weak] - np.einsum("nk,nk->k", halves, halves)) / eta
    shift[weak] = 1 - sides @ t / np.sqrt(eta)
    inverse, _ = dtrtri(factor, overwrite_c=1)
    strong = where[~weak]
    leverage[~weak] = (1 - np.einsum("nk,nk->n", inverse, inverse)[strong]) / s[strong]
    shift[~weak] = t[strong] / root[strong]
    shifted = 0.0
    if objective.constant is not None:
        known = float(objective.l2[-1]) + amount + objective.constant**2 * float(root @ t)
        if not known > 0:
            raise NotPositiveDefinite(
                "Expected some example to tell the intercept. Got none with curvature: every "
                "prediction is certain. Fit with a stronger penalty, or pass damping=."
            )
        leverage += (objective.constant * shift) ** 2 / known
        shifted = (float(right[-1]) - objective.constant * float(t @ z) / eta) / known
        y += shifted * objective.constant * eta * t
    inside = train.features.rmatmul(torch.from_numpy(root * y).unsqueeze(1)).squeeze(1)
    solution = (v - inside / eta) / eta
    if objective.constant is not None:
        solution = torch.cat([solution, solution.new_tensor([shifted])])
    return torch.from_numpy(leverage), solution
