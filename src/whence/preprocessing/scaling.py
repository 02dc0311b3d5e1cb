"""Means, scales, extremes and quantiles of columns, as functions of which rows are there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    RobustScaler,
    StandardScaler,
)
from torch import Tensor

from whence.preprocessing.columns import Columns, SparseColumns
from whence.preprocessing.step import Leaf


def moments(x: Columns, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weighted mean and variance of each column, missing cells aside.

    Args:
        x: Columns, [n, d].
        weights: [n].

    Returns:
        Means and variances, [d].
    """
    if isinstance(x, SparseColumns):
        shares = weights[x.rows] / weights.sum()
        zero = x.values.new_zeros(x.shape[1])
        mean = zero.index_add(0, x.columns, shares * x.values)
        return mean, zero.index_add(0, x.columns, shares * x.values.square()) - mean.square()
    there = ~torch.isnan(x)
    numbers = torch.where(there, x, torch.zeros_like(x))
    total = weights @ there.to(x.dtype)
    mean = (weights @ numbers) / total
    apart = torch.where(there, numbers - mean, torch.zeros_like(x))
    return mean, (weights @ apart.square()) / total


def extremes(x: Tensor, kept: Tensor) -> Tensor:
    """Return the largest number of each column, which falls to the second as its row goes.

    Linear in `kept`: a removal of the row that holds the extreme gives the extreme of the others,
    as exactly as a removal of any other row gives none; so does the addition of a row.

    Args:
        x: Columns, [n, d], missing cells as NaN.
        kept: 1 for each row that is there, 0 for one that may be added, [n].

    Returns:
        Maxima, [d].
    """
    there = (kept.detach() > 0).unsqueeze(1) & ~torch.isnan(x)
    numbers = torch.where(there, x, torch.full_like(x, -torch.inf))
    best, where = numbers.topk(min(2, len(x)), dim=0)
    fall = (best[0] - best[-1]).detach()
    fall = torch.where(torch.isfinite(fall), fall, torch.zeros_like(fall))
    change = kept - kept.detach()
    beyond = torch.where(there | torch.isnan(x), torch.zeros_like(x), x - best[0]).clamp_min(0)
    return best[0] + change[where[0]] * fall + change @ beyond.detach()


def quantile(x: Tensor, q: float, kept: Tensor) -> Tensor:
    """Return a quantile of each column, with what it is without each row, linear in `kept`.

    Args:
        x: Columns, [n, d], missing cells as NaN.
        q: In [0, 1].
        kept: 1 for each row that is there, [n].

    Returns:
        Quantiles, [d].
    """
    whole, there = x, (kept.detach() > 0).unsqueeze(1)
    x = torch.where(there, x, torch.full_like(x, torch.nan))
    order = x.argsort(dim=0)  # missing cells last
    ordered = x.gather(0, order)
    counts = (~torch.isnan(x)).sum(0)
    value = _between(ordered, q * (counts - 1).double(), counts)
    plain, ranks = ordered.detach(), torch.arange(len(x)).unsqueeze(1)
    # Without the row of rank r, what was at k + 1 moves to k for k >= r.
    place = q * (counts - 2).clamp_min(0).double()
    low = place.floor().long()
    high = (low + 1).minimum((counts - 2).clamp_min(0))
    last = len(x) - 1
    first, second = (
        plain.gather(0, (at + (ranks <= at).long()).clamp_max(last)) for at in (low, high)
    )
    without = first + (place - low) * (second - first)
    fall = value.detach() - without
    fall = torch.where((ranks < counts) & torch.isfinite(fall), fall, torch.zeros_like(fall))
    by_row = torch.zeros_like(fall).scatter(0, order, fall)
    # A row that may be added counts as the row in whose place it would be: the swap of a row for
    # an equal one then changes nothing.
    added = torch.nonzero(~there[:, 0]).flatten()
    rank = (plain.unsqueeze(0) < whole[added].detach().unsqueeze(1)).sum(1)
    like = fall.gather(0, rank.minimum((counts - 1).clamp_min(0)))
    by_row[added] = torch.where(torch.isnan(whole[added]), torch.zeros_like(like), like)
    return value + (kept - kept.detach()) @ by_row


