r"""Directions of θ along which a linear model's R is exactly constant.

Two kinds: columns without a penalty that are linearly dependent on the training rows (one-hot
columns beside an intercept, a constant column, more columns than rows), since X v = 0 leaves every
output as it is; and equal shifts of all outputs, which the softmax does not see.
"""

from __future__ import annotations

import torch
from torch import Tensor

from whence.linear.features import Features

_MOST = 8_000  # columns whose Gram matrix is decomposed; dependence among more is not looked for
_RANK = 100.0  # times d ε: eigenvalues of a Gram matrix below this are rounding


def flat_directions(null: Tensor, unpenalized: Tensor, c: int, d: int, *, shifts: bool) -> Tensor:
    """Return orthonormal directions along which R is constant.

    Args:
        null: Orthonormal combinations of the unpenalized columns that vanish on all rows, [u, k].
        unpenalized: Positions of these columns among d, the constant column last, [u].
        c: The number of outputs.
        d: The number of columns, the constant one included.
        shifts: Whether equal shifts of all outputs change nothing.

    Returns:
        The directions as columns, outputs by columns, [c, d, r].
    """
    u, k = null.shape
    eye = torch.eye(c, dtype=null.dtype, device=null.device)
    if not shifts:
        inside = torch.einsum("ab,uk->aubk", eye, null).reshape(c, u, c * k)
    else:  # shifts of every unpenalized column, and the dependent ones of the other combinations
        ones = torch.full_like(eye[:, :1], c**-0.5)
        others = torch.linalg.qr(torch.cat([ones, eye[:, 1:]], 1)).Q[:, 1:]
        unit = torch.eye(u, dtype=null.dtype, device=null.device)
        inside = torch.cat(
            [
                torch.einsum("ab,uk->aubk", ones, unit).reshape(c, u, u),
                torch.einsum("ab,uk->aubk", others, null).reshape(c, u, (c - 1) * k),
            ],
            2,
        )
    directions = null.new_zeros(c, d, inside.shape[2])
    directions[:, unpenalized] = inside
    return directions


def lift(hessian: Tensor, flat: Tensor) -> Tensor:
    """Give a Hessian curvature along the directions in which it has none, in place.

    Each gets what the columns it is made of have by themselves: in their unit, whatever that is.

    Args:
        hessian: H, [p, p]; overwritten.
        flat: Orthonormal directions, [p, r].

    Returns:
        The same matrix.
    """
    if not flat.shape[1]:
        return hessian
    diagonal = hessian.diagonal().clone()
    sizes = flat.square().T @ diagonal
    sizes = torch.where(sizes > 0, sizes, diagonal.mean())
    return hessian.addmm_(flat * sizes, flat.T)


def null_space(
    features: Features, weights: Tensor, constant: float | None, columns: Tensor
) -> Tensor:
    """Return orthonormal combinations of some columns that vanish on every row with a weight.

    Args:
        features: X, [n, d].
        weights: wᵢ >= 0, [n].
        constant: The value of the constant column, which is then the last, or `None`.
        columns: Positions of the u columns.

    Returns:
        The combinations as columns, [u, k]; k = 0 where none is found, or d is above 8,000.

    Cost:
        A Gram matrix of X and its eigendecomposition, d³.
    """
    d = features.shape[1]
    if not bool((columns < d).any()) or d > _MOST:
        return weights.new_zeros(len(columns), 0)
    there = (weights > 0).to(weights.dtype).unsqueeze(1)
    gram = features.grams(there)[0]
    if constant is not None:
        sums = constant * features.rmatmul(there)
        corner = constant**2 * there.sum().reshape(1, 1)
        gram = torch.cat([torch.cat([gram, sums], 1), torch.cat([sums.T, corner], 1)])
    gram = gram[columns][:, columns]
    scale = gram.diagonal().clamp_min(0).sqrt()
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))  # columns of other units
    values, vectors = torch.linalg.eigh(gram / scale / scale.unsqueeze(1))
    rounding = _RANK * len(columns) * torch.finfo(values.dtype).eps * float(values[-1])
    found = vectors[:, values <= rounding] / scale.unsqueeze(1)
    basis: Tensor = torch.linalg.qr(found).Q
    return basis
