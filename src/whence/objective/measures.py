"""What is predicted about a query: a differentiable number made of the model's outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from whence.checked import said, written
from whence.errors import InvalidInput

OutputFunction = Callable[[Tensor, Tensor], Tensor]

_TAKES = "a measure that takes (outputs, targets)"


class Measure(ABC):
    """A number m(f, y) per example, with its gradient in the outputs f.

    Outputs have shape [b, c] (or [b, t, c] for sequences), targets [b] (or [b, t]),
    values [b].

    Attributes:
        zero_sum: Whether Σ_c ∂m/∂f_c = 0: only differences of outputs count, as under softmax.
    """

    zero_sum: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return m(f, y), shape [b]."""

    @abstractmethod
    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ∂m/∂f, in the shape of `outputs`."""


def autodiff_gradient(function: OutputFunction, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return ∂/∂f Σ_b function(f, y)_b by reverse-mode differentiation.

    Args:
        function: Maps (outputs, targets) to one value per example.
        outputs: The outputs, [b, c] or [b, t, c].
        targets: The targets, [b] or [b, t].

    Returns:
        The gradient, in the shape of `outputs`.

    Raises:
        InvalidInput: If the function does not give one differentiable value per example.
    """
    with torch.enable_grad():
        leaf = outputs.detach().clone().requires_grad_()
        values = function(leaf, targets)
        if values.shape != outputs.shape[:1]:
            raise InvalidInput(
                f"Expected one value per example, shape ({outputs.shape[0]},). "
                f"Got shape {tuple(values.shape)}. Return an unreduced value "
                "(for torch losses: reduction='none', then sum over all but the first dimension)."
            )
        if not values.requires_grad:
            raise InvalidInput(
                "Expected a differentiable function of the outputs. Got one whose result does "
                "not depend on them through torch operations. Avoid .detach(), .item() and numpy."
            )
        (gradient,) = torch.autograd.grad(values.sum(), leaf)
    return gradient


@dataclass(frozen=True)
class CallableMeasure(Measure):
    """A user's function of (outputs, targets), differentiated automatically.

    Args:
        function: Maps outputs [b, c] and targets [b] to values [b].
    """

    function: OutputFunction

    def __repr__(self) -> str:
        """Return the options, a function by its name."""
        return written(self)

    @property
    def name(self) -> str:
        """The name of the function."""
        return measure_name(self.function)

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the function's values, [b]."""
        with said(_TAKES):
            values = self.function(outputs, targets)
        shape = tuple(values.shape) if isinstance(values, Tensor) else None
        if shape == tuple(outputs.shape[:1]):
            return values
        got = repr(values) if shape is None else str(shape)
        raise InvalidInput(
            f"Expected one value per example, shape ({outputs.shape[0]},). Got {got}. Return an "
            "unreduced tensor; a number of all queries together is a measure of a set, which "
            "whence.influence, whence.group_effect and whence.removal_curve take."
        )

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ∂m/∂f by reverse-mode differentiation."""
        with said(_TAKES):
            return autodiff_gradient(self.function, outputs, targets)


def measure_name(measure: object) -> str:
    """Return what a measure is called in results.

    Args:
        measure: As users pass it.

    Returns:
        Its own name.
    """
    if isinstance(measure, str):
        return measure
    called = getattr(measure, "__name__", type(measure).__name__)
    return str(getattr(measure, "name", called))
