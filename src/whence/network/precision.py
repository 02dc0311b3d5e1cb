"""Which precision the products of a computation may have, given the error that it may make."""

from __future__ import annotations

import torch
from torch import nn

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
    fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else _has("amx_bf16")
    return torch.bfloat16 if fast else dtype


def fast_bf16(device: torch.device) -> bool:
    """Return whether products of few rows with many are faster in bfloat16 than in float32.

    Args:
        device: The processor.
    """
    return device.type == "cpu" and (_has("avx512_bf16") or _has("amx_bf16"))


def fast_int8(device: torch.device) -> bool:
    """Return whether products of int8 are exact and faster than others.

    Args:
        device: The processor.
    """
    return device.type == "cpu" and _has("avx512_vnni")


def _has(capability: str) -> bool:
    """Return whether the processor says that it has a capability."""
    told: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(told.get(capability, False))


def rounds(model: nn.Module) -> bool:
    """Return whether a module has parameters in bfloat16 or float16, or quantized.

    Args:
        model: Any module.
    """
    return not {p.dtype for p in model.parameters()} <= {torch.float32, torch.float64}
