"""Held-out quality of a model, beside that of a constant prediction."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from typing import final

import numpy as np
import torch
from torch import Tensor

from whence.errors import InvalidInput, UnsupportedModel
from whence.linear.objective import LinearObjective
from whence.methods.leave_one_out import refits_without
from whence.methods.loo_loss import loo_outputs as without_each
from whence.objective.cache import cached
from whence.objective.targets import target_classes
from whence.objective.trained import Data, Examples, Trained
from whence.progress import clock
from whence.tiles import drawn

_ROWS = 500  # training examples that are predicted without themselves
_OPERATIONS = 1e11  # that it may take: about a second
_FOLDS = 5  # parts of the data that trees and wide models predict without having seen them
_FITTED = 5e7  # rows times parameters up to which a wide model is fitted again for each part
_FITTED_ONCE = 1e9  # the same up to which it is fitted again for one part
_UNEQUAL = 1.5  # weight of a class beside another's from which a fit is one of weighted classes
_TIE = 0.05  # of the largest share: classes whose shares are that near are equally common
_MOST_OF_TREES = 20_000  # rows up to which trees are fitted again for each part


@final
@dataclass(frozen=True, kw_only=True)
class Weighted:
    """Shares of examples, each class with the weight that the fit gave it.

    Args:
        accuracy: The share whose class is right.
        majority: The share of one class, the largest of them.
        commonest: That class, as a position among the classes.
        n: As many examples of equal weight would tell as much.
    """

    accuracy: float
    majority: float
    commonest: int
    n: float


@final
@dataclass(frozen=True, kw_only=True)
class ModelQuality:
    """How good a model is on examples that it was not fitted on.

    Args:
        n: How many examples tell.
        how: Which they are, in words.
        accuracy: The share whose class is right, or `None` for a regression.
        majority: The share of the commonest class, or `None`.
        commonest: That class, as a position among the classes.
        weighted: The same with the classes weighted as in the fit, where it weighed a class half as
            much again as another: such a fit is not meant to be right most often. Else `None`.
        error: The root mean squared error of a regression, in the unit of the target, or `None`.
        error_of_mean: That of always answering the mean of the training targets, or `None`.
    """

    n: int
    how: str
    accuracy: float | None = None
    majority: float | None = None
    commonest: int = 0
    weighted: Weighted | None = None
    error: float | None = None
    error_of_mean: float | None = None

    @property
    def better(self) -> bool | None:
        """Whether the model is better than the simplest answer; `None` where it may be chance."""
        if self.weighted is not None:
            return _gains(self.weighted.accuracy, self.weighted.majority, self.weighted.n)
        if self.accuracy is not None and self.majority is not None:
            return _gains(self.accuracy, self.majority, self.n)
        if self.error is None or self.error_of_mean is None:
            return None
        return self.error < self.error_of_mean


def _gains(accuracy: float, majority: float, n: float) -> bool | None:
    """Return whether a share that is right is more than another; `None` within chance."""
    gain = accuracy - majority
    spread = (accuracy * (1 - accuracy) / n) ** 0.5
    return None if abs(gain) <= 2 * spread else gain > 0


def model_quality(trained: Trained, held_out: Data | None = None) -> ModelQuality | None:
    """Return how good a model is on held-out examples, or on its own, each left out in turn.

    Without held-out examples, up to 500 training examples are predicted by a linear model one
    Newton step without each of them: leave-one-out cross-validation in closed form. Trees, and
    linear models of so many columns that this would take long, are fitted five times, each time
    without a fifth of the rows, which they then predict; the largest of them once.

    Args:
        trained: The model.
        held_out: (X, y) that the model was not fitted on, or `None`.

    Returns:
        The quality; `None` where nothing was held out and leaving out would take long or is not
        exact, and for sequences and several outputs without classes.

    Cost:
        A prediction per held-out example; else a factor of the curvature and c solves for each of
        500 examples, or five fits, once per model.

    References:
        Stone (1974).

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.linear_model import LogisticRegression
        >>> X, y = load_iris(return_X_y=True)
        >>> model = LogisticRegression(tol=1e-8, max_iter=1000).fit(X, y)
        >>> quality = model_quality(whence.from_sklearn(model, X, y))
        >>> round(quality.accuracy, 2), round(quality.majority, 2)
        (0.97, 0.33)
    """
    if held_out is not None:
        examples = trained.examples(held_out)
        return _compared(trained, examples, trained.outputs(examples), "held-out examples")
    with clock("judging the model"):
        return cached(trained, model_quality, _left_out)


def _left_out(trained: Trained) -> ModelQuality | None:
    """Return the quality on training examples that are predicted without themselves."""
    if trained.jumps and len(trained.train) <= _MOST_OF_TREES:
        return _folded(trained)
    smooth = trained.convex and trained.loss == trained.trained_loss
    return _each_left_out(trained) if smooth else None


@singledispatch
def _each_left_out(trained: Trained) -> ModelQuality | None:
    """Return the quality on rows that are each predicted without itself, in closed form."""
    return None


@_each_left_out.register
def _(trained: LinearObjective) -> ModelQuality | None:
    present = np.flatnonzero(trained.weights.numpy() > 0)
    where = present[np.unique(np.linspace(0, len(present) - 1, _ROWS).round().astype(int))]
    p, n = len(trained.params), len(trained.train)
    if n * p * p + p**3 + 2 * p * p * len(where) > _OPERATIONS:
        parts = _FOLDS if n * p <= _FITTED else 1
        return _folded(trained, parts) if n * p <= _FITTED_ONCE else None
    outputs = without_each(trained, where).outputs
    how = "training examples, each predicted by the model without it"
    return _compared(trained, trained.train.subset(where), outputs, how)


def _folded(trained: Trained, parts: int = _FOLDS) -> ModelQuality | None:
    """Return the quality on some fifths of the data, each predicted by a fit to the others."""
    train, n = trained.train, len(trained.train)
    order = drawn(n, n)
    targets = train.targets
    # Every fifth has its share of each class, and of large and small numbers.
    if targets.numel() == n:
        order = order[np.argsort(targets.reshape(n).cpu().numpy()[order], kind="stable")]
    folds = [order[fold::_FOLDS] for fold in range(parts)]
    try:
        outputs = [
            fitted.outputs(train.subset(fold))
            for fitted, fold in zip(refits_without(trained, folds), folds, strict=True)
        ]
    except (InvalidInput, UnsupportedModel):  # a class of one row is gone from a fit
        return None
    where = np.concatenate(folds)
    how = "training examples, each predicted by a fit to four fifths of the data without it"
    return _compared(trained, train.subset(where), torch.cat(outputs), how)


def _compared(
    trained: Trained, examples: Examples, outputs: Tensor, how: str
) -> ModelQuality | None:
    """Return how the outputs compare with the targets."""
    if outputs.ndim != 2:
        return None
    n = len(examples)
    if trained.classes or trained.loss.classifies:
        truth, known = target_classes(examples.targets), target_classes(trained.train.targets)
        said = (outputs[:, 0] > 0).long() if outputs.shape[1] == 1 else outputs.argmax(1)
        commonest = int(torch.mode(known).values)
        return ModelQuality(
            n=n,
            how=how,
            accuracy=float((said == truth).double().mean()),
            majority=float((truth == commonest).double().mean()),
            commonest=commonest,
            weighted=_weighted(trained, known, truth, said == truth),
        )
    if outputs.shape[1] > 1 or not trained.loss.regresses:
        return None
    targets = examples.targets.reshape(n).double()
    predicted = trained.loss.prediction(outputs, examples.targets).double()
    mean = trained.train.targets.double().mean()
    return ModelQuality(
        n=n,
        how=how,
        error=float((predicted - targets).square().mean().sqrt()),
        error_of_mean=float((mean - targets).square().mean().sqrt()),
    )


def _weighted(trained: Trained, known: Tensor, truth: Tensor, right: Tensor) -> Weighted | None:
    """Return the shares with the fit's own weights of classes, `None` where these are alike."""
    weights = trained.weights.double().cpu()
    c = int(torch.cat([known, truth]).max()) + 1
    rows = torch.bincount(known[weights > 0], minlength=c).clamp_min(1)
    by_class = torch.bincount(known, weights, minlength=c) / rows
    some = by_class[by_class > 0]
    if len(some) < 2 or float(some.max() / some.min()) < _UNEQUAL:
        return None
    each = by_class[truth]
    shares = torch.bincount(truth, each, minlength=c) / each.sum()
    largest = shares >= shares.max() * (1 - _TIE)  # balanced classes are equal, but for chance
    commonest = int((torch.bincount(known, minlength=c) * largest).argmax())
    return Weighted(
        accuracy=float(each[right].sum() / each.sum()),
        majority=float(shares[commonest]),
        commonest=commonest,
        n=float(each.sum() ** 2 / each.square().sum()),
    )
