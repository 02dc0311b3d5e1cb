r"""Influence relative to how far an example moves the model at all: RelatIF."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from whence.curvature.exact import Gradients
from whence.errors import InvalidInput
from whence.linalg.solver import Inverse
from whence.objective.objective import Objective
from whence.objective.trained import Examples

Normalize = Literal["none", "loss", "parameters"]

# What the unit becomes, in words that follow the measure.
PER: dict[Normalize, str] = {
    "none": "",
    "loss": " per unit of √(gᵢᵀ H⁻¹ gᵢ)",
    "parameters": " per unit of parameter change",
}


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
    inverse: Inverse,
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
        One solve per candidate, in blocks; for "loss" with EKFAC a few products for all of them.

    References:
        Barshan, Brunet & Dziugaite (2020), "RelatIF: Identifying Explanatory Training Samples via
        Relative Influence", section 4.
    """
    gradients = Gradients(objective, candidates, objective.loss)
    if normalize == "loss":
        squares = inverse.quadratic(gradients)
    else:
        squares = _squares_of_moves(inverse, gradients)
    lengths = squares.clamp_min(0).sqrt()
    return torch.where(lengths > 0, values / lengths, 0.0)


def _squares_of_moves(inverse: Inverse, gradients: Gradients[Objective]) -> Tensor:
    """Return ‖H⁻¹ gᵢ‖², [k], in blocks of columns."""
    moves = (inverse.matmat(part) for part in gradients.row_blocks())
    return torch.cat([block.square().sum(0) for block in moves])
