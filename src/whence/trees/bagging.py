"""Forests and bagged trees of scikit-learn in closed form."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial, singledispatch
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import BaggingClassifier, BaggingRegressor
from sklearn.ensemble._forest import ForestClassifier, ForestRegressor
from sklearn.tree import BaseDecisionTree
from sklearn.utils.class_weight import compute_sample_weight

from whence.arrays import Floats
from whence.errors import UnsupportedModel
from whence.trees.forest import Forest
from whence.trees.form import LeafTable, NotRecomputed, class_weights
from whence.trees.reading import classes_of, encode

_TOLERANCE = 1e-5  # of the range of the predictions


def is_forest(model: Any) -> bool:
    """Return whether a model is a tree, a forest or bagged trees of scikit-learn.

    Args:
        model: Any object.
    """
    return _ensemble(model) is not None


def read_forest(model: Any, x: Any, y: Any, sample_weight: Any = None) -> Forest:
    """Return a fitted forest in closed form, after recomputing its predictions.

    Args:
        model: A fitted RandomForest*, ExtraTrees*, DecisionTree* or Bagging* of trees.
        x: The rows that it was fitted on, as they were passed to it.
        y: Their targets, [n].
        sample_weight: Their sample weights, [n]; 1 each if `None`.

    Returns:
        The forest, whose recomputed predictions equal the library's to 1e-5 of their range.

    Raises:
        UnsupportedModel: If it is no forest, or the predictions differ.
        InvalidInput: If a target is not among the classes.

    Examples:
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.ensemble import RandomForestRegressor
        >>> X, y = load_diabetes(return_X_y=True)
        >>> model = RandomForestRegressor(n_estimators=20, random_state=0).fit(X, y)
        >>> forest = read_forest(model, X, y)
        >>> forest.weights(forest.leaves[:, :2]).sum(axis=1)
        array([1., 1.])
    """
    if np.ndim(y) > 1 and np.shape(y)[1] > 1:
        raise UnsupportedModel(
            f"Expected one target per row. Got {np.shape(y)[1]}: fit one forest per target."
        )
    ensemble = _ensemble(model)
    if ensemble is None:
        raise UnsupportedModel(
            "Expected a tree, a forest or bagged trees of scikit-learn. Got "
            f"{type(model).__name__}."
        )
    classes = classes_of(model)
    numbers = encode(classes, y)
    n = len(numbers)
    targets = np.eye(len(classes))[numbers.astype(np.intp)] if classes else numbers[:, None]
    weights = np.ones(n) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)

    route, predict = partial(_leaf_ids, ensemble), partial(_means, model, bool(classes))
    ids = route(x)
    table = LeafTable.of(ids)
    forest = Forest(
        leaves=table.compact(ids)[:, 0],
        counts=np.ones((len(ids), n)),
        targets=targets,
        table=table,
        route=route,
        predict=predict,
    )
    theirs = predict(x)
    difference = np.inf
    for counts in _counts(ensemble, numbers, weights, len(ids)):
        read = replace(forest, counts=counts)
        difference = float(np.abs(read.outputs(read.leaves) - theirs).max())
        difference /= float(np.ptp(theirs)) or 1.0
        if difference <= _TOLERANCE:
            return read
    expected = (
        f"Expected to recompute the predictions of {type(model).__name__} as means of the targets "
        f"in its leaves to {_TOLERANCE:g} of their range. Got a difference of {difference:.1e}. "
        "The likely cause is"
    )
    criterion = model.criterion if hasattr(model, "criterion") else model.estimator_.criterion
    if criterion == "absolute_error":
        raise UnsupportedModel(
            f"{expected} criterion='absolute_error': fit without it, or score the model by "
            "retraining."
        )
    raise NotRecomputed(
        f"{expected} that X, y or sample_weight are not those it was fitted on, in the same order; "
        "or warm_start."
    )


def _leaf_ids(ensemble: _Ensemble, rows: Any) -> NDArray[np.intp]:
    """Return the leaves of rows, [t, 1, b]."""
    return np.stack([tree.apply(part) for tree, part in ensemble.members(rows)])[:, None]


def _means(model: Any, classifies: bool, rows: Any) -> Floats:
    """Return class shares or means, [b, c]."""
    outputs = model.predict_proba(rows) if classifies else model.predict(rows)
    return np.asarray(outputs, dtype=np.float64).reshape(len(outputs), -1)


class _Ensemble(ABC):
    """A tree, a forest or bagged trees.

    Args:
        model: Fitted.
        single: Whether it is one tree.
    """

    model: Any
    single: ClassVar[bool] = False

    @abstractmethod
    def members(self, rows: Any) -> Iterator[tuple[Any, Any]]:
        """Yield each tree with the columns that it was fitted on."""

    @abstractmethod
    def whole(self, weights: Floats, trees: int) -> Floats:
        """Return the weights of the rows in each tree where no bags are drawn, [t, n]."""


@dataclass(frozen=True, eq=False)
class _Tree(_Ensemble):
    """One tree."""

    model: Any
    single: ClassVar[bool] = True

    def members(self, rows: Any) -> Iterator[tuple[Any, Any]]:
        """Yield the tree."""
        yield self.model, rows

    def whole(self, weights: Floats, trees: int) -> Floats:
        """Return the weights."""
        return weights[None].copy()


@dataclass(frozen=True, eq=False)
class _Forest(_Ensemble):
    """A forest, whose trees read all columns."""

    model: Any

    def members(self, rows: Any) -> Iterator[tuple[Any, Any]]:
        """Yield the trees, each with the rows as the forest reads them."""
        matrix = self.model._validate_X_predict(rows)
        yield from ((tree.tree_, matrix) for tree in self.model.estimators_)

    def whole(self, weights: Floats, trees: int) -> Floats:
        """Return the weights for each tree."""
        return np.tile(weights, (trees, 1))


@dataclass(frozen=True, eq=False)
class _Bags(_Ensemble):
    """Bagged trees, each of some columns and perhaps of some rows."""

    model: Any

    def members(self, rows: Any) -> Iterator[tuple[Any, Any]]:
        """Yield the trees, each with its columns."""
        matrix = np.asarray(rows)
        pairs = zip(self.model.estimators_, self.model.estimators_features_, strict=True)
        yield from ((tree, matrix[:, columns]) for tree, columns in pairs)

    def whole(self, weights: Floats, trees: int) -> Floats:
        """Return the weights where a row is in the sample of a tree."""
        return weights * _drawn(self.model, len(weights))


@singledispatch
def _ensemble(model: Any) -> _Ensemble | None:
    """Return a model of scikit-learn's as an ensemble of trees, or `None` of anything else."""
    return None


