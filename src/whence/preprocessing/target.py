"""`TargetEncoder`: means of the target by category, as functions of which rows are there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.model_selection import check_cv
from sklearn.preprocessing import TargetEncoder
from torch import Tensor

from whence.preprocessing.columns import Columns, Rows
from whence.preprocessing.dense import DenseColumns
from whence.preprocessing.step import Statistics, Step


@dataclass(frozen=True, eq=False)
class Encoded(Step):
    """`TargetEncoder`; the training rows are encoded by means of the other folds.

    Args:
        transformer: Fitted.
        targets: One column per output: the numbers, or 0 and 1 for each class, [n, m].
        folds: The fold of each training row, [n]; `None` where they are not known, and all rows
            encode all.
    """

    transformer: TargetEncoder
    targets: Tensor
    folds: NDArray[np.intp] | None

    def fitted(self, train: Rows, kept: Tensor) -> Statistics:
        """Return the means of all rows, then those without each fold."""
        codes = codes_of(self.transformer, train)
        rest = [kept * torch.from_numpy((~fold).astype(np.float64)) for fold in self._folds()]
        means = tuple(self._means_of(codes, weights) for weights in [kept, *rest])
        return Statistics(steps=means)

    def of_train(self, train: Rows, statistics: Statistics) -> Columns:
        """Return the encodings by the means of the other folds."""
        codes, folds = codes_of(self.transformer, train), self._folds()
        if not folds:
            return DenseColumns(self._encoded(codes, statistics.steps[0]))
        each = zip(folds, statistics.steps[1:], strict=True)
        parts = [self._encoded(codes[torch.from_numpy(fold)], means) for fold, means in each]
        places = np.concatenate([np.flatnonzero(fold) for fold in folds])
        order = torch.from_numpy(np.argsort(places, kind="stable"))
        return DenseColumns(torch.cat(parts)[order])

    def of_others(self, others: Rows, statistics: Statistics) -> Columns:
        """Return the encodings by the means of all rows."""
        return DenseColumns(self._encoded(codes_of(self.transformer, others), statistics.steps[0]))

    def _folds(self) -> list[NDArray[np.bool_]]:
        """Return which training rows are in each fold, [n] each."""
        return [] if self.folds is None else [self.folds == k for k in np.unique(self.folds)]

    def _means_of(self, codes: Tensor, weights: Tensor) -> Statistics:
        """Return the means of the categories of each feature and output, and those of all rows."""
        found: list[Tensor] = []
        for feature, categories in enumerate(self.transformer.categories_):
            known = codes[:, feature] >= 0
            for output in range(self.targets.shape[1]):
                found += self._means(
                    codes[:, feature].clamp_min(0),
                    self.targets[:, output],
                    weights,
                    weights * known,
                    len(categories),
                )
        return Statistics(tuple(found))

    def _encoded(self, rows: Tensor, means: Statistics) -> Tensor:
        """Return the encodings of rows by means over training rows, [b, f m]."""
        found, columns = iter(means.own), []
        for at in rows.unbind(1):
            for _ in range(self.targets.shape[1]):
                encoded, overall = next(found)[at.clamp_min(0)], next(found)
                columns.append(torch.where(at >= 0, encoded, overall.expand_as(encoded)))
        return torch.stack(columns, 1)

    def _means(
        self, codes: Tensor, y: Tensor, weights: Tensor, known: Tensor, size: int
    ) -> tuple[Tensor, Tensor]:
        """Return the shrunk mean of each category, and the mean of all."""
        total = weights.sum()
        overall = weights @ y / total
        zero = weights.new_zeros(size)
        counts = zero.index_add(0, codes, known)
        sums = zero.index_add(0, codes, known * y)
        there = counts.detach() > 0
        safe = torch.where(there, counts, torch.ones_like(counts))
        means = sums / safe
        if self.transformer.smooth == "auto":
            variance = weights @ (y - overall).square() / total
            apart = known * (y - means[codes]).square()
            spread = zero.index_add(0, codes, apart) / safe
            below = variance * safe + spread
            share = variance * safe / torch.where(below > 0, below, torch.ones_like(below))
            there = there & (below.detach() > 0)
            encoded = share * means + (1 - share) * overall
        else:
            smooth = float(self.transformer.smooth)
            encoded = (sums + smooth * overall) / (safe + smooth)
        return torch.where(there, encoded, overall.expand_as(encoded)), overall


def encoded(
    transformer: TargetEncoder, labels: NDArray[Any], kept: Tensor, *, folds: bool
) -> Encoded:
    """Return the step of a fitted `TargetEncoder`.

    Args:
        transformer: Fitted.
        labels: Targets, [n].
        kept: 1 for a row that it was fitted on, [n]; another is in the first fold.
        folds: Whether its folds are known.
    """
    classes = transformer.classes_
    if classes is None:
        targets = np.asarray(labels, dtype=np.float64)[:, None]
    elif len(classes) == 2:
        targets = (labels == classes[1]).astype(np.float64)[:, None]
    else:
        targets = (labels[:, None] == classes[None, :]).astype(np.float64)
    where = None
    if folds:
        there = kept.numpy() > 0
        where = np.zeros(len(labels), dtype=np.intp)
        where[there] = folds_of(transformer, labels[there])
    return Encoded(transformer, torch.from_numpy(targets), where)


def folds_of(transformer: TargetEncoder, labels: NDArray[Any]) -> NDArray[np.intp]:
    """Return the fold in which each training row was left out, [n]."""
    numbers = transformer.target_type_ == "continuous"
    splitter = check_cv(transformer.cv, labels, classifier=not numbers)
    if splitter is not transformer.cv:  # of a number of folds
        seed = transformer.random_state
        splitter.shuffle = bool(transformer.shuffle)
        splitter.random_state = None if seed == "deprecated" else seed
    folds = np.zeros(len(labels), dtype=np.intp)
    for fold, (_, inside) in enumerate(splitter.split(np.zeros((len(labels), 1)), labels)):
        folds[inside] = fold
    return folds


def codes_of(transformer: TargetEncoder, rows: Rows) -> Tensor:
    """Return the category of each cell, −1 for one that is not known, [b, f].

    Args:
        transformer: Fitted.
        rows: A frame or an array, or columns.
    """
    frame = pd.DataFrame(rows.plain)
    codes = [
        pd.Index(categories).get_indexer(pd.Index(frame.iloc[:, j]))
        for j, categories in enumerate(transformer.categories_)
    ]
    return torch.from_numpy(np.stack(codes, 1).astype(np.int64))
