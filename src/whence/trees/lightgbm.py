"""LightGBM in whence's form of boosted trees: its scikit-learn face and its Booster."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whence.arrays import Floats
from whence.objective.losses import CrossEntropy, Logistic, Loss, SquaredError, Tweedie
from whence.objective.robust_losses import Huber, Quantile
from whence.trees.form import BoostedTrees, LeafTable, class_weights, unsupported_objective
from whence.trees.leaves import Integers, LeafRule, NewtonLeaves
from whence.trees.losses import (
    Binary,
    BoostingLoss,
    Clipped,
    LogLink,
    Softmax,
    Squared,
    UnitCurvature,
)
from whence.trees.monotone import MonotoneLeaves, Nodes
from whence.trees.quantiles import QuantileLeaves, QuantileStart, of_lightgbm
from whence.trees.starts import Fixed, LogPrior, Mean, Start

_BLOCK = 1024  # rows that share a random stream in LightGBM's bagging


def read_lightgbm(model: Any, x: Any, y: Floats, weights: Floats) -> BoostedTrees:
    """Return a fitted LGBMClassifier, LGBMRegressor or Booster as boosted trees.

    Args:
        model: The model.
        x: The rows it was fitted on.
        y: Their targets: class indices or numbers, [n].
        weights: Their sample weights, [n].

    Raises:
        UnsupportedModel: If its objective has no leaf values that are smooth in their rows.
    """
    booster = getattr(model, "booster_", model)
    text = _Text.of(booster)
    rounds = _rounds(model, booster)
    if getattr(model, "class_weight", None) is not None:
        weights = weights * class_weights(model, y)

    leaf_ids = partial(_leaf_ids, booster, rounds, text.outputs)
    ids = leaf_ids(x)
    table = LeafTable.of(ids)
    rates = np.array(text.rates[: len(ids)])
    rule, start, objective = _robust(text, rates, table.size) or _smooth(text, rates, table)
    return BoostedTrees(
        leaves=table.compact(ids),
        targets=y,
        weights=weights,
        rule=rule,
        start=start,
        objective=objective,
        table=table,
        route=leaf_ids,
        predict=partial(_raw, booster, rounds),
        emphasis=_label_weights(text, y),
        bags=_bags(text, len(ids), len(y)),
        untreated=_untreated(text),
    )


@dataclass(frozen=True)
class _Text:
    """A model in LightGBM's text format.

    Args:
        objective: The objective and its parameters, as "binary sigmoid:1".
        parameters: The options of the training.
        trees: The fields of each tree, in order.
        features: The range, or the categories, of each feature.
        outputs: The trees per round.
    """

    objective: str
    parameters: dict[str, str]
    trees: list[dict[str, str]]
    features: list[str]
    outputs: int

    @staticmethod
    def of(booster: Any) -> _Text:
        """Return the text of a booster, taken apart."""
        text = booster.model_to_string(num_iteration=-1)
        head, *trees = re.split(r"^Tree=\d+\n", text.split("\nend of trees")[0], flags=re.M)
        fields = dict(re.findall(r"^(\w+)=(.*)$", head, flags=re.M))
        return _Text(
            objective=fields.get("objective", "custom"),
            parameters=dict(re.findall(r"^\[(\w+): ?(.*)\]$", text, flags=re.M)),
            trees=[dict(re.findall(r"^(\w+)=(.*)$", tree, flags=re.M)) for tree in trees],
            features=fields.get("feature_infos", "").split(),
            outputs=int(fields["num_tree_per_iteration"]),
        )

    def number(self, option: str) -> float:
        """Return an option that is a number, 0 where an old model does not say."""
        return float(self.parameters.get(option) or 0)

    def rows_at_root(self, t: int) -> int | None:
        """Return how many rows the trees of round t were fitted on; `None` if none has a split."""
        trees = self.trees[t * self.outputs : (t + 1) * self.outputs]
        counts = [tree["internal_count"].split() for tree in trees if "internal_count" in tree]
        return next((int(count[0]) for count in counts if count), None)

    @property
    def constraints(self) -> Integers:
        """The monotone constraint of each feature: 1, −1 or 0."""
        stated = self.parameters.get("monotone_constraints")
        return np.array(stated.split(","), dtype=int) if stated else np.zeros(1, dtype=int)

    @property
    def rates(self) -> list[float]:
        """The learning rate of each round; the first tree forgets it when it takes up the start."""
        stated = [float(tree["shrinkage"]) for tree in self.trees[:: self.outputs]]
        return [self.number("learning_rate") if rate == 1 else rate for rate in stated]


def _leaf_ids(booster: Any, rounds: int, c: int, rows: Any) -> NDArray[np.intp]:
    """Return the leaves of rows, [t, c, b]."""
    ids = np.asarray(booster.predict(rows, pred_leaf=True, num_iteration=rounds))
    return ids.reshape(len(ids), -1, c).transpose(1, 2, 0).astype(np.intp)


def _raw(booster: Any, rounds: int, rows: Any) -> Floats:
    """Return raw predictions of rows, [b, c]."""
    outputs = np.asarray(booster.predict(rows, raw_score=True, num_iteration=rounds))
    return outputs.reshape(len(outputs), -1)


def _rounds(model: Any, booster: Any) -> int:
    """Return how many rounds predict: those of the best iteration where the fit stopped early."""
    best = getattr(model, "best_iteration_", None) or booster.best_iteration
    return int(best) if best and best > 0 else int(booster.current_iteration())


def _robust(text: _Text, rates: Floats, size: int) -> tuple[LeafRule, Start, Loss] | None:
    """Return the rule of an objective whose leaf values are quantiles, or `None`."""
    name = text.objective.split()[0]
    if name not in ("regression_l1", "quantile"):
        return None
    level = text.number("alpha") if name == "quantile" else 0.5
    averaged = text.number("boost_from_average") != 0
    start: Start = QuantileStart(level, of_lightgbm) if averaged else Fixed((0.0,))
    return QuantileLeaves(level, of_lightgbm, rates, size), start, Quantile(level)


def _smooth(text: _Text, rates: Floats, table: LeafTable) -> tuple[LeafRule, Start, Loss]:
    """Return the rule of an objective whose leaf values are Newton steps."""
    loss, start, objective = _loss(text)
    newton = NewtonLeaves(
        loss,
        rates,
        table.size,
        _penalties(text, table),
        l1=text.number("lambda_l1"),
        max_step=text.number("max_delta_step"),
    )
    basic = text.parameters.get("monotone_constraints_method", "basic") == "basic"
    if not (basic and text.constraints.any()):
        return newton, start, objective
    nodes = tuple(
        tuple(_nodes(text, (t, k), table) for k in range(text.outputs)) for t in range(len(rates))
    )
    return MonotoneLeaves(newton, nodes, table.size), start, objective


def _loss(text: _Text) -> tuple[BoostingLoss, Start, Loss]:
    """Return the loss in whence's terms."""
    name, *options = text.objective.split()
    zero = Fixed((0.0,) * text.outputs)
    averaged = text.number("boost_from_average") != 0
    mean = Mean() if averaged else zero
    log_mean = Mean("log") if averaged else zero
    if name == "binary" and text.number("sigmoid") == 1:
        return Binary(), Mean("logit") if averaged else zero, Logistic()
    if name == "multiclass":
        c = text.outputs
        start = LogPrior(c, centered=False, least=1e-15) if averaged else zero
        return Softmax(c / (c - 1)), start, CrossEntropy()
    if name == "regression" and "sqrt" not in options:
        return Squared(), mean, SquaredError()
    if name == "huber":
        delta = text.number("alpha")
        return UnitCurvature(Clipped(delta)), mean, Huber(delta)
    if name == "poisson":
        scale = float(np.exp(text.number("poisson_max_delta_step")))
        return LogLink(1.0, scale), log_mean, Tweedie(1.0)
    if name == "gamma":
        return LogLink(2.0), log_mean, Tweedie(2.0)
    if name == "tweedie":
        power = text.number("tweedie_variance_power")
        return LogLink(power), log_mean, Tweedie(power)
    raise unsupported_objective("LightGBM", text.objective)


