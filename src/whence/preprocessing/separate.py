"""Transformers whose statistics jump: bins and knots of each column, by what a removal makes them.

The edges of a column's bins are order statistics of that column alone. Without a row they are one
of a few others: which one depends on where the row stands among the column's numbers. So rows fall
into classes, a few per column, found by fits without one row of each column at once; and what a
removal does to the features is a sum over columns of finite changes, none of which is a derivative.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.preprocessing import KBinsDiscretizer, SplineTransformer
from torch import Tensor

from whence.arrays import Floats
from whence.preprocessing.columns import Columns, Rows
from whence.preprocessing.step import Statistics, Step
from whence.preprocessing.table import transformed

_CLASSES = 64  # per column, above which a transformer is held
_NUMBERS = 2**26  # changed cells that are kept, above which a transformer is held
_FITS = 400  # fits that finding the classes may take


@dataclass(frozen=True, eq=False)
class Separate(Step):
    """A transformer of each column alone, with a finite change for each class of removed rows.

    Args:
        transformer: Fitted.
        fits: It, fitted without a row of class k of each column, [k].
        classes: Which of them a removal of each row makes of each column, [n, d].
        outputs: The columns that each column becomes, as slices, [d].
    """

    transformer: Any
    fits: tuple[Any, ...]
    classes: NDArray[np.intp]
    outputs: tuple[slice, ...]

    def fitted(self, train: Rows, kept: Tensor) -> Statistics:
        """Return the number of removed rows of each class, [k, d]."""
        removed = kept.detach() - kept
        d = self.classes.shape[1]
        counts = removed.new_zeros(len(self.fits), d)
        places = torch.from_numpy(self.classes)
        counts = counts.scatter_add(0, places, removed.unsqueeze(1).expand(-1, d))
        return Statistics((counts,))

    def of_train(self, train: Rows, statistics: Statistics) -> Columns:
        """Return the columns, linear in the counts."""
        return self._moved(train, *statistics.own)

    def of_others(self, others: Rows, statistics: Statistics) -> Columns:
        """Return the columns, linear in the counts."""
        return self._moved(others, *statistics.own)

    def _moved(self, rows: Rows, counts: Tensor) -> Columns:
        """Return transformed rows with what each class of removals changes."""
        base = transformed(self.transformer, rows).numbers()
        plain = base.dense()
        row_parts, column_parts, value_parts = [], [], []
        for k, fit in enumerate(self.fits):
            change = transformed(fit, rows).numbers().dense() - plain
            at, columns = change.nonzero(as_tuple=True)
            row_parts.append(at)
            column_parts.append(columns)
            value_parts.append(counts[k, self._source()[columns]] * change[at, columns])
        return base.added(torch.cat(row_parts), torch.cat(column_parts), torch.cat(value_parts))

    def _source(self) -> Tensor:
        """Return which input column each output column is of."""
        widths = torch.tensor([part.stop - part.start for part in self.outputs])
        return torch.arange(len(widths)).repeat_interleave(widths)


def separate(transformer: Any, rows: Rows, kept: Tensor, sample: Tensor | None) -> Separate | None:
    """Return bins or splines with what each removal makes of them; `None` where they are held.

    Args:
        transformer: A fitted `KBinsDiscretizer` or `SplineTransformer`.
        rows: The training rows it was fitted on, [n, d].
        kept: 1 for a row that is there, [n].
        sample: Sample weights it was fitted with, or `None`.
    """
    x = np.asarray(rows.plain, dtype=np.float64)
    there = kept.numpy() > 0
    kind = _KINDS[type(transformer)]
    if sample is not None or kind.samples(transformer, int(there.sum())) or np.isnan(x).any():
        return None
    found = _classes(kind, transformer, x[there])
    if found is None:
        return None
    representatives, starts = found
    columns = [np.unique(column) for column in x[there].T]
    classes = np.empty(x.shape, dtype=np.intp)
    for j, values in enumerate(columns):
        rank = np.searchsorted(values, x[:, j]).clip(0, len(values) - 1)
        classes[:, j] = np.searchsorted(starts[j], rank, side="right") - 1
    fits = tuple(_fit_without(transformer, x[there], columns, place) for place in representatives)
    outputs = _outputs(kind.widths(transformer, x.shape[1]))
    step = Separate(transformer, fits, classes, outputs)
    return step if len(fits) * outputs[-1].stop * len(x) <= _NUMBERS else None


def _classes(
    kind: _Kind, transformer: Any, x: Floats
) -> tuple[list[NDArray[np.intp]], list[NDArray[np.intp]]] | None:
    """Return a row of each class of each column, and the ranks at which classes begin.

    Without a larger number an order statistic is smaller or the same, so that the statistics of a
    column without one of its numbers change at a few ranks, which are found by bisection; all
    columns are bisected together.
    """
    columns = [np.unique(column) for column in x.T]
    d = len(columns)
    known: list[dict[int, Any]] = [{} for _ in range(d)]
    asked = [[0, len(values) - 1] for values in columns]
    for _ in range(_FITS):
        place = np.array([ranks[0] if ranks else 0 for ranks in asked])
        if not any(asked):
            break
        fit = _fit_without(transformer, x, columns, place)
        for j in range(d):
            if asked[j]:
                known[j][asked[j].pop(0)] = kind.statistics(fit, j)
            if not asked[j]:
                asked[j] = _between(known[j])
    else:
        return None
    starts = []
    for j in range(d):
        ranks = sorted(known[j])
        begins = [0] + [b for a, b in pairwise(ranks) if not _same(known[j][a], known[j][b])]
        starts.append(np.array(begins))
    most = max(len(begins) for begins in starts)
    if most > _CLASSES:
        return None
    places = [np.array([begins[min(k, len(begins) - 1)] for begins in starts]) for k in range(most)]
    return places, starts


def _between(known: dict[int, Any]) -> list[int]:
    """Return the middles of the gaps across which the statistics of a column differ."""
    ranks = sorted(known)
    return [(a + b) // 2 for a, b in pairwise(ranks) if b - a > 1 and not _same(known[a], known[b])]


def _fit_without(
    transformer: Any, x: Floats, columns: list[Floats], place: NDArray[np.intp]
) -> Any:
    """Return the transformer fitted on columns each of which misses one number, by its rank."""
    gone = [int(np.flatnonzero(x[:, j] == columns[j][rank])[0]) for j, rank in enumerate(place)]
    rest = np.stack([np.delete(x[:, j], row) for j, row in enumerate(gone)], 1)
    return clone(transformer).fit(rest)


def _same(a: Floats, b: Floats) -> bool:
    """Return whether two statistics are the same."""
    return a.shape == b.shape and bool((a == b).all())


class _Kind(ABC):
    """What is asked of a transformer of each column alone."""

    @abstractmethod
    def statistics(self, fit: Any, j: int) -> Floats:
        """Return what a fit knows of column j."""

    @abstractmethod
    def samples(self, transformer: Any, n: int) -> bool:
        """Return whether the order of n rows, or a random choice of them, matters."""

    @abstractmethod
    def widths(self, transformer: Any, d: int) -> list[int]:
        """Return how many columns each of d columns becomes."""


class _Bins(_Kind):
    """`KBinsDiscretizer`."""

    def statistics(self, fit: Any, j: int) -> Floats:
        """Return edges."""
        return np.asarray(fit.bin_edges_[j], dtype=np.float64)

    def samples(self, transformer: Any, n: int) -> bool:
        """Return whether bins are clusters, or are of a sample."""
        limit = transformer.subsample
        return transformer.strategy == "kmeans" or (limit is not None and n > limit)

    def widths(self, transformer: Any, d: int) -> list[int]:
        """Return the number of bins, or 1 where they are numbered."""
        bins: list[int] = transformer.n_bins_.tolist()
        return bins if transformer.encode != "ordinal" else [1] * d


class _Splines(_Kind):
    """`SplineTransformer`."""

    def statistics(self, fit: Any, j: int) -> Floats:
        """Return knots."""
        return np.asarray(fit.bsplines_[j].t, dtype=np.float64)

    def samples(self, transformer: Any, n: int) -> bool:
        """Return false."""
        return False

    def widths(self, transformer: Any, d: int) -> list[int]:
        """Return equal shares."""
        return [transformer.n_features_out_ // d] * d


_KINDS: dict[type, _Kind] = {KBinsDiscretizer: _Bins(), SplineTransformer: _Splines()}


def _outputs(widths: list[int]) -> tuple[slice, ...]:
    """Return the columns that each column becomes."""
    ends = np.cumsum(widths).tolist()
    return tuple(slice(end - width, end) for end, width in zip(ends, widths, strict=True))
