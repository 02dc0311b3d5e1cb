"""Counts of words weighted by how rare a word is, as functions of which documents are there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer
from torch import Tensor

from whence.preprocessing.columns import Columns, Rows
from whence.preprocessing.scaling import normed
from whence.preprocessing.sparse import SparseColumns, as_sparse
from whence.preprocessing.step import Statistics, Step
from whence.preprocessing.table import Plain


@dataclass(frozen=True, eq=False)
class Weighted(Step):
    """`TfidfTransformer`, or `TfidfVectorizer` on a vocabulary that is held.

    Args:
        transformer: Fitted, with its options.
        counts: Counts of the training documents, if they are known; else the step before makes
            them.
    """

    transformer: Any
    counts: SparseColumns | None

    def fitted(self, train: Rows, kept: Tensor) -> Statistics:
        """Return idf, where it is used."""
        idf = self.idf(self._counted(train), kept)
        return Statistics() if idf is None else Statistics((idf,))

    def of_train(self, train: Rows, statistics: Statistics) -> Columns:
        """Return tf-idf."""
        return self.apply(self._counted(train), *statistics.own)

    def of_others(self, others: Rows, statistics: Statistics) -> Columns:
        """Return tf-idf."""
        if self.counts is None:
            counts = as_sparse(others.numbers())
        else:
            counts = _counts(self.transformer, others)
        return self.apply(counts, *statistics.own)

    def _counted(self, train: Rows) -> SparseColumns:
        """Return the counts of the training documents."""
        return as_sparse(train.numbers()) if self.counts is None else self.counts

    def idf(self, x: SparseColumns, kept: Tensor) -> Tensor | None:
        """Return log(n/df) + 1 of each word, or `None` where it is not used."""
        options = self.transformer
        if not options.use_idf:
            return None
        extra = 1.0 if options.smooth_idf else 0.0
        there = (x.values.detach() != 0).to(kept.dtype)
        counts = kept.new_zeros(x.shape[1]).index_add(0, x.columns, kept[x.rows] * there)
        rare = torch.log((kept.sum() + extra) / (counts + extra)) + 1
        # A word of one document alone leaves the vocabulary with it. What its coefficient did is
        # in the influence of the document on the parameters.
        return torch.where(counts.detach() == 1, rare.detach(), rare)

    def apply(self, x: SparseColumns, idf: Tensor | None = None) -> Columns:
        """Return term frequencies times idf, each row over its norm."""
        values = x.values
        if self.transformer.sublinear_tf:
            values = torch.log(values) + 1
        if idf is not None:
            values = values * idf[x.columns]
        return normed(x.with_values(values), self.transformer.norm)


def of_counts(transformer: TfidfTransformer) -> Weighted:
    """Return the step of a fitted `TfidfTransformer`.

    Args:
        transformer: Fitted.
    """
    return Weighted(transformer, None)


def of_documents(transformer: TfidfVectorizer, train: Rows) -> Weighted:
    """Return the step of a fitted `TfidfVectorizer`.

    Args:
        transformer: Fitted.
        train: The documents it was fitted on.
    """
    return Weighted(transformer, _counts(transformer, train))


def _counts(vectorizer: TfidfVectorizer, documents: Rows) -> SparseColumns:
    """Return how often each word is in each document."""
    counts = CountVectorizer.transform(vectorizer, documents.plain)
    return as_sparse(Plain(counts.astype(np.float64)).numbers())
