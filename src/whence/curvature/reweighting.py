r"""Removals that change the weights of other examples too: class weights, divisors of a mean.

Column j removes one example and gives all others the weights W[:, j]. The factor of H and the
correction for the missing example are those of a plain removal; what the other weights change of
the curvature, of order 1/n, iterative refinement puts right. The gradient of the changed objective:

```
r(θ̂ + Δ) = (1/n) Σᵢ Wᵢ gᵢ(θ̂ + Δ) + Ω′(θ̂ + Δ) − ∇R(θ̂)
```
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from whence.curvature.changes import Changes, SingleChanges
from whence.objective.objective import Objective

_REFINEMENTS = 8
_RTOL = 1e-9  # of the residual of a step


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Reweightings(Changes):
    """One removed example per column, with the weights that all others then have.

    Args:
        removals: The removals by themselves.
        after: W, [n, m].
    """

    removals: SingleChanges
    after: Tensor

    @property
    def objective(self) -> Objective:
        """R at θ̂."""
        return self.removals.objective

    @property
    def residual(self) -> float | None:
        """The relative residual of the solves behind the removals."""
        return self.removals.residual

    def select(self, columns: Tensor) -> Reweightings:
        """Return only the named columns, nothing made anew."""
        return Reweightings(removals=self.removals.select(columns), after=self.after[:, columns])

    def solve(self, v: Tensor) -> Tensor:
        """Return H′⁻¹ v: by the factor of H without the removed example, refined on H′ itself."""
        solution = self.removals.solve(v)
        size = v.norm(dim=0)
        previous = torch.full_like(size, torch.inf)
        for _ in range(_REFINEMENTS):
            residual = v - self._product(solution)
            left = residual.norm(dim=0)
            better = (left > _RTOL * size) & (left < previous)
            if not better.any():
                break
            solution[:, better] += self.removals.solve(residual)[:, better]
            previous = left
        return solution

    def _product(self, v: Tensor) -> Tensor:
        """Return H′ⱼ vⱼ for each column, [p, m]."""
        objective, n = self.objective, len(self.objective.train)
        train = objective.train
        tangents = objective.jvp(train, v)
        curved = objective.loss.hvp(objective.outputs(train), train.targets, tangents)
        data = objective.vjp(train, curved * (self.after / n).unsqueeze(1))
        return data + objective.l2.unsqueeze(1) * v

    def initial_gradient(self) -> Tensor:
        """Return (1/n) Σ (Wᵢ − wᵢ) gᵢ, [p, m]."""
        objective = self.objective
        change = (self.after - objective.weights.unsqueeze(1)) / len(objective.train)
        return objective.gradient_sum(objective.train, objective.loss, change)

    def first(self) -> Tensor:
        """Return −H⁻¹ r(θ̂)."""
        return -self.removals.inverse.matmat(self.initial_gradient())

    def newton(self) -> Tensor:
        """Return −H′⁻¹ r(θ̂)."""
        return -self.solve(self.initial_gradient())

    def gradient(self, deltas: Tensor) -> Tensor:
        """Return r(θ̂ + δ), [p, m]."""
        objective, n = self.objective, len(self.objective.train)
        base = objective.weights.unsqueeze(1) / n
        here = objective.gradient_at(objective.train, base, deltas.new_zeros(len(deltas), 1))
        there = objective.gradient_at(objective.train, self.after / n, deltas)
        return there - here + objective.l2.unsqueeze(1) * deltas


def kept_without(n: int, removed: Tensor) -> Tensor:
    """Return 1 for the examples that stay and 0 for the removed one, in each column, [n, m].

    Args:
        n: The number of training examples.
        removed: The position removed in each column, [m].
    """
    kept = torch.ones(n, len(removed), dtype=torch.float64)
    kept[removed, torch.arange(len(removed))] = 0
    return kept
