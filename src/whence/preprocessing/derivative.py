r"""What every training row does to a measure through the features, by one backward pass.

With v = H⁻¹∇m the measure moves with the features Φ of the training rows and φ of the queries as

```
L = m(φ θ) − vᵀ ∇_θ R(Φ, θ),      Φ̄ⱼ = −(wⱼ/n) (eⱼ v + (Sⱼ uⱼ) θ),   φ̄ = ∂m/∂f · θ
```

where e = ∂ℓ/∂f, S = ∂²ℓ/∂f² and u = Φ v. Both adjoints go back through the transformers at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.preprocessing.columns import Columns


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
        (gradient,) = torch.autograd.grad(sums, inputs, retain_graph=True, allow_unused=True)
        columns.append(torch.zeros_like(inputs) if gradient is None else gradient)
    return torch.stack(columns, -1)
