"""A user's function that is one of whence's losses times a weight, of each class or of all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from whence.objective.derived_losses import Recognized
from whence.objective.losses import Loss, SquaredError
from whence.objective.targets import target_classes


@final
@dataclass(frozen=True)
class ClassWeighted(Recognized):
    """A user's loss v_y ℓ(f, y) of logits, ℓ the cross entropy or the logistic loss.

    Args:
        function: The user's loss.
        own: ℓ.
        weights: v of each class, [c], or of two.
    """

    classifies: ClassVar[bool] = True
    unit: ClassVar[str] = "nats, weighted by class"

    own: Loss
    weights: tuple[float, ...]

    def hvp(self, outputs: Tensor, targets: Tensor, tangents: Tensor) -> Tensor:
        """Return v_y ∂²ℓ/∂f² u."""
        weights = outputs.new_tensor(self.weights)[target_classes(targets)]
        return weights.reshape(-1, 1, 1) * self.own.hvp(outputs, targets, tangents)

    def margin(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the log odds of the true class, [b]."""
        return self.own.margin(outputs, targets)

    def probability(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return p_y, [b]."""
        return self.own.probability(outputs, targets)

    def probabilities(self, outputs: Tensor) -> Tensor | None:
        """Return p of each class, [b, c], or of two."""
        return self.own.probabilities(outputs)

    def check_targets(self, outputs: Tensor, targets: Tensor) -> None:
        """Raise unless targets are labels of classes."""
        self.own.check_targets(outputs, targets)


@final
@dataclass(frozen=True)
class Multiple(Recognized):
    """A user's loss that is a multiple of half the squared error, s · ½ Σ_c (f_c − y_c)².

    Args:
        function: The user's loss.
        scale: s.
    """

    quadratic: ClassVar[bool] = True
    regresses: ClassVar[bool] = True
    unit: ClassVar[str] = "the loss as it was passed"

    scale: float

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return s (f − y)."""
        return self.scale * SquaredError().gradient(outputs, targets)

    def hvp(self, outputs: Tensor, targets: Tensor, tangents: Tensor) -> Tensor:
        """Return s u."""
        return self.scale * tangents

    def prediction(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return f of a single output, [b]."""
        return SquaredError().prediction(outputs, targets)

    def check_targets(self, outputs: Tensor, targets: Tensor) -> None:
        """Raise unless targets have as many numbers as the outputs."""
        SquaredError().check_targets(outputs, targets)
