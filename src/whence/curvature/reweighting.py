r"""Removals that change the weights of other examples too: class weights, divisors of a mean.

Column j removes one example and gives all others the weights W[:, j]. The factor of H and the
correction for the missing example are those of a plain removal; what the other weights change of
the curvature, of order 1/n, is left to the steps, each of which has the gradient exactly:

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
    def objective(self) -> Objective:  # type: ignore[override]
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
        """Return H′⁻¹ v with the removed example's own curvature taken out."""
        return self.removals.solve(v)

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
