"""Which precision suffices: every choice of float32 or bfloat16 in place of the model's own.

A large linear model with dense features and several outputs is solved and scored in float32, to a
relative residual of 1e-5 that is measured in float64; on MNIST the scores are within 1e-5 of those
in float64, at a third of the time. Kronecker-factored scores of float32 models allow an error of
1e-2, far below what the factorization itself leaves out; products and passes of models of sequences
and images are then taken in bfloat16 on hardware made for it (`whence.network.precision`). A solver
that the user passes works in the precision of the model.
"""

from __future__ import annotations

import torch

from whence.curvature.two_level import applies
from whence.linalg.solver import Inverse, default_rtol
from whence.objective.objective import Objective

SMALL = 4_000  # parameters up to which float32 saves too little to be worth a check
FLOAT32_RTOL = 1e-5  # float32 stops at 2e-7 on MNIST; the rest is room for worse conditioning
_KRONECKER_RTOL = 1e-2  # of float32 scores; EKFAC itself leaves out tens of percent


def float32_twin(objective: Objective) -> Objective | None:
    """Return a large linear model in float32, if that suffices for its solves and scores.

    Args:
        objective: R at θ̂.

    Returns:
        The same objective in float32, or `None` where it must keep its precision.
    """
    return objective.in_float32() if float32_suffices(objective) else None


def float32_suffices(objective: Objective) -> bool:
    """Return whether solves of a linear model may be in float32, checked in float64.

    Args:
        objective: R at θ̂.

    Returns:
        Whether it is large, convex and dense, with several outputs.
    """
    return len(objective.params) > SMALL and objective.convex and applies(objective)


def bf16_twin(objective: Objective, inverse: Inverse) -> Objective | None:
    """Return a network with gradients from passes in bfloat16, if the inverse allows their error.

    Args:
        objective: R at θ̂.
        inverse: H⁻¹.

    Returns:
        The same objective in bfloat16; `None` where gradients are never formed, the allowed error
        is below 1e-2, the hardware is not made for bfloat16 or the model does not run in it.
    """
    rtol = inverse.gradient_rtol
    rough = objective if rtol is None else objective.within(rtol)
    return None if rough is objective else rough


def iteration_rtol(dtype: torch.dtype) -> float:
    """Return the relative residual that conjugate gradients are run to by default.

    Args:
        dtype: The dtype of the curvature.
    """
    return 1e-8 if dtype == torch.float64 else 1e-5


def kronecker_rtol(dtype: torch.dtype) -> float:
    """Return the relative error that Kronecker-factored scores may have by default.

    Args:
        dtype: The dtype of the curvature.
    """
    return default_rtol(dtype) if dtype == torch.float64 else _KRONECKER_RTOL