def _between(ordered: Tensor, place: Tensor, counts: Tensor) -> Tensor:
    """Return the numbers at fractional places of sorted columns, [d]."""
    low = place.floor().long().clamp_min(0).unsqueeze(0)
    high = (low + 1).minimum((counts - 1).unsqueeze(0)).clamp_min(0)
    first, second = ordered.gather(0, low)[0], ordered.gather(0, high)[0]
    return first + (place - low[0]) * (second - first)


def shifted(x: Columns, center: Tensor | None, scale: Tensor | None) -> Columns:
    """Return (x − center) / scale, missing cells as they are.

    Args:
        x: Columns; sparse ones cannot be centered.
        center: [d], or `None` for zero.
        scale: [d], or `None` for one.
    """
    if isinstance(x, SparseColumns):
        return x if scale is None else x.with_values(x.values / scale[x.columns])
    missing = torch.isnan(x)
    numbers = torch.where(missing, torch.zeros_like(x), x)
    numbers = numbers if center is None else numbers - center
    numbers = numbers if scale is None else numbers / scale
    return torch.where(missing, x.detach(), numbers)


def _units(scale: Tensor) -> Tensor:
    """Return scales with 1 for columns that do not vary."""
    tiny = 10 * torch.finfo(scale.dtype).eps
    return torch.where(scale < tiny, torch.ones_like(scale), scale)


@dataclass(frozen=True, eq=False)
class Standardized(Leaf):
    """`StandardScaler`.

    Args:
        transformer: Fitted.
        sample: The sample weights it was fitted with, [n], or `None`.
    """

    transformer: StandardScaler
    sample: Tensor | None

    def statistics(self, x: Columns, kept: Tensor) -> tuple[Tensor, ...]:
        """Return means and standard deviations."""
        mean, variance = moments(x, kept if self.sample is None else kept * self.sample)
        varies = self.transformer.scale_ is not None
        held = torch.zeros(len(variance), dtype=torch.bool)
        if varies:
            root = np.sqrt(np.asarray(self.transformer.var_, dtype=np.float64))
            held = torch.from_numpy(np.asarray(self.transformer.scale_) != root)
        variance = torch.where(held, torch.ones_like(variance), variance)
        return mean, variance.sqrt()

    def apply(self, x: Columns, *statistics: Tensor) -> Columns:
        """Return (x − mean)/scale."""
        mean, scale = statistics
        scaler = self.transformer
        return shifted(x, mean if scaler.with_mean else None, scale if scaler.with_std else None)


@dataclass(frozen=True, eq=False)
class BetweenExtremes(Leaf):
    """`MinMaxScaler`.

    Args:
        transformer: Fitted.
    """

    transformer: MinMaxScaler

    def statistics(self, x: Columns, kept: Tensor) -> tuple[Tensor, ...]:
        """Return minima and maxima."""
        if isinstance(x, SparseColumns):
            raise ValueError("MinMaxScaler takes dense columns.")
        return -extremes(-x, kept), extremes(x, kept)

    def apply(self, x: Columns, *statistics: Tensor) -> Columns:
        """Return x on the scale of the range."""
        low, high = statistics
        first, last = self.transformer.feature_range
        scale = _units(high - low) / (last - first)
        scaled = shifted(x, low - first * scale, scale)
        if self.transformer.clip and isinstance(scaled, Tensor):
            return scaled.clamp(first, last)
        return scaled


@dataclass(frozen=True, eq=False)
class ByLargest(Leaf):
    """`MaxAbsScaler`.

    Args:
        transformer: Fitted.
    """

    transformer: MaxAbsScaler

    def statistics(self, x: Columns, kept: Tensor) -> tuple[Tensor, ...]:
        """Return the largest sizes."""
        if not isinstance(x, SparseColumns):
            return (extremes(x.abs(), kept),)
        sizes, d = x.values.abs(), x.shape[1]
        best = sizes.new_zeros(d).scatter_reduce(0, x.columns, sizes, "amax")
        holds = sizes == best.detach()[x.columns]
        second = sizes.new_zeros(d).scatter_reduce(
            0, x.columns, torch.where(holds, torch.zeros_like(sizes), sizes), "amax"
        )
        several = sizes.new_zeros(d).index_add(0, x.columns, holds.to(sizes)) > 1
        fall = torch.where(several, torch.zeros_like(best), best - second).detach()
        change = (kept - kept.detach())[x.rows] * holds * fall[x.columns]
        return (best.index_add(0, x.columns, change),)

    def apply(self, x: Columns, *statistics: Tensor) -> Columns:
        """Return x over the largest size."""
        return shifted(x, None, _units(statistics[0]))


