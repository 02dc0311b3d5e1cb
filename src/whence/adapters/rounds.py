"""Boosting models that stopped early on rows of the user's: a refit keeps their rounds."""

from __future__ import annotations

from typing import Any

from whence.preprocessing.containers import final, with_final
from whence.trees.libraries import library_of

# What stops a fit on rows that are given to it, which a refit has not: by every name it goes by.
STOPPING = {
    "lightgbm": (
        "early_stopping_round",
        "early_stopping_rounds",
        "early_stopping",
        "n_iter_no_change",
    ),
    "xgboost": ("early_stopping_rounds",),
    "catboost": ("early_stopping_rounds", "od_type", "od_wait", "od_pval", "use_best_model"),
}


def keeping_rounds(template: Any, fitted: Any) -> tuple[Any, tuple[str, ...]]:
    """Return an estimator that is fitted with the rounds of a fit that stopped on unknown rows.

    Args:
        template: The estimator, not fitted, or a Pipeline that ends in it.
        fitted: The same, fitted.

    Returns:
        The estimator, itself where the fit did not stop so, and what to say of it.
    """
    last = final(fitted)
    library = library_of(last)
    if library not in _KEPT or not (kept := _KEPT[library](last)):
        return template, ()
    changed = {**final(template).get_params(), **kept, **dict.fromkeys(STOPPING[library])}
    again = type(last)().set_params(
        **{name: value for name, value in changed.items() if value is not None}
    )
    name = next(iter(kept))
    return with_final(template, again), (
        f"The fit stopped early: refits keep {name}={kept[name]}.",
    )


def _lightgbm(fitted: Any) -> dict[str, Any]:
    """Return the settings that fix the rounds of a fit of LightGBM."""
    return {"n_estimators": int(fitted.best_iteration_)} if fitted.best_iteration_ else {}


def _xgboost(fitted: Any) -> dict[str, Any]:
    """Return the settings that fix the rounds of a fit of XGBoost."""
    best = fitted.get_booster().attributes().get("best_iteration")
    return {} if best is None else {"n_estimators": int(best) + 1}


def _catboost(fitted: Any) -> dict[str, Any]:
    """Return the settings that fix the rounds of a fit of CatBoost."""
    options = fitted.get_all_params()
    if fitted.tree_count_ == options["iterations"]:
        return {}
    # The rate that CatBoost chooses itself depends on the number of rounds asked for.
    rate = float(options["learning_rate"])
    return {"iterations": int(fitted.tree_count_), "learning_rate": rate}


_KEPT = {"lightgbm": _lightgbm, "xgboost": _xgboost, "catboost": _catboost}
