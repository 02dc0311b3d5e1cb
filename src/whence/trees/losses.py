r"""The gradients and second derivatives from which boosting libraries compute leaf values.

A leaf value is a ratio −η Σ w g / (Σ w h + λ). Libraries agree on g = ∂ℓ/∂F and differ in h: it is
the second derivative, or a multiple of its diagonal, or 1. The derivatives of g and h in the
outputs F carry the effect of an earlier round on a later one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import expit, softmax

from whence.arrays import Floats


@dataclass(frozen=True, eq=False)
class Slopes:
    """The derivatives of a loss that leaf values are made of, per row.

    Args:
        g: The gradient that is summed in the numerator, [n, c].
        h: The curvature that is summed in the denominator, [n, c].
        moves: Returns `dg` and `dh`, which leaf values need not.
    """

    g: Floats
    h: Floats
    moves: Callable[[], tuple[Floats, Floats]]

    @property
    def dg(self) -> Floats:
        """∂g_k/∂F_j, [n, c, c]."""
        return self._moved[0]

    @property
    def dh(self) -> Floats:
        """∂h_k/∂F_j, [n, c, c]."""
        return self._moved[1]

    @cached_property
    def _moved(self) -> tuple[Floats, Floats]:
        """The derivatives of g and h in the outputs."""
        return self.moves()


class BoostingLoss(ABC):
    """A loss as a boosting library differentiates it. Outputs are [n, c], targets [n]."""

    @abstractmethod
    def slopes(self, outputs: Floats, targets: Floats) -> Slopes:
        """Return g, h and their derivatives in the outputs."""


def _single(g: Floats, h: Floats, dg: Floats, dh: Callable[[], Floats]) -> Slopes:
    """Return the slopes of a loss of one output, from columns [n, 1]."""
    return Slopes(g, h, lambda: (dg[:, :, None], dh()[:, :, None]))


@dataclass(frozen=True)
class Squared(BoostingLoss):
    """Half the squared error: g = F − y, h = 1.

    Examples:
        >>> Squared().slopes(np.array([[3.0]]), np.array([1.0])).g
        array([[2.]])
    """

    def slopes(self, outputs: Floats, targets: Floats) -> Slopes:
        """Return g = F − y and h = 1."""
        one = np.ones_like(outputs)
        return _single(outputs - targets[:, None], one, one, lambda: np.zeros_like(one))


@dataclass(frozen=True)
class Binary(BoostingLoss):
    """The logistic loss at p = σ(F): g = p − y, h = p (1 − p).

    Examples:
        >>> Binary().slopes(np.array([[0.0]]), np.array([1.0])).g
        array([[-0.5]])
    """

    def slopes(self, outputs: Floats, targets: Floats) -> Slopes:
        """Return the derivatives of the logistic loss."""
        p = expit(outputs)
        h = p * (1 - p)
        return _single(p - targets[:, None], h, h, lambda: h * (1 - 2 * p))


@dataclass(frozen=True)
class Softmax(BoostingLoss):
    """The softmax cross-entropy: g = p − onehot(y), h = a p (1 − p), class by class.

    Args:
        scale: a, the library's factor of the diagonal: 1, 2 (XGBoost) or c/(c − 1) (LightGBM).

    Examples:
        >>> Softmax().slopes(np.zeros((1, 2)), np.array([1.0])).g
        array([[ 0.5, -0.5]])
    """

    scale: float = 1.0

    def slopes(self, outputs: Floats, targets: Floats) -> Slopes:
        """Return the derivatives; each class's g and h depend on the outputs of all."""
        p = softmax(outputs, axis=1)
        g = p.copy()
        g[np.arange(len(p)), targets.astype(np.intp)] -= 1

        def moves() -> tuple[Floats, Floats]:
            jacobian = -p[:, :, None] * p[:, None, :]
            diagonal = np.arange(p.shape[1])
            jacobian[:, diagonal, diagonal] += p
            return jacobian, self.scale * (1 - 2 * p)[:, :, None] * jacobian

        return Slopes(g, self.scale * p * (1 - p), moves)


@dataclass(frozen=True)
class LogLink(BoostingLoss):
    r"""Half the Tweedie deviance with a log link: Poisson at ρ = 1, gamma at ρ = 2.

    g = e^{(2−ρ)F} − y e^{(1−ρ)F} and h = a ((2−ρ) e^{(2−ρ)F} − (1−ρ) y e^{(1−ρ)F}).

    Args:
        power: ρ, in [1, 2].
        scale: a, the library's factor of h: e^0.7 for the Poisson of XGBoost and LightGBM.

    Examples:
        >>> LogLink(power=1.0).slopes(np.array([[0.0]]), np.array([3.0])).g
        array([[-2.]])
    """

    power: float
    scale: float = 1.0

    def slopes(self, outputs: Floats, targets: Floats) -> Slopes:
        """Return the derivatives of the deviance."""
        a, b = 2 - self.power, 1 - self.power
        mean = np.exp(a * outputs)
        data = targets[:, None] * np.exp(b * outputs)
        second = a * mean - b * data

        def third() -> Floats:
            return np.asarray(self.scale * (a * a * mean - b * b * data))

        return _single(mean - data, self.scale * second, second, third)


@dataclass(frozen=True)
class Clipped(BoostingLoss):
    """The Huber loss: g = clip(F − y, −δ, δ), h = 1 between the clips and 0 outside.

    Args:
        delta: δ > 0, where the loss turns linear.

    Examples:
        >>> Clipped(delta=1.0).slopes(np.array([[3.0]]), np.array([0.0])).g
        array([[1.]])
    """

    delta: float

    def slopes(self, outputs: Floats, targets: Floats) -> Slopes:
        """Return the clipped residual and where it is not clipped."""
        residual = outputs - targets[:, None]
        inside = (np.abs(residual) <= self.delta).astype(np.float64)
        g = np.clip(residual, -self.delta, self.delta)
        return _single(g, inside, inside, lambda: np.zeros_like(g))


@dataclass(frozen=True)
class PseudoHuberSlopes(BoostingLoss):
    """The pseudo-Huber loss δ² (√(1 + (r/δ)²) − 1) of r = F − y, with its own second derivative.

    Args:
        delta: δ > 0, where the loss turns from quadratic to linear.

    Examples:
        >>> PseudoHuberSlopes(delta=1.0).slopes(np.array([[0.0]]), np.array([0.0])).h
        array([[1.]])
    """

    delta: float

    def slopes(self, outputs: Floats, targets: Floats) -> Slopes:
        """Return r (1 + r²/δ²)^{−1/2}, its derivative and the derivative of that."""
        r = outputs - targets[:, None]
        scale = 1 + (r / self.delta) ** 2
        h = scale**-1.5
        return _single(r * scale**-0.5, h, h, lambda: -3 * r / self.delta**2 * scale**-2.5)


@dataclass(frozen=True)
class UnitCurvature(BoostingLoss):
    """A loss whose leaf values are mean gradients: its g, and h = 1.

    Args:
        loss: The loss.

    Examples:
        >>> UnitCurvature(Binary()).slopes(np.array([[0.0]]), np.array([1.0])).h
        array([[1.]])
    """

    loss: BoostingLoss

    def slopes(self, outputs: Floats, targets: Floats) -> Slopes:
        """Return the gradients, and h = 1."""
        at = self.loss.slopes(outputs, targets)
        return Slopes(at.g, np.ones_like(at.g), lambda: (at.dg, np.zeros_like(at.dg)))
