"""Products of gradients of queries and of training examples, scaled as an optimizer scales them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from whence.linalg.operator import LinearOperator
from whence.methods.subsets import blocks
from whence.objective.measures import Measure
from whence.objective.objective import Objective
from whence.objective.trained import Examples

_COLUMNS = 64  # gradients that are held at once


def dots(
    objective: Objective,
    queries: Examples,
    measure: Measure,
    candidates: Examples,
    cosine: bool,
    S: LinearOperator,
) -> Tensor:
    """Return ∇m_qᵀ S gᵢ, or the cosine of ∇m_q and S gᵢ, [q, k]."""
    rows = []
    norms = sizes(objective, candidates, S)[2] if cosine else None
    for part in blocks(np.arange(len(queries)), _COLUMNS):
        columns = objective.gradient_columns(queries.subset(part), measure)
        found = objective.gradient_dot(candidates, objective.loss, S.rmatmat(columns)).T
        if norms is not None:
            own = columns.norm(dim=0).unsqueeze(1)
            found = found / (own * norms).clamp_min(torch.finfo(found.dtype).tiny)
        rows.append(found)
    return torch.cat(rows)


def sizes(
    objective: Objective, examples: Examples, S: LinearOperator
) -> tuple[Tensor, Tensor, Tensor]:
    """Return gᵢᵀ S gᵢ, ‖gᵢ‖ and ‖S gᵢ‖, each [b], in blocks."""
    found = []
    for part in blocks(np.arange(len(examples)), _COLUMNS):
        columns = objective.gradient_columns(examples.subset(part), objective.loss)
        scaled = S.matmat(columns)
        found.append(((columns * scaled).sum(0), columns.norm(dim=0), scaled.norm(dim=0)))
    squares, own, norms = map(torch.cat, zip(*found, strict=True))
    return squares, own, norms
