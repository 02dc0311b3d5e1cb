r"""Classifiers that know their training rows through sums: a refit is a sum with other weights.

```
S(w) = Σᵢ wᵢ onehot(yᵢ) ⊗ t(xᵢ)   [C, t],        f(x) = outputs of S(w)
```

Means, variances and counts of each class are such sums. Removing a row subtracts its part.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whence.adapters.answered import Answered, Reader
from whence.adapters.answers import Classes, one_of_two
from whence.adapters.rows import RowExamples, encoded, labels_of
from whence.adapters.tables import as_floats
from whence.errors import InvalidInput
from whence.objective.losses import Loss
from whence.rows import column_names, dense
from whence.tiles import spread

_FEW = 64  # changed rows up to which a sum is corrected and not made anew


class Sums(ABC):
    """What a classifier sums over its training rows, and what it answers with those sums."""

    @abstractmethod
    def parts(self, rows: Tensor) -> Tensor:
        """Return t(x) of rows [b, d], [b, t]; the first is 1."""

    @abstractmethod
    def outputs(self, sums: Tensor, rows: Tensor) -> Tensor:
        """Return the log of p(class | x), up to a constant of x, [b, C].

        Args:
            sums: S, [C, t]; every class has weight.
            rows: x, [b, d].
        """


@final
@dataclass(frozen=True, eq=False)
class Priors:
    """The prior of each class.

    Args:
        given: Its log, [C], or `None`.
        fitted: Whether it is the class's share of the weights where none is given; else uniform.
    """

    given: Tensor | None
    fitted: bool = True

    @staticmethod
    def of(priors: Any, *, fitted: bool = True) -> Priors:
        """Return the priors that an estimator was given, [C] or `None`."""
        if priors is None:
            return Priors(None, fitted)
        return Priors(torch.from_numpy(np.asarray(priors, dtype=np.float64)).log(), fitted)

    def __call__(self, count: Tensor) -> Tensor:
        """Return log priors for the weight of each class, [C]."""
        if self.given is not None and len(self.given) == len(count):
            return self.given
        count = count if self.fitted else torch.ones_like(count)
        return (count / count.sum()).log()


@final
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ClosedForm(Answered):
    """A classifier that is fitted by sums over its training rows.

    Args:
        family: What it sums.
        parts: t(xᵢ), [n, t].
        at: The class of each row, [n].
        sums: S(w), [C, t].
    """

    answer: Classes
    family: Sums
    parts: Tensor
    at: Tensor
    sums: Tensor

    @property
    def loss(self) -> Loss:
        """−log of the probability of the class."""
        return self.answer.of_scores

    @property
    def instant(self) -> bool:
        """True: a refit subtracts the parts of the removed rows."""
        return True

    def outputs(self, examples: Any) -> Tensor:
        """Return log-probabilities up to a constant, [b, C]; their difference of two, [b, 1]."""
        there = self.sums[:, 0] > 0
        rows = torch.from_numpy(_numbers(examples.inputs))
        values = self.family.outputs(self.sums[there], rows)
        every = values.new_full((len(rows), len(self.sums)), np.log(self.answer.floor))
        every[:, there] = values - values.logsumexp(1, keepdim=True)
        return torch.from_numpy(one_of_two(every.numpy()))

    def refit(self, weights: Tensor | None = None) -> ClosedForm:
        """Return the classifier fitted on the rows with weight."""
        if weights is None:
            return self
        weights = weights.double()
        changed = torch.nonzero(weights != self.weights).flatten()
        if len(changed) <= _FEW:
            sums = self.sums.clone()
            part = (weights - self.weights)[changed, None] * self.parts[changed]
            sums.index_add_(0, self.at[changed], part)
        else:
            sums = class_sums(self.parts, self.at, weights, len(self.sums))
        sums[:, 0] = sums.new_zeros(len(sums)).index_add(0, self.at, weights)  # exactly 0 if empty
        if not bool((sums[:, 0] > 0).any()):
            raise InvalidInput("Expected at least one training row with weight. Got none.")
        return replace(self, weights=weights, sums=sums)


def closed_form(
    estimator: Any,
    family: Sums,
    X: Any,
    y: Any,
    sample_weight: NDArray[np.float64] | None,
    reader: Reader,
) -> ClosedForm | None:
    """Return a fitted classifier by its sums, or `None` where they do not give its answers.

    Args:
        estimator: Fitted.
        family: What it sums.
        X: Its training rows, [n, d].
        y: Its labels, [n].
        sample_weight: Its sample weights, or `None`.
        reader: Reads another fit of such a classifier.
    """
    labels = labels_of(y)
    names = column_names(X)
    answer = Classes(
        labels=np.asarray(estimator.classes_), says="predict_proba", floor=1 / (2 * len(labels))
    )
    train = encoded((X, labels), estimator.n_features_in_, names, answer.targets)
    rows = torch.from_numpy(_numbers(train.inputs))
    at = train.targets.long()
    weights = np.ones(len(labels)) if sample_weight is None else sample_weight
    parts = family.parts(rows)
    model = ClosedForm(
        fitted=estimator,
        family=family,
        answer=answer,
        train=train,
        weights=torch.from_numpy(weights),
        parts=parts,
        at=at,
        sums=class_sums(parts, at, torch.from_numpy(weights), len(answer.labels)),
        names=names,
        reader=reader,
    )
    few = train.subset(spread(len(train), 50))
    return model if _agrees(model, few) else None


def class_sums(parts: Tensor, at: Tensor, weights: Tensor, classes: int) -> Tensor:
    """Return Σᵢ wᵢ onehot(yᵢ) ⊗ t(xᵢ), [C, t].

    Args:
        parts: t(xᵢ), [n, t].
        at: yᵢ, [n].
        weights: wᵢ, [n].
        classes: C.
    """
    return parts.new_zeros(classes, parts.shape[1]).index_add(0, at, weights.unsqueeze(1) * parts)


def _agrees(model: ClosedForm, few: RowExamples) -> bool:
    """Return whether the sums give the estimator's own probabilities."""
    shares = model.loss.probabilities(model.outputs(few))
    own = np.asarray(model.fitted.predict_proba(few.inputs))
    return shares is not None and bool(np.allclose(shares.numpy(), own, atol=1e-6))


def _numbers(rows: Any) -> NDArray[np.float64]:
    """Return rows as a dense array of finite numbers, [b, d]."""
    return np.ascontiguousarray(dense(as_floats(rows)))
