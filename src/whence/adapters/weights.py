"""The weight of each training example in scikit-learn's objectives, as a function of which stay."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor

from whence.adapters.estimators import Mean, Problem
from whence.arrays import Floats
from whence.checked import array, weights


@dataclass(frozen=True, eq=False, kw_only=True)
class Weights:
    """wᵢ = sᵢ v(yᵢ) n/m, for sample weights s, class weights v and the divisor m of a mean loss.

    Args:
        sample: s >= 0, [n].
        labels: The class of each example, [n]; `None` for a regression.
        by_class: v of each class, [C]; 1 if `None`.
        balanced: Whether v is the number of examples over C times that of the class instead.
        counts_weights: Whether balanced classes count sample weights; else they count rows.
        mean: What the loss is divided by: nothing, the sum of sample weights, or the rows.
        scale: n, if it is not the number of examples here.
        frequencies: Whether s is the number of rows that an example stands for.
    """

    sample: Tensor
    labels: Tensor | None = None
    by_class: Tensor | None = None
    balanced: bool = False
    counts_weights: bool = False
    mean: Mean = "none"
    scale: int | None = None
    frequencies: bool = False

    @property
    def depend_on_others(self) -> bool:
        """Whether an example's weight follows which others there are."""
        return self.balanced or self.mean != "none"

    def __call__(self, kept: Tensor) -> Tensor:
        """Return the weights where only some of the examples are there.

        Args:
            kept: 1 for an example that is there, 0 for one that is not, [n] or [n, k]; it may be
                differentiated.

        Returns:
            w, in the shape of `kept`.
        """
        return kept * self.rates(kept)

    def rates(self, kept: Tensor) -> Tensor:
        """Return w of each example as if it were there, the others as `kept` says, in its shape."""
        columns = kept.reshape(len(kept), -1)
        sample = self.sample.unsqueeze(1)
        weights = sample.expand_as(columns)
        if self.by_class is not None and self.labels is not None:
            weights = weights * self.by_class[self.labels].unsqueeze(1)
        if self.balanced and self.labels is not None:
            counted = columns * sample if self.counts_weights else columns
            totals = columns.new_zeros(int(self.labels.max()) + 1, columns.shape[1])
            totals = totals.index_add(0, self.labels, counted)
            there = totals > 0
            share = totals.sum(0) / (there.sum(0) * torch.where(there, totals, 1.0))
            weights = weights * share[self.labels]
        if self.mean != "none":
            divisor = (columns * sample if self.mean == "weights" else columns).sum(0)
            weights = weights * ((self.scale or len(kept)) / divisor)
        return weights.reshape(kept.shape)

    def with_row(self, label: Tensor | None, like: int) -> Weights:
        """Return the weights of one example more, of the sample weight of that at a position."""
        labels = self.labels
        if labels is not None and label is not None:
            labels = torch.cat([labels, label])
        return replace(
            self,
            sample=torch.cat([self.sample, self.sample[like : like + 1]]),
            labels=labels,
            scale=len(self.sample),
        )

    def with_label(self, where: NDArray[np.intp], labels: Tensor) -> Tensor:
        """Return the rate of examples with other classes, all examples as they are, [k]."""
        if self.labels is None:
            return self.rates(torch.ones(len(self.sample), dtype=torch.float64))[where]
        at = torch.from_numpy(where)
        other = replace(
            self,
            sample=torch.cat([self.sample, self.sample[at]]),
            labels=torch.cat([self.labels, labels]),
            scale=len(self.sample),
        )
        kept = torch.cat([torch.ones_like(self.sample), torch.zeros(len(at), dtype=torch.float64)])
        return other.rates(kept)[len(self.sample) :]


# From 1.8 on, "balanced" counts sample weights in these two, and rows in all others.
_COUNTING = {LogisticRegression, LinearSVC}


def weights_of(
    final: Any,
    problem: Problem,
    classes: NDArray[Any] | None,
    labels: NDArray[Any],
    sample: Floats,
) -> Weights:
    """Return how an estimator weighs its training examples.

    Args:
        final: The estimator.
        problem: What it minimized.
        classes: The classes it knows, sorted; `None` for a regression.
        labels: The user's targets, [n].
        sample: Sample weights, [n].

    Returns:
        The weights. One-versus-rest losses hold class weights themselves.
    """
    each_weight, mean = torch.from_numpy(sample), problem.mean
    if classes is None:
        return Weights(sample=each_weight, mean=mean)
    choice = None if problem.one_vs_rest else getattr(final, "class_weight", None)
    where = torch.from_numpy(np.searchsorted(classes, labels))
    by_class = None
    if choice not in (None, "balanced"):
        each = compute_class_weight(choice, classes=classes, y=labels)
        by_class = torch.from_numpy(np.asarray(each, dtype=np.float64))
    can_count = "sample_weight" in inspect.signature(compute_class_weight).parameters
    return Weights(
        sample=each_weight,
        labels=where,
        by_class=by_class,
        balanced=choice == "balanced",
        counts_weights=can_count and type(final) in _COUNTING,
        mean=mean,
    )


def weighted_rows(support: NDArray[np.intp], sample: Floats) -> NDArray[np.intp]:
    """Return which rows are meant by what libsvm calls its support vectors.

    Rows of weight 0 are gone before it counts.

    Args:
        support: `support_` of the estimator.
        sample: The sample weights it was fitted with, [n].
    """
    return np.flatnonzero(sample > 0)[support]


def sample_weights(sample_weight: Any, n: int) -> Floats:
    """Return checked sample weights, 1 where none were given.

    Args:
        sample_weight: As a user passes them: a number, n numbers or `None`.
        n: The number of rows.

    Returns:
        The weights, [n].

    Raises:
        InvalidInput: If they are not n finite numbers >= 0.
    """
    if sample_weight is None:
        return np.ones(n)
    given = array("sample_weight", sample_weight)
    return weights("sample_weight", np.full(n, given) if given.ndim == 0 else given, n)


def staying(given: Floats, idle: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the positions of the rows that a refit is made on.

    Args:
        given: The weights of all rows, [n]; 0 removes one.
        idle: Which rows the user's own fit had with weight 0, [n]. Libraries count them: they stay
            until `weights_without` takes them out.
    """
    return np.flatnonzero((given > 0) | (idle & ~np.signbit(given)))
