"""Arrays of a user as tensors, without a copy: they may lie on disk and be larger than memory."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.tiles import tiles

_AT_ONCE = 2**22  # numbers looked at together


def shared(array: NDArray[Any]) -> Tensor:
    """Return a tensor over the memory of an array, which may be read-only: nothing writes to it.

    Args:
        array: Numbers; of `np.load(..., mmap_mode="r")`, they stay on disk.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.asarray(array, order="C"))


def first_not_finite(numbers: Tensor) -> tuple[int, ...] | None:
    """Return where the first number is that is infinite or NaN, looking at a few rows at a time.

    Args:
        numbers: [b, ...].
    """
    for part in tiles(len(numbers), numbers[:1].numel(), _AT_ONCE):
        bad = ~torch.isfinite(numbers[part])
        if bad.any():
            row, *rest = bad.nonzero()[0].tolist()
            return part.start + row, *rest
    return None
