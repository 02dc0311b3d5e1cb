"""A user's numbers as a tensor that stays where it is: on its device, or on disk."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from whence.checked import array, shown
from whence.errors import InvalidInput
from whence.objective.arrays import shared


def numbers(name: str, values: Any) -> Tensor:
    """Return numbers as a tensor without a gradient.

    Args:
        name: What they are, in the singular.
        values: A tensor, which stays on its device, or anything `numpy.asarray` takes.

    Returns:
        A dense tensor of integers, truth values or real numbers.

    Raises:
        InvalidInput: If they are none.

    Examples:
        >>> numbers("input", [0.5, 1.0])
        tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    tensor = getattr(values, "detach", lambda: None)()
    dense = tensor is not None and tensor.layout == torch.strided and not tensor.is_complex()
    if tensor is not None and dense and tensor.device.type != "meta":
        return torch.as_tensor(tensor)
    given = None if tensor is not None else array(f"{name}s", values)
    if given is None or given.dtype.kind not in "biuf":
        found = shown(values)
        if given is not None and given.size:
            found = f"{given.dtype} such as {given.ravel()[0]!r:.40}"
        raise InvalidInput(
            f"Expected numbers as {name}s. Got {found}. Encode them first, labels "
            "as 0, 1, ..., for example by numpy.unique(labels, return_inverse=True)."
        )
    return shared(given)
