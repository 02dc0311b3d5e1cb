"""Losses of regressions that outliers move little: Huber's, quantiles, and support vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from whence.errors import UnsupportedModel
from whence.objective.loss import Hinges
from whence.objective.losses import Loss, SquaredError

_SQUARED = SquaredError()
_NO_CLASSES = (
    "Expected a classifier for measure='{}'. Got a regression. Use measure='prediction' or 'loss'."
)


class _OfResidual(Loss):
    """A loss of the residuals r = f − y of a regression, summed over outputs."""

    regresses: ClassVar[bool] = True

    def prediction(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return f of a single output, [b]."""
        return _SQUARED.prediction(outputs, targets)

    def margin(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Raise: a regression has no margin."""
        raise UnsupportedModel(_NO_CLASSES.format("margin"))

    def probability(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Raise: a regression has no class probability."""
        raise UnsupportedModel(_NO_CLASSES.format("probability"))

    def check_targets(self, outputs: Tensor, targets: Tensor) -> None:
        """Raise unless targets have as many numbers as the outputs."""
        _SQUARED.check_targets(outputs, targets)


@dataclass(frozen=True)
class Huber(_OfResidual):
    """Huber's loss: r²/2 for |r| <= δ, δ (|r| − δ/2) outside, of the residual r = f − y.

    Args:
        delta: δ > 0, in units of y.

    References:
        Huber (1964), section 3.

    Examples:
        >>> import torch
        >>> Huber(delta=1.0)(torch.tensor([[3.0]]), torch.tensor([0.0]))
        tensor([2.5000])
    """

    delta: float

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ℓ, [b]."""
        r = _SQUARED.gradient(outputs, targets).abs()
        inside = r.clamp_max(self.delta)
        return (inside * (r - inside / 2)).flatten(1).sum(1)

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return r clipped to [−δ, δ]."""
        return _SQUARED.gradient(outputs, targets).clamp(-self.delta, self.delta)

    def hvp(self, outputs: Tensor, targets: Tensor, tangents: Tensor) -> Tensor:
        """Return [|r| <= δ] u."""
        inside = _SQUARED.gradient(outputs, targets).abs() <= self.delta
        return inside.unsqueeze(-1).to(tangents.dtype) * tangents


@dataclass(frozen=True)
class PseudoHuber(_OfResidual):
    """The smooth Huber loss δ² (√(1 + (r/δ)²) − 1) of the residual r = f − y.

    Args:
        delta: δ > 0, in units of y.

    References:
        Charbonnier et al. (1997), equation 14.

    Examples:
        >>> import torch
        >>> PseudoHuber(delta=3.0)(torch.tensor([[4.0]]), torch.tensor([0.0]))
        tensor([6.0000])
    """

    delta: float

    def _root(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return √(1 + (r/δ)²)."""
        return (1 + (_SQUARED.gradient(outputs, targets) / self.delta).square()).sqrt()

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ℓ, [b]."""
        return (self.delta**2 * (self._root(outputs, targets) - 1)).flatten(1).sum(1)

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return r/√(1 + (r/δ)²)."""
        return _SQUARED.gradient(outputs, targets) / self._root(outputs, targets)

    def hvp(self, outputs: Tensor, targets: Tensor, tangents: Tensor) -> Tensor:
        """Return (1 + (r/δ)²)^{−3/2} u."""
        return self._root(outputs, targets).pow(-3).unsqueeze(-1) * tangents


@dataclass(frozen=True)
class Quantile(_OfResidual):
    """The quantile loss max(q (y − f), (q − 1) (y − f)); twice this is |f − y| at q = 1/2.

    Args:
        level: q, in (0, 1).

    References:
        Koenker & Bassett (1978).

    Examples:
        >>> import torch
        >>> Quantile(level=0.9)(torch.tensor([[0.0]]), torch.tensor([2.0]))
        tensor([1.8000])
    """

    level: float

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ℓ, [b]."""
        r = -_SQUARED.gradient(outputs, targets)
        return torch.maximum(self.level * r, (self.level - 1) * r).flatten(1).sum(1)

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return 1 − q above y, −q below."""
        return (_SQUARED.gradient(outputs, targets) > 0).to(outputs.dtype) - self.level

    def hvp(self, outputs: Tensor, targets: Tensor, tangents: Tensor) -> Tensor:
        """Return zeros: the loss is linear wherever it has derivatives."""
        return torch.zeros_like(tangents)


@dataclass(frozen=True)
class Insensitive(_OfResidual):
    r"""The ε-insensitive loss max(0, |r| − ε) of the residual r = f − y, smoothed.

    ℓ = t log(1 + e^{(r − ε)/t}) + t log(1 + e^{(−r − ε)/t}), which is max(0, |r| − ε) as t → 0.

    Args:
        epsilon: ε >= 0, in units of y.
        temperature: t >= 0, in units of y; at 0 it is the loss of a support vector regression.

    References:
        Vapnik (1995), section 6.1; Koh & Liang (2017), section 4.3, for the smoothing.

    Examples:
        >>> import torch
        >>> Insensitive(epsilon=0.5)(torch.tensor([[3.0]]), torch.tensor([1.0]))
        tensor([1.5000])
    """

    unit: ClassVar[str] = "ε-insensitive loss"

    epsilon: float
    temperature: float = 0.0

    @property
    def hinged(self) -> bool:
        """Whether t = 0."""
        return self.temperature == 0

    def hinges(self, targets: Tensor, c: int) -> Hinges | None:
        """Return two hinges per example, below and above it, [1, 2b]."""
        if not self.hinged:
            return None
        y = targets.double().reshape(1, -1)
        ones = torch.ones_like(y)
        corners = torch.cat([y - self.epsilon, y + self.epsilon], 1)
        return Hinges(torch.cat([ones, -ones], 1), corners, torch.cat([ones, ones], 1))

    def smoothed(self, temperature: float, spread: float = 1.0) -> Loss:
        """Return the loss with temperature t times the spread of y."""
        if not self.hinged:
            return self
        return Insensitive(epsilon=self.epsilon, temperature=temperature * spread)

    def _beyond(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return r − ε and −r − ε."""
        r = _SQUARED.gradient(outputs, targets)
        return r - self.epsilon, -r - self.epsilon

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ℓ, [b]."""
        above, below = self._beyond(outputs, targets)
        t = self.temperature
        if t == 0:
            return (above.clamp_min(0) + below.clamp_min(0)).flatten(1).sum(1)
        both = functional.softplus(above / t) + functional.softplus(below / t)
        return (t * both).flatten(1).sum(1)

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return σ((r − ε)/t) − σ((−r − ε)/t)."""
        above, below = self._beyond(outputs, targets)
        t = self.temperature
        if t == 0:
            return (above > 0).to(outputs.dtype) - (below > 0).to(outputs.dtype)
        return torch.sigmoid(above / t) - torch.sigmoid(below / t)

    def hvp(self, outputs: Tensor, targets: Tensor, tangents: Tensor) -> Tensor:
        """Return (σ′((r − ε)/t) + σ′((−r − ε)/t))/t · u."""
        t = self.temperature
        if t == 0:
            return torch.zeros_like(tangents)
        curvature = sum(
            torch.sigmoid(a / t) * torch.sigmoid(-a / t) / t for a in self._beyond(outputs, targets)
        )
        return torch.as_tensor(curvature).unsqueeze(-1) * tangents


@dataclass(frozen=True)
class SquaredInsensitive(_OfResidual):
    """The squared ε-insensitive loss max(0, |r| − ε)² of the residual r = f − y.

    Args:
        epsilon: ε >= 0, in units of y.

    Examples:
        >>> import torch
        >>> SquaredInsensitive(epsilon=0.5)(torch.tensor([[3.0]]), torch.tensor([1.0]))
        tensor([2.2500])
    """

    unit: ClassVar[str] = "squared ε-insensitive loss"

    epsilon: float

    def _excess(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return r less what ε forgives."""
        r = _SQUARED.gradient(outputs, targets)
        return r - r.clamp(-self.epsilon, self.epsilon)

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ℓ, [b]."""
        return self._excess(outputs, targets).square().flatten(1).sum(1)

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return 2 (r − ε) above, 2 (r + ε) below, 0 between."""
        return 2 * self._excess(outputs, targets)

    def hvp(self, outputs: Tensor, targets: Tensor, tangents: Tensor) -> Tensor:
        """Return 2 [|r| > ε] u."""
        outside = (_SQUARED.gradient(outputs, targets).abs() > self.epsilon).unsqueeze(-1)
        return 2 * outside.to(tangents.dtype) * tangents
