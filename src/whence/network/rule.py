"""What is known of a kind of module: how its per-example gradients are made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from whence.network.calls import ModuleCall
from whence.network.gradients import Contribution


class Rule(ABC):
    """What is known of a kind of module with a parameter "weight", and perhaps a "bias".

    Attributes:
        by_inputs: Whether the weight is stored as [in, out].
        functional: Whether its call is that of a function of torch on its weight, within it.
        reads: Whether it is a table of which rows are read.
        names: The module's own names of its parameters.
    """

    by_inputs: ClassVar[bool] = False
    functional: ClassVar[bool] = False
    reads: ClassVar[bool] = False
    names: ClassVar[frozenset[str]] = frozenset({"weight", "bias"})

    def of_call(self, call: ModuleCall, name: str, delta: Tensor) -> Contribution | None:
        """Return the gradients of one parameter through one call, or `None` where none are known.

        Args:
            call: The call.
            name: One of `names`.
            delta: The derivatives of Σ_b m_b in its output, [b, ...].
        """
        return self.gradients(call.module, name, call.inputs, delta)

    def slopes(
        self, module: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]
    ) -> Tensor | None:
        """Return the derivative of the output in the weight, where it takes a call to know it.

        Args:
            module: The module, during its call.
            arguments: What it was called with.
            named: What it was called with by name.
        """
        return None

    @abstractmethod
    def gradients(self, module: Any, name: str, a: Tensor, delta: Tensor) -> Contribution | None:
        """Return the gradients of one parameter through one call, or `None` where none are known.

        Args:
            module: The module.
            name: "weight" or "bias".
            a: Its input, [b, ...].
            delta: The derivatives of Σ_b m_b in its output, [b, ...].
        """

    def multiplies(self, module: Any) -> bool:
        """Return whether the module is one matrix that multiplies its input at each position."""
        return False

    def activations(self, module: Any, a: Tensor) -> Tensor:
        """Return what the matrix multiplies, [b, t, in]."""
        return positions(a)

    def output_gradients(self, delta: Tensor) -> Tensor:
        """Return the gradients of its products, [b, t, out]."""
        return positions(delta)


def positions(tensor: Tensor) -> Tensor:
    """Return [b, ..., d] as [b, t, d].

    Args:
        tensor: Values at any number of positions.
    """
    return tensor.reshape(len(tensor), -1, tensor.shape[-1])
