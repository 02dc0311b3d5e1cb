"""Digests of tensors, arrays and strings."""

from __future__ import annotations

import hashlib
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from whence.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor


def digest(*parts: Tensor | NDArray[Any] | str) -> str:
    """Return the SHA-256 digest of tensors, arrays and strings.

    Args:
        parts: Tensors on any device and arrays (dtype, shape and contents count, and an array
            counts as the tensor of its dtype), and strings, in order.

    Returns:
        64 hexadecimal digits, the same in every process and on every machine.

    Raises:
        InvalidInput: If an array holds Python objects, whose bytes say nothing.

    Examples:
        >>> import torch
        >>> digest(torch.zeros(2), "lr=0.1") == digest(torch.zeros(2), "lr=0.2")
        False
        >>> digest(torch.zeros(2)) == digest(np.zeros(2, dtype=np.float32))
        True
    """
    sha = hashlib.sha256()
    for part in parts:
        header, content = _bytes(part)
        # With its length in front, one part cannot run into the next.
        sha.update(f"{header} {content.size}\n".encode())
        sha.update(content.data)
    return sha.hexdigest()


@singledispatch
def _bytes(part: Any) -> tuple[str, NDArray[np.uint8]]:
    """Return what a part is, and its bytes: of a tensor if it is nothing else."""
    import torch  # not at the top: the command line checks names of files before anything slow

    flat = part.detach().cpu().contiguous().reshape(-1)
    return f"{part.dtype} {list(part.shape)}", flat.view(torch.uint8).numpy()


@_bytes.register
def _of_text(part: str) -> tuple[str, NDArray[np.uint8]]:
    return "text", np.frombuffer(part.encode("utf-8", "surrogatepass"), np.uint8)


@_bytes.register(np.ndarray)
def _of_array(part: NDArray[Any]) -> tuple[str, NDArray[np.uint8]]:
    refuse_objects(part)
    little = np.ascontiguousarray(part.astype(part.dtype.newbyteorder("<"), copy=False))
    return f"torch.{part.dtype.name} {list(part.shape)}", little.reshape(-1).view(np.uint8)


def refuse_objects(array: NDArray[Any]) -> None:
    """Raise if an array holds references to Python objects in place of numbers or text.

    Args:
        array: The array.

    Raises:
        InvalidInput: If it does.
    """
    if array.dtype.hasobject:
        raise InvalidInput(
            f"Expected an array of numbers or text. Got dtype {array.dtype}. Convert it, for "
            "example with array.astype(float) or array.astype(str)."
        )
