r"""What every training row does to a measure through the features, by one backward pass.

With v = H⁻¹∇m the measure moves with the features Φ of the training rows and φ of the queries as

```
L = m(φ θ) − vᵀ ∇_θ R(Φ, θ),      Φ̄ⱼ = −(wⱼ/n) (eⱼ v + (Sⱼ uⱼ) θ),   φ̄ = ∂m/∂f · θ
```

where e = ∂ℓ/∂f, S = ∂²ℓ/∂f² and u = Φ v. Both adjoints go back through the transformers at once.

Rows are seen by the features only through the statistics s. Of many quantities the derivatives are

```
−dL/dk = (ds/dk)ᵀ (V M + ∂m/∂s),        M = ∂(∇_θ R)/∂s
```

where ds/dk [s, n] and M [p, s] are those of the model, whatever is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.preprocessing.columns import Columns, Rows
from whence.preprocessing.step import Statistics, Step


@dataclass(frozen=True, eq=False, kw_only=True)
class Adjoints:
    """Φ̄ and φ̄ of k quantities, as products of thin matrices.

    Args:
        pulls: wⱼ eⱼ / n, [n, c].
        bends: wⱼ Sⱼ uⱼ / n of each quantity, [n, c, k].
        slopes: ∂m/∂f of the queries, weighted by their shares, [q, c, k].
        theta: θ, [c, d].
        directions: v of each quantity, [c, d, k].
    """

    pulls: Tensor
    bends: Tensor
    slopes: Tensor
    theta: Tensor
    directions: Tensor

    def of_train(self, rows: Columns, k: int) -> Tensor:
        """Return −Φ̄ of quantity k, in the shape of the numbers that the columns hold."""
        return rows.outer(self.pulls, self.directions[..., k]) + rows.outer(
            self.bends[..., k], self.theta
        )

    def of_queries(self, rows: Columns, k: int) -> Tensor:
        """Return −φ̄ of quantity k."""
        return -rows.outer(self.slopes[..., k], self.theta)

    def of_rows(self, where: NDArray[np.intp]) -> Adjoints:
        """Return those of some training rows."""
        at = torch.from_numpy(where)
        return replace(self, pulls=self.pulls[at], bends=self.bends[at])

    def padded(self, n: int) -> Adjoints:
        """Return those of n training rows, the last of which have no weight."""
        return replace(self, pulls=padded(self.pulls, n), bends=padded(self.bends, n))


@dataclass(frozen=True, eq=False, kw_only=True)
class Jacobian:
    """What rows do to the statistics of a fit, and these to its gradient.

    Args:
        statistics: s.
        of_rows: ds/dk, [s, n].
        of_gradient: −∂(∇_θ R)/∂s, [s, p].
    """

    statistics: Statistics
    of_rows: Tensor
    of_gradient: Tensor

    def effects(
        self, step: Step, queries: Rows, slopes: Tensor, theta: Tensor, directions: Tensor
    ) -> Tensor:
        """Return −dL/dk of quantities, [n, k].

        Args:
            step: The transformers.
            queries: The queries' rows, [q].
            slopes: ∂m/∂f of the queries, weighted by their shares, [q, c, k].
            theta: θ, [c, d].
            directions: v of each quantity, [p, k].
        """
        leaves = self.statistics.leaves()
        with torch.enable_grad():
            moved = step.of_others(queries, leaves)
            weights = (-moved.outer(one, theta) for one in slopes.unbind(2))
            parts = [_in_leaves(moved, weight, leaves) for weight in weights]
        return self.of_rows.T @ (self.of_gradient @ directions + torch.stack(parts, 1))


def jacobian(step: Step, rows: Rows, kept: Tensor, adjoints: Adjoints) -> Jacobian:
    """Return the Jacobian of transformers.

    Args:
        step: The transformers.
        rows: The training rows, [n].
        kept: 1 for each of them, [n].
        adjoints: Those of the gradient's p components, as quantities.

    Cost:
        A backward pass through the transformers for each statistic and for each component.
    """
    with torch.enable_grad():
        there = kept.detach().requires_grad_()
        found = step.fitted(rows, there)
        each = (one for part in found.tensors() for one in part.flatten())
        of_rows = [_derivatives(one, [there])[0] for one in each]
        leaves = found.leaves()
        moved = step.of_train(rows, leaves)
        weights = (adjoints.of_train(moved, k) for k in range(adjoints.directions.shape[-1]))
        of_gradient = [_in_leaves(moved, weight, leaves) for weight in weights]
    return Jacobian(
        statistics=leaves,
        of_rows=torch.stack(of_rows),
        of_gradient=torch.stack(of_gradient, 1),
    )


def _in_leaves(moved: Columns, weights: Tensor, leaves: Statistics) -> Tensor:
    """Return the derivative of a weighted sum of cells in all leaves, laid out flat."""
    parts = _derivatives((moved.values * weights).sum(), leaves.tensors())
    return torch.cat([part.flatten() for part in parts])


def _derivatives(one: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """Return the derivatives of a number in leaves, zero in those it does not depend on."""
    if not one.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad(one, leaves, retain_graph=True, allow_unused=True)
    pairs = zip(found, leaves, strict=True)
    return [torch.zeros_like(leaf) if part is None else part for part, leaf in pairs]


def padded(rows: Tensor, n: int) -> Tensor:
    """Return rows with zeros below, up to n.

    Args:
        rows: [m, ...].
        n: >= m.
    """
    if len(rows) == n:
        return rows
    return torch.cat([rows, rows.new_zeros(n - len(rows), *rows.shape[1:])])


def pulled_back(
    train: Columns, queries: Columns | None, adjoints: Adjoints, inputs: Tensor
) -> Tensor:
    """Return −dL of k quantities in what the features were made of.

    Args:
        train: Φ, as a function of the inputs.
        queries: φ, as a function of the inputs, or `None` if it is held.
        adjoints: Φ̄ and φ̄.
        inputs: What is differentiated: which rows are there, or their numbers.

    Returns:
        The derivatives, [..., k] behind the shape of the inputs.
    """
    moved: list[tuple[Columns, Callable[[Columns, int], Tensor]]] = [(train, adjoints.of_train)]
    if queries is not None:
        moved.append((queries, adjoints.of_queries))
    moved = [pair for pair in moved if pair[0].values.requires_grad]
    parts, columns = [rows.values for rows, _ in moved], []
    for k in range(adjoints.directions.shape[-1]):
        if not parts:
            columns.append(torch.zeros_like(inputs))
            continue
        weights = [adjoint(rows, k) for rows, adjoint in moved]
        # Sums, not `grad_outputs`: for its check torch imports sympy, half a second.
        sums = [(part * w).sum() for part, w in zip(parts, weights, strict=True)]
        columns += _derivatives(torch.stack(sums).sum(), [inputs])
    return torch.stack(columns, -1)
