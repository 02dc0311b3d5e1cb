"""Losses of models that say the probabilities of classes themselves, kept away from zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from whence.objective.losses import CrossEntropy, Logistic, Loss


@final
@dataclass(frozen=True)
class LogProbability(Loss):
    r"""The loss ℓ(f, y) = −f_y of outputs f = log p, which are not scaled to a sum of 1.

    Where p is a model's own probability, or a least one in its place, so is `probabilities`.

    Examples:
        >>> shares = torch.tensor([[0.75, 0.25, 0.01]])
        >>> LogProbability()(shares.log(), torch.tensor([1]))
        tensor([1.3863])
    """

    classifies: ClassVar[bool] = True
    unit: ClassVar[str] = "nats"

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ℓ, [b]."""
        return -outputs.gather(-1, targets.long().unsqueeze(-1)).squeeze(-1)

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return −onehot(y), [b, c]."""
        labels = targets.long().unsqueeze(-1)
        return torch.zeros_like(outputs).scatter(-1, labels, -1.0)

    def hvp(self, outputs: Tensor, targets: Tensor, tangents: Tensor) -> Tensor:
        """Return 0: ℓ is linear."""
        return torch.zeros_like(tangents)

    def margin(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the log odds f_y − log Σ_{c≠y} e^{f_c}, [b]."""
        return CrossEntropy().margin(outputs, targets)

    def probability(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return p_y, [b]."""
        return torch.exp(-self(outputs, targets))

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Return p, [b, c]."""
        return outputs.exp()

    def check_targets(self, outputs: Tensor, targets: Tensor) -> None:
        """Raise unless targets are class indices below c."""
        CrossEntropy().check_targets(outputs, targets)


@final
@dataclass(frozen=True)
class Lifted(Loss):
    r"""Cross-entropy of the shares p of c classes with ε added to each.

    ℓ(f, y) = −log((p_y + ε) / (1 + c ε)), f = log(p + ε), of two classes f₁ − f₀. It is finite
    where a share is 0, and moves with it. `probability` and `probabilities` are those of the model.

    Args:
        epsilon: ε > 0.

    Examples:
        >>> shares = torch.tensor([[1.0, 0.0, 0.0]])
        >>> loss, outputs = Lifted(0.1), torch.log(shares + 0.1)
        >>> loss(outputs, torch.tensor([0])).round(decimals=4)
        tensor([0.1671])
        >>> loss.probabilities(outputs).abs().round(decimals=4)
        tensor([[1., 0., 0.]])
    """

    classifies: ClassVar[bool] = True
    unit: ClassVar[str] = "nats"

    epsilon: float

    def _of(self, outputs: Tensor) -> Logistic | CrossEntropy:
        """Return the loss without ε: logistic of one output, else cross-entropy."""
        return Logistic() if outputs.shape[-1] == 1 else CrossEntropy()

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ℓ, [b]."""
        return self._of(outputs)(outputs, targets)

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ∂ℓ/∂f, [b, c]."""
        return self._of(outputs).gradient(outputs, targets)

    def hvp(self, outputs: Tensor, targets: Tensor, tangents: Tensor) -> Tensor:
        """Return ∂²ℓ/∂f² u."""
        return self._of(outputs).hvp(outputs, targets, tangents)

    def margin(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the log odds of the true class, ε added to shares, [b]."""
        return self._of(outputs).margin(outputs, targets)

    def probability(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return p_y, [b]."""
        return self.probabilities(outputs).gather(-1, targets.long().unsqueeze(-1)).squeeze(-1)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Return p, [b, C]."""
        lifted = self._of(outputs).probabilities(outputs)
        return (lifted * (1 + lifted.shape[-1] * self.epsilon) - self.epsilon).clamp(0, 1)

    def check_targets(self, outputs: Tensor, targets: Tensor) -> None:
        """Raise unless targets are classes."""
        self._of(outputs).check_targets(outputs, targets)