@dataclass(frozen=True, eq=False)
class Robust(Leaf):
    """`RobustScaler`.

    Args:
        transformer: Fitted.
    """

    transformer: RobustScaler

    def statistics(self, x: Columns, kept: Tensor) -> tuple[Tensor, ...]:
        """Return medians and ranges between two quantiles."""
        if isinstance(x, SparseColumns):
            raise ValueError("Quantiles are of dense columns.")
        scaler = self.transformer
        low, high = (quantile(x, q / 100, kept) for q in scaler.quantile_range)
        scale = _units(high - low)
        if scaler.unit_variance:
            first, last = (float(ndtri(q / 100)) for q in scaler.quantile_range)
            scale = scale / (last - first)
        return quantile(x, 0.5, kept), scale

    def apply(self, x: Columns, *statistics: Tensor) -> Columns:
        """Return (x − median)/range."""
        center, scale = statistics
        scaler = self.transformer
        return shifted(
            x, center if scaler.with_centering else None, scale if scaler.with_scaling else None
        )


@dataclass(frozen=True, eq=False)
class Imputed(Leaf):
    """`SimpleImputer` of numbers.

    Args:
        transformer: Fitted.
    """

    transformer: SimpleImputer

    def statistics(self, x: Columns, kept: Tensor) -> tuple[Tensor, ...]:
        """Return what missing cells are filled with."""
        imputer = self.transformer
        if isinstance(x, SparseColumns) or not _is_nan(imputer.missing_values):
            raise ValueError("Other imputers are held.")
        if imputer.strategy == "mean":
            return (moments(x, kept)[0],)
        if imputer.strategy == "median":
            return (quantile(x, 0.5, kept),)
        return (torch.from_numpy(np.asarray(imputer.statistics_, dtype=np.float64)),)

    def apply(self, x: Columns, *statistics: Tensor) -> Columns:
        """Return x filled, columns that are always missing dropped, indicators behind."""
        assert isinstance(x, Tensor)
        missing = torch.isnan(x)
        filled = torch.where(missing, statistics[0].expand_as(x), torch.nan_to_num(x))
        known: NDArray[np.float64] = np.asarray(self.transformer.statistics_, dtype=np.float64)
        filled = filled[:, torch.from_numpy(~np.isnan(known))]
        indicator: Any = getattr(self.transformer, "indicator_", None)
        if indicator is None:
            return filled
        shown = torch.from_numpy(np.asarray(indicator.features_, dtype=np.int64))
        return torch.cat([filled, missing[:, shown].to(x.dtype)], 1)


def _is_nan(value: Any) -> bool:
    """Return whether a marker of missing values is NaN."""
    return isinstance(value, float) and bool(np.isnan(value))


@dataclass(frozen=True, eq=False)
class Normed(Leaf):
    """`Normalizer`.

    Args:
        transformer: Fitted.
    """

    transformer: Normalizer

    def statistics(self, x: Columns, kept: Tensor) -> tuple[Tensor, ...]:
        """Return none."""
        return ()

    def apply(self, x: Columns, *statistics: Tensor) -> Columns:
        """Return each row over its norm."""
        return normed(x, self.transformer.norm)


def normed(x: Columns, norm: str | None) -> Columns:
    """Return each row over its norm; a row of zeros as it is.

    Args:
        x: Columns.
        norm: "l1", "l2" or `None`.

    Raises:
        ValueError: If the norm is another.
    """
    if norm is None:
        return x
    if norm not in ("l1", "l2"):
        raise ValueError("Other norms are held.")
    if isinstance(x, SparseColumns):
        sizes = x.values.square() if norm == "l2" else x.values.abs()
        total = sizes.new_zeros(x.shape[0]).index_add(0, x.rows, sizes)
        return x.with_values(x.values / _rooted(total, norm)[x.rows])
    sizes = x.square() if norm == "l2" else x.abs()
    return x / _rooted(sizes.sum(1), norm).unsqueeze(1)


def _rooted(total: Tensor, norm: str) -> Tensor:
    """Return norms of rows, 1 where they are zero."""
    total = torch.where(total == 0, torch.ones_like(total), total)
    return total.sqrt() if norm == "l2" else total
