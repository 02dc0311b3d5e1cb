"""XGBoost in whence's form of boosted trees: its scikit-learn face and its Booster."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from whence.arrays import Floats
from whence.errors import UnsupportedModel
from whence.objective.losses import CrossEntropy, Logistic, Loss, SquaredError, Tweedie
from whence.objective.robust_losses import PseudoHuber, Quantile
from whence.trees.form import BoostedTrees, LeafTable, unsupported_objective
from whence.trees.leaves import Integers, LeafRule, NewtonLeaves
from whence.trees.libraries import imported
from whence.trees.losses import (
    Binary,
    BoostingLoss,
    LogLink,
    PseudoHuberSlopes,
    Softmax,
    Squared,
)
from whence.trees.monotone import MonotoneLeaves, Nodes
from whence.trees.quantiles import QuantileLeaves, QuantileStart, of_xgboost
from whence.trees.starts import Fixed, LogPrior, Mean, NewtonStep, Start


def read_xgboost(model: Any, x: Any, y: Floats, weights: Floats) -> BoostedTrees:
    """Return a fitted XGBClassifier, XGBRegressor or Booster as boosted trees.

    Args:
        model: The model.
        x: The rows it was fitted on.
        y: Their targets: class indices or numbers, [n].
        weights: Their sample weights, [n].

    Raises:
        UnsupportedModel: If its objective has no leaf values that are smooth in their rows.
    """
    booster = model.get_booster() if hasattr(model, "get_booster") else model
    config = json.loads(booster.save_config())["learner"]
    options = _tree_options(config)
    rounds = _rounds(model, booster)

    leaf_ids = partial(_leaf_ids, model, booster, rounds)
    ids = leaf_ids(x)
    table = LeafTable.of(ids)
    level = _level(config)
    loss, objective, candidates, stated = _loss(config, ids.shape[1], level)
    positive = float(config["objective"].get("reg_loss_param", {}).get("scale_pos_weight", 1))
    if positive != 1:
        weights = np.where(y == 1, positive * weights, weights)
    rates = np.full(len(ids), float(options["learning_rate"]))
    signs = _signs(options, booster.num_features())
    newton = NewtonLeaves(
        loss,
        rates,
        table.size,
        np.array(float(options.get("reg_lambda", options.get("lambda", 0)))),
        l1=float(options.get("reg_alpha", options.get("alpha", 0))),
        max_step=float(options["max_delta_step"]),
        # Below the least curvature a split is not made; only a tree without splits can be there.
        min_curvature=float(options["min_child_weight"]) * (table.leaves() == 1)[:, :, None],
    )
    rule: LeafRule = newton
    if level is not None:
        rule = QuantileLeaves(level, of_xgboost, rates, table.size)
    elif signs.any():
        rule = MonotoneLeaves(newton, _nodes(booster, signs, newton, table), table.size)
    return BoostedTrees(
        leaves=table.compact(ids),
        targets=y,
        weights=weights,
        rule=rule,
        start=_start(config, candidates, stated, ids.shape[1], y, weights),
        objective=objective,
        table=table,
        route=leaf_ids,
        predict=partial(_raw, model, booster, rounds),
        bags=_bags(config, options, ids),
        untreated=_untreated(config, options),
    )


def _predicted(model: Any, booster: Any, rounds: int, rows: Any, **wanted: bool) -> NDArray[Any]:
    """Return what the booster predicts of rows."""
    matrix = _matrix(model, rows)
    options = {"iteration_range": (0, rounds), "strict_shape": True, **wanted}
    return np.asarray(booster.predict(matrix, **options))


def _leaf_ids(model: Any, booster: Any, rounds: int, rows: Any) -> NDArray[np.intp]:
    """Return the leaves of rows, [t, c, b]."""
    found = _predicted(model, booster, rounds, rows, pred_leaf=True)
    return found[:, :, :, 0].astype(np.intp).transpose(1, 2, 0)


def _raw(model: Any, booster: Any, rounds: int, rows: Any) -> Floats:
    """Return raw predictions of rows, [b, c]."""
    return _predicted(model, booster, rounds, rows, output_margin=True).astype(np.float64)


def _tree_options(config: dict[str, Any]) -> dict[str, str]:
    """Return the options of the trees.

    Raises:
        UnsupportedModel: If the model is linear, or a round has trees that share a target.
    """
    inner = config["gradient_booster"]
    inner = inner.get("gbtree", inner)
    if "tree_train_param" not in inner:
        raise UnsupportedModel(
            f"Expected boosted trees. Got booster={inner['name']!r} of XGBoost. Fit the linear "
            "model with scikit-learn, whose LogisticRegression and Ridge whence reads."
        )
    parallel = int(inner["gbtree_model_param"]["num_parallel_tree"])
    shared = config["learner_train_param"].get("multi_strategy") == "multi_output_tree"
    if parallel > 1 or shared:
        got = f"num_parallel_tree={parallel}" if parallel > 1 else "multi_output_tree"
        raise UnsupportedModel(
            f"Expected one tree per round and output. Got {got} of XGBoost. For a forest use "
            "RandomForestClassifier or RandomForestRegressor of scikit-learn."
        )
    options: dict[str, str] = inner["tree_train_param"]
    return options


def _matrix(model: Any, rows: Any) -> Any:
    """Return rows as the library's matrix, with the model's own missing value."""
    return imported("xgboost").DMatrix(
        rows,
        missing=getattr(model, "missing", np.nan),
        enable_categorical=True,
        feature_types=getattr(model, "feature_types", None),
    )


def _rounds(model: Any, booster: Any) -> int:
    """Return how many rounds predict: those of the best iteration where the fit stopped early."""
    best = booster.attributes().get("best_iteration")
    if best is not None and model is not booster:
        return int(best) + 1
    return int(booster.num_boosted_rounds())


def _level(config: dict[str, Any]) -> float | None:
    """Return the level of the quantile that leaf values are, or `None` where they are none."""
    objective = config["objective"]
    if objective["name"] == "reg:absoluteerror":
        return 0.5
    if objective["name"] != "reg:quantileerror":
        return None
    levels = objective["quantile_loss_param"]["quantile_alpha"].strip("[]()").split(",")
    if len(levels) > 1:
        raise UnsupportedModel(
            f"Expected one quantile. Got {len(levels)} of XGBoost: fit one model per quantile."
        )
    return float(levels[0])


def _loss(
    config: dict[str, Any], c: int, level: float | None
) -> tuple[BoostingLoss, Loss, tuple[Start, ...], Floats]:
    """Return the loss in whence's terms, how its start may come about, and the stated start."""
    name = config["objective"]["name"]
    stated = config["learner_model_param"]["base_score"].strip("[]").split(",")
    base = np.array([float(each) for each in stated])
    if name in ("multi:softprob", "multi:softmax"):
        return Softmax(2.0), CrossEntropy(), (LogPrior(c, centered=True),), base
    if name in ("binary:logistic", "reg:logistic", "binary:logitraw"):
        margin = base if name == "binary:logitraw" else logit(base)
        return Binary(), Logistic(), (Mean("logit"), NewtonStep(Binary())), margin
    if name == "reg:squarederror":
        return Squared(), SquaredError(), (Mean(),), base
    if level is not None:
        return Squared(), Quantile(level), (QuantileStart(level, of_xgboost),), base
    loss: BoostingLoss
    if name == "reg:pseudohubererror":
        delta = float(config["objective"]["pseudo_huber_param"]["huber_slope"])
        loss = PseudoHuberSlopes(delta)
        return loss, PseudoHuber(delta), (NewtonStep(loss),), base
    if name == "count:poisson":
        given = float(config["objective"]["poisson_regression_param"]["max_delta_step"])
        loss, power = LogLink(1.0, float(np.exp(given))), 1.0
    elif name == "reg:gamma":
        loss, power = LogLink(2.0), 2.0
    elif name == "reg:tweedie":
        power = float(config["objective"]["tweedie_regression_param"]["tweedie_variance_power"])
        loss = LogLink(power)
    else:
        raise unsupported_objective("XGBoost", name)
    return loss, Tweedie(power), (Mean("log"), NewtonStep(loss)), np.log(base)


