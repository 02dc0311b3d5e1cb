r"""Support vector machines whose share of support vectors is given: ν in place of C, or of ε.

Their duals are those of the others with sums in place of a number: with K of the rows,

```
min over β   ½ βᵀ K β − tᵀ β      0 <= yβ <= C w,   Σ β = total of the rows' weights, group by group
```

NuSVC: groups are the two classes, t = 0, C = 1, totals ±½ ν Σ w. NuSVR: two hinges for each row,
t = y, totals ±½ C ν Σ w. OneClassSVM: one group, t = 0, C = 1, total ν Σ w. The multipliers of the
sums are the intercept, and the width of the margin or of the tube. A removal changes the totals
too, so that each row matters, and is a short walk from the minimum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whence.arrays import Floats
from whence.errors import InvalidInput, warn_user
from whence.fitting.active_set import Box, Face, empty_face, walk

_TOLERANCE = 1e-11  # violation of the optimality conditions, beside the spread of the corners or f
_ROUNDING = 4e-15  # of the largest corner: no violation is told from rounding below it
_INSIDE = 1e-8  # share of its bound by which a coefficient counts as free


@dataclass(frozen=True, eq=False, kw_only=True)
class NuProgram:
    """What a machine minimizes, apart from K and the weights of rows.

    Args:
        signs: y of each hinge, [m]: n of them, or 2n, the second of a row n places on.
        corners: t, [m].
        group: The sum that each hinge is part of, [m].
        bound: C.
        totals: What each sum is for a weight of 1 in all, [s].
        divided: Whether f is divided by the width of the margin, as a classifier's is.
    """

    signs: Floats
    corners: Floats
    group: NDArray[np.intp]
    bound: float
    totals: Floats
    divided: bool = False

    def minimum(self, gram: Floats, weights: Floats, start: Face) -> Face:
        """Return the minimum.

        Args:
            gram: K of the hinges, [m, m].
            weights: w of the rows, [n].
            start: A minimum with other weights or a K near this one, or `from_coefficients`.

        Raises:
            InvalidInput: If no β fulfills the conditions: too few rows of a class for this ν.

        Warns:
            NotConvergedWarning: If the walk was given up.

        Cost:
            A few steps of f² + f m operations, f hinges on the margin.
        """
        bound = self.signs * self.bound * np.tile(weights, len(self.signs) // len(weights))
        low, high = np.minimum(bound, 0), np.maximum(bound, 0)
        totals = self.totals * weights.sum()
        slack = 1e-9 * float(np.abs(bound).mean())
        for each, total in enumerate(totals):
            own = self.group == each
            if not low[own].sum() - slack <= total <= high[own].sum() + slack:
                raise InvalidInput(
                    "Expected enough rows of each class for this nu. Got too few. Fit with a "
                    "smaller nu."
                )
        box = Box(low=low, high=high, totals=totals, group=self.group)
        far = float(np.abs(start.gradient).max())
        size = float(np.ptp(self.corners)) / 2 or far
        close = max(_TOLERANCE * size, _ROUNDING * float(np.abs(self.corners).max()))
        face = walk(gram, box, start, candidates=self._inside(start, bound), tolerance=close)
        if face.violation > 10 * max(close, _TOLERANCE * far):
            warn_user(
                f"Expected margins exact to {close:.0e}. Got {face.violation:.1e}. "
                "Scale the features to similar ranges, or accept the stated accuracy."
            )
        return face

    def from_coefficients(self, gram: Floats, beta: Floats) -> Face:
        """Return where a walk with this K starts.

        Args:
            gram: K of the hinges, [m, m].
            beta: Coefficients near the minimum, [m].
        """
        return empty_face(beta, gram @ beta - self.corners)

    def of_hinges(self, gram: Floats) -> Floats:
        """Return K of the hinges [m, m] for K of the rows, [n, n]."""
        copies = len(self.signs) // len(gram)
        return gram if copies == 1 else np.tile(gram, (copies, copies))

    def function(self, face: Face, n: int) -> tuple[Floats, float]:
        """Return the coefficients [n] and the intercept of f at the minimum.

        Args:
            face: The minimum.
            n: The number of rows.
        """
        coef = face.beta.reshape(-1, n).sum(0)
        intercept = float(face.multipliers.mean())
        if not self.divided:
            return coef, intercept if len(self.totals) > 1 else 0.0
        width = float(face.multipliers[1] - face.multipliers[0]) / 2
        return coef / width, intercept / width

    def coefficients(self, coef: Floats, weights: Floats) -> Floats:
        """Return β [m] of the coefficients of f, [n].

        Args:
            coef: As the estimator has them.
            weights: w of the rows, [n].
        """
        if self.divided:  # Σ|β| is known
            size = np.abs(self.totals).sum() * weights.sum()
            coef = coef * (size / max(np.abs(coef).sum(), np.finfo(float).tiny))
        if len(self.signs) == len(coef):
            return coef
        return np.concatenate([np.maximum(coef, 0), np.minimum(coef, 0)])

    def _inside(self, start: Face, bound: Floats) -> NDArray[np.intp]:
        """Return what is free at once: what is off its bounds, where nothing is free yet."""
        if len(start.free):
            return np.empty(0, dtype=np.intp)
        share = np.divide(start.beta, bound, out=np.zeros(len(bound)), where=bound != 0)
        return np.flatnonzero((share > _INSIDE) & (share < 1 - _INSIDE))


def nu_classification(signs: Floats, nu: float) -> NuProgram:
    """Return what NuSVC minimizes: ½‖w‖² − νρ Σ wᵢ + Σ wᵢ max(0, ρ − yᵢ fᵢ), f over ρ.

    Args:
        signs: y = ±1 of each row, [n].
        nu: ν.
    """
    return NuProgram(
        signs=signs,
        corners=np.zeros(len(signs)),
        group=np.asarray(signs < 0, dtype=np.intp),
        bound=1.0,
        totals=np.array([nu / 2, -nu / 2]),
        divided=True,
    )


def nu_regression(targets: Floats, nu: float, bound: float) -> NuProgram:
    """Return what NuSVR minimizes: ½‖w‖² + C Σ wᵢ (νε + max(0, |fᵢ − yᵢ| − ε)).

    Args:
        targets: y of each row, [n].
        nu: ν.
        bound: C.
    """
    ones, n = np.ones(len(targets)), len(targets)
    return NuProgram(
        signs=np.concatenate([ones, -ones]),
        corners=np.tile(targets, 2),
        group=np.repeat([0, 1], n),
        bound=bound,
        totals=np.array([nu / 2, -nu / 2]) * bound,
    )


def one_class(n: int, nu: float) -> NuProgram:
    """Return what OneClassSVM minimizes: ½‖w‖² − νρ n + Σ wᵢ max(0, ρ − fᵢ).

    Args:
        n: The number of rows.
        nu: ν.
    """
    return NuProgram(
        signs=np.ones(n),
        corners=np.zeros(n),
        group=np.zeros(n, dtype=np.intp),
        bound=1.0,
        totals=np.array([nu]),
    )