def _penalties(text: _Text, table: LeafTable) -> Floats:
    """Return λ of each leaf: all where there is one."""
    l2 = np.full((*table.numbers.shape[:2], table.size), text.number("lambda_l2"))
    for t, k in np.ndindex(*l2.shape[:2]):
        tree = text.trees[t * text.outputs + k]
        leaves = int(tree["num_leaves"])
        if leaves == 1:
            l2[t, k] = np.inf
        elif int(tree["num_cat"]):
            found = _node_penalties(tree, text)[leaves - 1 :]
            l2[t, k, table.compact_in((t, k), np.arange(leaves))] = found
    return l2


def _children(tree: dict[str, str]) -> Integers:
    """Return the children of each split, [leaves − 1, 2]: first come splits, then leaves."""
    sides = [tree[side].split() for side in ("left_child", "right_child")]
    children = np.array(sides, dtype=int).T
    return np.where(children < 0, len(children) + ~children, children)


def _categorical(tree: dict[str, str]) -> NDArray[np.bool_]:
    """Return which splits are of categories, [leaves − 1]."""
    return np.asarray(np.array(tree["decision_type"].split(), dtype=int) & 1 == 1)


def _node_penalties(tree: dict[str, str], text: _Text) -> Floats:
    """Return λ of splits, then leaves: more for children of a split of many categories."""
    l2 = np.full(2 * int(tree["num_leaves"]) - 1, text.number("lambda_l2"))
    for node in np.flatnonzero(_categorical(tree)):
        categories = text.features[int(tree["split_feature"].split()[node])].split(":")
        if len(categories) > text.number("max_cat_to_onehot"):
            l2[_children(tree)[node]] += text.number("cat_l2")
    return l2


