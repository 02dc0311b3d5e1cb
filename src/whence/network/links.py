r"""Where the network ends and the loss begins: losses of probabilities, in terms of logits.

The Gauss–Newton matrix Jᵀ S J takes S = ∂²ℓ/∂f² in the outputs f. Where the last activation is part
of the network, S is not that of the logits: −f_y has S = 0 although softmax and −log p together
have S = diag(p) − p pᵀ. Values and gradients in θ are the same either way; the curvature is not.
Functions that are recognized get the curvature in the logits:

```
f = log softmax(z)    S = diag(p) − p pᵀ, p = eᶠ      the cross entropy of f itself, as Σ eᶠ = 1
p = softmax(z)        S = diag(1/p)                   as Jᵀ S J = J_zᵀ (diag(p) − p pᵀ) J_z
s = sigmoid(z)        S = 1/(s (1 − s))
```

Functions that are one of whence's losses, times a weight for each class, are known as such: they
have classes, probabilities and predictions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from typing import ClassVar, TypeAlias, final

import torch
from torch import Tensor
from torch.nn import functional

from whence.objective.derived_losses import CallableLoss, Recognized
from whence.objective.losses import CrossEntropy, Logistic, Loss, SquaredError
from whence.objective.measures import OutputFunction
from whence.objective.targets import counted, target_classes
from whence.objective.weighted_losses import ClassWeighted, Multiple

_ROWS, _NUMBERS = 16, 2**22  # random outputs on which two losses must agree, and their size
_CLOSE = 1e-3  # relative, in float32; other functions are far off
_LOG_SOFTMAX = "log probabilities", "log softmax"


@final
@dataclass(frozen=True)
class OfSoftmax(Recognized):
    """A user's loss w_y · (−log p_y) of probabilities p, with the curvature of their logits.

    Args:
        function: The user's loss.
        weights: w of each class, [c].
    """

    classifies: ClassVar[bool] = True
    unit: ClassVar[str] = "nats"

    weights: tuple[float, ...]

    def hvp(self, outputs: Tensor, targets: Tensor, tangents: Tensor) -> Tensor:
        """Return w_y u/p."""
        labels, counts = counted(targets, CrossEntropy().ignore_index)
        weights = (outputs.new_tensor(self.weights)[labels] * counts).reshape(-1, 1)
        return (weights / _bounded(outputs)).unsqueeze(-1) * tangents

    def margin(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the log odds of the true class, [b]; 0 without a target."""
        p = self._of_target(outputs, targets, 0.5)
        return torch.log(p) - torch.log1p(-p)

    def probability(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return p_y, [b]; 1 without a target."""
        return self._of_target(outputs, targets, 1.0)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Return p, [b, c]."""
        return outputs

    def check_targets(self, outputs: Tensor, targets: Tensor) -> None:
        """Raise unless targets are class indices below c, or without a loss."""
        CrossEntropy().check_targets(outputs, targets)

    def _of_target(self, outputs: Tensor, targets: Tensor, ignored: float) -> Tensor:
        """Return p_y, or another number for a target without a loss, [b]."""
        labels, counts = counted(targets, CrossEntropy().ignore_index)
        return torch.where(counts, outputs.gather(-1, labels.unsqueeze(-1)).squeeze(-1), ignored)


@final
@dataclass(frozen=True)
class OfSigmoid(Recognized):
    """A user's binary cross entropy of probabilities s, with the curvature of their logits.

    Args:
        function: The user's loss, the sum over outputs of scale · (−y log s − (1−y) log(1−s)).
        scale: The scale.
    """

    classifies: ClassVar[bool] = True
    unit: ClassVar[str] = "nats"

    scale: float

    def hvp(self, outputs: Tensor, targets: Tensor, tangents: Tensor) -> Tensor:
        """Return u/(s (1 − s)), times the scale."""
        variance = _bounded(outputs) * _bounded(1 - outputs)
        return (self.scale / variance).unsqueeze(-1) * tangents

    def margin(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the log odds of the true label of one output, [b]."""
        return Logistic().margin(torch.logit(outputs), targets)

    def probability(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the probability of the target, [b]."""
        y = targets.to(outputs.dtype).reshape(outputs.shape)
        return (y * outputs + (1 - y) * (1 - outputs)).prod(-1)

    def probabilities(self, outputs: Tensor) -> Tensor | None:
        """Return 1 − s and s of one output, [b, 2]; `None` of several labels."""
        return torch.cat([1 - outputs, outputs], -1) if outputs.shape[-1] == 1 else None

    def check_targets(self, outputs: Tensor, targets: Tensor) -> None:
        """Raise unless the function takes the targets."""
        self.function.check_targets(outputs, targets)


@singledispatch
def linked(loss: Loss, outputs: Tensor, targets: Tensor) -> tuple[Loss, tuple[str, ...]]:
    """Return a loss with the curvature of the logits, where a user's function is recognized.

    Args:
        loss: ℓ.
        outputs: f of the first examples, [b, ...].
        targets: The targets of all training examples, [n, ...].

    Returns:
        A loss of the same value and gradient on such outputs, and what a reader of the results must
        know of it, a sentence each.
    """
    return loss, ()


@linked.register
def _(loss: CallableLoss, outputs: Tensor, targets: Tensor) -> tuple[Loss, tuple[str, ...]]:
    with torch.no_grad():
        found, folded = _recognized(loss, outputs, targets)
    if folded is not None:
        outside, activation = folded
        return found, (
            f"The outputs are {outside}: the {activation} at the end of the model counts as part "
            "of the loss, so that the curvature is that in the logits.",
        )
    if found is loss and _linear(loss, outputs, targets[: len(outputs)]):
        return found, (
            "The loss has no curvature in the outputs of the model: the Gauss-Newton matrix, EKFAC "
            "and KFAC hold nothing but the penalty and the damping. Move the last activation from "
            "the model into the loss, or invert the Hessian.",
        )
    return found, ()


_Found: TypeAlias = tuple[Loss, tuple[str, str] | None]


def _recognized(loss: CallableLoss, outputs: Tensor, targets: Tensor) -> _Found:
    """Return the form of a function with the curvature of the logits, and what was folded into it.

    The function itself where it has no such form.
    """
    c, some = outputs.shape[-1], targets[: len(outputs)]
    if targets.shape[1:] == outputs.shape[1:-1] and not targets.is_floating_point() and c > 1:
        classes = torch.unique(targets[targets != CrossEntropy().ignore_index])
        if len(classes) and int(classes[0]) >= 0 and int(classes[-1]) < c:
            found = _of_classes(loss, outputs, some, classes)
            if found is not None:
                return found
    if c > 1 and _log_probabilities(outputs) and _linear(loss, outputs, some, 100):
        return CallableLoss(_Through(loss.function)), _LOG_SOFTMAX
    binary = bool(((targets == 0) | (targets == 1)).all())
    if outputs.ndim != 2 or some.numel() != outputs.numel():
        return loss, None
    found = _of_labels(loss, outputs, some) if binary else (loss, None)
    return (_of_numbers(loss, outputs, some), None) if found[0] is loss else found


def _of_classes(
    loss: CallableLoss, outputs: Tensor, targets: Tensor, classes: Tensor
) -> _Found | None:
    """Return the form of a function of class indices, or `None`."""
    cross = CrossEntropy()
    z, y = _at_random(outputs, classes)
    log_p = torch.log_softmax(z, -1)
    if _agree(loss, cross, outputs, targets):
        if _agree(loss, cross, z, y):
            return cross, None
        if _log_probabilities(outputs) and _agree(loss, cross, log_p, y):
            return cross, _LOG_SOFTMAX
    sums = (outputs.sum(-1) - 1).abs()
    if outputs.ndim == 2 and bool(((sums <= _CLOSE) & (outputs.amin(-1) >= 0)).all()):
        ratios = _ratios(loss, cross, z, y, log_p.exp())
        if ratios is not None:
            weights = torch.ones_like(outputs[0]).scatter(0, y, ratios)
            if torch.allclose(weights[y], ratios, rtol=_CLOSE):
                return OfSoftmax(loss, tuple(weights.tolist())), ("probabilities", "softmax")
    if outputs.ndim == 2 and len(z) >= len(classes):
        shares = _weights(loss, cross, (outputs, targets), (z, y), outputs.shape[1])
        if shares is not None:
            return ClassWeighted(loss, cross, shares), None
    return None


def _log_probabilities(outputs: Tensor) -> bool:
    """Return whether outputs are log probabilities: their exponentials sum to one."""
    return bool((outputs.logsumexp(-1).abs() <= _CLOSE).all())


def _of_labels(loss: CallableLoss, outputs: Tensor, targets: Tensor) -> _Found:
    """Return the form of a function of labels 0 and 1, one per output."""
    z, _ = _at_random(outputs, targets.new_zeros(1))
    y = (torch.arange(z.numel(), device=z.device) % 2).to(targets.dtype)
    y = y.reshape(len(z), *targets.shape[1:])
    # Logits go to a function that has shown to take them: one of probabilities, given logits, ends
    # every later use of a GPU.
    logistic = Logistic()
    own = outputs.shape[1] == 1 and _agree(loss, logistic, outputs, targets)
    if own and _agree(loss, logistic, z, y):
        return logistic, None
    if bool(((outputs >= 0) & (outputs <= 1)).all()):
        ratios = _ratios(loss, CallableLoss(_binary), z, y, torch.sigmoid(z))
        if ratios is not None and torch.allclose(ratios, ratios.mean(), rtol=_CLOSE):
            return OfSigmoid(loss, float(ratios.mean())), ("probabilities", "sigmoid")
    if outputs.shape[1] == 1:
        shares = _weights(loss, logistic, (outputs, targets), (z, y), 2)
        if shares is not None:
            return ClassWeighted(loss, logistic, shares), None
    return loss, None


def _of_numbers(loss: CallableLoss, outputs: Tensor, targets: Tensor) -> Loss:
    """Return the form of a function of numbers: a multiple of the squared error, or itself."""
    squared = SquaredError()
    z, _ = _at_random(outputs, targets.new_zeros(1))
    y = (z.flip(0) * 2).reshape(len(z), *targets.shape[1:])
    if not targets.is_floating_point():
        return loss
    shares = _weights(loss, squared, (outputs, targets), (z, y), 1)
    if shares is None:
        return loss
    return squared if abs(shares[0] - 1) <= _CLOSE else Multiple(loss, shares[0])


_Pair: TypeAlias = tuple[Tensor, Tensor]  # outputs and targets


def _weights(
    loss: CallableLoss, own: Loss, given: _Pair, random: _Pair, c: int
) -> tuple[float, ...] | None:
    """Return what a function is one of whence's losses times, for each of c classes, or `None`.

    Random outputs are tried only if the given ones agree.

    Args:
        loss: The function.
        own: The loss.
        given: Outputs of the model, with their targets.
        random: Random outputs, with targets.
        c: How many classes there are, each with a weight of its own; 1 for numbers.
    """
    z, y = random
    several = torch.cat([z, 2 * z + 0.5 * z.flip(0), -z]), torch.cat([y, y, y])  # of each class
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    for f, labels in (given, several):
        a, b = _value(loss, f, labels), _value(own, f, labels)
        if a is None or b is None:
            return None
        which = target_classes(labels) if c > 1 else torch.zeros_like(b, dtype=torch.long)
        if c == 2 and len(a) <= len(torch.unique(which)):
            return None  # one output of each class shows nothing
        over, under = (b.new_zeros(c).index_add(0, which, part) for part in (a, b))
        weights = torch.where(under > 0, over / under, torch.ones_like(over))
        seen.append((which, a, b))
        if not all(
            torch.allclose(
                left, weights[at] * right, rtol=_CLOSE, atol=1e-5 * float(left.abs().max())
            )
            for at, left, right in seen
        ):
            return None
    return tuple(weights.tolist()) if bool((weights > 0).all()) else None


def _at_random(outputs: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Return random outputs [b, ...] like some, with labels that take each class in turn."""
    shape = outputs.shape[1:]
    b = min(max(_ROWS, len(classes)), max(2, _NUMBERS // shape.numel()))
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(b, *shape, generator=generator, dtype=torch.float64).to(outputs)
    turn = torch.arange(z.shape[:-1].numel(), device=z.device) % len(classes)
    return z, classes[turn].reshape(z.shape[:-1])


def _binary(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the sum over outputs of the binary cross entropies of logits, [b]."""
    y = targets.to(outputs.dtype).reshape(outputs.shape)
    each = functional.binary_cross_entropy_with_logits(outputs, y, reduction="none")
    return each.flatten(1).sum(1)


@final
@dataclass(frozen=True)
class _Through:
    """A function of log probabilities as one of logits, of which they are the same."""

    function: OutputFunction

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the function of log softmax(f)."""
        return self.function(torch.log_softmax(outputs, -1), targets)


def _value(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor | None:
    """Return a loss, or `None` where a user's function does not take such outputs."""
    try:
        found = loss(outputs, targets)
    except Exception:  # a user's function, on outputs that are not the user's
        return None
    return found if found.shape == (len(outputs),) and bool(torch.isfinite(found).all()) else None


def _agree(one: Loss, other: Loss, outputs: Tensor, targets: Tensor) -> bool:
    """Return whether two losses have the same values."""
    a, b = _value(one, outputs, targets), _value(other, outputs, targets)
    return a is not None and b is not None and torch.allclose(a, b, rtol=_CLOSE, atol=1e-5)


def _ratios(
    loss: Loss, of_logits: Loss, z: Tensor, y: Tensor, probabilities: Tensor
) -> Tensor | None:
    """Return a loss of probabilities over one of their logits z, [b], or `None` if not positive."""
    a, b = _value(loss, probabilities, y), _value(of_logits, z, y)
    return a / b if a is not None and b is not None and bool((a > 0).all()) else None


def _linear(loss: Loss, outputs: Tensor, targets: Tensor, rounding: float = 0.0) -> bool:
    """Return whether a loss has slopes and no curvature in the outputs, as −f_y and |f − y| have.

    Args:
        loss: ℓ.
        outputs: f, [b, ...].
        targets: Targets.
        rounding: Units of the last place of the slopes that a curvature may have.
    """
    signs = torch.arange(outputs.numel(), device=outputs.device) % 3 - 1
    probe = signs.to(outputs).reshape(*outputs.shape, 1)
    slope = float(loss.gradient(outputs, targets).abs().max())
    curved = float(loss.hvp(outputs, targets, probe).abs().max())
    return slope > 0 and curved <= rounding * torch.finfo(outputs.dtype).eps * slope


def _bounded(probabilities: Tensor) -> Tensor:
    """Return probabilities of at least a unit of rounding, below which products lose them."""
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).eps)
