"""A row of weight 0 is still counted by libraries: its removal is their own fit without it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR, NuSVC

import whence

_N = 40
_NEWTON: dict[str, Any] = {"solver": "newton-cholesky", "tol": 1e-12}
_MODELS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "kernel of the rows' variance": (SVC(tol=1e-12), ("newton", "refined")),
    "the same of numbers": (SVR(tol=1e-12), ("newton", "refined")),
    "the same by nu": (NuSVC(nu=0.3, tol=1e-12), ("first",)),
    "classes counted": (SVC(C=0.05, class_weight="balanced", gamma=0.1, tol=1e-12), ("refined",)),
    "classes counted, squared": (RidgeClassifier(class_weight="balanced"), ("refined",)),
    "scaled": (make_pipeline(StandardScaler(), LogisticRegression(**_NEWTON)), ("refined",)),
}


def _outputs(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the decision value."""
    return outputs[:, 0]


@pytest.mark.parametrize("name", _MODELS)
def test_a_row_of_weight_0_is_removed(name: str) -> None:
    model, orders = _MODELS[name]
    rng = np.random.default_rng(1)
    x = rng.normal(size=(_N, 3)) * [1, 2, 0.5]
    x[0] *= 6
    numbers = x[:, 0] + rng.normal(size=_N)
    y = numbers if name == "the same of numbers" else (numbers > 0.3).astype(int)
    weights = rng.uniform(0.5, 2, _N)
    weights[:4] = 0
    queries = rng.normal(size=(3, 3)), y[10:13]

    def fit(out: list[int]) -> Any:
        rows = np.delete(np.arange(_N), out)
        key = "logisticregression__sample_weight" if name == "scaled" else "sample_weight"
        return clone(model).fit(x[rows], y[rows], **{key: weights[rows]})

    def answer(fitted: Any) -> Any:
        return getattr(fitted, "decision_function", fitted.predict)(queries[0])

    whole = fit([])
    objective = whence.from_sklearn(whole, x, y, sample_weight=weights)
    actual = np.stack([answer(fit([i])) - answer(whole) for i in range(2)], 1)
    assert np.abs(actual).max() > 1e-4  # it counts
    found = whence.leave_one_out(objective, [0, 1], queries, measure=_outputs)
    assert found == pytest.approx(actual, abs=3e-5)
    for order in orders:
        scores = whence.influence(objective, queries, order=order, indices=[0], measure=_outputs)
        assert scores.values == pytest.approx(actual[:, :1], abs=3e-5)
    both = whence.group_effect(objective, [0, 9], queries, order="refit", measure=_outputs)
    assert both == pytest.approx(answer(fit([0, 9])) - answer(whole), abs=3e-5)


def test_a_weight_of_minus_0_is_0() -> None:
    """As a product of 0 and a negative number is: the row was in the fit."""
    rng = np.random.default_rng(1)
    x, weights = rng.normal(size=(_N, 2)), np.ones(_N)
    x[0] *= 6
    y = (x[:, 0] + rng.normal(size=_N) > 0).astype(int)
    weights[0] = -0.0
    queries = rng.normal(size=(3, 2)), y[10:13]
    whole = SVC(tol=1e-12).fit(x, y, sample_weight=weights)
    rest = clone(whole).fit(x[1:], y[1:], sample_weight=weights[1:])
    objective = whence.from_sklearn(whole, x, y, sample_weight=weights)
    actual = rest.decision_function(queries[0]) - whole.decision_function(queries[0])
    found = whence.leave_one_out(objective, [0], queries, measure=_outputs)
    assert np.abs(actual).max() > 1e-3
    assert found[:, 0] == pytest.approx(actual, abs=3e-5)
