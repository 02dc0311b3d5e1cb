"""Data-OOB: how badly models that have not seen a training row predict it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from typing import final

import torch
from torch import Tensor

from whence.checked import checked
from whence.errors import UnsupportedModel
from whence.methods.attribution import Attribution
from whence.methods.boosting import check_ensemble
from whence.methods.ensemble import Retrained
from whence.methods.halves import folds_of, halves_of
from whence.methods.method import Method
from whence.methods.subsets import Positions
from whence.objective.measures import Measure
from whence.objective.trained import Examples, Trained
from whence.scores import Diagnostics
from whence.trees.forest import data_oob
from whence.trees.model import BoostedModel, ForestModel

_SHARES = (1.0, 0.75, 0.5, 0.25, 0.0)  # of the halves, in the mean with larger parts


@final
@checked
@dataclass(frozen=True, kw_only=True)
class DataOOB(Method):
    r"""Value training rows by the error of the models that have not seen them.

    Of a forest, the trees whose bag lacks the row: the share of them that get its class wrong, or
    their mean squared error, which is minus the paper's value. Of any other model that can be
    fitted again, the mean loss under retrainings on halves without the row. Large values mark wrong
    labels; there is no score of a row on a query.

    Of boosted trees, the loss of a mean of the outputs without the row: of retrainings on halves,
    of which many are cheap, and of retrainings on four fifths of the rows, which know more. The
    share of the halves, in quarters, is the one at which the mean loss of all rows without
    themselves is least, which needs no label one can trust.

    A row that stands twice is judged by models that have seen the other copy, which hides a wrong
    label that both have. Give it once, with weight 2, to models that take sample weights.

    Args:
        ensemble: How many halves a model is fitted on, even, >= 2; 20 at least where it is no
            boosted trees. If `None`, as many of boosted trees as `Boosting` has, and 20 of others.
        seed: Seed of the halves.

    Raises:
        InvalidInput: If an option cannot be used.

    Cost:
        None for a forest; a fit per half for other models, shared with `Boosting` or `Retrained`;
        for boosted trees five more fits to 20 halves, on four fifths of the rows each.

    References:
        Kwon & Zou (2023), equation 2.

    Examples:
        >>> import whence
        >>> from sklearn.datasets import load_wine
        >>> from sklearn.ensemble import RandomForestClassifier
        >>> X, y = load_wine(return_X_y=True)
        >>> y[0] = 2  # a wrong label
        >>> model = RandomForestClassifier(random_state=0).fit(X, y)
        >>> found = whence.DataOOB().fit(whence.from_sklearn(model, X, y))
        >>> int(found.self_scores().argmax())
        0
    """

    ensemble: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the options."""
        check_ensemble(self.ensemble)

    def attribution(self, trained: Trained) -> Attribution:
        """Return the values of the rows of a forest or of boosted trees."""
        return _of_family(trained, self)


@singledispatch
def _of_family(trained: Trained, method: DataOOB) -> Attribution:
    """Return the values for a family of models: by retrainings, unless it knows a shorter way."""
    return _OfEnsemble(trained, Retrained(fits=max(method.ensemble or 20, 20), seed=method.seed))


@_of_family.register
def _(trained: ForestModel, method: DataOOB) -> Attribution:
    return _OfForest(trained)


@_of_family.register
def _of_boosted(trained: BoostedModel, method: DataOOB) -> Attribution:
    parts = [make(trained, method.ensemble, method.seed) for make in (halves_of, folds_of)]
    halves, folds = (each.outputs_without() for each in parts)
    targets, weights = trained.train.targets, trained.weights

    def total_loss(outputs: Tensor) -> float:
        return float((weights * trained.loss(outputs, targets)).sum())

    tried = [folds + share * (halves - folds) for share in _SHARES]
    return _OfParts(trained, min(tried, key=total_loss))


class _OutOfBag(Attribution):
    """Values of rows alone."""

    @property
    def words(self) -> str:
        """The method, with its source."""
        return "out-of-bag error (Data-OOB, Kwon & Zou 2023)"

    def values(
        self, queries: Examples, measure: Measure, where: Positions
    ) -> tuple[Tensor, Diagnostics]:
        """Raise: a value belongs to a row, not to a row and a query."""
        raise UnsupportedModel(
            "Expected a method that scores rows on queries. Got whence.DataOOB, which values rows "
            "alone: use .self_scores() or whence.find_label_errors, and whence.Boosting() or "
            "whence.ForestWeights() for queries."
        )


@final
@dataclass(frozen=True, eq=False)
class _OfForest(_OutOfBag):
    """Values of the rows of a forest.

    Args:
        trained: The forest.
    """

    trained: ForestModel

    def self_values(self, where: Positions) -> tuple[Tensor, Diagnostics]:
        """Return the out-of-bag errors, [k]; of a row that every tree has seen, the mean error."""
        values, trees = data_oob(self.trained.forest, classes=bool(self.trained.classes))
        if not (trees > 0).any():
            raise UnsupportedModel(
                "Expected trees that have not seen some rows. Got a forest in which every tree "
                "has seen every row. Fit it with bootstrap=True."
            )
        errors = -values if not self.trained.classes else 1 - values
        seen = trees == 0
        errors[seen] = errors[~seen].mean()
        notes = [*self.trained.notes]
        if seen.any():
            notes.append(f"{int(seen.sum())} rows are in every bag and have the mean value.")
        return torch.from_numpy(errors[where]), Diagnostics(notes=tuple(notes))

    def outputs_without(self, where: Positions) -> Tensor | None:
        """Return the outputs of the trees that have not seen each row, [k, c]."""
        means = self.trained.forest.out_of_bag_means()[where]
        return self.trained.scores(torch.from_numpy(means))


@final
@dataclass(frozen=True, eq=False)
class _OfParts(_OutOfBag):
    """Values of the rows of boosted trees.

    Args:
        trained: The model.
        outputs: The mean outputs of the retrainings that have not seen each row, [n, c].
    """

    trained: BoostedModel
    outputs: Tensor

    def self_values(self, where: Positions) -> tuple[Tensor, Diagnostics]:
        """Return the losses of the outputs without each row, [k]."""
        losses = self.trained.loss(self.outputs, self.trained.train.targets)
        return losses[torch.from_numpy(where)], Diagnostics(notes=self.trained.notes)

    def outputs_without(self, where: Positions) -> Tensor | None:
        """Return the mean outputs of the retrainings that have not seen each row, [k, c]."""
        return self.outputs[torch.from_numpy(where)]


@final
@dataclass(frozen=True, eq=False)
class _OfEnsemble(_OutOfBag):
    """Values of the rows of any model.

    Args:
        trained: The model.
        method: How its retrainings are made.
    """

    trained: Trained
    method: Retrained

    def self_values(self, where: Positions) -> tuple[Tensor, Diagnostics]:
        """Return the mean losses of the fits that have not seen each row, [k]."""
        _, outside = self.method.ensemble(self.trained).losses()
        return outside[torch.from_numpy(where)], Diagnostics(notes=self.trained.notes)
