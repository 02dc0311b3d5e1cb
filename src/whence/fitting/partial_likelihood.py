r"""Cox's partial likelihood with case weights, maximized by Newton's method.

```
−log L(β) = −Σ_d w_d (x_dᵀβ − log(S(t_d) − c_d D(t_d))),     S(t) = Σ_{e_j < t <= t_j} w_j e^{x_jᵀβ}
```

over the deaths d, with t_j the end of a row's time at risk and e_j its entry, −∞ if it is not late;
D(t) is the part of S(t) that dies at t. c = 0 for Breslow's ties; for Efron's,
the m deaths of one moment have c = 0, 1/m, …, (m − 1)/m, and each term their mean weight.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import final

import numpy as np
from numpy.typing import NDArray

from whence.arrays import Floats
from whence.errors import InvalidInput, warn_user

_STEPS = 60
_CONVERGED = 1e-20  # what another step gains per unit of weight, in any unit of the columns


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class PartialLikelihood:
    """The negative log partial likelihood of rows with weight, and a quadratic penalty.

    Args:
        x: Rows, [n, d].
        time: Durations, [n].
        entry: From when on each row is at risk, < time, [n]; `None` if all are from the first on.
        event: Whether each ended in an event, [n].
        weights: w > 0, [n].
        efron: Whether ties are Efron's, else Breslow's.
        penalty: Of each coefficient, ½ penalty β², [d].
    """

    x: Floats
    time: Floats
    event: NDArray[np.bool_]
    weights: Floats
    efron: bool
    penalty: Floats
    entry: Floats | None = None

    @cached_property
    def _sorted(self) -> _Sorted:
        """The rows from the latest to the first."""
        order = np.argsort(-self.time, kind="stable")
        time, event, weights = self.time[order], self.event[order], self.weights[order]
        start = np.append(True, time[1:] != time[:-1])
        group = np.cumsum(start) - 1
        last = np.append(np.flatnonzero(start)[1:], len(time)) - 1
        deaths = np.flatnonzero(event)
        if not len(deaths):
            raise InvalidInput("Expected at least one event among the training rows. Got none.")
        at = group[deaths]
        counts = np.bincount(at, minlength=len(last))
        first = np.searchsorted(at, np.arange(len(last)))
        share = np.zeros(len(deaths))
        if self.efron:
            share += (np.arange(len(deaths)) - first[at]) / counts[at]
        mean = np.bincount(at, weights[deaths], minlength=len(last)) / counts.clip(1)
        late = None if self.entry is None else _Late.of(self.entry[order], time[last])
        return _Sorted(
            late=late,
            x=np.ascontiguousarray(self.x[order]),
            weights=weights,
            group=group,
            last=last,
            deaths=deaths,
            share=share,
            term=mean[at],
        )

    def value(self, beta: Floats) -> float:
        """Return −log L plus the penalty."""
        rows = self._sorted
        eta = rows.x @ beta
        total, dying, _ = rows.sums(rows.weights * np.exp(eta))
        logs = np.log(total - rows.share * dying)
        own = rows.weights[rows.deaths] @ eta[rows.deaths]
        return float(rows.term @ logs - own + 0.5 * self.penalty @ np.square(beta))

    def derivatives(self, beta: Floats) -> tuple[Floats, Floats]:
        """Return the gradient [d] and the Hessian [d, d]."""
        rows = self._sorted
        x, at, share = rows.x, rows.group[rows.deaths], rows.share
        risk = rows.weights * np.exp(x @ beta)
        total, dying, weighted = rows.sums(risk)
        inverse = rows.term / (total - share * dying)
        groups = len(rows.last)
        # What each row adds to the terms of all moments up to its own, and to those it dies in.
        before = np.cumsum(np.bincount(at, inverse, minlength=groups)[::-1])[::-1]
        seen = before[rows.group]
        if rows.late is not None:
            seen -= np.append(before, 0.0)[rows.late.ended]
        seen[rows.deaths] -= np.bincount(at, inverse * share, minlength=groups)[at]
        pulls = risk * seen
        gradient = pulls @ x - rows.weights[rows.deaths] @ x[rows.deaths] + self.penalty * beta
        sums = rows.at_risk(risk[:, None] * x)[at]
        ending = np.zeros((groups, x.shape[1]))
        np.add.at(ending, at, (risk[:, None] * x)[rows.deaths])
        means = (sums - share[:, None] * ending[at]) / weighted[:, None]
        hessian = (x * pulls[:, None]).T @ x - (means * rows.term[:, None]).T @ means
        return gradient, hessian + np.diag(self.penalty)

    @property
    def _centered(self) -> PartialLikelihood:
        """The same likelihood, with more digits."""
        return replace(self, x=self.x - self.x.mean(0))

    def left_to_gain(self, beta: Floats) -> float:
        """Return by how much the maximum is above β, in nats, >= 0."""
        near = self._centered
        return near.value(beta) - near.value(self.minimum(beta))

    def minimum(self, start: Floats) -> Floats:
        """Return β̂, from a start near it, [d].

        Warns:
            NotConvergedWarning: If the gradient does not vanish.

        Cost:
            O(n d²) for each of a few steps.

        Examples:
            >>> likelihood = PartialLikelihood(
            ...     x=np.array([[1.0], [0.0], [1.0], [0.0]]),
            ...     time=np.array([1.0, 2.0, 3.0, 4.0]),
            ...     event=np.array([True, True, True, False]),
            ...     weights=np.ones(4),
            ...     efron=True,
            ...     penalty=np.zeros(1),
            ... )
            >>> beta = likelihood.minimum(np.zeros(1))
            >>> bool(abs(likelihood.derivatives(beta)[0][0]) < 1e-9)
            True
        """
        near = self._centered
        beta, value = start.copy(), near.value(start)
        limit = _CONVERGED * float(self.weights.sum())
        for _ in range(_STEPS):
            gradient, hessian = near.derivatives(beta)
            units = np.sqrt(np.diag(hessian))
            units = np.where(units > 0, units, 1.0)
            scaled = hessian / units / units[:, None]
            step = np.linalg.lstsq(scaled, gradient / units, rcond=None)[0] / units
            if gradient @ step <= limit:
                return beta
            for halving in range(30):
                there = beta - step / 2**halving
                found = near.value(there)
                if found <= value + 1e-12 * abs(value):
                    break
            beta, value = there, found
        warn_user(
            "Expected a maximum of the partial likelihood. Got coefficients that still move after "
            f"{_STEPS} steps. A column that separates events from the rest needs a penalizer."
        )
        return beta


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class _Sorted:
    """Rows from the latest to the first, with their moments.

    Args:
        x: Rows, [n, d].
        weights: w, [n].
        group: The moment of each row, [n].
        last: The last row of each moment, [g].
        deaths: Which rows are deaths, [m].
        share: c of each death, [m].
        term: The weight of each death's term, [m].
        late: Which rows are not yet at risk when, or `None`.
    """

    x: Floats
    weights: Floats
    group: NDArray[np.intp]
    last: NDArray[np.intp]
    deaths: NDArray[np.intp]
    share: Floats
    term: Floats
    late: _Late | None

    def at_risk(self, values: Floats) -> Floats:
        """Return the sum of values over the rows at risk at each moment, [g, ...]."""
        total = np.cumsum(values, 0)[self.last]
        return total if self.late is None else total - self.late.sums(values)

    def sums(self, risk: Floats) -> tuple[Floats, Floats, Floats]:
        """Return S, D and S − c D at each death, [m]."""
        at = self.group[self.deaths]
        total = self.at_risk(risk)[at]
        dying = np.bincount(at, risk[self.deaths], minlength=len(self.last))[at].astype(float)
        return total, dying, total - self.share * dying


@final
@dataclass(frozen=True, eq=False)
class _Late:
    """Rows that are not at risk from the first moment on.

    Args:
        order: The rows from the latest entry to the first, [n].
        outside: How many of them have not entered at each moment, [g].
        ended: The first moment, of those from the latest on, when each row has not entered, [n].
    """

    order: NDArray[np.intp]
    outside: NDArray[np.intp]
    ended: NDArray[np.intp]

    @staticmethod
    def of(entry: Floats, moments: Floats) -> _Late:
        """Return what follows from the entries of rows, with the moments from the latest on."""
        order = np.argsort(-entry, kind="stable")
        return _Late(
            order,
            outside=np.searchsorted(-entry[order], -moments, side="right"),
            ended=np.searchsorted(-moments, -entry, side="left"),
        )

    def sums(self, values: Floats) -> Floats:
        """Return the sum over the rows that have not entered at each moment, [g, ...]."""
        total = np.cumsum(values[self.order], 0)
        return np.concatenate([np.zeros_like(total[:1]), total])[self.outside]


def log_at_risk(at: Floats, time: Floats, entry: Floats | None, logs: Floats) -> Floats:
    """Return log S at moments, −∞ where nobody is at risk, [b].

    Args:
        at: The moments, [b].
        time: The durations of rows, [n].
        entry: Their entries, [n], or `None`.
        logs: The logarithm of what each adds, [n].

    Examples:
        >>> log_at_risk(np.array([2.0, 9.0]), np.array([1.0, 3.0]), None, np.zeros(2))
        array([  0., -inf])
    """
    there = _log_from(at, time, logs)
    if entry is None:
        return there
    with np.errstate(invalid="ignore", divide="ignore"):
        left = there + np.log1p(-np.exp(_log_from(at, entry, logs) - there))
    return np.where(np.isnan(left), -np.inf, left)


def _log_from(at: Floats, ends: Floats, logs: Floats) -> Floats:
    """Return the logarithm of the sum over the rows with an end at or after each moment, [b]."""
    order = np.argsort(ends, kind="stable")
    sums = np.logaddexp.accumulate(logs[order][::-1])[::-1]
    return np.append(sums, -np.inf)[np.searchsorted(ends[order], at, side="left")]


def ranked(time: Floats, entry: Floats | None, strata: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Return durations and entries of strata as those of one: a stratum begins after another ends.

    Args:
        time: Durations, [n].
        entry: Entries, [n], or `None`.
        strata: The stratum of each row, [n].

    Examples:
        >>> ranked(np.array([5.0, 7.0, 5.0]), None, np.array([0, 0, 1]))
        (array([1., 2., 3.]), array([0., 0., 2.]))
    """
    times, entries, first = np.empty(len(time)), np.empty(len(time)), 0
    for stratum in np.unique(strata):
        rows = strata == stratum
        moments = np.unique(time[rows])
        times[rows] = first + 1 + np.searchsorted(moments, time[rows])
        entries[rows] = first
        if entry is not None:
            entries[rows] += np.searchsorted(moments, entry[rows], side="right")
        first += len(moments)
    return times, entries