def _start(
    config: dict[str, Any],
    candidates: tuple[Start, ...],
    stated: Floats,
    c: int,
    y: Floats,
    weights: Floats,
) -> Start:
    """Return the start: estimated from the data, which versions do differently, or given."""
    if config["learner_model_param"].get("boost_from_average") == "1":
        for start in candidates:
            value = start.value(y, weights)
            if value.shape == stated.shape and np.allclose(value, stated, rtol=1e-4, atol=1e-5):
                return start
    return Fixed(tuple(np.broadcast_to(stated, c).tolist()))


def _signs(options: dict[str, str], features: int) -> Integers:
    """Return the monotone constraint of each feature: 1, −1 or 0."""
    stated = options["monotone_constraints"].strip("()").split(",")
    given = [int(each) for each in stated if each.strip()]
    return np.array(given + [0] * (features - len(given)))


def _nodes(
    booster: Any, signs: Integers, newton: NewtonLeaves, table: LeafTable
) -> tuple[tuple[Nodes, ...], ...]:
    """Return the nodes of each tree, [t][c]."""
    model = json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]["model"]
    rounds, c = table.numbers.shape[:2]

    def nodes(at: tuple[int, int]) -> Nodes:
        tree = model["trees"][at[0] * c + at[1]]
        children = np.array([tree["left_children"], tree["right_children"]]).T
        ends = children[:, 0] < 0
        leaves = table.compact_in(at, np.where(ends, np.arange(len(ends)), -1))
        bound = np.where(ends, 0, signs[tree["split_indices"]])
        return Nodes.of(children, bound, leaves, float(newton.l2), table.size)

    return tuple(tuple(nodes((t, k)) for k in range(c)) for t in range(rounds))


def _bags(
    config: dict[str, Any], options: dict[str, str], ids: NDArray[np.intp]
) -> NDArray[np.bool_] | None:
    """Return the rows of each round's bag, as XGBoost's generators draw them, [t, n].

    A Mersenne twister gives the column sampler a seed, and then each tree one for a congruential
    generator of its own, which draws a number per row.
    """
    share = np.float32(options["subsample"])
    rounds, c, n = ids.shape
    if share >= 1:
        return None
    twister = np.random.RandomState(int(config["generic_param"]["seed"]))
    seeds = twister.randint(0, 2**32, size=rounds * c + 1, dtype=np.uint64)[1:]
    powers = np.cumprod(np.full(n, 16807, dtype=np.uint64))  # modulo 2**64
    states = (seeds[:, None] * powers) & np.uint64(2**63 - 1)
    bags = (states - np.uint64(1)).astype(np.float64) / (2.0**63 - 2) < share
    return np.asarray(bags.reshape(rounds, c, n))


def _untreated(config: dict[str, Any], options: dict[str, str]) -> tuple[str, ...]:
    """Return the options in use that whence's leaf values may not follow."""
    inner = config["gradient_booster"]
    found = [] if inner["name"] == "gbtree" else [f"booster={inner['name']!r}"]
    plain = {"sampling_method": "uniform"}
    found += [f"{name}={options[name]}" for name, at in plain.items() if options[name] != at]
    if float(options["subsample"]) < 1:
        found.append(f"subsample={float(options['subsample']):g}")
    return tuple(found)
