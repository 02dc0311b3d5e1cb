r"""Newton steps of an objective whose example weights have changed.

Give example u the extra weight δ. The gradient at θ̂ becomes (δ/n) g_u and the curvature
H′ = H + (δ/n) J_uᵀ S_u J_u, S = ∂²ℓ/∂f². By Sherman–Morrison–Woodbury, with B = H⁻¹ J_uᵀ [p, c]
and the leverage K = J_u B [c, c],

```
H′⁻¹ v   = H⁻¹ v − B M (δ/n) S Bᵀ v,       M = (I + (δ/n) S K)⁻¹
newton:    Δ  = −(δ/n) B M ∂ℓ/∂f
refined:   Δ′ = Δ − H″⁻¹ r(θ̂ + Δ),           H″ = H′ with a BFGS update along Δ
```

Removal is δ = −w_u. r is the gradient of the changed objective less ∇R(θ̂): a fit that stopped
early is treated as the exact minimum of its tilted objective, so that only the change counts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from torch import Tensor

from whence.curvature.exact import Curvature, OfParameters
from whence.curvature.precision import iteration_rtol
from whence.linalg.cg import CG
from whence.linalg.operator import LinearOperator
from whence.linalg.signs import random_signs
from whence.linalg.solver import Inverse
from whence.objective.losses import output_hessian
from whence.objective.objective import Objective
from whence.objective.trained import Examples
from whence.tiles import tiles

_PROBES = 8  # random sums of the columns of B whose residuals are computed
SINGULAR = 1e-9  # 1 − leverage below which an example alone determines its prediction
_RTOL = 1e-10  # of a group's step in float64: as good as a factor, on which it is tested
_TILE = 2**23  # numbers in B for one tile of changes: 64 MB of float64


class Changes(ABC):
    """Objectives that differ from R in the weights of some examples; column j is the j-th.

    Attributes:
        parts: Examples, and the change of weight δ of each of them in each column, [m, k].
    """

    if TYPE_CHECKING:  # read-only: a field of one subclass, a property of another

        @property
        def objective(self) -> Objective:
            """R at θ̂."""

    parts: tuple[tuple[Examples, Tensor], ...]

    @abstractmethod
    def solve(self, v: Tensor) -> Tensor:
        """Return H′ⱼ⁻¹ vⱼ for each column, [p, k]."""

    @abstractmethod
    def initial_gradient(self) -> Tensor:
        """Return r(θ̂) = (1/n) Σ δ g, the gradient of the changed objective at θ̂, [p, k]."""

    @abstractmethod
    def first(self) -> Tensor:
        """Return the paper's linear prediction −(1/n) H⁻¹ Σ δ g, [p, k]."""

    @abstractmethod
    def newton(self) -> Tensor:
        """Return the Newton step −(1/n) H′⁻¹ Σ δ g, [p, k]."""

    def gradient(self, deltas: Tensor) -> Tensor:
        """Return r(θ̂ + δ): the changed objective's gradient less ∇R(θ̂), [p, k]."""
        objective, n = self.objective, len(self.objective.train)
        base = objective.weights.unsqueeze(1) / n
        here = objective.gradient_at(objective.train, base, deltas.new_zeros(len(deltas), 1))
        there = objective.gradient_at(objective.train, base.expand(-1, deltas.shape[1]), deltas)
        change = there - here + objective.l2.unsqueeze(1) * deltas
        for examples, weights in self.parts:
            change += objective.gradient_at(examples, weights / n, deltas)
        return change

    def refine(self, deltas: Tensor) -> Tensor:
        """Return the deltas after one more step: a fresh gradient, the same factor of H′.

        The step just taken, s = Δ, showed the curvature along itself: the gradient changed by
        y = r(θ̂ + Δ) − r(θ̂). A BFGS update puts that into H′⁻¹ at no cost, so that the next step
        also mends what the last got wrong in length. For a quadratic y = H′ s, and nothing changes.

        Args:
            deltas: Δ after a Newton step, [p, k].

        Returns:
            Δ′, [p, k].

        References:
            Nocedal & Wright (2006), equation 6.17.
        """
        here = self.gradient(deltas)
        change = here - self.initial_gradient()
        along = (change * deltas).sum(0)
        inverse_along = torch.where(along > 0, 1 / along, torch.zeros_like(along))
        a = inverse_along * (deltas * here).sum(0)
        step = self.solve(here - a * change)
        b = inverse_along * (change * step).sum(0)
        return deltas - step - (a - b) * deltas


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class SingleChanges(Changes):
    """One changed example per column; made by `single_changes`.

    Args:
        objective: R at θ̂.
        parts: The m examples, one per column, with diag(δ), [m, m].
        inverse: H⁻¹.
        b: B = H⁻¹ Jᵀ, [p, m, c].
        curvature: (δ/n) S, [m, c, c].
        inner: M, [m, c, c].
    """

    objective: Objective
    parts: tuple[tuple[Examples, Tensor]]
    inverse: Inverse
    b: Tensor
    curvature: Tensor
    inner: Tensor

    def select(self, columns: Tensor) -> SingleChanges:
        """Return only the named columns, nothing made anew."""
        ((examples, weights),) = self.parts
        return SingleChanges(
            objective=self.objective,
            parts=((examples.subset(columns.cpu().numpy()), weights[columns][:, columns]),),
            inverse=self.inverse,
            b=self.b[:, columns],
            curvature=self.curvature[columns],
            inner=self.inner[columns],
        )

    def solve(self, v: Tensor) -> Tensor:
        """Return H′ⱼ⁻¹ vⱼ."""
        correction = torch.einsum("pmc,pm->mc", self.b, v)
        correction = torch.einsum("mab,mbc,mc->ma", self.inner, self.curvature, correction)
        return self.inverse.matmat(v) - torch.einsum("pmc,mc->pm", self.b, correction)

    @cached_property
    def residual(self) -> float | None:
        """The relative residual of H B = Jᵀ on random signed sums of its columns.

        `None` where H is an approximation of the curvature: see `Inverse.substitute`.
        """
        if self.inverse.substitute:
            return None
        ((examples, _),) = self.parts
        m, c = self.b.shape[1:]
        generator = torch.Generator().manual_seed(0)
        signs = random_signs((m, c, _PROBES), generator, self.b)
        right = self.objective.vjp(examples, signs)
        left = self.inverse.operator.matmat(torch.einsum("pmc,mck->pk", self.b, signs))
        return float((right - left).norm() / right.norm()) if right.any() else 0.0

    def initial_gradient(self) -> Tensor:
        """Return (δ/n) g."""
        ((examples, weights),) = self.parts
        n = len(self.objective.train)
        return self.objective.gradient_sum(examples, self.objective.loss, weights / n)

    def first(self) -> Tensor:
        """Return −(δ/n) B ∂ℓ/∂f."""
        return self._combine(self._output_gradients())

    def newton(self) -> Tensor:
        """Return −(δ/n) B M ∂ℓ/∂f."""
        return self._combine(torch.einsum("mab,mb->ma", self.inner, self._output_gradients()))

    def _output_gradients(self) -> Tensor:
        """Return (δ/n) ∂ℓ/∂f, [m, c]."""
        ((examples, weights),) = self.parts
        outputs = self.objective.outputs(examples)
        gradient = self.objective.loss.gradient(outputs, examples.targets)
        return gradient * (weights.diagonal() / len(self.objective.train)).unsqueeze(1)

    def _combine(self, coefficients: Tensor) -> Tensor:
        """Return −B a."""
        return -torch.einsum("pmc,mc->pm", self.b, coefficients)


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class GroupChange(Changes):
    """Many examples changed together, in one column.

    Args:
        objective: R at θ̂.
        parts: Examples with δ, [m, 1].
        inverse: H⁻¹, from which H′⁻¹ is made or iterated.
    """

    objective: Objective
    parts: tuple[tuple[Examples, Tensor], ...]
    inverse: Inverse

    def solve(self, v: Tensor) -> Tensor:
        """Return H′⁻¹ v: in closed form where H⁻¹ has one, else by conjugate gradients on H′.

        The iteration is preconditioned by H⁻¹.
        """
        if self._downdated is not None:
            return self._downdated.matmat(v)
        changed = _ChangedCurvature(self.objective, self.inverse.operator, self)
        rtol = _RTOL if v.dtype == torch.float64 else iteration_rtol(v.dtype)
        return CG(rtol=rtol, preconditioner=self.inverse).prepare(changed).matmat(v)

    @cached_property
    def _downdated(self) -> LinearOperator | None:
        """H′⁻¹ in closed form, or `None` where H⁻¹ has none to offer."""
        if any(self.objective.outputs(examples).ndim != 2 for examples, _ in self.parts):
            return None
        rows = _CurvatureRoots(self.objective, self.parts)
        signs = [weights.sign().expand(-1, rows.c).reshape(-1) for _, weights in self.parts]
        return self.inverse.downdated(rows, torch.cat(signs))

    def first(self) -> Tensor:
        """Return −(1/n) H⁻¹ Σ δ g."""
        return -self.inverse.matmat(self.initial_gradient())

    def newton(self) -> Tensor:
        """Return −(1/n) H′⁻¹ Σ δ g."""
        return -self.solve(self.initial_gradient())

    def initial_gradient(self) -> Tensor:
        """Return (1/n) Σ δ g, [p, 1]."""
        objective, n = self.objective, len(self.objective.train)
        gradient = objective.params.new_zeros(len(objective.params), 1)
        for examples, weights in self.parts:
            gradient += objective.gradient_sum(examples, objective.loss, weights / n)
        return gradient


