r"""Influence relative to how far an example moves the model at all: RelatIF."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from whence.curvature.exact import Gradients
from whence.errors import InvalidInput
from whence.linalg.operator import LinearOperator
from whence.objective.objective import Examples, Objective

Normalize = Literal["none", "loss", "parameters"]

# What the unit becomes, in words that follow the measure.
PER: dict[Normalize, str] = {
    "none": "",
    "loss": " per unit of √(gᵢᵀ H⁻¹ gᵢ)",
    "parameters": " per unit of parameter change",
}

_COLUMNS = 256  # examples whose gradients stand as columns at once


def check_normalize(normalize: str, order: str) -> None:
    """Raise `InvalidInput` unless the normalization is known, and fits the order."""
    if normalize not in PER:
        raise InvalidInput(f"Expected normalize to be one of {', '.join(PER)}. Got {normalize!r}.")
    if normalize != "none" and order != "first":
        raise InvalidInput(
            f"Expected order='first' with normalize={normalize!r}, a ratio of first-order changes. "
            f"Got order={order!r}."
        )


def relative(
    values: Tensor,
    objective: Objective,
    candidates: Examples,
    inverse: LinearOperator,
    normalize: Normalize,
) -> Tensor:
    r"""Divide first-order influence by how far each example moves the model.

    loss: by √(gᵢᵀ H⁻¹ gᵢ) (ℓ-RelatIF); parameters: by ‖H⁻¹ gᵢ‖ (θ-RelatIF).

    Args:
        values: ∇m_qᵀ H⁻¹ gᵢ, [q, k].
        objective: R at θ̂.
        candidates: The k examples.
        inverse: H⁻¹.
        normalize: Which.

    Returns:
        The ratios, [q, k]; zero for an example that moves nothing.

    Cost:
        One solve per candidate, in blocks.

    References:
        Barshan, Brunet & Dziugaite (2020), "RelatIF: Identifying Explanatory Training Samples via
        Relative Influence", section 4.
    """
    parts = []
    for start in range(0, len(candidates), _COLUMNS):
        where = range(start, min(start + _COLUMNS, len(candidates)))
        part = candidates.subset(torch.tensor(where).numpy())
        columns = Gradients(objective, part, objective.loss).columns()
        moves = inverse.matmat(columns)
        squares = moves.square() if normalize == "parameters" else columns * moves
        parts.append(squares.sum(0).clamp_min(0).sqrt())
    lengths = torch.cat(parts)
    return torch.where(lengths > 0, values / lengths, 0.0)
