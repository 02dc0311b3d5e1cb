"""Which precision the products of a computation may have, given the error that it may make."""

from __future__ import annotations

import torch

_HALF = 1e-2  # the error from which products may be rounded to bfloat16


def product_dtype(dtype: torch.dtype, device: torch.device, rtol: float) -> torch.dtype:
    """Return bfloat16 if the error allows it and the hardware is fast at it, else the same.

    Args:
        dtype: The precision of what is multiplied.
        device: Where it is.
        rtol: The relative error that products may have.
    """
    if dtype != torch.float32 or rtol < _HALF:
        return dtype
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported()
    else:
        told: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        fast = bool(told.get("amx_bf16", False))
    return torch.bfloat16 if fast else dtype
