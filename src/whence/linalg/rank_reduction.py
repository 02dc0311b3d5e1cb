"""A matrix of weights as a short sum of outer products, which factors sums of weighted products."""

from __future__ import annotations

import torch
from torch import Tensor


def separate(values: Tensor, rows: Tensor, columns: Tensor, error: float) -> tuple[Tensor, Tensor]:
    r"""Write D ≈ Σ_r u_r v_rᵀ with as few terms as a stated error allows.

    A sum Σ_{oi} x_o y_i D_{oi} x′_o y′_i then factors into Σ_r (Σ_o x_o u_{ro} x′_o)
    (Σ_i y_i v_{ri} y′_i). Where the x_o x′_o and y_i y′_i are independent with root mean squares
    `rows` and `columns`, its relative root mean square error is that of the singular values left
    out of diag(rows) D diag(columns).

    Args:
        values: D, [m, d].
        rows: The size of x_o x′_o, >= 0, [m].
        columns: The size of y_i y′_i, >= 0, [d].
        error: The relative root mean square error allowed, in (0, 1).

    Returns:
        U [r, m] and V [r, d].

    Cost: one symmetric eigendecomposition of size min(m, d), in float64.

    Examples:
        >>> import torch
        >>> D = torch.outer(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 1.0, 5.0]))
        >>> U, V = separate(D, torch.ones(2), torch.ones(3), error=1e-6)
        >>> U.shape, bool(torch.allclose(U.T @ V, D))
        (torch.Size([1, 2]), True)
    """
    if values.shape[0] > values.shape[1]:
        V, U = separate(values.T, columns, rows, error)
        return U, V
    weights = [_positive(size.double()) for size in (rows, columns)]
    weighted = weights[0].unsqueeze(1) * values.double() * weights[1]
    squares, basis = torch.linalg.eigh(weighted @ weighted.T)
    tail = squares.cumsum(0)  # ascending: what is left out with the first k
    rank = int((tail > error**2 * tail[-1]).sum())
    basis = basis[:, len(basis) - rank :].T
    U = basis / weights[0]
    V = (basis @ weighted) / weights[1]
    return U.to(values.dtype), V.to(values.dtype)


def _positive(sizes: Tensor) -> Tensor:
    """Return sizes none of which is so small that dividing by it loses everything."""
    floor = 1e-6 * float(sizes.max())
    return sizes.clamp_min(floor if floor > 0 else 1.0)
