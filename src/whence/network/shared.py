"""Parameters that all examples of a batch share, given to a pass once for each of them.

A class token or a scale of channels enters by broadcasting: in its place each example can have a
copy of its own, with a gradient of its own. A table of positions is read once for the batch: what
was read can be expanded. Whether a module is of such a form is not known here: it counts where
outputs stay the same, and gradients agree with differentiation.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from whence.network.calls import ModuleCall

LEADING = -1  # the parameter's own first dimension, of length one, is that of the batch
_BETWEEN = (2, 1, 0)  # more dimensions than fit change the shape of the outputs, fewer may not


@final
@dataclass(frozen=True)
class Shared:
    """The parameters that are given to a pass once for each example.

    Args:
        read: Those of tables that are called once per batch, as position embeddings are.
        used: Those that enter by broadcasting, and how many dimensions of length one lie between
            that of the batch and their own, or `LEADING`.
    """

    read: frozenset[str] = frozenset()
    used: Mapping[str, int] = field(default_factory=dict)

    def among(self, names: Collection[str]) -> Shared:
        """Return those of some names."""
        used = {name: between for name, between in self.used.items() if name in names}
        return Shared(self.read & frozenset(names), used)

    def leaves(self, values: Mapping[str, Tensor], b: int) -> dict[str, Tensor]:
        """Return a copy of each that is used for each example, as leaves to differentiate in.

        Args:
            values: θ by name.
            b: The number of examples.
        """
        return {
            name: _copies(values[name].detach(), b, between).requires_grad_()
            for name, between in self.used.items()
        }


def places(shape: torch.Size) -> tuple[int, ...]:
    """Return the ways in which a parameter of a shape may enter by broadcasting, to be tried."""
    return (LEADING, *_BETWEEN) if shape and shape[0] == 1 else _BETWEEN


class Copies(nn.Module):
    """Stands for the copies of one parameter where calls of modules are listed."""

    value: ClassVar[str] = "value"


def calls_of(leaves: Mapping[str, Tensor]) -> list[ModuleCall]:
    """Return copies as calls, the output gradients of which are the gradients of each example.

    Args:
        leaves: Copies of parameters by name, as the pass had them.
    """
    return [
        ModuleCall(
            module=Copies(),
            inputs=leaf.detach(),
            edge=get_gradient_edge(leaf),
            shape=leaf.shape,
            dtype=leaf.dtype,
            names=((Copies.value, name),),
        )
        for name, leaf in leaves.items()
    ]


def _copies(value: Tensor, b: int, between: int) -> Tensor:
    """Return a parameter [...] as [b, 1, ..., ...]."""
    if between == LEADING:
        return value.expand(b, *value.shape[1:])
    return value.reshape(*[1] * between, *value.shape).expand(b, *[1] * between, *value.shape)
