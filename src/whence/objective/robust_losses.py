"""Losses of regressions that outliers move little: Huber's and the quantile loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from whence.errors import UnsupportedModel
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
