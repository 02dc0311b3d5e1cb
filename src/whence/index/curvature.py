"""The curvature of a model, or its inverse, as tensors of a file, and back.

Its blocks lie under "<number>.<class>.<field>", and "order" says which parameter each row is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whence.index.format import File, mapped_file, write_named
from whence.linalg.operator import LinearOperator
from whence.linalg.spectral import Diagonal, KroneckerEigen, LowRank
from whence.linalg.structured import BlockDiagonal, Dense, Reordered

_KINDS: dict[str, Any] = {
    kind.__name__: kind for kind in (Dense, Diagonal, KroneckerEigen, LowRank)
}


def write_curvature(folder: Path, inverse: Reordered) -> File:
    """Write an inverse curvature, and return its file.

    Args:
        folder: The index.
        inverse: H⁻¹, [p, p].

    Raises:
        NotWritten: If the operating system refuses.
    """
    return write_named(folder, "curvature", len(inverse.order), tensors_of(inverse))


def read_curvature(folder: Path, file: File, like: Tensor) -> LinearOperator:
    """Return an inverse curvature that was stored.

    Args:
        folder: The index.
        file: Of the curvature.
        like: θ, whose device and dtype it gets.

    Raises:
        CorruptFile: If the file is not as it was written.
    """
    with mapped_file(folder, file) as tensors:
        return operator_of(tensors, like)


def tensors_of(operator: Reordered) -> dict[str, Tensor]:
    """Return a block-diagonal operator as tensors by name.

    Args:
        operator: The operator, [p, p].
    """
    held = {"order": operator.order.cpu()}
    for place, block in enumerate(operator.inner.blocks):
        for field in fields(block):  # type: ignore[arg-type]
            name = f"{place}.{type(block).__name__}.{field.name}"
            held[name] = torch.as_tensor(getattr(block, field.name)).cpu()
    return held


def operator_of(tensors: Mapping[str, Tensor], like: Tensor) -> Reordered:
    """Return the operator that `tensors_of` made tensors.

    Args:
        tensors: By name.
        like: θ, whose device and dtype it gets.
    """
    blocks: dict[int, dict[str, Any]] = {}
    kinds: dict[int, str] = {}
    for name, tensor in tensors.items():
        if name == "order":
            continue
        place, kind, field = name.split(".")
        kinds[int(place)] = kind
        value = tensor.to(like) if tensor.ndim else float(tensor)  # a number is no tensor
        blocks.setdefault(int(place), {})[field] = value
    made = [_KINDS[kinds[place]](**blocks[place]) for place in sorted(blocks)]
    return Reordered(BlockDiagonal(tuple(made)), tensors["order"].to(like.device))