@final
@dataclass(frozen=True, eq=False, repr=False)
class _ChangedCurvature(Curvature):
    """H′ = H + (1/n) Σ δ Jᵀ S J."""

    objective: Objective
    curvature: LinearOperator
    change: GroupChange

    def matmat(self, V: Tensor) -> Tensor:
        """Return H′ V."""
        objective, n = self.objective, len(self.objective.train)
        product = self.curvature.matmat(V)
        for examples, weights in self.change.parts:
            outputs = objective.outputs(examples)
            curved = objective.loss.hvp(outputs, examples.targets, objective.jvp(examples, V))
            shares = (weights / n).reshape(len(weights), *[1] * (curved.ndim - 2), -1)
            product = product + objective.vjp(examples, curved * shares)
        return product


@final
@dataclass(frozen=True, eq=False, repr=False)
class _CurvatureRoots(OfParameters):
    """The rows √|δ/n| S^½ J of some examples: R with Rᵀ diag(sign δ) R = (1/n) Σ δ Jᵀ S J.

    Args:
        objective: R at θ̂.
        parts: Examples with δ, [m, 1].
    """

    objective: Objective
    parts: tuple[tuple[Examples, Tensor], ...]

    @property
    def c(self) -> int:
        """The number of outputs."""
        return self.objective.outputs(self.parts[0][0].subset(np.arange(1))).shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """One row per changed example and output, by p."""
        return self.c * sum(len(w) for _, w in self.parts), len(self.objective.params)

    def matmat(self, V: Tensor) -> Tensor:
        """Return R V."""
        return torch.cat([block.T @ V for block in self.row_blocks()])

    def rmatmat(self, W: Tensor) -> Tensor:
        """Return Rᵀ W."""
        return torch.cat(list(self.row_blocks()), 1) @ W

    def row_blocks(self) -> Iterator[Tensor]:
        """Yield the rows of each part as columns, [p, m c]."""
        objective = self.objective
        for examples, weights in self.parts:
            outputs = objective.outputs(examples)
            (m, c), p = outputs.shape, len(objective.params)
            curvature = output_hessian(objective.loss, outputs, examples.targets)
            values, vectors = torch.linalg.eigh(curvature)
            share = weights.abs().reshape(m, 1) / len(objective.train)
            roots = vectors * (values.clamp_min(0) * share).sqrt().unsqueeze(1)
            jacobians = objective.jacobians(examples).permute(2, 0, 1)
            yield torch.einsum("pma,mab->pmb", jacobians, roots).reshape(p, m * c)


