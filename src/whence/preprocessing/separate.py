"""Transformers whose statistics jump: bins and knots of each column, by what a removal makes them.

The edges of a column's bins are order statistics of that column alone. Without a row they are one
of a few others: which one depends on where the row stands among the column's numbers. So rows fall
into classes, a few per column, found by fits without one row of each column at once; and what a
removal does to the features is a sum over columns of finite changes, none of which is a derivative.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.preprocessing import KBinsDiscretizer, SplineTransformer
from torch import Tensor

from whence.preprocessing.columns import Columns, SparseColumns, as_columns, as_rows, as_sparse
from whence.preprocessing.step import Step

Floats = NDArray[np.float64]

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

    def __call__(self, train: Any, others: Any, kept: Tensor) -> tuple[Columns, Columns]:
        """Return both, linear in the number of removed rows of each class."""
        removed = kept.detach() - kept
        d = self.classes.shape[1]
        counts = removed.new_zeros(len(self.fits), d)
        places = torch.from_numpy(self.classes)
        counts = counts.scatter_add(0, places, removed.unsqueeze(1).expand(-1, d))
        return self._moved(as_rows(train), counts), self._moved(as_rows(others), counts)

    def _moved(self, rows: Any, counts: Tensor) -> Columns:
        """Return transformed rows with what each class of removals changes."""
        base = as_columns(_plain(self.transformer.transform(rows)))
        plain = np.asarray(_dense(base))
        row_parts, column_parts, value_parts = [], [], []
        for k, fit in enumerate(self.fits):
            change = _dense(as_columns(_plain(fit.transform(rows)))) - plain
            where = np.nonzero(change)
            source = self._source()[where[1]]
            row_parts.append(torch.from_numpy(where[0]))
            column_parts.append(torch.from_numpy(where[1]))
            value_parts.append(counts[k, source] * torch.from_numpy(change[where]))
        at, columns = torch.cat(row_parts), torch.cat(column_parts)
        values = torch.cat(value_parts)
        if isinstance(base, Tensor):
            return base.index_put((at, columns), values, accumulate=True)
        whole = as_sparse(base)
        return SparseColumns(
            torch.cat([whole.rows, at]),
            torch.cat([whole.columns, columns]),
            torch.cat([whole.values, values]),
            whole.shape,
        )

    def _source(self) -> Tensor:
        """Return which input column each output column is of."""
        widths = torch.tensor([part.stop - part.start for part in self.outputs])
        return torch.arange(len(widths)).repeat_interleave(widths)


def separate(transformer: Any, rows: Any, kept: Tensor, sample: Tensor | None) -> Separate | None:
    """Return bins or splines with what each removal makes of them; `None` where they are held.

    Args:
        transformer: A fitted `KBinsDiscretizer` or `SplineTransformer`.
        rows: The training rows it was fitted on, [n, d].
        kept: 1 for a row that is there, [n].
        sample: Sample weights it was fitted with, or `None`.
    """
    x = np.asarray(as_rows(rows), dtype=np.float64)
    there = kept.numpy() > 0
    if sample is not None or _samples(transformer, int(there.sum())) or np.isnan(x).any():
        return None
    found = _classes(transformer, x[there])
    if found is None:
        return None
    representatives, starts = found
    columns = [np.unique(column) for column in x[there].T]
    classes = np.empty(x.shape, dtype=np.intp)
    for j, values in enumerate(columns):
        rank = np.searchsorted(values, x[:, j]).clip(0, len(values) - 1)
        classes[:, j] = np.searchsorted(starts[j], rank, side="right") - 1
    fits = tuple(_fit_without(transformer, x[there], columns, place) for place in representatives)
    outputs = _outputs(transformer, x.shape[1])
    step = Separate(transformer, fits, classes, outputs)
    return step if len(fits) * outputs[-1].stop * len(x) <= _NUMBERS else None


def _classes(
    transformer: Any, x: Floats
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
                known[j][asked[j].pop(0)] = _statistics(fit, j)
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


def _statistics(fit: Any, j: int) -> Floats:
    """Return what a fit knows of column j."""
    if isinstance(fit, SplineTransformer):
        return np.asarray(fit.bsplines_[j].t, dtype=np.float64)
    return np.asarray(fit.bin_edges_[j], dtype=np.float64)


def _same(a: Floats, b: Floats) -> bool:
    """Return whether two statistics are the same."""
    return a.shape == b.shape and bool((a == b).all())


def _samples(transformer: Any, n: int) -> bool:
    """Return whether the order in which rows come, or a random choice of them, matters."""
    if isinstance(transformer, SplineTransformer):
        return False
    limit = transformer.subsample
    return transformer.strategy == "kmeans" or (limit is not None and n > limit)


def _outputs(transformer: Any, d: int) -> tuple[slice, ...]:
    """Return the columns that each column becomes."""
    if isinstance(transformer, KBinsDiscretizer):
        one_hot = transformer.encode != "ordinal"
        widths = transformer.n_bins_.tolist() if one_hot else [1] * d
    else:
        widths = [transformer.n_features_out_ // d] * d
    ends = np.cumsum(widths).tolist()
    return tuple(slice(end - width, end) for end, width in zip(ends, widths, strict=True))


def _dense(columns: Columns) -> Floats:
    """Return columns as a dense array."""
    rows = as_rows(columns)
    return np.asarray(rows if isinstance(columns, Tensor) else rows.toarray(), dtype=np.float64)


def _plain(rows: Any) -> Any:
    """Return what a transformer returned without the names of a frame."""
    return rows.to_numpy() if hasattr(rows, "to_numpy") else rows
