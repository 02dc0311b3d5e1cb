"""CatBoost in whence's form of boosted trees."""

from __future__ import annotations

import re
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from whence.arrays import Floats
from whence.objective.losses import CrossEntropy, Logistic, Loss, SquaredError, Tweedie
from whence.objective.robust_losses import Huber
from whence.trees.backtracking import with_steps_taken
from whence.trees.form import BoostedTrees, LeafTable, unsupported_objective
from whence.trees.leaves import NewtonLeaves, VectorLeaves
from whence.trees.losses import (
    Binary,
    BoostingLoss,
    Clipped,
    LogLink,
    Softmax,
    Squared,
    UnitCurvature,
)
from whence.trees.starts import Fixed, Mean, Start

_ROUNDING = 1e-9  # of the range of the raw predictions


def read_catboost(model: Any, x: Any, y: Floats, weights: Floats) -> BoostedTrees:
    """Return a fitted CatBoostClassifier, CatBoostRegressor or CatBoost as boosted trees.

    Args:
        model: The model.
        x: The rows it was fitted on.
        y: Their targets: class indices or numbers, [n].
        weights: Their sample weights, [n].

    Raises:
        UnsupportedModel: If its objective has no leaf values that are smooth in their rows.
    """
    options = model.get_all_params()
    if "class_weights" in options:
        weights = weights * np.array(options["class_weights"])[y.astype(np.intp)]
    loss, start, objective, c = _loss(options)

    leaf_ids = partial(_leaf_ids, model, c)
    ids = leaf_ids(x)
    table = LeafTable.of(ids)
    # The penalty is scaled by the mean weight, which a removal leaves as it is.
    l2 = float(options["l2_leaf_reg"]) * weights.mean()
    rates = np.full(len(ids), float(options["learning_rate"]))
    steps = int(options["leaf_estimation_iterations"])
    newton = NewtonLeaves(loss, rates, table.size, np.array(l2), steps=steps)
    together = c > 1 and options["leaf_estimation_method"] != "Gradient"
    trees = BoostedTrees(
        leaves=table.compact(ids),
        targets=y,
        weights=weights,
        rule=VectorLeaves(Softmax(), rates, table.size, l2) if together else newton,
        start=start,
        objective=objective,
        table=table,
        route=leaf_ids,
        predict=partial(_raw, model),
        untreated=_untreated(model, options),
    )
    if not together and steps > 1 and _backtracks(trees, x):
        return with_steps_taken(trees, newton, _leaf_values(model, table))
    return trees


def _backtracks(trees: BoostedTrees, x: Any) -> bool:
    """Return whether some steps were not taken whole: leaf values that differ say so."""
    theirs = trees.predict(x)
    return bool(np.abs(theirs - trees.replay.outputs).max() > _ROUNDING * np.ptp(theirs))


def _leaf_values(model: Any, table: LeafTable) -> Floats:
    """Return the model's leaf values by the compact numbers of its leaves, [t, size]."""
    counts = model.get_tree_leaf_counts()
    each = np.split(np.asarray(model.get_leaf_values()), np.cumsum(counts)[:-1])
    values = np.zeros((len(counts), table.size))
    for found, numbers, own in zip(values, table.numbers[:, 0], each, strict=True):
        ids = np.flatnonzero(numbers[: len(own)] < table.size - 1)
        found[numbers[ids]] = own[ids]
    return values


def _leaf_ids(model: Any, c: int, rows: Any) -> NDArray[np.intp]:
    """Return the leaves of rows, [t, c, b]: the outputs share their trees."""
    ids = np.asarray(model.calc_leaf_indexes(rows)).T.astype(np.intp)
    return np.repeat(ids[:, None], c, axis=1)


def _raw(model: Any, rows: Any) -> Floats:
    """Return raw predictions of rows, [b, c]."""
    outputs = np.asarray(model.predict(rows, prediction_type="RawFormulaVal"))
    return outputs.reshape(len(outputs), -1)


def _loss(options: dict[str, Any]) -> tuple[BoostingLoss, Start, Loss, int]:
    """Return the loss in whence's terms, and the number of outputs."""
    name, _, given = options["loss_function"].partition(":")
    if name == "MultiClass":
        c = len(options["class_names"])
        loss: BoostingLoss = Softmax()
        start: Start = Fixed((0.0,) * c)
        objective: Loss = CrossEntropy()
    else:
        c = 1
        loss, link, objective = _single(name, dict(re.findall(r"(\w+)=([^;]+)", given)))
        start = Mean(link) if options["boost_from_average"] else Fixed((0.0,))
    if options["leaf_estimation_method"] == "Gradient":
        loss = UnitCurvature(loss)
    return loss, start, objective, c


def _single(
    name: str, given: dict[str, str]
) -> tuple[BoostingLoss, Literal["identity", "log", "logit"], Loss]:
    """Return a loss of one output, the link of its start, and the loss as whence measures it."""
    if name == "Logloss":
        return Binary(), "logit", Logistic()
    if name == "RMSE":
        return Squared(), "identity", SquaredError()
    if name == "Poisson":
        return LogLink(1.0), "log", Tweedie(1.0)
    if name == "Tweedie":
        power = float(given["variance_power"])
        return LogLink(power), "log", Tweedie(power)
    if name == "Huber":
        delta = float(given["delta"])
        return Clipped(delta), "identity", Huber(delta)
    raise unsupported_objective("CatBoost", name)


def _untreated(model: Any, options: dict[str, Any]) -> tuple[str, ...]:
    """Return the options in use that whence's leaf values may not follow."""
    plain = {"langevin": False, "model_shrink_rate": 0, "posterior_sampling": False}
    found = ["monotone_constraints"] if options.get("monotone_constraints") else []
    for name, value in plain.items():
        if options.get(name, value) != value:
            found.append(f"{name}={options[name]}")
    if model.get_cat_feature_indices():
        found.append("cat_features, whose statistics differ between training and prediction")
    if options.get("leaf_estimation_iterations", 1) > 1 and options["loss_function"] != "Logloss":
        found.append(f"leaf_estimation_iterations={options['leaf_estimation_iterations']}")
    if options["leaf_estimation_method"] not in ("Newton", "Gradient"):
        found.append(f"leaf_estimation_method={options['leaf_estimation_method']!r}")
    return tuple(found)
