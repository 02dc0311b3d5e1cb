"""The Hessian of a linear model's data term as a matrix, a block per pair of outputs."""

from __future__ import annotations

import torch
from torch import Tensor

from whence.linear.features import Features
from whence.objective.losses import Loss

_PAIRS = 9  # Gram matrices made by one pass over the rows


def data_hessian(
    loss: Loss,
    outputs: Tensor,
    targets: Tensor,
    weights: Tensor,
    features: Features,
    constant: float | None,
) -> Tensor:
    """Return (1/n) Σ wᵢ Sᵢ ⊗ zᵢzᵢᵀ, S = ∂²ℓ/∂f², for rows z of features, the constant behind.

    Under softmax the blocks of a row sum to zero, which gives those on the diagonal.

    Args:
        loss: ℓ.
        outputs: f of the training rows, [n, c].
        targets: Their targets.
        weights: wᵢ, [n].
        features: The training rows, or the same rows in other coordinates, [n, r].
        constant: The value of the constant column, or `None` for a model without intercept.

    Returns:
        The matrix in the order of θ, [c r′, c r′], without the penalty; r′ counts the constant.

    Cost:
        c(c+1)/2 symmetric products of [r, n] by [n, r], c(c−1)/2 under softmax; n c numbers and
        nine blocks beside the result.
    """
    n, r = features.shape
    c = outputs.shape[1]
    zero_sum = loss.zero_sum
    hessian = outputs.new_zeros(c * (r + (constant is not None)), c * (r + (constant is not None)))
    blocks = hessian[: c * r, : c * r].view(c, r, c, r)
    unit = torch.eye(c, dtype=outputs.dtype)
    for b in range(c):
        curvature = loss.hvp(outputs, targets, unit[:, b : b + 1].expand(n, c, 1))
        curvature = curvature.squeeze(2) * (weights / n).unsqueeze(1)  # S[:, :, b]
        others = curvature[:, : b + 1 - zero_sum].any(0).nonzero().flatten()
        for start in range(0, len(others), _PAIRS):
            some = others[start : start + _PAIRS]
            found = features.grams(curvature[:, some])
            blocks[some, :, b] = found
            blocks[b][:, some] = found.transpose(0, 1)  # a Gram matrix is symmetric
        if constant is not None:
            mixed = constant * features.rmatmul(curvature).T.reshape(-1)
            hessian[: c * r, c * r + b] = hessian[c * r + b, : c * r] = mixed
            hessian[c * r :, c * r + b] = constant**2 * curvature.sum(0)
    if zero_sum:
        rest = blocks.sum(2)
        blocks.diagonal(dim1=0, dim2=2).copy_(-rest.permute(1, 2, 0))
    return hessian
