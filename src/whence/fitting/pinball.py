r"""Quantile regression with an absolute penalty, exactly, from vertex to vertex.

```
min over θ   Σᵢ max(highᵢ rᵢ, lowᵢ rᵢ)      r = b − A θ,   lowᵢ <= 0 <= highᵢ
```

A vertex is a basis B of p rows with r = 0. Each other row has the slope a = high where r > 0 and
low where r < 0; those of the basis follow from Aᵀ a = 0. The vertex is the minimum if
lowᵢ <= aᵢ <= highᵢ there; else the row that is furthest outside leaves the basis, and r moves along
the edge, over rows whose sign turns, until the slope of the sum turns too: that row enters. An
absolute penalty |θⱼ| is a row of its own, with b = 0. A start near the minimum, as after a removal,
is few edges away.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from whence.arrays import Floats
from whence.errors import warn_user

_OUTSIDE = 1e-10  # how far outside its bounds, in units of the largest, a slope may be
_EDGES = 20  # per row, after which the walk is given up


@dataclass(frozen=True, eq=False, kw_only=True)
class Vertex:
    """A point where p rows are met exactly.

    Args:
        matrix: A, [m, p], of full rank.
        targets: b, [m].
        basis: B, [p].
        positive: Whether the residual of each row counts as positive, [m]; not asked in B.
    """

    matrix: Floats
    targets: Floats
    basis: NDArray[np.intp]
    positive: NDArray[np.bool_]

    @property
    def theta(self) -> Floats:
        """The point θ, [p]."""
        at = self.basis
        return np.asarray(np.linalg.solve(self.matrix[at], self.targets[at]), dtype=np.float64)

    def minimum(self, low: Floats, high: Floats) -> Vertex:
        """Return the minimum under some bounds of the slopes, walking from here.

        Args:
            low: The slopes of negative residuals, <= 0, [m].
            high: Those of positive residuals, >= 0, [m].

        Warns:
            NotConvergedWarning: If the walk was given up.

        Cost:
            O(p³ + m p) per edge.

        References:
            Barrodale & Roberts (1973), "An improved algorithm for discrete l1 linear
            approximation"; Koenker & d'Orey (1987), algorithm AS 229.
        """
        basis, positive = self.basis.copy(), self.positive.copy()
        scale = float(max(high.max(), -low.min()))
        for _ in range(_EDGES * len(self.targets)):
            inverse = np.linalg.inv(self.matrix[basis])
            slopes = np.where(positive, high, low)
            slopes[basis] = 0
            inside = -(slopes @ self.matrix) @ inverse
            above, below = inside - high[basis], low[basis] - inside
            outside = np.maximum(above, below)
            at = int(np.argmax(outside))
            if outside[at] <= _OUTSIDE * scale:
                return replace(self, basis=basis, positive=positive)
            up = above[at] >= below[at]
            moves = self.matrix @ inverse[:, at] * (1.0 if up else -1.0)
            residuals = self.targets - self.matrix @ (inverse @ self.targets[basis])
            turning = np.where(positive, moves < 0, moves > 0)
            turning[basis] = False
            rows = np.flatnonzero(turning)
            lengths = np.maximum(-residuals[rows] / moves[rows], 0)
            order = rows[np.argsort(lengths, kind="stable")]
            gained = np.cumsum((high[order] - low[order]) * np.abs(moves[order]))
            last = int(np.searchsorted(gained, outside[at]))
            if last == len(order):
                break  # the sum falls for ever: bounds that do not hold 0
            positive[order[:last]] = ~positive[order[:last]]
            positive[basis[at]] = up
            basis[at] = order[last]
        warn_user(
            "Expected the quantile regression to reach its minimum. Got a walk that was given up. "
            "Look for rows that are there many times."
        )
        return replace(self, basis=basis, positive=positive)


def vertex_near(matrix: Floats, targets: Floats, theta: Floats) -> Vertex:
    """Return the vertex of independent rows whose residuals are smallest at a point.

    Args:
        matrix: A, [m, p], of full rank.
        targets: b, [m].
        theta: The point, [p].
    """
    residuals = targets - matrix @ theta
    rows = np.linalg.qr(matrix)[0]  # columns in one unit
    basis: list[int] = []
    span = np.empty((0, matrix.shape[1]))
    for row in np.argsort(np.abs(residuals), kind="stable"):
        rest = rows[row] - span.T @ (span @ rows[row])
        rest -= span.T @ (span @ rest)
        size = float(np.linalg.norm(rest))
        if size > 1e-9 * np.linalg.norm(rows[row]):
            basis.append(int(row))
            span = np.vstack([span, rest / size])
        if len(basis) == matrix.shape[1]:
            break
    at = np.array(basis)
    vertex = Vertex(matrix=matrix, targets=targets, basis=at, positive=residuals > 0)
    return replace(vertex, positive=targets > matrix @ vertex.theta)
