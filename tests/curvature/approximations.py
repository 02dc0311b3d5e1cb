"""The Kronecker approximation of a module's curvature as an operator, with the usual options."""

from __future__ import annotations

from whence.curvature.directions import Fisher
from whence.curvature.factors import Sharing
from whence.curvature.kronecker import approximation
from whence.linalg.structured import Reordered
from whence.network.objective import ModuleObjective


def kronecker(
    objective: ModuleObjective,
    *,
    corrected: bool = True,
    fisher: Fisher | None = None,
    sharing: Sharing = "expand",
    seed: int = 0,
) -> Reordered:
    """The approximation of EKFAC, or of KFAC, penalty included."""
    made = approximation(
        objective, corrected=corrected, fisher=fisher, sharing=sharing, seed=seed, rtol=0.0
    )
    return made.operator
