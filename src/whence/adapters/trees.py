"""Fitted boosting models and forests as models that methods score and that can be refitted."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn import config_context, get_config
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from whence.adapters.rows import labels_of, width_of
from whence.adapters.tables import as_rows, pair
from whence.adapters.tree_fits import TreeFit, tree_fit
from whence.adapters.weights import sample_weights, staying
from whence.arrays import Floats
from whence.checked import said
from whence.errors import InvalidInput, NotFitted, UnsupportedModel, warn_user
from whence.objective.losses import SquaredError
from whence.objective.share_losses import Lifted
from whence.objective.trained import Data
from whence.preprocessing.containers import before, final
from whence.preprocessing.refit import encoded_all, is_cross_fitted, training_matrix
from whence.rows import column_names, put, take
from whence.trees.bagging import is_forest, read_forest
from whence.trees.forest import Forest
from whence.trees.form import NotRecomputed
from whence.trees.model import BoostedModel, ForestModel, TreeExamples, TreeModel
from whence.trees.reading import classes_of, encode, is_boosting, read_boosting
from whence.workers import Backend, threads_for


def is_tree_model(estimator: Any) -> bool:
    """Return whether an estimator is, or a pipeline ends in, trees that whence reads.

    Args:
        estimator: Any object.
    """
    last = final(estimator)
    return is_boosting(last) or is_forest(last)


def from_trees(
    estimator: Any,
    X: Any,
    y: Any,
    sample_weight: Any = None,
    *,
    workers: int = 1,
    backend: Backend = "process",
) -> TreeModel:
    """Return a fitted tree ensemble with the data it was fitted on.

    Args:
        estimator: A fitted HistGradientBoosting*, GradientBoosting*, RandomForest*, ExtraTrees*,
            DecisionTree* or Bagging* of trees of scikit-learn, a model or Booster of LightGBM or
            XGBoost, a model of CatBoost, or a Pipeline that ends in one.
        X: The rows it was fitted on: an array, a frame or a sparse matrix, [n, d].
        y: The targets it was fitted on, [n].
        sample_weight: The sample weights it was fitted with, [n], >= 0.
        workers: Processes, or tasks of Ray, that fit it again at a time.
        backend: "process" or "ray".

    Returns:
        The model.

    Raises:
        NotFitted: If the estimator has not been fitted.
        UnsupportedModel: If its predictions cannot be recomputed from its leaves.
        InvalidInput: If X, y or the weights cannot be what it was fitted on.

    Cost:
        A prediction of leaves, and their values once over.

    Examples:
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.ensemble import HistGradientBoostingRegressor
        >>> X, y = load_diabetes(return_X_y=True)
        >>> model = from_trees(HistGradientBoostingRegressor(max_iter=20).fit(X, y), X, y)
        >>> model
        <HistGradientBoostingRegressor on 442 rows>
    """
    _check_fitted(estimator)
    names = column_names(X)
    rows, ids = as_rows(X, width_of(X), None)
    n = rows.shape[0]
    labels = labels_of(y)
    if labels.shape[:1] != (n,):
        raise InvalidInput(f"Expected {n} targets, one per row. Got shape {labels.shape}.")
    if labels.ndim > 1:
        raise UnsupportedModel(
            f"Expected one target per row. Got {labels.shape[1]}: fit a model for each of them."
        )
    weights = sample_weights(sample_weight, n)
    source = _Source(
        fit=tree_fit(estimator, n),
        rows=rows,
        labels=labels,
        idle=weights == 0,
        ids=ids,
        names=names,
        classes=classes_of(final(estimator)),
        weighted=sample_weight is not None,
        workers=workers,
        backend=backend,
    )
    try:
        with said("X as the trees were fitted on"):
            model = source.model(estimator, weights)
    except NotRecomputed as error:
        if hasattr(estimator, "fit"):  # what cannot be fitted again is refused
            warn_user(f"{error} A refit to these rows may give another model than this one.")
        raise
    if source.classes or not model.loss.classifies:
        return model
    # A Booster has no names of its classes: they are 0, 1, …
    c = model.outputs(model.train.subset(np.arange(1))).shape[1]
    classes = tuple(range(max(2, c)))
    if not np.isin(labels, classes).all():
        raise UnsupportedModel(
            "Expected whole targets 0, 1, … of a classification. Got shares between them."
        )
    return replace(source, classes=classes).model(estimator, weights)


def _check_fitted(estimator: Any) -> None:
    """Raise unless an estimator is fitted; a booster without `fit` always is."""
    own = getattr(estimator, "is_fitted", None)  # CatBoost's
    try:
        if own is None and hasattr(estimator, "fit"):
            check_is_fitted(estimator)
        fitted = own is None or own()
    except NotFittedError:
        fitted = False
    if not fitted:
        raise NotFitted(
            f"Expected a fitted estimator. Got {type(estimator).__name__} before .fit(X, y). "
            "Fit it, and pass the same X and y."
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class _Source:
    """The data of a tree ensemble, and how it is fitted.

    Args:
        fit: How it is fitted again.
        rows: X, [n].
        labels: y, [n].
        idle: Which rows the user's fit had with weight 0, [n].
        ids: The user's names of the rows, [n].
        names: The names of the columns, or `None` of an array.
        classes: The classes; none for a regression.
        weighted: Whether sample weights were given to the fit.
        workers: Processes, or tasks of Ray, that fit it again at a time.
        backend: "process" or "ray".
        settings: The settings of scikit-learn.
    """

    fit: TreeFit
    rows: Any
    labels: NDArray[Any]
    idle: NDArray[np.bool_]
    ids: NDArray[Any]
    names: tuple[str, ...] | None
    classes: tuple[Any, ...]
    weighted: bool
    workers: int
    backend: Backend
    settings: dict[str, Any] = field(default_factory=get_config)

    def fitted(self, weights: Floats) -> Any:
        """Return the estimator fitted on the rows with weight, and on those that never had any."""
        where, given = self._part(weights)
        labels = self.labels[where]
        if not len(where):
            raise InvalidInput("Expected at least one training row to fit on. Got none.")
        there = len(set(labels.tolist()))
        if there < len(self.classes):
            raise InvalidInput(
                f"Expected rows of all {len(self.classes)} classes to fit on. Got rows of {there} "
                f"among {len(where)}. Keep more rows."
            )
        # A thread or process of its own begins with scikit-learn's settings, not the user's.
        with config_context(**self.settings), self.threads():
            return self.fit.among(len(weights), where)(take(self.rows, where), labels, given)

    def _part(self, weights: Floats) -> tuple[NDArray[np.intp], Floats | None]:
        """Return the positions of the rows of a fit, and the sample weights it is given, if any."""
        where = staying(weights, self.idle)
        given = weights[where]
        return where, given if self.weighted or bool((given != 1).any()) else None

    def threads(self) -> AbstractContextManager[Any]:
        """Return the context in which a fit has as many threads as it has work for."""
        return threads_for(float(np.prod(self.rows.shape)), self.fit.library)

    def refit_edited(self, index: int, new: TreeExamples, weights: Floats) -> TreeModel:
        """Return the model that a fit gives with another row in the place of one."""
        target = float(new.targets[0])
        labels = self.labels.copy() if self.classes else self.labels.astype(np.float64)
        labels[index] = self.classes[int(target)] if self.classes else target
        rows = put(self.rows, index, new.inputs)
        edited = replace(self, rows=rows, labels=labels)
        return edited.model(edited.fitted(weights), weights)

    def model(self, estimator: Any, weights: Floats) -> TreeModel:
        """Return the model of an estimator that `fitted` gives for these weights."""
        with self.threads():
            return self._read(estimator, weights)

    def _read(self, estimator: Any, weights: Floats) -> TreeModel:
        """Return an estimator in the form of the methods."""
        last, first = final(estimator), before(estimator)
        features = _same if first is None else first.transform
        where, given = self._part(weights)
        kept = np.zeros(len(weights), dtype=bool)
        kept[where] = True
        if first is not None and is_cross_fitted(first):
            some = take(self.rows, where), self.labels[where]
            inside, unknown = training_matrix(first, *some, None)
            if unknown:
                raise UnsupportedModel(unknown)
            columns = encoded_all(first, inside, self.rows, kept)
        else:
            columns = features(self.rows)
            inside = columns if kept.all() else take(columns, where)
        shared: dict[str, Any] = {
            "name": type(last).__name__,
            "settings": self.fit.settings,
            "train": self.encode_rows(self.rows, self.ids, self.labels),
            "weights": torch.from_numpy(weights),
            "classes": self.classes,
            "encode": self.encode,
            "fit": self.fitted,
            "read": self.model,
            "fit_edited": self.refit_edited,
            "notes": self.fit.notes,
            "repeats": self.fit.repeats,
            "workers": self.workers,
            "backend": self.backend,
        }
        everyone = encode(self.classes, self.labels)
        if is_forest(last):
            forest = read_forest(last, inside, self.labels[where], given)
            if not kept.all():
                forest = forest.among(kept, forest.leaves_of(columns), everyone)
            if first is not None:
                forest = forest.behind(features)
            return _forest_model(forest, self.classes, shared)
        trees = read_boosting(last, inside, self.labels[where], given)
        if not kept.all():
            others = trees.leaves_of(take(columns, np.flatnonzero(~kept)))
            trees = trees.among(kept, others, everyone)
        if first is not None:
            trees = trees.behind(features)
        return BoostedModel(loss=trees.objective, trees=trees, **shared)

    def encode(self, data: Data) -> TreeExamples:
        """Check and encode (X, y): one row or many."""
        if isinstance(data, TreeExamples):
            return data
        inputs, given = pair(data)
        rows, ids = as_rows(inputs, width_of(self.rows), self.names)
        labels = labels_of(given)
        labels = labels.reshape(1) if labels.ndim == 0 else labels
        if len(labels) != rows.shape[0]:
            raise InvalidInput(
                f"Expected one target per row. Got {rows.shape[0]} rows and {len(labels)} targets."
            )
        return self.encode_rows(rows, ids, labels)

    def encode_rows(self, rows: Any, ids: NDArray[Any], labels: Any) -> TreeExamples:
        """Return checked rows with their targets encoded."""
        targets: Tensor = torch.from_numpy(encode(self.classes, labels))
        if len(self.classes) > 2:
            targets = targets.long()
        return TreeExamples(inputs=rows, targets=targets, ids=ids)


def _same(rows: Any) -> Any:
    """Return the rows: there is nothing before the estimator."""
    return rows


def _forest_model(forest: Forest, classes: tuple[Any, ...], shared: dict[str, Any]) -> ForestModel:
    """Return a forest as a model: log odds of its shares, with ε = 1/(2n) added to each."""
    if not classes:
        return ForestModel(loss=SquaredError(), forest=forest, **shared)
    floor = 1 / (2 * len(forest.targets))
    note = (
        f"Losses and margins add {floor:.2g}, half of one training row, to each class share: a "
        "share of 0 has no logarithm."
    )
    shared["notes"] = (*shared["notes"], note)
    return ForestModel(loss=Lifted(floor), forest=forest, floor=floor, **shared)
