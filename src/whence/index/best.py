"""The rows with the k largest scores of each query, of scores that are known within a slack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.index.screen import Screened

Places: TypeAlias = NDArray[np.intp]
Floats: TypeAlias = NDArray[np.float64]

_MOST = 32  # times k candidates of a query, and their exact scores are computed


@final
@dataclass(frozen=True, eq=False)
class _Candidates:
    """Pairs of a query and a row, [m] each.

    Args:
        queries: Which query.
        positions: Which row.
        scores: The scores, times the sign.
        slack: How far they may be from the exact ones.
    """

    queries: Places
    positions: Places
    scores: Floats
    slack: Floats

    def __len__(self) -> int:
        """Return m."""
        return len(self.queries)

    def at(self, which: NDArray[Any]) -> _Candidates:
        """Return some of them."""
        return _Candidates(
            self.queries[which], self.positions[which], self.scores[which], self.slack[which]
        )

    def in_order(self, order: Places) -> tuple[_Candidates, Places]:
        """Return them in an order in which each query's follow each other, and their ranks."""
        found = self.at(order)
        first = np.searchsorted(found.queries, found.queries)
        return found, np.arange(len(order)) - first


def _joined(parts: Sequence[_Candidates]) -> _Candidates:
    """Return all of them."""
    return _Candidates(
        np.concatenate([part.queries for part in parts]),
        np.concatenate([part.positions for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.slack for part in parts]),
    )