def _nodes(text: _Text, at: tuple[int, int], table: LeafTable) -> Nodes:
    """Return the nodes of tree (t, k); splits of categories bound nothing."""
    tree = text.trees[at[0] * text.outputs + at[1]]
    leaves = int(tree["num_leaves"])
    if leaves == 1:
        alone = np.zeros(1, dtype=int)
        return Nodes.of(np.zeros((1, 2), dtype=int), alone, alone, np.inf, table.size)
    features = np.array(tree["split_feature"].split(), dtype=int)
    signs = np.where(_categorical(tree), 0, text.constraints[features])
    ends = np.zeros(leaves, dtype=int)
    return Nodes.of(
        np.concatenate([_children(tree), np.stack([ends, ends], axis=1)]),
        np.concatenate([signs, ends]),
        table.compact_in(at, np.concatenate([np.full(leaves - 1, -1), np.arange(leaves)])),
        _node_penalties(tree, text),
        table.size,
    )


def _label_weights(text: _Text, y: Floats) -> Floats | None:
    """Return the factors by class that is_unbalance and scale_pos_weight put on the rounds."""
    if not text.objective.startswith("binary"):
        return None
    factors = np.ones(2)
    positive = int((y == 1).sum())
    if text.number("is_unbalance") and 0 < positive < len(y):
        ratio = positive / (len(y) - positive)
        factors = np.array([max(1.0, ratio), max(1.0, 1 / ratio)])
    factors[1] *= text.number("scale_pos_weight")
    return None if (factors == 1).all() else factors


def _bags(text: _Text, rounds: int, n: int) -> NDArray[np.bool_] | None:
    """Return the rows of each round's bag, as LightGBM's generator draws them, [t, 1, n].

    A round whose bag allows no split is left out of the model, and the next draws again: the number
    of rows at the root of a tree tells which bag it was fitted on.
    """
    fraction, every = text.number("bagging_fraction"), int(text.number("bagging_freq"))
    if every <= 0 or not 0 < fraction < 1:
        return None
    streams = -(-n // _BLOCK)
    state = np.arange(streams, dtype=np.uint64) + int(text.number("bagging_seed"))
    factor, shift = _jumps()
    lengths = np.minimum(_BLOCK, n - _BLOCK * np.arange(streams))
    bags = np.empty((rounds, n), dtype=bool)
    left_out = max(0, int(text.number("num_iterations")) - rounds)
    for t in range(rounds):
        if t % every:
            bags[t] = bags[t - 1]
            continue
        at_root = text.rows_at_root(t)
        while True:
            states = (state[:, None] * factor + shift) % 2**32
            uniform = ((states >> np.uint64(16)) & np.uint64(0x7FFF)).astype(np.float64) / 32768
            bags[t] = (uniform < fraction).ravel()[:n]
            state = states[np.arange(streams), lengths - 1]
            if at_root in (None, bags[t].sum()) or not left_out:
                break
            left_out -= 1
    return bags[:, None]


def _jumps() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return a and b of each of the next states a x + b of LightGBM's generator, modulo 2³²."""
    factors, shifts, a, b = [], [], 1, 0
    for _ in range(_BLOCK):
        a, b = a * 214013 % 2**32, (b * 214013 + 2531011) % 2**32
        factors.append(a)
        shifts.append(b)
    return np.array(factors, dtype=np.uint64), np.array(shifts, dtype=np.uint64)


def _untreated(text: _Text) -> tuple[str, ...]:
    """Return the options in use that whence's leaf values do not follow."""
    plain = {
        "boosting": "gbdt",
        "data_sample_strategy": "bagging",
        "path_smooth": "0",
        "linear_tree": "0",
        "use_quantized_grad": "0",
        "pos_bagging_fraction": "1",
        "neg_bagging_fraction": "1",
        "reg_sqrt": "0",
        "bagging_by_query": "0",
    }
    if text.constraints.any():
        plain["monotone_constraints_method"] = "basic"
    return tuple(
        f"{option}={text.parameters[option]}"
        for option, value in plain.items()
        if text.parameters.get(option, value) != value
    )
