"""The Hessian of a linear model's data term as a matrix, a block per pair of outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from whence.objective.features import Features
from whence.objective.losses import CrossEntropy

if TYPE_CHECKING:
    from whence.objective.linear import LinearObjective

_PAIRS = 9  # Gram matrices made by one pass over the rows


def data_hessian(objective: LinearObjective, features: Features) -> Tensor:
    """Return (1/n) Σ wᵢ Sᵢ ⊗ zᵢzᵢᵀ, S = ∂²ℓ/∂f², for rows z of features, the constant behind.

    Under softmax the blocks of a row sum to zero, which gives those on the diagonal.

    Args:
        objective: R at θ̂, which tells ℓ, the weights and the constant.
        features: The training rows, or the same rows in other coordinates, [n, r].

    Returns:
        The matrix in the order of θ, [c r′, c r′], without the penalty; r′ counts the constant.

    Cost:
        c(c+1)/2 symmetric products of [r, n] by [n, r], c(c−1)/2 under softmax; n c numbers and
        nine blocks beside the result.
    """
    train, c, constant = objective.train, objective.c, objective.constant
    n, r = features.shape
    outputs = objective.outputs(train)
    zero_sum = isinstance(objective.loss, CrossEntropy)
    hessian = outputs.new_zeros(c * (r + (constant is not None)), c * (r + (constant is not None)))
    blocks = hessian[: c * r, : c * r].view(c, r, c, r)
    unit = torch.eye(c, dtype=outputs.dtype)
    for b in range(c):
        curvature = objective.loss.hvp(outputs, train.targets, unit[:, b : b + 1].expand(n, c, 1))
        curvature = curvature.squeeze(2) * (objective.weights / n).unsqueeze(1)  # S[:, :, b]
        others = [a for a in range(b + 1 - zero_sum) if curvature[:, a].any()]
        for start in range(0, len(others), _PAIRS):
            some = others[start : start + _PAIRS]
            for a, block in zip(some, features.grams(curvature[:, some]), strict=True):
                blocks[a, :, b] = block
                if a != b:
                    blocks[b, :, a] = block.T
                if zero_sum:
                    blocks[a, :, a] -= block
                    blocks[b, :, b] -= block
        if constant is not None:
            mixed = constant * features.rmatmul(curvature).T.reshape(-1)
            hessian[: c * r, c * r + b] = hessian[c * r + b, : c * r] = mixed
            hessian[c * r :, c * r + b] = constant**2 * curvature.sum(0)
    return hessian
