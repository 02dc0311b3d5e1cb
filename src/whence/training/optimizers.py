r"""Optimizer updates on flat states, each beside its adjoint.

A state stacks s vectors, [s, ..., p]: the parameters first, then the optimizer's own. Dimensions
in the middle are several trainings at once. The adjoint takes the cotangents of the state after
a step, x̄ = ∂m/∂x with k measures m as rows, to those before it:

```
state₊ = update(state, g)      g = clip(∇L(θ))
cotangents₊ [s, k, p]  →  ḡ [k, p]  and  cotangents [s, k, p] with g held fixed
```

What remains, θ̄ += ∇²L · clipᵀ(ḡ), is the only part that needs automatic differentiation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor


class Update(ABC):
    """The rule of an optimizer, as in `torch.optim`.

    Attributes:
        width: s, the number of vectors in a state.
        reads_gradient: Whether the adjoint needs the value of the gradient.
    """

    width: int
    reads_gradient: bool

    def start(self, params: Tensor) -> Tensor:
        """Return the first state: the parameters [..., p] and zeros, [s, ..., p]."""
        zeros = torch.zeros_like(params)
        return torch.stack([params, *[zeros] * (self.width - 1)])

    @abstractmethod
    def forward(self, state: Tensor, gradient: Tensor, rate: float, step: int) -> Tensor:
        """Return the state after step t = 0, 1, …, for the gradient [..., p]."""

    @abstractmethod
    def forward_(self, state: Sequence[Tensor], gradient: Tensor, rate: float, step: int) -> None:
        """Update the s tensors of a state, of any shape, in place, as `forward` does.

        In place and in few passes over memory; equal up to rounding.
        """

    @abstractmethod
    def adjoint(
        self,
        cotangents: Tensor,
        before: Tensor,
        after: Tensor,
        gradient: Tensor | None,
        rate: float,
        step: int,
    ) -> tuple[Tensor, Tensor]:
        """Return ḡ [k, p] and the cotangents [s, k, p] of the state before, g held fixed.

        Args:
            cotangents: Of the state after the step, [s, k, p].
            before: The state before the step, [s, p].
            after: The state after it, [s, p].
            gradient: g, [p]; `None` unless `reads_gradient`.
            rate: The learning rate of the step.
            step: t = 0, 1, ….
        """


@final
@dataclass(frozen=True, kw_only=True)
class SGD(Update):
    r"""m₊ = μ m + g + λθ, θ₊ = θ − η m₊ (Nesterov: θ − η (g + λθ + μ m₊)).

    Args:
        momentum: μ.
        nesterov: Whether Nesterov's form is used.
        weight_decay: λ.
    """

    momentum: float
    nesterov: bool
    weight_decay: float
    width: int = 2
    reads_gradient: bool = False

    def forward(self, state: Tensor, gradient: Tensor, rate: float, step: int) -> Tensor:
        """Return the state after a step."""
        params, momentum = state
        decayed = gradient.add(params, alpha=self.weight_decay)
        after = decayed.add(momentum, alpha=self.momentum)
        direction = decayed.add(after, alpha=self.momentum) if self.nesterov else after
        return torch.stack([params.sub(direction, alpha=rate), after])

    def forward_(self, state: Sequence[Tensor], gradient: Tensor, rate: float, step: int) -> None:
        """Update the state in place."""
        params, momentum = state
        decayed = gradient.add(params, alpha=self.weight_decay) if self.nesterov else gradient
        # One pass, where mul_ and add_ would take two.
        torch.add(gradient, momentum, alpha=self.momentum, out=momentum)
        if self.weight_decay:
            momentum.add_(params, alpha=self.weight_decay)
        direction = decayed.add_(momentum, alpha=self.momentum) if self.nesterov else momentum
        params.sub_(direction, alpha=rate)

    def adjoint(
        self,
        cotangents: Tensor,
        before: Tensor,
        after: Tensor,
        gradient: Tensor | None,
        rate: float,
        step: int,
    ) -> tuple[Tensor, Tensor]:
        """Return ḡ and the cotangents of the state before."""
        of_params, of_momentum = cotangents
        if self.nesterov:
            of_after = of_momentum.sub(of_params, alpha=rate * self.momentum)
            of_gradient = of_after.sub(of_params, alpha=rate)
        else:
            of_gradient = of_after = of_momentum.sub(of_params, alpha=rate)
        earlier = torch.empty_like(cotangents)
        torch.add(of_params, of_gradient, alpha=self.weight_decay, out=earlier[0])
        torch.mul(of_after, self.momentum, out=earlier[1])
        return of_gradient, earlier


@final
@dataclass(frozen=True, kw_only=True)
class Adam(Update):
    r"""m₊ = β₁m + (1 − β₁)g, v₊ = β₂v + (1 − β₂)g², θ₊ = θ − η m̂ / (√(v̂ + ε_root) + ε).

    m̂ = m₊/(1 − β₁ᵗ⁺¹) and v̂ = v₊/(1 − β₂ᵗ⁺¹). Coupled weight decay adds λθ to g; decoupled
    weight decay multiplies θ by 1 − ηλ first.

    Where v̂ + ε_root = 0, all gradients so far were zero; the derivative of the root, infinite
    there, is multiplied by m = 0 and counts as zero.

    Args:
        betas: β₁ and β₂.
        eps: ε.
        eps_root: ε_root.
        weight_decay: λ.
        decoupled: Whether the weight decay is decoupled (AdamW).
    """

    betas: tuple[float, float]
    eps: float
    eps_root: float
    weight_decay: float
    decoupled: bool
    width: int = 3
    reads_gradient: bool = True

    def forward(self, state: Tensor, gradient: Tensor, rate: float, step: int) -> Tensor:
        """Return the state after a step."""
        params, first, second = state
        decayed = self._decayed(params, gradient)
        first = torch.lerp(first, decayed, 1 - self.betas[0])
        second = (self.betas[1] * second).addcmul(decayed, decayed, value=1 - self.betas[1])
        root, scale = self._root(second, step), self._scale(rate, step)
        shrink = 1 - rate * self.weight_decay if self.decoupled else 1.0
        params = (params * shrink).addcdiv(first, root + self.eps, value=-scale)
        return torch.stack([params, first, second])

    def forward_(self, state: Sequence[Tensor], gradient: Tensor, rate: float, step: int) -> None:
        """Update the state in place."""
        params, first, second = state
        decayed = self._decayed(params, gradient)
        first.lerp_(decayed, 1 - self.betas[0])
        second.mul_(self.betas[1]).addcmul_(decayed, decayed, value=1 - self.betas[1])
        denominator = self._root(second, step).add_(self.eps)
        if self.decoupled:
            params.mul_(1 - rate * self.weight_decay)
        params.addcdiv_(first, denominator, value=-self._scale(rate, step))

    def adjoint(
        self,
        cotangents: Tensor,
        before: Tensor,
        after: Tensor,
        gradient: Tensor | None,
        rate: float,
        step: int,
    ) -> tuple[Tensor, Tensor]:
        """Return ḡ and the cotangents of the state before."""
        assert gradient is not None
        of_params, of_first, of_second = cotangents
        decayed = self._decayed(before[0], gradient)
        root, scale = self._root(after[2], step), self._scale(rate, step)
        correction = 1 - self.betas[1] ** (step + 1)
        slope = torch.where(root > 0, 1 / (2 * root * correction), torch.zeros_like(root))
        denominator = root + self.eps
        of_first = of_first - of_params * (scale / denominator)
        of_second = of_second + of_params * (scale * slope * after[1] / denominator.square())
        of_gradient = (1 - self.betas[0]) * of_first + of_second * (
            2 * (1 - self.betas[1]) * decayed
        )
        if self.decoupled:
            of_before = of_params * (1 - rate * self.weight_decay)
        else:
            of_before = of_params + self.weight_decay * of_gradient
        earlier = torch.stack([of_before, self.betas[0] * of_first, self.betas[1] * of_second])
        return of_gradient, earlier

    def _decayed(self, params: Tensor, gradient: Tensor) -> Tensor:
        """Return the gradient with coupled weight decay added."""
        return gradient if self.decoupled else gradient.add(params, alpha=self.weight_decay)

    def _root(self, second: Tensor, step: int) -> Tensor:
        """Return √(v̂ + ε_root)."""
        return (second / (1 - self.betas[1] ** (step + 1)) + self.eps_root).sqrt()

    def _scale(self, rate: float, step: int) -> float:
        """Return η/(1 − β₁ᵗ⁺¹)."""
        return float(rate / (1 - self.betas[0] ** (step + 1)))


# As in torch.nn.utils.clip_grad_norm_.
_CLIP_EPS = 1e-6


def clip(gradient: Tensor, max_norm: float | None) -> Tensor:
    """Return min(1, M / (‖g‖ + 1e-6)) g, as `torch.nn.utils.clip_grad_norm_` does.

    Args:
        gradient: g, [..., p].
        max_norm: M > 0, or `None` for g itself.

    Returns:
        The clipped gradient, [..., p].
    """
    if max_norm is None:
        return gradient
    norm: Tensor = torch.linalg.vector_norm(gradient, dim=-1, keepdim=True)
    return gradient * (max_norm / (norm + _CLIP_EPS)).clamp_max(1.0)


def clip_adjoint(cotangents: Tensor, gradient: Tensor, max_norm: float) -> Tensor:
    """Return the cotangents of g for those of clip(g).

    Args:
        cotangents: Of the clipped gradient, [k, p].
        gradient: g before clipping, [p].
        max_norm: M > 0.

    Returns:
        Cotangents of g, [k, p]. On the kink itself, of measure zero, those of the identity.
    """
    norm: Tensor = torch.linalg.vector_norm(gradient)
    factor: Tensor = max_norm / (norm + _CLIP_EPS)
    if float(factor) >= 1:
        return cotangents
    along = (cotangents @ gradient) * factor / ((norm + _CLIP_EPS) * norm)
    return factor * cotangents - along.unsqueeze(1) * gradient
