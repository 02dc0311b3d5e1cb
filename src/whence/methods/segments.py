r"""Differentiation through a training, cut into segments in which the curvature stands still.

Gradient descent for K steps of rate η on a quadratic of curvature H is, for small η H, the flow of
duration τ = η K: what entered before it is multiplied by S = exp(−τ H), and a gradient gᵢ that acts
throughout moves the end by −F gᵢ, F = (I − exp(−τ H)) H⁻¹. So the change at the end of L segments
when example i takes no part is

```
Δθ_T = (wᵢ/n) Σ_l S_L ⋯ S_{l+1} F_l gᵢ(θ_l)
```

Both are functions of one symmetric H, and it is the query's gradient that they are applied to, from
right to left: one block of columns for all training examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from torch import Tensor
from tqdm import tqdm

from whence.linalg.spectral import Spectral
from whence.objective.objective import Objective


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Segment:
    """A stretch of a training.

    Args:
        objective: R at the parameters θ_l that stand for the segment.
        curvature: H_l, penalty included, by its spectrum.
        duration: τ_l, the sum of the learning rates of its steps, momentum counted in.
    """

    objective: Objective
    curvature: Spectral
    duration: float


def unroll(segments: Sequence[Segment], cotangents: Tensor) -> Tensor:
    """Return Σ_l (S_L ⋯ S_{l+1} v)ᵀ F_l gᵢ(θ_l) for gradients v at the end of the training.

    Args:
        segments: The L segments, in the order of the training.
        cotangents: V, a measure per column, [p, q].

    Returns:
        The sums, [q, n]; times wᵢ/n they are the changes of the measures on removal.
    """
    total = cotangents.new_zeros(cotangents.shape[1], len(segments[0].objective.train))
    for segment in tqdm(segments[::-1], desc="unrolling", disable=None):
        objective = segment.objective
        acting = segment.curvature.map_spectrum(partial(_acting, segment.duration))
        products = objective.gradient_dot(
            objective.train, objective.loss, acting.matmat(cotangents)
        )
        total += products.T
        lasting = segment.curvature.map_spectrum(partial(_lasting, segment.duration))
        cotangents = lasting.matmat(cotangents)
    return total


def _lasting(duration: float, x: Tensor) -> Tensor:
    """Return exp(−τ x)."""
    return torch.exp(-duration * x)


def _acting(duration: float, x: Tensor) -> Tensor:
    """Return (1 − exp(−τ x))/x, which is τ at zero."""
    return torch.where(x == 0, duration, -torch.expm1(-duration * x) / torch.where(x == 0, 1.0, x))
