"""A tree ensemble fitted again by its own library, with its own settings."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whence.adapters.refitting import SEEDED, template_of
from whence.adapters.rounds import STOPPING
from whence.adapters.unfitted import for_rows, unfitted
from whence.arrays import Floats
from whence.errors import UnsupportedModel
from whence.preprocessing.containers import argument, final
from whence.preprocessing.folds import folds_note, keep_folds, named_folds
from whence.trees.libraries import imported, library_of
from whence.workers import is_shared


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
    def repeats(self) -> bool:
        """Whether a fit on the same rows gives the same model."""
        return SEEDED not in self.notes

    @property
    def library(self) -> str:
        """The module that fits the trees."""
        return type(final(self.template)).__module__

    def among(self, n: int, where: NDArray[np.intp]) -> TreeFit:
        """Return the same for some of n rows, its folds held where they were given by positions.

        Args:
            n: The number of all rows.
            where: Positions of the rows that are there, [m].
        """
        if not named_folds(self.template, n):
            return self
        return replace(self, template=keep_folds(unfitted(self.template), n, where))

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
        model = for_rows(unfitted(self.template), float(np.prod(np.shape(x))))
        return model.fit(x, y, **options)


def tree_fit(estimator: Any, n: int) -> TreeFit:
    """Return how an estimator is fitted again.

    Args:
        estimator: A fitted estimator, a Pipeline that ends in one, or a fitted booster.
        n: The number of its rows.

    Returns:
        The way, with what is different from the user's own call.
    """
    if not hasattr(estimator, "fit"):
        return TreeFit(estimator, {})
    template, notes = template_of(estimator, n)
    notes = (*notes, *folds_note(template, n))
    last = final(estimator)
    name, named = _categories(last)
    given = (
        {argument(template, name): named} if named and last.get_params().get(name) is None else {}
    )
    return TreeFit(template, given, notes)


def _categories(fitted: Any) -> tuple[str, list[int]]:
    """Return which columns a fit was told to be categories, and the option that tells it."""
    library = library_of(fitted)
    if library == "catboost":
        return "cat_features", fitted.get_cat_feature_indices()
    if library == "lightgbm":
        return "categorical_feature", fitted.booster_.params.get("categorical_column") or []
    return "", []


def _train(booster: Any, x: Any, y: Any, weights: Floats | None) -> Any:
    """Return a booster trained with the settings and the number of rounds of another."""
    library = library_of(booster)
    if library == "lightgbm":
        lightgbm = imported("lightgbm")
        rounds = booster.best_iteration if booster.best_iteration > 0 else 0
        rounds = rounds or booster.current_iteration()
        settings = {**booster.params, "verbosity": -1, "num_iterations": rounds}
        named = settings.pop("categorical_column", None) or "auto"
        for name in STOPPING["lightgbm"]:
            settings.pop(name, None)
        if not is_shared(float(np.prod(np.shape(x)))):  # no limit of OpenMP's lowers a number
            settings["num_threads"] = 1
        rows = lightgbm.Dataset(
            x, y, weight=weights, categorical_feature=named, free_raw_data=False
        )
        return lightgbm.train(settings, rows, rounds)
    if library == "xgboost":
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