@final
class Best:
    """The k largest scores of each query so far, or the k smallest, of blocks in any order.

    The k-th largest of score − slack is a bar that none of the k best is under: a row is a
    candidate while score + slack is not under it either. Candidates are thinned out once they are
    twice as many, which raises the bar. Their exact scores, rounded to float32, decide in the end;
    of equal ones the row that comes first counts. Threads may add at once.
    """

    def __init__(
        self,
        exponents: NDArray[Any],
        k: int,
        sign: int,
        exact: Callable[[Places, Places], Floats],
    ) -> None:
        """Begin with no rows.

        Args:
            exponents: Of each query: scores are those that are added, times 2 to that power.
            k: How many are wanted of each.
            sign: 1 for the largest, −1 for the smallest.
            exact: The scores of pairs, by query and position.
        """
        self.exponents, self.q, self.k, self.sign = exponents, len(exponents), k, sign
        self._exact = exact
        self._bars = np.full(self.q, -np.inf)
        nothing = np.empty(0, np.intp), np.empty(0, np.intp), np.empty(0), np.empty(0)
        self._parts = [_Candidates(*nothing)]
        self._count, self._kept = 0, 0
        self._settled = True
        self._lock = Lock()

    @property
    def begun(self) -> bool:
        """Whether every query has a bar."""
        return bool(np.isfinite(self._bars).all())

    def add(self, found: Screened, first: int, removed: Places) -> None:
        """Take in the scores of consecutive rows.

        Args:
            found: The scores.
            first: The position of the first of the rows.
            removed: Positions that do not count, sorted.
        """
        n = found.scores.shape[1]
        inside = removed[slice(*np.searchsorted(removed, [first, first + n]))] - first
        most, bars = found.most(), self._bars
        if self.k <= n - len(inside) and np.isneginf(bars).any():
            bars = np.maximum(bars, self._last(found.scores, inside) - most)
        queries, rows, scores = self._over(found.scores, bars - most)
        slack = found.slack(queries, rows)
        keep = (scores + slack >= bars[queries]) & ~np.isin(rows, inside)
        some = _Candidates(queries, rows + first, scores, slack).at(keep)
        with self._lock:
            self._bars = np.maximum(self._bars, bars)
            self._parts.append(some)
            self._count += len(some)
            self._settled = False
            if self._count >= 2 * self._kept + self.q:
                self._thin()

    def settle(self) -> None:
        """Compute the exact scores of the candidates, and keep k of each query, in their order."""
        with self._lock:
            if not self._settled:
                self._thin()
                self._settle()
                self._settled = True

    def ranked(self) -> tuple[NDArray[np.float32], Places]:
        """Return scores and positions, the first first: as many for each query, at most k."""
        self.settle()
        (best,) = self._parts
        counts = np.bincount(best.queries, minlength=self.q)
        where = (np.cumsum(counts) - counts)[:, None] + np.arange(counts.min())
        scores = np.ldexp(self.sign * best.scores[where], self.exponents[:, None])
        return scores.astype(np.float32), best.positions[where]

    def _last(self, scores: Tensor, inside: Places) -> Floats:
        """Return the k-th score of each query of a block, times the sign."""
        if len(inside):
            left = np.delete(np.arange(scores.shape[1]), inside)
            scores = scores[:, torch.from_numpy(left).to(scores.device)]
        last = scores.topk(self.k, 1, largest=self.sign == 1).values[:, -1]
        return self.sign * last.double().cpu().numpy()

    def _over(self, scores: Tensor, bars: Floats) -> tuple[Places, Places, Floats]:
        """Return queries, rows and scores, times the sign, where these are not under the bars."""
        low = np.nextafter(bars.astype(np.float32), np.float32(-np.inf))
        bar = torch.from_numpy(self.sign * low).unsqueeze(1).to(scores.device)
        if scores.device.type == "cpu":  # numpy compares ten times as fast there
            array, limit = scores.numpy(), bar.numpy()
            where = np.flatnonzero(array >= limit if self.sign == 1 else array <= limit)
            values = array.ravel()[where]
        else:
            over = scores >= bar if self.sign == 1 else scores <= bar
            at = over.flatten().nonzero().squeeze(1)
            where, values = at.cpu().numpy(), scores.flatten()[at].cpu().numpy()
        queries, rows = np.divmod(where, scores.shape[1])
        return queries, rows, self.sign * values.astype(np.float64)

    def _thin(self) -> None:
        """Raise the bars, and drop candidates that are under them."""
        some = _joined(self._parts)
        few = np.min_scalar_type(self.q)  # of small integers the stable sort is one by digits
        order = np.argsort(some.queries.astype(few), kind="stable")
        lower = (some.scores - some.slack)[order]
        ends = np.cumsum(np.bincount(some.queries, minlength=self.q))
        bars = self._bars.copy()
        for query, each in enumerate(np.split(lower, ends[:-1])):
            if len(each) >= self.k:
                at = len(each) - self.k
                bars[query] = max(bars[query], np.partition(each, at)[at])
        self._bars = bars
        self._hold(some.at(some.scores + some.slack >= bars[some.queries]))
        if self._kept > _MOST * self.k * self.q:
            self._settle()

    def _settle(self) -> None:
        """Settle candidates that were thinned out.

        The k of each query that seem the best come first: most others are under their exact bar.
        """
        (some,) = self._parts
        some, rank = some.in_order(np.lexsort((-some.scores, some.queries)))
        first = self._exactly(some.at(rank < self.k))
        self._raise_to(first)
        rest = some.at(rank >= self.k)
        rest = rest.at(rest.scores + rest.slack >= self._bars[rest.queries])
        self._hold(self._raise_to(_joined([first, self._exactly(rest)])))

    def _exactly(self, some: _Candidates) -> _Candidates:
        """Return candidates with exact scores, rounded to float32."""
        some = some.at(np.argsort(some.positions, kind="stable"))
        exact = self._exact(some.queries, some.positions).astype(np.float32).astype(np.float64)
        return replace(some, scores=self.sign * exact, slack=np.zeros(len(some)))

    def _raise_to(self, some: _Candidates) -> _Candidates:
        """Raise the bars to the k-th of exact scores, and return the k first of each query."""
        some, rank = some.in_order(np.lexsort((some.positions, -some.scores, some.queries)))
        last = some.at(rank == self.k - 1)
        bars = self._bars.copy()
        bars[last.queries] = np.maximum(bars[last.queries], last.scores)
        self._bars = bars
        return some.at(rank < self.k)

    def _hold(self, left: _Candidates) -> None:
        """Hold these candidates and no others."""
        self._parts, self._count, self._kept = [left], len(left), len(left)
