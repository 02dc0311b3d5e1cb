r"""Losses ℓ(f, y): value, gradient and Hessian in the outputs f, per example and in nats.

Conventions. Outputs f have shape [b, c]; binary models have c = 1. Binary targets are 0 and 1,
multi-class targets are integer class indices, regression targets are [b, c] (or [b] when c = 1).
The Gauss–Newton matrix needs the loss apart from the prediction: `gradient` is ∂ℓ/∂f and
`hvp` multiplies the [c, c] matrix ∂²ℓ/∂f².
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from whence.checked import checked
from whence.errors import InvalidInput, UnsupportedModel
from whence.objective.loss import NO_CLASSES, Hinges
from whence.objective.loss import Loss as Loss
from whence.objective.loss import measure_of as measure_of
from whence.objective.loss import output_hessian as output_hessian
from whence.objective.targets import check_labels, counted, signs_of, single_output
from whence.tiles import tiles

_TILE = 2**22  # outputs whose log-probabilities are in memory at once: 16 MB of float32


@checked
@dataclass(frozen=True)
class Logistic(Loss):
    r"""The logistic loss ℓ(f, y) = log(1 + eᶠ) − y f, y ∈ {0, 1}, f of shape [b, 1].

    Examples:
        >>> import torch
        >>> Logistic()(torch.tensor([[0.0]]), torch.tensor([1.0]))
        tensor([0.6931])
    """

    classifies: ClassVar[bool] = True
    unit: ClassVar[str] = "nats"

    @property
    def known_dispersion(self) -> bool:
        """Whether the mean of a target determines its variance: it is p(1 − p)."""
        return True

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ℓ, [b]."""
        return functional.softplus(-signs_of(outputs, targets) * outputs).squeeze(1)

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return σ(f) − y, [b, 1]."""
        signs = signs_of(outputs, targets)
        return -signs * torch.sigmoid(-signs * outputs)

    def hvp(self, outputs: Tensor, targets: Tensor, tangents: Tensor) -> Tensor:
        """Return σ(f)(1 − σ(f)) u."""
        sigma = torch.sigmoid(outputs)
        return (sigma * torch.sigmoid(-outputs)).unsqueeze(2) * tangents

    def margin(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ±f, the log odds of the true class."""
        return (signs_of(outputs, targets) * outputs).squeeze(1)

    def probability(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return σ(±f)."""
        return torch.sigmoid(self.margin(outputs, targets))

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Return 1 − σ(f) and σ(f), [b, 2]."""
        return torch.cat([torch.sigmoid(-outputs), torch.sigmoid(outputs)], -1)

    def check_targets(self, outputs: Tensor, targets: Tensor) -> None:
        """Raise unless targets are 0 or 1, [b] or [b, 1]."""
        check_labels(outputs, targets, 2)


@checked
@dataclass(frozen=True)
class CrossEntropy(Loss):
    r"""The softmax cross-entropy ℓ(f, y) = log Σ_c e^{f_c} − f_y.

    Sequences, with outputs [b, t, c] and targets [b, t], sum over positions; positions whose
    target is `ignore_index` do not count.

    Args:
        ignore_index: The target value that marks positions without a loss.

    Examples:
        >>> import torch
        >>> CrossEntropy()(torch.zeros(1, 4), torch.tensor([2]))
        tensor([1.3863])
    """

    classifies: ClassVar[bool] = True
    unit: ClassVar[str] = "nats"
    zero_sum: ClassVar[bool] = True

    ignore_index: int = -100

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ℓ, [b], summed over positions; of many outputs a few examples at a time."""
        if outputs.requires_grad:
            return self._of_examples(outputs, targets)
        parts = tiles(len(outputs) or 1, outputs[:1].numel(), _TILE)
        return torch.cat([self._of_examples(outputs[part], targets[part]) for part in parts])

    def _of_examples(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ℓ, [b]; beside the outputs there is a copy and the log-probabilities."""
        rows, labels = outputs.flatten(0, -2), targets.flatten().long()
        losses = functional.cross_entropy(
            rows, labels, reduction="none", ignore_index=self.ignore_index
        )
        return losses.reshape(outputs.shape[0], -1).sum(1)

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return softmax(f) − onehot(y)."""
        labels, counts = (part.unsqueeze(-1) for part in counted(targets, self.ignore_index))
        residual = outputs.new_empty(outputs.shape)
        # Of all at once there may be a copy.
        for part in tiles(len(outputs) or 1, outputs[:1].numel(), _TILE):
            residual[part] = torch.softmax(outputs[part], -1)
        residual.scatter_add_(-1, labels, torch.full_like(labels, -1, dtype=outputs.dtype))
        return residual.mul_(counts)

    def hvp(self, outputs: Tensor, targets: Tensor, tangents: Tensor) -> Tensor:
        """Return (diag(p) − p pᵀ) u, p = softmax(f)."""
        p = self.softmax(outputs, targets).unsqueeze(-1)
        return (tangents - p.mT @ tangents).mul_(p)

    def margin(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the log odds f_y − log Σ_{c≠y} e^{f_c}, summed over positions."""
        labels, counts = counted(targets, self.ignore_index)
        others = outputs.scatter(-1, labels.unsqueeze(-1), float("-inf")).logsumexp(-1)
        odds = (outputs.gather(-1, labels.unsqueeze(-1)).squeeze(-1) - others) * counts
        return odds.reshape(outputs.shape[0], -1).sum(1)

    def probability(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return p_y (for sequences, of the whole sequence)."""
        return torch.exp(-self(outputs, targets))

    def softmax(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return p, zero where the target is `ignore_index`."""
        return torch.softmax(outputs, -1) * (targets != self.ignore_index).unsqueeze(-1)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Return softmax(f)."""
        return torch.softmax(outputs, -1)

    def check_targets(self, outputs: Tensor, targets: Tensor) -> None:
        """Raise unless targets are class indices below c, or `ignore_index`."""
        kept = targets.masked_fill(targets == self.ignore_index, 0)
        check_labels(outputs, kept, outputs.shape[-1])


@checked
@dataclass(frozen=True)
class SquaredError(Loss):
    """Half the squared error ℓ(f, y) = ½ Σ_c (f_c − y_c)²: the Gaussian loss at unit variance.

    Examples:
        >>> import torch
        >>> SquaredError()(torch.tensor([[3.0]]), torch.tensor([1.0]))
        tensor([2.])
    """

    quadratic: ClassVar[bool] = True
    regresses: ClassVar[bool] = True
    unit: ClassVar[str] = "half the squared error"

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ℓ, [b]."""
        return self.gradient(outputs, targets).square().flatten(1).sum(1) / 2

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return f − y."""
        return outputs - targets.to(outputs.dtype).reshape(outputs.shape)

    def hvp(self, outputs: Tensor, targets: Tensor, tangents: Tensor) -> Tensor:
        """Return u."""
        return tangents

    def margin(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the least f_y − f_c for one-hot (±1) targets; regression has no margin."""
        if not bool((targets.abs() == 1).all()):
            raise UnsupportedModel(NO_CLASSES.format("margin"))
        if outputs.shape[1] == 1:
            return (targets.reshape(outputs.shape) * outputs).squeeze(1)
        true = targets == 1
        best_other = outputs.masked_fill(true, float("-inf")).amax(1)
        return (outputs * true).sum(1) - best_other

    def prediction(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return f of a single output, [b]."""
        return single_output(outputs)

    def check_targets(self, outputs: Tensor, targets: Tensor) -> None:
        """Raise unless targets have as many numbers as the outputs."""
        if targets.numel() != outputs.numel():
            raise InvalidInput(
                f"Expected targets with as many numbers as the outputs, {tuple(outputs.shape)}. "
                f"Got {tuple(targets.shape)}."
            )


@checked
@dataclass(frozen=True)
class Tweedie(Loss):
    r"""Half the unit Tweedie deviance with a log link, up to a constant in y.

    ℓ(f, y) = e^{(2−ρ)f}/(2−ρ) − y e^{(1−ρ)f}/(1−ρ), with the limits ρ = 1 (Poisson:
    eᶠ − y f) and ρ = 2 (Gamma: f + y e^{−f}).

    Args:
        power: ρ, the exponent of the variance function, outside (0, 1).

    Examples:
        >>> import torch
        >>> Tweedie(power=1.0)(torch.tensor([[0.0]]), torch.tensor([3.0]))
        tensor([1.])
    """

    regresses: ClassVar[bool] = True
    unit: ClassVar[str] = "half the unit deviance"

    power: float

    @property
    def known_dispersion(self) -> bool:
        """Whether the mean of a target determines its variance: that of counts does."""
        return self.power == 1

    def _powers(self, outputs: Tensor, targets: Tensor, order: int) -> Tensor:
        """Return the derivative of the given order in f."""
        y = targets.to(outputs.dtype).reshape(outputs.shape)
        first, second = 2 - self.power, 1 - self.power
        mean = torch.exp(first * outputs)
        data = torch.exp(second * outputs)
        if order:
            return first ** (order - 1) * mean - y * second ** (order - 1) * data
        left = outputs if first == 0 else mean / first
        right = y * (outputs if second == 0 else data / second)
        return left - right

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ℓ, [b]."""
        return self._powers(outputs, targets, 0).squeeze(1)

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ∂ℓ/∂f, [b, 1]."""
        return self._powers(outputs, targets, 1)

    def hvp(self, outputs: Tensor, targets: Tensor, tangents: Tensor) -> Tensor:
        """Return ∂²ℓ/∂f² u."""
        return self._powers(outputs, targets, 2).unsqueeze(2) * tangents

    def least(self, targets: Tensor) -> Tensor:
        """Return ℓ(log y, y), [b]; its limit 0 at y = 0."""
        y = targets.double().flatten().unsqueeze(1)
        best = self(y.log(), y)
        return torch.where(y.squeeze(1) > 0, best, 0.0)

    def prediction(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean eᶠ, [b]."""
        return single_output(outputs).exp()

    def check_targets(self, outputs: Tensor, targets: Tensor) -> None:
        """Raise unless targets are in the range of the distribution."""
        zero_allowed = self.power < 2
        bad = (targets < 0) if zero_allowed else (targets <= 0)
        if self.power >= 1 and bool(bad.any()):
            at = int(bad.nonzero()[0, 0])
            raise InvalidInput(
                f"Expected targets {'>= 0' if zero_allowed else '> 0'} for a Tweedie loss of "
                f"power {self.power:g}. Got {targets[at].tolist()} for example {at}."
            )


@checked
@dataclass(frozen=True)
class SmoothHinge(Loss):
    r"""The smoothed hinge ℓ(f, y) = t log(1 + e^{(1 − s)/t}), s = ±f; max(0, 1 − s) as t → 0.

    At t = 0 it is the hinge itself, whose curvature is zero wherever it is defined.

    Args:
        temperature: t >= 0, in units of the margin.

    References:
        Koh & Liang (2017), section 4.3.

    Examples:
        >>> import torch
        >>> SmoothHinge(temperature=0.0)(torch.tensor([[0.25]]), torch.tensor([1.0]))
        tensor([0.7500])
    """

    classifies: ClassVar[bool] = True
    unit: ClassVar[str] = "hinge loss"

    temperature: float = 0.001

    @property
    def hinged(self) -> bool:
        """Whether t = 0.

        Examples:
            >>> SmoothHinge(temperature=0.0).hinged, SmoothHinge(temperature=0.1).hinged
            (True, False)
        """
        return self.temperature == 0

    def hinges(self, targets: Tensor, c: int) -> Hinges | None:
        """Return one hinge per example, [1, b]."""
        if not self.hinged:
            return None
        signs = torch.where(targets.reshape(1, -1) > 0, 1.0, -1.0).double()
        return Hinges(signs, signs, torch.ones_like(signs))

    def smoothed(self, temperature: float, spread: float = 1.0) -> Loss:
        """Return the hinge with temperature t."""
        return SmoothHinge(temperature=temperature) if self.hinged else self

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ℓ, [b]."""
        slack = (1 - signs_of(outputs, targets) * outputs).squeeze(1)
        if self.temperature == 0:
            return slack.clamp_min(0)
        return self.temperature * functional.softplus(slack / self.temperature)

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ∓σ((1 − s)/t), [b, 1]."""
        signs = signs_of(outputs, targets)
        slack = 1 - signs * outputs
        if self.temperature == 0:
            return -signs * (slack > 0)
        return -signs * torch.sigmoid(slack / self.temperature)

    def hvp(self, outputs: Tensor, targets: Tensor, tangents: Tensor) -> Tensor:
        """Return σ(a)(1 − σ(a))/t · u, a = (1 − s)/t."""
        if self.temperature == 0:
            return torch.zeros_like(tangents)
        a = (1 - signs_of(outputs, targets) * outputs) / self.temperature
        curvature = torch.sigmoid(a) * torch.sigmoid(-a) / self.temperature
        return curvature.unsqueeze(2) * tangents

    def margin(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return s = ±f."""
        return (signs_of(outputs, targets) * outputs).squeeze(1)

    def check_targets(self, outputs: Tensor, targets: Tensor) -> None:
        """Raise unless targets are 0 or 1."""
        check_labels(outputs, targets, 2)


@checked
@dataclass(frozen=True)
class SquaredHinge(Loss):
    """The squared hinge ℓ(f, y) = max(0, 1 − s)², s = ±f.

    Examples:
        >>> import torch
        >>> SquaredHinge()(torch.tensor([[0.0]]), torch.tensor([1.0]))
        tensor([1.])
    """

    classifies: ClassVar[bool] = True
    unit: ClassVar[str] = "squared hinge loss"

    def _slack(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return max(0, 1 − s), [b, 1]."""
        return (1 - signs_of(outputs, targets) * outputs).clamp_min(0)

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ℓ, [b]."""
        return self._slack(outputs, targets).square().squeeze(1)

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ∓2 max(0, 1 − s), [b, 1]."""
        return -2 * (signs_of(outputs, targets) * self._slack(outputs, targets))

    def hvp(self, outputs: Tensor, targets: Tensor, tangents: Tensor) -> Tensor:
        """Return 2 [s < 1] u, the generalized second derivative."""
        active = (self._slack(outputs, targets) > 0).to(outputs.dtype)
        return 2 * active.unsqueeze(2) * tangents

    def margin(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return s = ±f."""
        return (signs_of(outputs, targets) * outputs).squeeze(1)

    def check_targets(self, outputs: Tensor, targets: Tensor) -> None:
        """Raise unless targets are 0 or 1."""
        check_labels(outputs, targets, 2)
