r"""What an optimizer multiplies gradients by, as its state says: one map per parameter.

| optimizer | state | map of a gradient G |
|---|---|---|
| Adam, AdamW, NAdam, RMSprop, Adagrad | v̂ | G / (√v̂ + ε) |
| Adafactor | v̂ from row and column means | the same |
| Muon | the momentum M | (M Mᵀ)^−½ G, as its Newton–Schulz steps give it |

Muon replaces M = U S Vᵀ by U f(S) Vᵀ, f near 1: a product of M with U f(S)/S Uᵀ, from the side that
is shorter. The same matrix is the map of the gradient of one example.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from whence.linalg import BlockDiagonal, Diagonal, LinearOperator, OneSided

_EPS = 1e-8  # of Adam, below the roots of its second moments
_MEANS = ("exp_avg_sq", "variance", "square_avg", "sum")  # names of v̂, or of v before correction
_QUINTIC = (3.4445, -4.7750, 2.0315)  # of Jordan's Newton–Schulz steps
_TINY = 1e-7


class Scaling(ABC):
    """What the gradient of one parameter is multiplied by; frozen."""

    kind: ClassVar[str]
    stored: Tensor

    @abstractmethod
    def fits(self, shape: torch.Size) -> bool:
        """Return whether it may be of a parameter of this shape."""

    @abstractmethod
    def operator(self, shape: torch.Size, like: Tensor) -> LinearOperator:
        """Return the map of the flat gradient.

        Args:
            shape: Of the parameter.
            like: What its dtype and device are.
        """


@final
@dataclass(frozen=True, eq=False)
class Elementwise(Scaling):
    """1/(√v̂ + ε) of each number.

    Args:
        stored: v̂, in the shape of the parameter.
    """

    kind: ClassVar[str] = "second"

    stored: Tensor

    def fits(self, shape: torch.Size) -> bool:
        """Return whether v̂ has this shape."""
        return self.stored.shape == shape

    def operator(self, shape: torch.Size, like: Tensor) -> LinearOperator:
        """Return the diagonal."""
        return Diagonal((1 / (self.stored.flatten().sqrt() + _EPS)).to(like))


@final
@dataclass(frozen=True, eq=False)
class Sided(Scaling):
    """A matrix on the shorter side of the gradient.

    Args:
        stored: The matrix, symmetric, [r, r] with r the shorter side.
    """

    kind: ClassVar[str] = "side"

    stored: Tensor

    def fits(self, shape: torch.Size) -> bool:
        """Return whether the shorter side is the matrix's."""
        return len(shape) == 2 and min(shape) == len(self.stored)

    def operator(self, shape: torch.Size, like: Tensor) -> LinearOperator:
        """Return the product from that side."""
        rows, columns = shape
        return OneSided(self.stored.to(like), (rows, columns), left=rows <= columns)


KINDS: tuple[type[Elementwise] | type[Sided], ...] = (Elementwise, Sided)


def scaling_of(state: Mapping[str, Any], group: Mapping[str, Any]) -> Scaling | None:
    """Return what a parameter's gradient is multiplied by, or `None` where the state does not say.

    Args:
        state: What the optimizer keeps for the parameter.
        group: The options of its group.
    """
    if "momentum_buffer" in state and ("ns_steps" in group or group.get("use_muon")):
        return Sided(orthogonalizer(torch.as_tensor(state["momentum_buffer"]), group))
    second = second_moment(state, group)
    return None if second is None else Elementwise(second)


def second_moment(state: Mapping[str, Any], group: Mapping[str, Any]) -> Tensor | None:
    """Return v̂: of Adam free of its start at zero, of Adafactor from its factors.

    Args:
        state: What the optimizer keeps for the parameter.
        group: The options of its group.

    Returns:
        E g², in the parameter's shape; `None` if the optimizer keeps none.
    """
    for name in _MEANS:
        if name in state:
            found = torch.as_tensor(state[name])
            if "betas" in group:
                found = found / (1 - float(group["betas"][1]) ** float(state["step"]))
            return found
    if "exp_avg_sq_row" in state:  # of the transformers library: vectors of means
        rows = state["exp_avg_sq_row"].unsqueeze(-1)
        columns = state["exp_avg_sq_col"].unsqueeze(-2)
    elif "row_var" in state:  # of torch
        rows, columns = state["row_var"], state["col_var"]
    else:
        return None
    return torch.as_tensor(rows / rows.mean(-2, keepdim=True) * columns)


def orthogonalizer(momentum: Tensor, group: Mapping[str, Any]) -> Tensor:
    """Return the matrix whose product with M is what Muon steps along, in units of its rate.

    Args:
        momentum: M, [m, d].
        group: The options of its group: the steps, their coefficients, the adjustment of the rate.

    Returns:
        U f(S)/S Uᵀ on the shorter side, [r, r], symmetric.
    """
    wide = momentum.double()
    m, d = wide.shape
    wide = wide.T if m > d else wide
    size = wide.norm().clamp_min(float(group.get("eps", _TINY)))
    squares, basis = torch.linalg.eigh(wide @ wide.T / size.square())
    x, ratio = squares.clamp_min(0).sqrt(), torch.ones_like(squares)
    a, b, c = group.get("ns_coefficients", _QUINTIC)
    for _ in range(int(group.get("ns_steps", 5))):
        step = a + b * x.square() + c * x.square().square()
        x, ratio = x * step, ratio * step
    adjusted = {"match_rms_adamw": 0.2 * math.sqrt(max(m, d))}
    rate = adjusted.get(str(group.get("adjust_lr_fn")), math.sqrt(max(1, m / d)))
    found: Tensor = (basis * (ratio * rate / size)) @ basis.T
    return found


def joined(
    scalings: Mapping[str, Scaling], shapes: Mapping[str, torch.Size], like: Tensor
) -> BlockDiagonal | None:
    """Return the map of θ's gradient, or `None` where that of a parameter is not known.

    Args:
        scalings: By the names of parameters.
        shapes: Of all parameters, in the order of θ.
        like: θ.
    """
    if not all(name in scalings for name in shapes):
        return None
    return BlockDiagonal(tuple(scalings[name].operator(shapes[name], like) for name in shapes))
