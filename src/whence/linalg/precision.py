"""Which precision the products of a computation may have, given the error that it may make."""

from __future__ import annotations

import torch
from torch import Tensor

_HALF = 1e-2  # the error from which products may be rounded to bfloat16


def product_dtype(like: Tensor, rtol: float) -> torch.dtype:
    """Return bfloat16 if the error allows it and the hardware is fast at it, else that of `like`.

    Args:
        like: A tensor of the precision and on the device in question.
        rtol: The relative error that products may have.
    """
    if like.dtype != torch.float32 or rtol < _HALF:
        return like.dtype
    if like.device.type == "cuda":
        fast = torch.cuda.is_bf16_supported()
    else:
        told: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        fast = bool(told.get("amx_bf16", False))
    return torch.bfloat16 if fast else like.dtype
