"""One call of a module or of a function on its weight, as a forward pass lists it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge


@final
@dataclass(frozen=True, eq=False)
class ModuleCall:
    """One call of a module: its input, and the place of its output in the autograd graph.

    Args:
        module: The module.
        inputs: Its first argument, [b, ...].
        edge: The place of its output in the graph, before anything acts on it in place.
        shape: The shape of its output, [b, ...].
        dtype: The dtype of its parameters, read during the call, when they have values.
        names: Those of its selected parameters for which its kind has a rule: the module's own name
            for each, and its name in θ.
        rest: Its other arguments that are tensors, as they came.
        parameters: Its own parameters, with the values they have during the call.
        slopes: What its rule computed during the call, when all parameters have values.
    """

    module: nn.Module
    inputs: Tensor
    edge: GradientEdge
    shape: torch.Size
    dtype: torch.dtype
    names: tuple[tuple[str, str], ...]
    rest: tuple[Tensor, ...] = ()
    parameters: Mapping[str, Tensor] = field(default_factory=dict)
    slopes: Tensor | None = None
