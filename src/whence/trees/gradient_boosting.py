"""GradientBoosting of scikit-learn in whence's form of boosted trees."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble._gradient_boosting import _random_sample_mask
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state

from whence.arrays import Floats
from whence.objective.losses import CrossEntropy, Logistic, Loss, SquaredError
from whence.objective.robust_losses import Huber, Quantile
from whence.trees.form import BoostedTrees, LeafTable, unsupported_objective
from whence.trees.leaves import LeafRule, NewtonLeaves
from whence.trees.losses import Binary, BoostingLoss, Softmax, Squared
from whence.trees.quantiles import (
    HuberLeaves,
    QuantileLeaves,
    QuantileStart,
    of_numpy,
    of_sklearn,
)
from whence.trees.starts import Fixed, LogPrior, Mean, Start


def read_gradient_boosting(model: Any, x: Any, y: Floats, weights: Floats) -> BoostedTrees:
    """Return a fitted GradientBoostingClassifier or Regressor as boosted trees.

    Args:
        model: The estimator.
        x: The rows it was fitted on.
        y: Their targets: class indices or numbers, [n].
        weights: Their sample weights, [n].

    Raises:
        UnsupportedModel: If its loss is the exponential one.
    """
    leaf_ids, raw = partial(_leaf_ids, model), partial(_raw, model)
    ids = leaf_ids(x)
    table = LeafTable.of(ids)
    c = ids.shape[1]
    # Friedman's factor (c - 1)/c multiplies the learning rate for more than two classes.
    rate = model.learning_rate * ((c - 1) / c if c > 1 else 1)
    fitted = _fitted_rows(model, y)
    rates = np.full(len(ids), rate)
    rule, start, objective = _robust(model, rates, table.size) or _smooth(model, rates, table.size)
    return BoostedTrees(
        leaves=table.compact(ids),
        targets=y,
        weights=weights,
        rule=rule,
        start=start,
        objective=objective,
        table=table,
        route=leaf_ids,
        predict=raw,
        held_out=None if len(fitted) == len(y) else ~np.isin(np.arange(len(y)), fitted),
        bags=_bags(model, ids, fitted),
        untreated=_untreated(model),
    )


def _robust(model: Any, rates: Floats, size: int) -> tuple[LeafRule, Start, Loss] | None:
    """Return the rule of a loss whose leaf values are quantiles or Huber's, or `None`."""
    if model.loss not in ("absolute_error", "quantile", "huber"):
        return None
    level = float(model.alpha) if model.loss == "quantile" else 0.5
    zero = model.init == "zero"
    start: Start = Fixed((0.0,)) if zero else QuantileStart(level, of_numpy)
    if model.loss == "huber":
        rule = HuberLeaves(level, of_sklearn, rates, size, float(model.alpha))
        return rule, start, Huber(float(model._loss.closs.delta))
    return QuantileLeaves(level, of_sklearn, rates, size), start, Quantile(level)


def _smooth(model: Any, rates: Floats, size: int) -> tuple[LeafRule, Start, Loss]:
    """Return the rule of a loss whose leaf values are Newton steps."""
    loss, start, objective = _loss(model)
    return NewtonLeaves(loss, rates, size, np.array(0.0)), start, objective


def _loss(model: Any) -> tuple[BoostingLoss, Start, Loss]:
    """Return the loss in whence's terms."""
    c = model.estimators_.shape[1]
    zero = model.init == "zero"
    if model.loss == "log_loss":
        if c == 1:
            return Binary(), Fixed((0.0,)) if zero else Mean("logit"), Logistic()
        prior = LogPrior(c, centered=True)
        return Softmax(), Fixed((0.0,) * c) if zero else prior, CrossEntropy()
    if model.loss == "squared_error":
        return Squared(), Fixed((0.0,)) if zero else Mean(), SquaredError()
    raise unsupported_objective("GradientBoosting", f"loss={model.loss!r}")


def _leaf_ids(model: Any, rows: Any) -> NDArray[np.intp]:
    """Return the leaves of rows, [t, c, b]."""
    # Its trees were fitted without names, and warn of a frame's.
    plain = rows.to_numpy() if hasattr(rows, "to_numpy") else rows
    ids = np.asarray(model.apply(plain), dtype=np.intp)
    return ids.reshape(len(ids), len(model.estimators_), -1).transpose(1, 2, 0)


def _raw(model: Any, rows: Any) -> Floats:
    """Return the raw predictions, [b, c]."""
    asked = model.decision_function if hasattr(model, "classes_") else model.predict
    outputs = asked(rows)
    return np.asarray(outputs, dtype=np.float64).reshape(len(outputs), -1)


def _fitted_rows(model: Any, y: Floats) -> NDArray[np.intp]:
    """Return the rows that trees were fitted on, in their order: all but those that tell when."""
    if model.n_iter_no_change is None:
        return np.arange(len(y))
    fitted, _ = train_test_split(
        np.arange(len(y)),
        random_state=model.random_state,
        test_size=model.validation_fraction,
        stratify=y if hasattr(model, "classes_") else None,
    )
    return np.asarray(fitted)


def _bags(model: Any, ids: NDArray[np.intp], fitted: NDArray[np.intp]) -> NDArray[np.bool_] | None:
    """Return the rows of each round's bag, drawn again from the seed, [t, 1, n]."""
    if model.subsample == 1.0:
        return None
    generator = check_random_state(model.random_state)
    size = max(1, int(model.subsample * len(fitted)))
    bags = np.zeros((len(ids), ids.shape[2]), dtype=bool)
    for bag in bags:
        bag[fitted] = _random_sample_mask(len(fitted), size, generator)
        for _ in range(ids.shape[1]):
            generator.randint(0, 2147483647)  # the seed of a tree's splitter
    return bags[:, None]


def _untreated(model: Any) -> tuple[str, ...]:
    """Return the options in use that whence's leaf values may not follow."""
    seeded = isinstance(model.random_state, (int, np.integer))
    found = [] if model.init is None or model.init == "zero" else [f"init={model.init!r}"]
    if not seeded and model.subsample < 1:
        found.append(f"subsample={model.subsample} without an integer random_state")
    if not seeded and model.n_iter_no_change is not None:
        found.append("n_iter_no_change without an integer random_state")
    if model.warm_start:
        found.append("warm_start=True")
    return tuple(found)
