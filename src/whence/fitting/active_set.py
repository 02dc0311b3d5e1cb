r"""Convex quadratic programs in a box, solved exactly by walking from face to face.

```
min over β   ½ βᵀ K β − tᵀ β      low <= β <= high,   and, of each group of β,  Σ β = its total
```

with K [m, m] positive semidefinite, possibly singular. At each moment some coordinates F are free
and the rest stay where they are. The walk moves to the best point of the face; a coordinate that
meets its bound on the way leaves F; at the best point the coordinate that violates the optimality
conditions most enters F. With λ the multiplier of a coordinate's sum and g = Kβ − t, they are

```
g + λ = 0 where free,     g + λ >= 0 at low,     g + λ <= 0 at high
```

The inverse of [[K_FF, A], [Aᵀ, 0]], A the sums of which a coordinate is free, follows F by
rank-one changes, so a walk that starts near its end costs little. Coordinates whose column depends
on those of F never enter: they slide along the flat direction until something meets a bound. The
first free coordinate of a sum cannot move alone; it brings λ, by which others then enter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whence.arrays import Floats

_DEPENDENT = 1e-11  # relative size of a pivot below which a column counts as dependent
_AT_BOUND = 5e-15  # of the room between its bounds: how near one a coordinate is on it
_REPAIRS = 3  # steps on one face before its inverse is made anew
_REFACTORS = 20  # after which a walk is given up: rounding leaves it nothing to go by


@dataclass(frozen=True, eq=False, kw_only=True)
class Box:
    """The constraints.

    Args:
        low: Lower bounds, [m].
        high: Upper bounds, finite, [m].
        totals: What the β of each group sum to, [s]; empty where all are free.
        group: The group of each coordinate, [m]; all in the first if `None`.
    """

    low: Floats
    high: Floats
    totals: Floats
    group: NDArray[np.intp] | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Face:
    """A point β with the coordinates that are free there.

    Args:
        beta: β, [m].
        gradient: g = Kβ − t, [m].
        free: F, [f].
        inverse: Of K_FF, bordered by the sums of which a coordinate is free, [f + o, f + o].
        order: What its rows stand for: a coordinate, or −1 − s for the sum s, [f + o].
        multipliers: λ of each sum, [s]. In the middle where an interval of them is optimal.
        violation: The largest violation of the optimality conditions.
    """

    beta: Floats
    gradient: Floats
    free: NDArray[np.intp]
    inverse: Floats
    order: NDArray[np.intp]
    multipliers: Floats
    violation: float = np.inf

    @property
    def multiplier(self) -> float:
        """λ of the only sum; 0 without one."""
        return float(self.multipliers.sum())


def empty_face(beta: Floats, gradient: Floats) -> Face:
    """Return a point with nothing free.

    Args:
        beta: β, [m].
        gradient: g, [m].

    Returns:
        The face.
    """
    none, empty = np.empty(0, dtype=np.intp), np.empty((0, 0))
    return Face(
        beta=beta, gradient=gradient, free=none, inverse=empty, order=none, multipliers=np.zeros(0)
    )


def walk(
    gram: Floats,
    box: Box,
    start: Face,
    *,
    candidates: NDArray[np.intp] | None = None,
    other: bool = False,
    tolerance: float,
) -> Face:
    """Return the minimum, from a point and a guess of what is free there.

    Args:
        gram: K, [m, m].
        box: The constraints.
        start: Where to start; β is moved into the box, the sum need not hold yet.
        candidates: Coordinates to free at once, as far as they are independent.
        other: Whether the start's inverse is of another K.
        tolerance: The largest violation of the optimality conditions to accept, in units of g.

    Returns:
        The minimum; `violation` above the tolerance if the walk was given up.

    Cost:
        f² + f m operations per step; one to a few steps per coordinate that changes sides.

    References:
        Cauwenberghs & Poggio (2000); Scheinberg (2006), section 2.

    Examples:
        >>> gram = np.array([[2.0, 0.0], [0.0, 1.0]])
        >>> box = Box(low=np.zeros(2), high=np.ones(2), totals=np.empty(0))
        >>> walk(gram, box, empty_face(np.zeros(2), np.array([-1.0, -3.0])), tolerance=1e-12).beta
        array([0.5, 1. ])
    """
    walker = _Walker(gram, box, start)
    if other:
        walker.refactor()
    for index in [] if candidates is None else candidates.tolist():
        walker.release(index)
    steps = 0
    while walker.advance(tolerance, first=steps > 8 * len(gram)) and steps < 16 * len(gram) + 100:
        steps += 1
    walker.fix_at_bounds()
    return walker.face()


class _Walker:
    """The state of one walk."""

    def __init__(self, gram: Floats, box: Box, start: Face) -> None:
        self.gram, self.low, self.high, self.totals = gram, box.low, box.high, box.totals
        self.group = np.zeros(len(gram), dtype=np.intp) if box.group is None else box.group
        self.of_sum = [np.flatnonzero(self.group == each) for each in range(len(box.totals))]
        self.beta, self.gradient = start.beta.copy(), start.gradient.copy()
        self.free, self.inverse, self.order = start.free, start.inverse, start.order
        self.multipliers = np.zeros(len(box.totals))
        self.repairs = self.refactors = 0
        inside = np.clip(self.beta, self.low, self.high)
        moved = np.flatnonzero(inside != self.beta)
        if len(moved):
            self.gradient += (inside - self.beta)[moved] @ gram[moved]
            self.beta = inside
        for index in self.free[self.low[self.free] == self.high[self.free]]:
            self.fix(int(index))

    def face(self) -> Face:
        """Return the point, the multipliers and the violation there."""
        up, down = self.beta < self.high, self.beta > self.low
        for each, own in enumerate(self.of_sum):
            free = self.free[self.group[self.free] == each]
            if not (up & down)[free].any():
                self.multipliers[each] = _middle(-self.gradient[own], up[own], down[own])
        short = any(self.missing(each) for each in range(len(self.totals)))
        return Face(
            beta=self.beta,
            gradient=self.gradient,
            free=self.free,
            inverse=self.inverse,
            order=self.order,
            multipliers=self.multipliers,
            violation=np.inf if short else float(self.violations().max(initial=0.0)),
        )

    def slope(self) -> Floats:
        """Return g + λ, [m]."""
        if not len(self.totals):
            return self.gradient
        return np.asarray(self.gradient + self.multipliers[self.group])

    def violations(self) -> Floats:
        """Return by how much each coordinate violates the optimality conditions, [m]."""
        slope = self.slope()
        up = np.where(self.beta < self.high, -slope, 0.0)
        return np.maximum(up, np.where(self.beta > self.low, slope, 0.0))

    def missing(self, each: int) -> float:
        """Return by how much a sum falls short; 0 within its rounding error."""
        own = self.of_sum[each]
        missing = float(self.totals[each] - self.beta[own].sum())
        size = np.abs(self.beta[own]).sum() + (self.high - self.low)[own].max(initial=0.0)
        return missing if abs(missing) > 1e-13 * size else 0.0

    def advance(self, tolerance: float, *, first: bool) -> bool:
        """Take one step; return whether there may be more to do.

        `first` takes the first violated coordinate instead of the most violated, which cannot
        cycle.
        """
        opened = set((-1 - self.order[self.order < 0]).tolist())
        for each in range(len(self.totals)):
            if each not in opened and self.open(each, tolerance):
                return True
        if len(self.free):
            if not self.descend():
                return True
            if self.residual() > 0.1 * tolerance and self.repairs < _REPAIRS:
                self.repairs += 1
                if self.repairs == _REPAIRS - 1:
                    self.refactor()
                return self.refactors <= _REFACTORS
        self.repairs = 0
        violation = self.violations()
        violation[self.free] = 0.0
        for each in range(len(self.totals)):
            if each not in opened:
                violation[self.of_sum[each]] = 0.0  # their λ is in the middle
        worst = int(np.argmax(violation > tolerance) if first else np.argmax(violation))
        if violation[worst] <= tolerance:
            return False
        self.enter(worst, float(self.slope()[worst]))
        return True

    def descend(self) -> bool:
        """Move to the best point of the face, or to the first bound; return whether it arrived."""
        sums = self.order < 0
        free, right = self.order[~sums], np.empty(len(sums))
        right[~sums] = -self.gradient[free]
        right[sums] = [self.missing(-1 - int(each)) for each in self.order[sums]]
        solution = self.inverse @ right
        direction = solution[~sums]
        length, blocking = self.room(free, direction)
        self.move(free, min(1.0, length) * direction)
        self.multipliers[-1 - self.order[sums]] = solution[sums]
        if length < 1.0:
            self.stop(int(free[blocking]), direction[blocking])
            return False
        return True

    def residual(self) -> float:
        """Return how far the face's own conditions are from holding."""
        return float(np.abs(self.slope()[self.free]).max())

    def open(self, each: int, tolerance: float) -> bool:
        """Free the coordinate that a sum or its λ needs, when none is; return whether one was."""
        own = self.of_sum[each]
        up, down = self.beta[own] < self.high[own], self.beta[own] > self.low[own]
        wanted = -self.gradient[own]
        raising = np.where(up, wanted, -np.inf)
        lowering = np.where(down, wanted, np.inf)
        missing = self.missing(each)
        if missing > 0 and up.any():
            self.release(int(own[np.argmax(raising)]))
        elif missing < 0 and down.any():
            self.release(int(own[np.argmin(lowering)]))
        elif up.any() and down.any() and raising.max() > lowering.min() + tolerance:
            self.release(int(own[np.argmax(raising)]))
        else:
            return False
        return True

    def enter(self, index: int, slope: float) -> None:
        """Move a violated coordinate inward, the free ones along with it, and free it."""
        column, pivot = self.pivot(index)
        sign = -np.sign(slope)
        coordinates = self.order >= 0
        moving = np.append(self.order[coordinates], index)
        direction = np.append(-sign * column[coordinates], sign)
        length, blocking = self.room(moving, direction)
        best = abs(slope) / pivot if pivot > 0 else np.inf
        self.move(moving, min(best, length) * direction)
        if length <= best:
            if blocking == len(moving) - 1:
                self.beta[index] = self.high[index] if sign > 0 else self.low[index]
                return
            self.stop(int(moving[blocking]), direction[blocking])
        self.release(index)

    def release(self, index: int) -> None:
        """Make a coordinate free, unless its column depends on those that are."""
        own = self.sum_of(index)
        column, pivot = self.pivot(index)
        if own is not None and own not in self.order:  # the first of its sum
            # [[0, 1], [1, s]] stands below, s the pivot without the sum; its inverse is
            # [[−s, 1], [1, 0]], and only the sum's row is joined to those above.
            joined = np.stack([-column, np.zeros_like(column)])
            added, corner = [own, index], np.array([[-pivot, 1.0], [1.0, 0.0]])
            above = self.inverse
        else:
            if pivot <= 0:
                return
            joined = -column[None] / pivot
            added, corner = [index], np.array([[1 / pivot]])
            above = self.inverse + np.outer(column / pivot, column)
        m, k = len(above), len(corner)
        self.inverse = np.empty((m + k, m + k))
        self.inverse[:m, :m], self.inverse[m:, m:] = above, corner
        self.inverse[m:, :m], self.inverse[:m, m:] = joined, joined.T
        self.order = np.append(self.order, added)
        self.free = np.append(self.free, index)

    def refactor(self) -> None:
        """Make the inverse anew, without what has come to depend on the others."""
        self.refactors += 1
        sums, free = np.flatnonzero(self.order < 0), np.flatnonzero(self.order >= 0)
        matrix = np.zeros((len(self.order), len(self.order)))
        coordinates = self.order[free]
        matrix[np.ix_(free, free)] = self.gram[np.ix_(coordinates, coordinates)]
        for at in sums:
            matrix[at, free] = matrix[free, at] = self.group[coordinates] == -1 - self.order[at]
        try:
            self.inverse = np.linalg.inv(matrix).astype(np.float64)
        except np.linalg.LinAlgError:
            none = np.empty(0, dtype=np.intp)
            self.free, self.order, self.inverse = none, none, np.empty((0, 0))
            for index in coordinates:
                self.release(int(index))

    def fix_at_bounds(self) -> None:
        """Fix the free coordinates of a sum that are all on a bound, but for rounding.

        Its λ is then one of an interval, and not where one of them happens to be.
        """
        room = np.minimum(self.beta - self.low, self.high - self.beta)
        on = room <= _AT_BOUND * (self.high - self.low)
        for each in range(len(self.totals)):
            free = self.free[self.group[self.free] == each]
            if not on[free].all():
                continue
            upper = self.high - self.beta < self.beta - self.low
            self.beta[free] = np.where(upper, self.high, self.low)[free]
            for index in free:
                self.fix(int(index))

    def sum_of(self, index: int) -> int | None:
        """Return how `order` names the sum of a coordinate, or `None` where it has none."""
        return -1 - int(self.group[index]) if len(self.totals) else None

    def pivot(self, index: int) -> tuple[Floats, float]:
        """Return K_FF⁻¹ k and the Schur complement k_jj − kᵀ K_FF⁻¹ k; 0 if it is dependent."""
        size = float(self.gram[index, index])
        right = np.where(self.order < 0, self.order == self.sum_of(index), 0.0)
        coordinates = self.order >= 0
        right[coordinates] = self.gram[index, self.order[coordinates]]
        column = np.asarray(self.inverse @ right)
        explained = float(right @ column)
        pivot = size - explained
        return column, pivot if pivot > _DEPENDENT * (size + abs(explained)) else 0.0

    def stop(self, index: int, direction: float) -> None:
        """Put a free coordinate on the bound it met, and fix it there."""
        self.beta[index] = self.high[index] if direction > 0 else self.low[index]
        self.fix(index)

    def fix(self, index: int) -> None:
        """Take a coordinate out of F, and its sum if it was the last of it."""
        self.free = self.free[self.free != index]
        own = self.sum_of(index)
        row = int(np.flatnonzero(self.order == index)[0])
        keep = np.delete(np.arange(len(self.order)), row)
        column, pivot = self.inverse[keep, row], self.inverse[row, row]
        last = own is not None and not (self.group[self.free] == self.group[index]).any()
        if last:
            keep = keep[self.order[keep] != own]
        self.inverse = self.inverse[np.ix_(keep, keep)]
        self.order = self.order[keep]
        if last:
            return
        if pivot:
            self.inverse -= np.outer(column / pivot, column)
        else:  # rounding has left nothing of it
            self.refactor()

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


def _middle(wanted: Floats, up: NDArray[np.bool_], down: NDArray[np.bool_]) -> float:
    """Return the middle of the multipliers that are optimal with nothing free."""
    least = float(wanted[up].max(initial=-np.inf))
    most = float(wanted[down].min(initial=np.inf))
    ends = [end for end in (least, most) if np.isfinite(end)]
    return sum(ends) / len(ends) if ends else 0.0
