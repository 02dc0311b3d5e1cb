"""Losses made of other things: a user's function, or one binary loss per class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from whence.checked import written
from whence.errors import InvalidInput, UnsupportedModel
from whence.objective.loss import Hinges
from whence.objective.losses import Loss
from whence.objective.measures import OutputFunction, autodiff_gradient
from whence.objective.targets import check_labels, signs_of


@dataclass(frozen=True)
class CallableLoss(Loss):
    """A user's unreduced loss function, differentiated automatically.

    Args:
        function: Maps outputs [b, c] and targets [b] to losses [b], in torch operations.

    Examples:
        >>> import torch
        >>> quartic = CallableLoss(lambda f, y: (f[:, 0] - y) ** 4)
        >>> quartic.gradient(torch.tensor([[2.0]]), torch.tensor([1.0]))
        tensor([[4.]])
    """

    function: OutputFunction

    def __repr__(self) -> str:
        """Return the options, a function by its name."""
        return written(self)

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ℓ, [b]."""
        values = self.function(outputs, targets)
        return values.squeeze(-1) if values.shape == (len(outputs), 1) else values

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ∂ℓ/∂f by reverse-mode differentiation."""
        return autodiff_gradient(self, outputs, targets)

    def hvp(self, outputs: Tensor, targets: Tensor, tangents: Tensor) -> Tensor:
        """Return ∂²ℓ/∂f² u, one reverse-over-reverse pass per column of u."""
        with torch.enable_grad():
            leaf = outputs.detach().clone().requires_grad_()
            (gradient,) = torch.autograd.grad(self(leaf, targets).sum(), leaf, create_graph=True)
            if not gradient.requires_grad:
                return torch.zeros_like(tangents)
            columns = [
                torch.autograd.grad(gradient, leaf, column, retain_graph=True)[0]
                for column in tangents.unbind(-1)
            ]
        return torch.stack(columns, -1)

    def margin(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Raise: what the margin of an arbitrary function is cannot be known."""
        raise UnsupportedModel(
            "Expected a loss with classes for measure='margin'. Got a user's function. "
            "Pass the margin as a function of (outputs, targets) instead."
        )

    def probability(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Raise: what the probability of an arbitrary function is cannot be known."""
        raise UnsupportedModel(
            "Expected a loss with classes for measure='probability'. Got a user's function. "
            "Pass the probability as a function of (outputs, targets) instead."
        )

    def check_targets(self, outputs: Tensor, targets: Tensor) -> None:
        """Raise unless the function gives one loss per example."""
        with torch.no_grad():
            losses = self(outputs, targets)
        if losses.shape != outputs.shape[:1]:
            raise InvalidInput(
                f"Expected the loss to return one value per example, shape "
                f"({outputs.shape[0]},). Got shape {tuple(losses.shape)}. "
                f"{_remedy(losses, outputs, targets)}"
            )


def _remedy(losses: Tensor, outputs: Tensor, targets: Tensor) -> str:
    """Return what makes one value per example of values of another shape."""
    if not losses.ndim:
        return (
            "Use reduction='none', or whence.CrossEntropy(), whence.Logistic() or "
            "whence.SquaredError()."
        )
    if targets.shape == outputs.shape[:1] and losses.shape == (len(outputs), len(outputs)):
        return (
            f"Outputs {list(outputs.shape)} and targets {list(targets.shape)} were compared each "
            "with each. Pass targets of shape [n, 1], or use whence.SquaredError() or "
            "whence.Logistic(), which take both."
        )
    if losses.shape[:1] == outputs.shape[:1]:
        return "Add up the values of an example, or average them, as by .flatten(1).sum(1)."
    return "Use reduction='none'."


@dataclass(frozen=True)
class Recognized(Loss):
    """A user's function whose form is known: its own values and slopes, and what the form tells.

    Args:
        function: The user's loss.
    """

    function: CallableLoss

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ℓ, [b]."""
        return self.function(outputs, targets)

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ∂ℓ/∂f, [b, c]."""
        return self.function.gradient(outputs, targets)


@dataclass(frozen=True)
class OneVersusRest(Loss):
    """The sum over classes of a binary loss, each class against all others.

    ℓ(f, y) = Σ_a v_a(y) ℓ_binary(f_a, 1[y = a]), with v_a = `positive_weights[a]` where y = a
    and 1 elsewhere: the objective of independently trained one-versus-rest classifiers.

    Args:
        binary: The loss of one class.
        positive_weights: The weight of the positive examples of each class; 1 if empty.
    """

    classifies: ClassVar[bool] = True
    unit: ClassVar[str] = "summed over classes"

    binary: Loss
    positive_weights: tuple[float, ...] = ()

    @property
    def hinged(self) -> bool:
        """Whether the binary loss is."""
        return self.binary.hinged

    def hinges(self, targets: Tensor, c: int) -> Hinges | None:
        """Return the hinges of each class against the rest, [c, b]."""
        labels = functional.one_hot(targets.long(), c).T.to(torch.float64)
        each = [self.binary.hinges(label, 1) for label in labels]
        parts = [one for one in each if one is not None]
        if len(parts) < c:
            return None
        factors = torch.ones_like(labels)
        if self.positive_weights:
            positive = labels.new_tensor(self.positive_weights).unsqueeze(1)
            factors = torch.where(labels > 0, positive, factors)
        signs = torch.cat([part.signs for part in parts])
        return Hinges(signs, torch.cat([part.corners for part in parts]), factors)

    def smoothed(self, temperature: float, spread: float = 1.0) -> Loss:
        """Return the same of the smoothed binary loss."""
        return OneVersusRest(self.binary.smoothed(temperature, spread), self.positive_weights)

    def _flat(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return outputs [b·c, 1], binary targets [b·c] and weights [b, c]."""
        labels = functional.one_hot(targets.long(), outputs.shape[1])
        positive = torch.ones(outputs.shape[1], dtype=outputs.dtype, device=outputs.device)
        if self.positive_weights:
            positive = positive.new_tensor(self.positive_weights)
        weights = torch.where(labels > 0, positive, torch.ones_like(positive))
        return outputs.reshape(-1, 1), labels.reshape(-1).to(outputs.dtype), weights

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ℓ, [b]."""
        flat, labels, weights = self._flat(outputs, targets)
        return (weights * self.binary(flat, labels).reshape(outputs.shape)).sum(1)

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ∂ℓ/∂f, [b, c]."""
        flat, labels, weights = self._flat(outputs, targets)
        return weights * self.binary.gradient(flat, labels).reshape(outputs.shape)

    def hvp(self, outputs: Tensor, targets: Tensor, tangents: Tensor) -> Tensor:
        """Return ∂²ℓ/∂f² u; the matrix is diagonal over classes."""
        flat, labels, weights = self._flat(outputs, targets)
        ones = torch.ones_like(flat).unsqueeze(2)
        curvature = self.binary.hvp(flat, labels, ones).reshape(outputs.shape)
        return (weights * curvature).unsqueeze(2) * tangents

    def margin(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return f_y less the best other output."""
        labels = targets.long().unsqueeze(1)
        best_other = outputs.scatter(1, labels, float("-inf")).amax(1)
        return outputs.gather(1, labels).squeeze(1) - best_other

    def probability(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return σ(f_y) / Σ_a σ(f_a), where the binary loss has probabilities."""
        flat = outputs.reshape(-1, 1)
        ones = torch.ones(flat.shape[0], dtype=outputs.dtype, device=outputs.device)
        each = self.binary.probability(flat, ones).reshape(outputs.shape)
        return each.gather(1, targets.long().unsqueeze(1)).squeeze(1) / each.sum(1)

    def probabilities(self, outputs: Tensor) -> Tensor | None:
        """Return σ(f_c) / Σ_a σ(f_a), where the binary loss has probabilities."""
        flat = self.binary.probabilities(outputs.reshape(-1, 1))
        if flat is None:
            return None
        each = flat[:, 1].reshape(outputs.shape)
        return each / each.sum(1, keepdim=True)

    def check_targets(self, outputs: Tensor, targets: Tensor) -> None:
        """Raise unless targets are class indices below c."""
        check_labels(outputs, targets, outputs.shape[1])


@dataclass(frozen=True)
class LabelSet(Loss):
    r"""The sum of logistic losses over labels that are each there or not.

    ℓ(f, y) = Σ_k log(1 + e^{f_k}) − y_k f_k, y [b, k] of 0 and 1.

    Examples:
        >>> import torch
        >>> LabelSet()(torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 0.0]]))
        tensor([2.0794])
    """

    unit: ClassVar[str] = "nats, summed over labels"

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ℓ, [b]."""
        return functional.softplus(-signs_of(outputs, targets) * outputs).sum(1)

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return σ(f) − y, [b, k]."""
        return torch.sigmoid(outputs) - targets.to(outputs.dtype)

    def hvp(self, outputs: Tensor, targets: Tensor, tangents: Tensor) -> Tensor:
        """Return σ(f)(1 − σ(f)) u."""
        return (torch.sigmoid(outputs) * torch.sigmoid(-outputs)).unsqueeze(2) * tangents

    def margin(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the least clear of the labels, min_k ±f_k, [b]."""
        return (signs_of(outputs, targets) * outputs).amin(1)

    def probability(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the probability of the whole set of labels, e^{−ℓ}, [b]."""
        return torch.exp(-self(outputs, targets))

    def check_targets(self, outputs: Tensor, targets: Tensor) -> None:
        """Raise unless there is a 0 or a 1 for each label."""
        if targets.shape != outputs.shape or not bool(((targets == 0) | (targets == 1)).all()):
            raise InvalidInput(
                f"Expected a 0 or a 1 for each of {outputs.shape[-1]} labels. "
                f"Got targets of shape {list(targets.shape)}."
            )
