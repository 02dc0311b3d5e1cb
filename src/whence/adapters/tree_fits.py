"""A tree ensemble fitted again by its own library, with its own settings."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whence.adapters.unfitted import unfitted
from whence.errors import UnsupportedModel
from whence.preprocessing.containers import argument, final, with_final
from whence.trees.libraries import imported

Floats = NDArray[np.float64]

_STOPPING = ("early_stopping_rounds", "od_type", "od_wait", "od_pval", "use_best_model")
_SEED = 0  # in place of random_state=None, which would make two refits differ


@dataclass(frozen=True, eq=False)
class TreeFit:
    """How a tree ensemble is fitted again.

    Args:
        template: The estimator, not fitted; or a fitted booster, for its settings.
        options: What its fit is given besides rows, targets and weights.
        notes: What differs from the user's own call, a sentence each.
    """

    template: Any
    options: dict[str, Any]
    notes: tuple[str, ...] = ()

    @cached_property
    def settings(self) -> str:
        """The settings in print: that takes scikit-learn as long as a small fit."""
        return repr(self.template)

    @property
    def library(self) -> str:
        """The module that fits the trees."""
        return type(final(self.template)).__module__

    def __call__(self, x: Any, y: Any, weights: Floats | None) -> Any:
        """Return the model fitted on rows.

        Args:
            x: The rows, [n].
            y: The user's targets, [n].
            weights: Sample weights, [n], or `None` for none.
        """
        if not hasattr(self.template, "fit"):
            return _train(self.template, x, y, weights)
        options = dict(self.options)
        if weights is not None:
            options[argument(self.template, "sample_weight")] = weights
        return unfitted(self.template).fit(x, y, **options)


def tree_fit(estimator: Any) -> TreeFit:
    """Return how an estimator is fitted again.

    A fit that stopped early on rows of the user's keeps its number of rounds, because those rows
    are not known; one that held out rows of its own holds out again.

    Args:
        estimator: A fitted estimator, a Pipeline that ends in one, or a fitted booster.

    Returns:
        The way, with what is different from the user's own call.
    """
    if not hasattr(estimator, "fit"):
        return TreeFit(estimator, {})
    template = unfitted(estimator)
    last, fitted = final(template), final(estimator)
    notes, options, settings = [], {}, last.get_params()
    if settings.get("random_state", _SEED) is None and _draws(fitted):
        last.set_params(random_state=_SEED)
        notes.append(
            f"The model was fitted without a seed: refits draw with random_state={_SEED}, and "
            "differ from the model by chance too."
        )
    rounds = _stopped_after(fitted)
    if rounds is not None:
        name, changes = rounds
        last = _changed(last, changes)
        notes.append(f"The fit stopped early: refits keep {name}={changes[name]}.")
    if type(fitted).__module__.startswith("catboost"):
        named = fitted.get_cat_feature_indices()
        if named and settings.get("cat_features") is None:
            options[argument(template, "cat_features")] = named
    return TreeFit(with_final(template, last), options, tuple(notes))


def _changed(final: Any, changes: dict[str, Any]) -> Any:
    """Return an unfitted estimator with some settings changed, and those that are `None` unset."""
    settings = {**final.get_params(), **changes}
    return type(final)(**{name: value for name, value in settings.items() if value is not None})


def _draws(fitted: Any) -> bool:
    """Return whether a fit without a seed differs from the next; three libraries do not."""
    root = type(fitted).__module__.split(".")[0]
    if root in ("lightgbm", "xgboost", "catboost"):
        return False
    if hasattr(fitted, "do_early_stopping_"):  # HistGradientBoosting draws where it samples
        return bool(fitted.do_early_stopping_ or fitted.max_features < 1)
    return True


def _stopped_after(fitted: Any) -> tuple[str, dict[str, Any]] | None:
    """Return the option that fixes the rounds of a fit that stopped on the user's own rows."""
    root = type(fitted).__module__.split(".")[0]
    if root == "lightgbm" and fitted.best_iteration_:
        return "n_estimators", {"n_estimators": int(fitted.best_iteration_)}
    if root == "xgboost":
        best = fitted.get_booster().attributes().get("best_iteration")
        if best is not None:
            return "n_estimators", {
                "n_estimators": int(best) + 1,
                "early_stopping_rounds": None,
            }
    if root == "catboost" and fitted.tree_count_ != fitted.get_all_params()["iterations"]:
        # The rate that CatBoost chooses itself depends on the number of rounds asked for.
        rate = fitted.get_all_params()["learning_rate"]
        return "iterations", {
            "iterations": int(fitted.tree_count_),
            "learning_rate": float(rate),
            **dict.fromkeys(_STOPPING),
        }
    return None


def _train(booster: Any, x: Any, y: Any, weights: Floats | None) -> Any:
    """Return a booster trained with the settings and the number of rounds of another."""
    if type(booster).__module__.startswith("lightgbm"):
        lightgbm = imported("lightgbm")
        settings = {**booster.params, "verbosity": -1}
        rounds = booster.best_iteration if booster.best_iteration > 0 else 0
        rows = lightgbm.Dataset(x, y, weight=weights, free_raw_data=False)
        return lightgbm.train(settings, rows, rounds or booster.current_iteration())
    if type(booster).__module__.startswith("xgboost"):
        xgboost = imported("xgboost")
        settings = _xgboost_settings(json.loads(booster.save_config())["learner"])
        data = xgboost.DMatrix(x, y, weight=weights, enable_categorical=True)
        return xgboost.train(settings, data, booster.num_boosted_rounds())
    raise UnsupportedModel(
        f"Expected a model that can be fitted again. Got {type(booster).__name__}, which has no "
        "fit. Pass the estimator of the library's scikit-learn interface."
    )


def _xgboost_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a booster that its training was given, from its configuration."""
    inner = config["gradient_booster"]
    inner = inner.get("gbtree", inner)
    objective = config["objective"]
    settings: dict[str, Any] = dict(inner["tree_train_param"])
    for name in ("interaction_constraints", "monotone_constraints"):
        if settings.get(name) in ("", "()", None):
            settings.pop(name, None)
    for name, parameters in objective.items():
        if name.endswith("_param"):
            settings.update(parameters)
    settings["objective"] = objective["name"]
    settings["tree_method"] = inner["gbtree_train_param"]["tree_method"]
    settings["seed"] = config["generic_param"]["seed"]
    learned = config["learner_model_param"]
    if learned.get("boost_from_average") != "1":
        settings["base_score"] = learned["base_score"].strip("[]")
    return settings