@_ensemble.register(BaseDecisionTree)
def _tree(model: Any) -> _Ensemble:
    return _Tree(model)


@_ensemble.register(ForestClassifier)
@_ensemble.register(ForestRegressor)
def _forest(model: Any) -> _Ensemble:
    return _Forest(model)


@_ensemble.register(BaggingClassifier)
@_ensemble.register(BaggingRegressor)
def _bags(model: Any) -> _Ensemble | None:
    trees = getattr(model, "estimators_", [])
    members = [_ensemble(tree) for tree in trees]
    alone = members and all(member is not None and member.single for member in members)
    return _Bags(model) if alone else None


def _counts(ensemble: _Ensemble, y: Floats, weights: Floats, trees: int) -> Iterator[Floats]:
    """Yield the weights of the rows in each tree, [t, n], as versions of scikit-learn differ.

    From 1.9 on, sample weights are the chances of being drawn into a bag; before, they multiply
    how often a row is in it.
    """
    model = ensemble.model
    choice = getattr(model, "class_weight", None)
    if choice is not None and choice != "balanced_subsample":
        weights = weights * class_weights(model, y)
    if not getattr(model, "bootstrap", False):  # which a tree has not
        yield ensemble.whole(weights, trees)
        return
    drawn = _drawn(model, len(y))
    if choice == "balanced_subsample":
        samples = model.estimators_samples_
        drawn *= np.stack([compute_sample_weight("balanced", y, indices=at) for at in samples])
    yield drawn
    if not (weights == 1).all():
        yield drawn * weights


def _drawn(model: Any, n: int) -> Floats:
    """Return how often each row is in the bag of each tree, [t, n]."""
    samples = model.estimators_samples_
    return np.stack([np.bincount(at, minlength=n) for at in samples]).astype(np.float64)
