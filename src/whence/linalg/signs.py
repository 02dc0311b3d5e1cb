"""Random signs, with which a few sums stand for many columns: E z zᵀ = I."""

from __future__ import annotations

import torch
from torch import Tensor


def random_signs(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Return independent random signs, ±1, drawn on the CPU so that devices agree.

    Args:
        shape: Their shape.
        generator: Where the randomness comes from, on the CPU.
        like: A tensor of the dtype and on the device that they are to have.

    References:
        Hutchinson (1990): E zᵀ A z = tr A.
    """
    return torch.randint(0, 2, shape, generator=generator).mul_(2).sub_(1).to(like)
