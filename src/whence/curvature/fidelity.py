r"""How far a Kronecker inverse is from the inverse of the curvature it stands for.

For a right-hand side b like those of influence, a signed sum of training gradients, and the answer
x = A⁻¹ b of the damped Kronecker approximation A, it is the relative residual of x in the exact
system: ‖b − (G + λ I) x‖ / ‖b‖ with G the Gauss–Newton matrix. Above 1, x is longer than the exact
answer along b's strongest directions, and so are the scores. G is a mean over examples. With two
disjoint samples of them the product of the two residuals is an unbiased estimate of the square,
however small the samples are: their own noise, which is independent, does not add to it.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.linalg.signs import random_signs
from whence.linalg.solver import Inverse
from whence.objective.cache import cached
from whence.objective.objective import Objective

_LEAST, _MOST = 32, 1_024  # examples for G: a share of all, within these bounds
_SHARE, _SHARE_OF_SEQUENCES = 16, 64  # a sequence or an image has as many terms as positions
_ALL = 64  # training examples up to which G is exact
_COMBINED = 64  # training examples whose gradients are summed to right-hand sides


def approximation_error(objective: Objective, inverse: Inverse) -> float | None:
    """Return the relative residual of a Kronecker inverse in the exact Gauss–Newton system.

    Args:
        objective: R at θ̂.
        inverse: The inverse that was used.

    Returns:
        An estimate of ‖b − (G + λ I) A⁻¹ b‖ / ‖b‖ on random training gradients b, >= 0, computed
        once per inverse; `None` for an inverse of G or H itself, whose residual a solve measures,
        and where these gradients are zero.

    Cost:
        A Gauss–Newton product on a sixteenth of the training examples, at most 1,024; on a
        sixty-fourth where layers see several positions per example.
    """
    if not inverse.substitute:
        return None
    return cached(objective, (approximation_error, inverse), lambda twin: _error(twin, inverse))


def _error(objective: Objective, inverse: Inverse) -> float | None:
    """Return the estimate; see `approximation_error`."""
    n = len(objective.train)
    order = np.random.default_rng(1).permutation(n)
    B = _signed_sum(objective, np.sort(order[-_COMBINED:]))
    if not B.any():  # every row beyond its margin, say: there is nothing to solve for
        return None
    X = inverse.matmat(B)
    _, damping = inverse.operator.undamped()
    if n <= _ALL:
        halves = [np.arange(n)] * 2
    else:
        share = _SHARE if inverse.factors else _SHARE_OF_SEQUENCES
        size = min(max(n // share, _LEAST), _MOST)
        halves = [np.sort(order[: size // 2]), np.sort(order[size // 2 : size])]
    first, second = (B - objective.restricted(half).ggnvp(X) - damping * X for half in halves)
    square = float((first.double() * second.double()).sum() / B.double().square().sum())
    return math.sqrt(max(square, 0.0))


def _signed_sum(objective: Objective, where: NDArray[np.intp]) -> Tensor:
    """Return a sum, with random signs, of the gradients of some training examples, [p, 1]."""
    generator = torch.Generator().manual_seed(1)
    signs = random_signs((len(where), 1), generator, objective.weights)
    return objective.gradient_sum(objective.train.subset(where), objective.loss, signs)
