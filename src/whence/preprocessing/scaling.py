"""Scalers and imputers, as functions of which rows are there."""

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

from whence.preprocessing.columns import Columns
from whence.preprocessing.dense import DenseColumns
from whence.preprocessing.order import extremes, quantile
from whence.preprocessing.step import Leaf


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
        mean, variance = x.moments(kept if self.sample is None else kept * self.sample)
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
        return x.shifted(mean if scaler.with_mean else None, scale if scaler.with_std else None)


@dataclass(frozen=True, eq=False)
class BetweenExtremes(Leaf):
    """`MinMaxScaler`.

    Args:
        transformer: Fitted.
    """

    transformer: MinMaxScaler

    def statistics(self, x: Columns, kept: Tensor) -> tuple[Tensor, ...]:
        """Return minima and maxima."""
        return -extremes(-x.cells(), kept), extremes(x.cells(), kept)

    def apply(self, x: Columns, *statistics: Tensor) -> Columns:
        """Return x on the scale of the range."""
        low, high = statistics
        first, last = self.transformer.feature_range
        scale = _units(high - low) / (last - first)
        scaled = x.shifted(low - first * scale, scale)
        if self.transformer.clip:
            return scaled.with_values(scaled.values.clamp(first, last))
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
        return (x.largest(kept),)

    def apply(self, x: Columns, *statistics: Tensor) -> Columns:
        """Return x over the largest size."""
        return x.shifted(None, _units(statistics[0]))


@dataclass(frozen=True, eq=False)
class Robust(Leaf):
    """`RobustScaler`.

    Args:
        transformer: Fitted.
    """

    transformer: RobustScaler

    def statistics(self, x: Columns, kept: Tensor) -> tuple[Tensor, ...]:
        """Return medians and ranges between two quantiles."""
        scaler, cells = self.transformer, x.cells()
        low, high = (quantile(cells, q / 100, kept) for q in scaler.quantile_range)
        scale = _units(high - low)
        if scaler.unit_variance:
            first, last = (float(ndtri(q / 100)) for q in scaler.quantile_range)
            scale = scale / (last - first)
        return quantile(cells, 0.5, kept), scale

    def apply(self, x: Columns, *statistics: Tensor) -> Columns:
        """Return (x − median)/range."""
        center, scale = statistics
        scaler = self.transformer
        return x.shifted(
            center if scaler.with_centering else None, scale if scaler.with_scaling else None
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
        imputer, cells = self.transformer, x.cells()
        missing = np.asarray(imputer.missing_values)
        if missing.dtype.kind != "f" or not np.isnan(missing):
            raise ValueError("Other imputers are held.")
        if imputer.strategy == "mean":
            return (x.moments(kept)[0],)
        if imputer.strategy == "median":
            return (quantile(cells, 0.5, kept),)
        return (torch.from_numpy(np.asarray(imputer.statistics_, dtype=np.float64)),)

    def apply(self, x: Columns, *statistics: Tensor) -> Columns:
        """Return x filled, columns that are always missing dropped, indicators behind."""
        cells = x.cells()
        missing = torch.isnan(cells)
        filled = torch.where(missing, statistics[0].expand_as(cells), torch.nan_to_num(cells))
        known: NDArray[np.float64] = np.asarray(self.transformer.statistics_, dtype=np.float64)
        filled = filled[:, torch.from_numpy(~np.isnan(known))]
        indicator: Any = getattr(self.transformer, "indicator_", None)
        if indicator is None:
            return DenseColumns(filled)
        shown = torch.from_numpy(np.asarray(indicator.features_, dtype=np.int64))
        return DenseColumns(torch.cat([filled, missing[:, shown].to(cells.dtype)], 1))


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
    sizes = x.with_values(x.values.square() if norm == "l2" else x.values.abs())
    return x.over_rows(_rooted(sizes.row_sums(), norm))


def _rooted(total: Tensor, norm: str) -> Tensor:
    """Return norms of rows, 1 where they are zero."""
    total = torch.where(total == 0, torch.ones_like(total), total)
    return total.sqrt() if norm == "l2" else total
