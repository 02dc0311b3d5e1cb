"""HistGradientBoosting of scikit-learn in whence's form of boosted trees."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.validation import _check_monotonic_cst

from whence.arrays import Floats
from whence.objective.losses import CrossEntropy, Logistic, Loss, SquaredError, Tweedie
from whence.objective.robust_losses import Quantile
from whence.trees.form import BoostedTrees, LeafTable, unsupported_objective
from whence.trees.leaves import LeafRule, NewtonLeaves
from whence.trees.losses import Binary, BoostingLoss, LogLink, Softmax, Squared
from whence.trees.monotone import MonotoneLeaves, Nodes
from whence.trees.quantiles import QuantileLeaves, QuantileStart, of_numpy
from whence.trees.starts import LogPrior, Mean, Start


def read_hist(model: Any, x: Any, y: Floats, weights: Floats) -> BoostedTrees:
    """Return a fitted HistGradientBoostingClassifier or Regressor as boosted trees.

    Args:
        model: The estimator.
        x: The rows it was fitted on.
        y: Their targets: class indices or numbers, [n].
        weights: Their sample weights, [n].

    Raises:
        UnsupportedModel: If its loss is one that is not known.
    """
    leaf_ids = partial(_leaf_ids, model, _numbered(model))
    ids = leaf_ids(x)
    table = LeafTable.of(ids)
    if getattr(model, "class_weight", None) is not None:
        weights = weights * compute_sample_weight(model.class_weight, y)
    rates = np.full(len(ids), float(model.learning_rate))
    rule: LeafRule
    start: Start
    objective: Loss
    level = _level(model)
    if level is not None:
        rule = QuantileLeaves(level, of_numpy, rates, table.size)
        start, objective = QuantileStart(level, of_numpy), Quantile(level)
    else:
        loss, start, objective = _loss(model)
        newton = NewtonLeaves(loss, rates, table.size, _penalties(model, table))
        rule = _monotone(model, newton, table) or newton
    return BoostedTrees(
        leaves=table.compact(ids),
        targets=y,
        weights=weights,
        rule=rule,
        start=start,
        objective=objective,
        table=table,
        route=leaf_ids,
        predict=partial(_raw, model),
        held_out=_held_out(model, y),
        untreated=_untreated(model),
    )


def _level(model: Any) -> float | None:
    """Return the level of the quantile that leaf values are, or `None` where they are none."""
    if model.loss == "quantile":
        return float(model.quantile)
    return 0.5 if model.loss == "absolute_error" else None


def _penalties(model: Any, table: LeafTable) -> Floats:
    """Return λ of each leaf: all where a tree without a split is left at zero."""
    l2 = np.full((*table.numbers.shape[:2], table.size), float(model.l2_regularization) + 1e-15)
    for t, trees in enumerate(model._predictors):
        for k, tree in enumerate(trees):
            if len(tree.nodes) == 1:
                l2[t, k] = np.inf
    return l2


def _monotone(model: Any, newton: NewtonLeaves, table: LeafTable) -> MonotoneLeaves | None:
    """Return the rule where a constraint may bind, else `None`."""
    signs = _check_monotonic_cst(model, model.monotonic_cst)
    if not signs.any():
        return None
    if model.is_categorical_ is not None:  # the trees see the categories first
        signs = np.concatenate([signs[model.is_categorical_], signs[~model.is_categorical_]])
    nodes = []
    for t, trees in enumerate(model._predictors):
        tree = trees[0].nodes  # several classes have no constraints
        ends = tree["is_leaf"] == 1
        children = np.stack([tree["left"], tree["right"]], axis=1).astype(np.intp)
        children[ends] = 0
        leaves = table.compact_in((t, 0), np.where(ends, np.arange(len(tree)), -1))
        bound = np.where(ends, 0, signs[tree["feature_idx"]])
        nodes.append((Nodes.of(children, bound, leaves, newton.l2[t, 0, 0], table.size),))
    return MonotoneLeaves(newton, tuple(nodes), table.size)


def _loss(model: Any) -> tuple[BoostingLoss, Start, Loss]:
    """Return the loss in whence's terms."""
    if model.loss == "log_loss":
        c = model.n_trees_per_iteration_
        if c == 1:
            return Binary(), Mean("logit"), Logistic()
        return Softmax(), LogPrior(c, centered=True), CrossEntropy()
    if model.loss == "squared_error":
        return Squared(), Mean(), SquaredError()
    powers = {"poisson": 1.0, "gamma": 2.0}
    if model.loss in powers:
        power = powers[model.loss]
        return LogLink(power), Mean("log"), Tweedie(power)
    raise unsupported_objective("HistGradientBoosting", f"loss={model.loss!r}")


def _held_out(model: Any, y: Floats) -> NDArray[np.bool_] | None:
    """Return the rows that were held out to stop early, [n], or `None`."""
    if not (model.do_early_stopping_ and model._use_validation_data):
        return None
    if not model.validation_score_.size or model.validation_fraction is None:
        return None
    fitted, _ = train_test_split(
        np.arange(len(y)),
        test_size=model.validation_fraction,
        stratify=y if hasattr(model, "classes_") else None,
        random_state=model._random_seed,
    )
    return ~np.isin(np.arange(len(y)), fitted)


def _raw(model: Any, rows: Any) -> NDArray[np.float64]:
    """Return the raw predictions, [b, c]."""
    return np.asarray(model._raw_predict(rows), dtype=np.float64)


def _numbered(model: Any) -> list[list[Any]]:
    """Return the trees, [t][c], with the number of each node as its value."""
    return [[_with_numbers(tree) for tree in trees] for trees in model._predictors]


def _with_numbers(tree: Any) -> Any:
    """Return a tree that predicts the number of the node in which a row ends."""
    named = copy.copy(tree)
    named.nodes = tree.nodes.copy()
    named.nodes["value"] = np.arange(len(named.nodes))
    return named


def _leaf_ids(model: Any, numbered: list[list[Any]], x: Any) -> NDArray[np.intp]:
    """Return the node in which each row ends, per round and output, [t, c, n]."""
    rows = model._preprocess_X(x, reset=False)
    bitsets, positions = model._bin_mapper.make_known_categories_bitsets()
    ids = np.empty((len(numbered), model.n_trees_per_iteration_, len(rows)), np.intp)
    for t, trees in enumerate(numbered):
        for k, tree in enumerate(trees):
            ids[t, k] = tree.predict(rows, bitsets, positions, 1)
    return ids


def _untreated(model: Any) -> tuple[str, ...]:
    """Return the options in use that whence's leaf values may not follow."""
    return ("warm_start=True",) if model.warm_start else ()