def single_changes(
    objective: Objective, inverse: Inverse, examples: Examples, changes: Tensor
) -> SingleChanges:
    """Prepare the Newton steps of m objectives, each with one example's weight changed.

    Args:
        objective: R at θ̂.
        inverse: H⁻¹, [p, p].
        examples: The m examples, few enough that [p, m, c] fits: see `change_tiles`.
        changes: δ, [m].

    Returns:
        The changes, with B, M and S made once.

    Cost:
        m c solves with H.
    """
    m = len(examples)
    outputs = objective.outputs(examples)
    c = outputs.shape[1]
    jacobians = objective.jacobians(examples).permute(2, 0, 1)
    b = inverse.matmat(jacobians.reshape(-1, m * c)).reshape(-1, m, c)
    leverage = torch.einsum("pma,pmb->mab", jacobians, b)
    scale = (changes / len(objective.train)).reshape(m, 1, 1)
    curvature = scale * output_hessian(objective.loss, outputs, examples.targets)
    eye = torch.eye(c, dtype=b.dtype, device=b.device)
    return SingleChanges(
        objective=objective,
        parts=((examples, torch.diag(changes)),),
        inverse=inverse,
        b=b,
        curvature=curvature,
        inner=inverse_or_zero(eye + curvature @ leverage),
    )


def inverse_or_zero(matrices: Tensor) -> Tensor:
    """Return the inverses of I + (δ/n) S K, zero along directions in which they are singular.

    There the removed example alone determines its own prediction (leverage 1), which without a
    penalty it fits exactly: its gradient is zero, and the fit without it may stay as it is.

    Args:
        matrices: [m, c, c].

    Returns:
        The inverses, [m, c, c].
    """
    inverses: Tensor = torch.linalg.inv_ex(matrices).inverse
    singular = ~(inverses.abs().amax((1, 2)) <= 1 / SINGULAR)
    if singular.any():
        inverses[singular] = torch.linalg.pinv(matrices[singular], atol=SINGULAR, rtol=0.0)
    return inverses


def change_tiles(objective: Objective, m: int, c: int) -> Iterator[slice]:
    """Yield slices of at most m changes whose B [p, ·, c] stays within the tile size.

    Args:
        objective: R at θ̂.
        m: The number of changes.
        c: The number of outputs.

    Yields:
        Consecutive slices covering 0..m−1.
    """
    yield from tiles(m, len(objective.params) * c, _TILE, most=512)
