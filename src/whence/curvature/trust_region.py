r"""The damping at which a quadratic model promises no more than the loss can give.

Damped by λ, the model of R at θ̂ has its minimum ½ ∇Rᵀ (C + λ I)⁻¹ ∇R below R(θ̂). A loss that is
never negative, nor its penalty, cannot fall by more than it is: where the model promises most of
that, or more, the training has not finished the directions that C calls flat, and retraining does
not finish them either. The rule: the least λ at which the predicted decrease is a given share of R,
between bounds that are multiples of the mean eigenvalue. Neither the unit of the loss nor
parameters that the data do not reach enter, and a fit near its minimum, where ∇R vanishes, asks for
no damping. The upper bound is for penalties that the objective was not told of: training is done,
and ∇R does not vanish.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from whence.curvature.minimum import gradient
from whence.linalg.lanczos import lanczos
from whence.linalg.operator import LinearOperator
from whence.linalg.structured import Reordered
from whence.objective.objective import Objective, risk_gradient, training_loss, with_penalty
from whence.tiles import drawn

REACHED = "over the parameters that the data reach, penalty aside"  # what a mean is over
_ROUNDING = 4  # times ε and the largest eigenvalue: what a damping has to stand above
_SAMPLE = 1_024  # training examples in each of two samples
_PRECISION = 1e-7  # of the exponent of λ


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Slope:
    """R and its gradient, in two estimates with independent errors.

    Args:
        risk: R(θ̂), without the penalty of parameters that the data do not reach.
        left: ∇R(θ̂) from one half of a sample, [p]; from all examples where they are few. Zero for
            parameters that the data do not reach.
        right: The same from the other half: leftᵀ C⁻¹ right has no bias from the sampling.
    """

    risk: float
    left: Tensor
    right: Tensor

    @property
    def bounded(self) -> bool:
        """Whether R bounds how far it can fall: some losses may be negative."""
        return 0 < self.risk < math.inf and bool((self.left + self.right).isfinite().all())

    @property
    def vanishes(self) -> bool:
        """Whether there is nothing left to finish."""
        return not bool(self.left.any() and self.right.any())


def slope(objective: Objective) -> Slope:
    """Return R and ∇R from at most 2,048 training examples.

    Args:
        objective: R at θ̂.

    Returns:
        Both.

    Cost:
        A forward and a backward pass over so many examples.
    """
    n = len(objective.train)
    if n <= 2 * _SAMPLE:
        risk, whole = _reached(objective, gradient(objective))
        return Slope(risk=risk, left=whole, right=whole)
    chosen = drawn(n, 2 * _SAMPLE)
    halves = [objective.restricted(part) for part in np.split(chosen, 2)]
    (one, left), (other, right) = (_reached(half, risk_gradient(half)) for half in halves)
    return Slope(risk=(one + other) / 2, left=left, right=right)


def _reached(objective: Objective, found: Tensor) -> tuple[float, Tensor]:
    """Return R and ∇R without the parameters to whose gradient the data contribute nothing."""
    alone = with_penalty(objective, torch.zeros_like(found).unsqueeze(1))
    reached = found != alone
    penalty = float((objective.l2 * objective.params.square())[reached].sum()) / 2
    return training_loss(objective) + penalty, torch.where(reached, found, 0.0)


def within(decrease: Callable[[float], float], bound: float, least: float, most: float) -> float:
    """Return the least damping at which a predicted decrease is not above a bound.

    Args:
        decrease: The predicted decrease at λ, which falls as λ grows.
        bound: The bound, > 0.
        least: The least λ to return, > 0.
        most: The largest, > `least`.

    Returns:
        λ between the two, to a millionth.

    Examples:
        >>> round(within(lambda damping: 1 / damping, 0.5, 0.01, 10.0), 1)
        2.0
    """
    times = most / least
    if not decrease(least) > bound:
        return least
    if decrease(least * times) > bound:
        return most
    exponent = brentq(lambda x: decrease(least * times**x) - bound, 0, 1, xtol=_PRECISION)
    return float(least * times**exponent)


@final
@dataclass(frozen=True, kw_only=True)
class Rule:
    """How far a damped matrix may predict R to fall, and between which dampings.

    Args:
        share: Of R, how far.
        least: The least damping, in mean eigenvalues.
        most: The largest, in mean eigenvalues.
        words: The three in words.
    """

    share: float
    least: float
    most: float
    words: tuple[str, str, str]

    def damping(
        self,
        decrease: Callable[[float], float],
        risk: float,
        mean: float,
        *,
        matrix: str,
        unit: str,
        floor: float = 0.0,
    ) -> tuple[float, str]:
        """Return λ, and what it is, in words.

        Args:
            decrease: The predicted decrease at λ.
            risk: R(θ̂), > 0.
            mean: The mean eigenvalue, > 0 unless the floor is.
            matrix: What the matrix is called.
            unit: What the mean eigenvalue is called.
            floor: The least λ that rounding lets through.
        """
        least = max(self.least * mean, floor)
        most = max(self.most * mean, least)
        share, below, above = self.words
        found = within(decrease, self.share * risk, least, most)
        if found == most:
            return most, f"{above}{unit}: the fit is not finished"
        if found > least:
            return (
                found,
                f"the least at which {matrix} predicts the loss to fall by {share} at most",
            )
        return least, f"{below}{unit}"


APPROXIMATED = Rule(
    share=0.5, least=0.01, most=3.0, words=("a half", "a hundredth of ", "three times ")
)
EXACT = Rule(share=0.1, least=1.0, most=10.0, words=("a tenth", "", "ten times "))


def of_approximation(
    objective: Objective, operator: Reordered, mean: float, name: str
) -> tuple[float, str]:
    """Return the damping of a Kronecker approximation by the rule, and what it is.

    Args:
        objective: R at θ̂.
        operator: The approximation, penalty included, [p, p].
        mean: Its mean eigenvalue without the penalty.
        name: What it is called.

    Returns:
        λ, from a hundredth of the mean to three times it, and what it is, in words.
    """
    found, unit = slope(objective), f"the mean eigenvalue of {name} {REACHED}"
    if not found.bounded:
        return mean, f"{unit}, as the loss may be negative"
    floor = _ROUNDING * torch.finfo(operator.dtype).eps * operator.extremes()[1]
    if not max(mean, floor) > 0:
        return 0.0, f"none: {name} is zero"
    decrease = decrease_of_spectrum(operator, found)
    return APPROXIMATED.damping(decrease, found.risk, mean, matrix=name, unit=unit, floor=floor)


def decrease_of_spectrum(operator: Reordered, found: Slope) -> Callable[[float], float]:
    """Return the predicted decrease at each λ for a matrix that knows its spectrum.

    Args:
        operator: C, [p, p], the penalty included.
        found: ∇R.

    Returns:
        λ ↦ ½ leftᵀ (C + λ I)⁻¹ right, at the cost of a product with one column.
    """

    def decrease(damping: float) -> float:
        inverse = operator.map_spectrum(lambda x: (x + damping).reciprocal())
        return float(found.left @ inverse.matmat(found.right.unsqueeze(1))[:, 0]) / 2

    return decrease


def decrease_of_products(A: LinearOperator, found: Slope, steps: int) -> Callable[[float], float]:
    """Return the predicted decrease at each λ for a matrix known by its products.

    Args:
        A: C, [p, p], symmetric, the penalty included.
        found: ∇R, not zero.
        steps: Lanczos steps from the gradient, each a product with one column.

    Returns:
        λ ↦ ½ leftᵀ Q (T + λ I)⁻¹ Qᵀ right.

    References:
        Golub and Meurant (2010), "Matrices, Moments and Quadrature", chapter 7.
    """
    process = lanczos(A, steps, start=found.left)
    values, vectors = process.ritz()
    mine, other = (vectors.T @ (process.basis.T @ side) for side in (found.left, found.right))
    products = mine * other

    def decrease(damping: float) -> float:
        return float((products / (values.clamp_min(0) + damping)).sum()) / 2

    return decrease
