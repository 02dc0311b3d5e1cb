r"""Convex quadratic programs in a box, solved exactly by walking from face to face.

```
min over β   ½ βᵀ K β − tᵀ β      low <= β <= high,   and, where asked, Σ β = total
```

with K [m, m] positive semidefinite, possibly singular. At each moment some coordinates F are free
and the rest stay where they are. The walk moves to the best point of the face; a coordinate that
meets its bound on the way leaves F; at the best point the coordinate that violates the optimality
conditions most enters F. With λ the multiplier of Σ β = total and g = Kβ − t, they are

```
g + λ = 0 where free,     g + λ >= 0 at low,     g + λ <= 0 at high
```

The inverse of [[0, 1ᵀ], [1, K_FF]] (of K_FF without the sum) follows F by rank-one changes, so a
walk that starts near its end costs little. Coordinates whose column depends on those of F never
enter: they slide along the flat direction until something meets a bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_DEPENDENT = 1e-11  # relative size of a pivot below which a column counts as dependent
_REPAIRS = 3  # steps on one face before its inverse is made anew


@dataclass(frozen=True, eq=False, kw_only=True)
class Box:
    """The constraints.

    Args:
        low: Lower bounds, [m].
        high: Upper bounds, finite, [m].
        total: What β sums to, or `None` where the sum is free.
    """

    low: Floats
    high: Floats
    total: float | None


@dataclass(frozen=True, eq=False, kw_only=True)
class Face:
    """A point β with the coordinates that are free there.

    Args:
        beta: β, [m].
        gradient: g = Kβ − t, [m].
        free: F, [f].
        inverse: Of the (bordered) K_FF, [f, f] or [f + 1, f + 1]; [0, 0] if F is empty.
        multiplier: λ; 0 without a sum. In the middle where an interval of them is optimal.
        violation: The largest violation of the optimality conditions.
    """

    beta: Floats
    gradient: Floats
    free: NDArray[np.intp]
    inverse: Floats
    multiplier: float = 0.0
    violation: float = np.inf


def empty_face(beta: Floats, gradient: Floats) -> Face:
    """Return a point with nothing free.

    Args:
        beta: β, [m].
        gradient: g, [m].

    Returns:
        The face.
    """
    return Face(
        beta=beta, gradient=gradient, free=np.empty(0, dtype=np.intp), inverse=np.empty((0, 0))
    )


def walk(
    gram: Floats,
    box: Box,
    start: Face,
    *,
    candidates: NDArray[np.intp] | None = None,
    tolerance: float,
) -> Face:
    """Return the minimum, from a point and a guess of what is free there.

    Args:
        gram: K, [m, m].
        box: The constraints.
        start: Where to start; β is moved into the box, the sum need not hold yet.
        candidates: Coordinates to free at once, as far as they are independent.
        tolerance: The largest violation of the optimality conditions to accept, in units of g.

    Returns:
        The minimum; `violation` above the tolerance if the walk was given up.

    Cost:
        f² + f m operations per step; one to a few steps per coordinate that changes sides.

    References:
        Cauwenberghs & Poggio (2000); Scheinberg (2006), section 2.

    Examples:
        >>> gram = np.array([[2.0, 0.0], [0.0, 1.0]])
        >>> box = Box(low=np.zeros(2), high=np.ones(2), total=None)
        >>> walk(gram, box, empty_face(np.zeros(2), np.array([-1.0, -3.0])), tolerance=1e-12).beta
        array([0.5, 1. ])
    """
    walker = _Walker(gram, box, start)
    for index in () if candidates is None else candidates:
        walker.release(int(index))
    steps = 0
    while walker.advance(tolerance, first=steps > 20 * len(gram)) and steps < 40 * len(gram) + 100:
        steps += 1
    return walker.face()


class _Walker:
    """The state of one walk."""

    def __init__(self, gram: Floats, box: Box, start: Face) -> None:
        self.gram, self.low, self.high, self.total = gram, box.low, box.high, box.total
        self.border = int(box.total is not None)
        self.beta, self.gradient = start.beta.copy(), start.gradient.copy()
        self.free, self.inverse = start.free, start.inverse
        self.multiplier = 0.0
        self.repairs = 0
        inside = np.clip(self.beta, self.low, self.high)
        moved = np.flatnonzero(inside != self.beta)
        if len(moved):
            self.gradient += (inside - self.beta)[moved] @ gram[moved]
            self.beta = inside
        for index in self.free[self.low[self.free] == self.high[self.free]]:
            self.fix(int(np.flatnonzero(self.free == index)[0]))

    def face(self) -> Face:
        """Return the point, the multiplier and the violation there."""
        free = self.free
        up, down = self.beta < self.high, self.beta > self.low
        if self.border and not (up & down)[free].any():
            self.multiplier = _middle(-self.gradient, up, down)
        return Face(
            beta=self.beta,
            gradient=self.gradient,
            free=free,
            inverse=self.inverse,
            multiplier=self.multiplier,
            violation=np.inf if self.missing() else float(self.violations().max(initial=0.0)),
        )

    def violations(self) -> Floats:
        """Return by how much each coordinate violates the optimality conditions, [m]."""
        slope = self.gradient + self.multiplier
        up = np.where(self.beta < self.high, -slope, 0.0)
        return np.maximum(up, np.where(self.beta > self.low, slope, 0.0))

    def missing(self) -> float:
        """Return by how much Σ β falls short; 0 within its rounding error."""
        if self.total is None:
            return 0.0
        missing = float(self.total - self.beta.sum())
        size = np.abs(self.beta).sum() + (self.high - self.low).max(initial=0.0)
        return missing if abs(missing) > 1e-13 * size else 0.0

    def advance(self, tolerance: float, *, first: bool) -> bool:
        """Take one step; return whether there may be more to do.

        `first` takes the first violated coordinate instead of the most violated, which cannot
        cycle.
        """
        if len(self.free):
            if not self.descend():
                return True
            if self.residual() > 0.1 * tolerance and self.repairs < _REPAIRS:
                self.repairs += 1
                if self.repairs == _REPAIRS - 1:
                    self.refactor()
                return True
        elif self.border:
            return self.open(tolerance)
        self.repairs = 0
        violation = self.violations()
        violation[self.free] = 0.0
        worst = int(np.argmax(violation > tolerance) if first else np.argmax(violation))
        if violation[worst] <= tolerance:
            return False
        self.enter(worst, float(self.gradient[worst]) + self.multiplier)
        return True

    def descend(self) -> bool:
        """Move to the best point of the face, or to the first bound; return whether it arrived."""
        free, border = self.free, self.border
        right = -self.gradient[free]
        if border:
            right = np.concatenate([[self.missing()], right])
        solution = self.inverse @ right
        direction = solution[border:]
        length, blocking = self.room(free, direction)
        step = min(1.0, length)
        self.move(free, step * direction)
        if border:
            self.multiplier = float(solution[0])
        if length < 1.0:
            self.stop(blocking, direction[blocking])
            return False
        return True

    def residual(self) -> float:
        """Return how far the face's own conditions are from holding."""
        return float(np.abs(self.gradient[self.free] + self.multiplier).max())

    def open(self, tolerance: float) -> bool:
        """Free the coordinate that Σ β or λ needs, when none is free; return whether one was."""
        up, down = self.beta < self.high, self.beta > self.low
        wanted = -self.gradient
        raising = np.where(up, wanted, -np.inf)
        lowering = np.where(down, wanted, np.inf)
        missing = self.missing()
        if missing > 0 and up.any():
            self.release(int(np.argmax(raising)))
        elif missing < 0 and down.any():
            self.release(int(np.argmin(lowering)))
        elif up.any() and down.any() and raising.max() > lowering.min() + tolerance:
            self.release(int(np.argmax(raising)))
        else:
            return False
        return True

    def enter(self, index: int, slope: float) -> None:
        """Move a violated coordinate inward, the free ones along with it, and free it."""
        column, pivot = self.pivot(index)
        sign = -np.sign(slope)
        moving = np.append(self.free, index)
        direction = np.append(-sign * column[self.border :], sign)
        length, blocking = self.room(moving, direction)
        best = abs(slope) / pivot if pivot > 0 else np.inf
        self.move(moving, min(best, length) * direction)
        if length <= best:
            if blocking == len(self.free):
                self.beta[index] = self.high[index] if sign > 0 else self.low[index]
                return
            self.stop(blocking, direction[blocking])
        self.release(index)

    def release(self, index: int) -> None:
        """Make a coordinate free, unless its column depends on those that are."""
        size = len(self.free)
        if not size and self.border:
            self.inverse = np.array([[-self.gram[index, index], 1.0], [1.0, 0.0]])
        else:
            column, pivot = self.pivot(index)
            if pivot <= 0:
                return
            inverse = np.empty((len(column) + 1, len(column) + 1))
            inverse[:-1, :-1] = self.inverse + np.outer(column / pivot, column)
            inverse[-1, :-1] = inverse[:-1, -1] = -column / pivot
            inverse[-1, -1] = 1 / pivot
            self.inverse = inverse
        self.free = np.append(self.free, index)

    def pivot(self, index: int) -> tuple[Floats, float]:
        """Return K_FF⁻¹ k and the Schur complement k_jj − kᵀ K_FF⁻¹ k; 0 if it is dependent."""
        if not len(self.free):
            size = float(self.gram[index, index])
            return np.empty(0), size
        right = self.gram[index, self.free]
        if self.border:
            right = np.concatenate([[1.0], right])
        column = self.inverse @ right
        explained = float(right @ column)
        size = float(self.gram[index, index])
        pivot = size - explained
        return column, pivot if pivot > _DEPENDENT * (size + abs(explained)) else 0.0

    def stop(self, position: int, direction: float) -> None:
        """Put a free coordinate on the bound it met, and fix it there."""
        index = self.free[position]
        self.beta[index] = self.high[index] if direction > 0 else self.low[index]
        self.fix(position)

    def fix(self, position: int) -> None:
        """Take a coordinate out of F."""
        self.free = np.delete(self.free, position)
        if not len(self.free):
            self.inverse = np.empty((0, 0))
            return
        row = position + self.border
        keep = np.delete(np.arange(len(self.inverse)), row)
        column, pivot = self.inverse[keep, row], self.inverse[row, row]
        self.inverse = self.inverse[np.ix_(keep, keep)] - np.outer(column / pivot, column)

    def room(self, coordinates: NDArray[np.intp], direction: Floats) -> tuple[float, int]:
        """Return how far a direction can be followed, and which of the coordinates ends it."""
        bound = np.where(direction > 0, self.high[coordinates], self.low[coordinates])
        with np.errstate(divide="ignore", invalid="ignore"):
            length = (bound - self.beta[coordinates]) / direction
        length[direction == 0] = np.inf
        position = int(np.argmin(length))
        return max(0.0, float(length[position])), position

    def move(self, coordinates: NDArray[np.intp], change: Floats) -> None:
        """Add to β and keep the gradient."""
        self.beta[coordinates] += change
        self.gradient += change @ self.gram[coordinates]

    def refactor(self) -> None:
        """Make the inverse anew."""
        free, border = self.free, self.border
        matrix = np.ones((len(free) + border, len(free) + border))
        matrix[:border, :border] = 0.0
        matrix[border:, border:] = self.gram[np.ix_(free, free)]
        self.inverse = np.linalg.inv(matrix).astype(np.float64)


def _middle(wanted: Floats, up: NDArray[np.bool_], down: NDArray[np.bool_]) -> float:
    """Return the middle of the multipliers that are optimal with nothing free."""
    least = float(wanted[up].max(initial=-np.inf))
    most = float(wanted[down].min(initial=np.inf))
    ends = [end for end in (least, most) if np.isfinite(end)]
    return sum(ends) / len(ends) if ends else 0.0
