"""Kernel machines whose kernel follows their rows: refits in dual coefficients are refits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC, SVR

import whence
from whence.linear.objective import LinearObjective
from whence.objective.removed import weights_without

_N, _REMOVED = 60, [0, 3, 7, 20]
_TIGHT = {"tol": 1e-12}
_MODELS: list[tuple[Any, bool]] = [
    (make_pipeline(FunctionTransformer(csr_array), SVC(**_TIGHT)), False),
    (SVC(C=3.0, **_TIGHT), True),
    (SVC(class_weight="balanced", **_TIGHT), False),
    (SVC(kernel="poly", degree=2, coef0=1.0, **_TIGHT), False),
    (SVR(C=2.0, epsilon=0.3, **_TIGHT), True),
    (make_pipeline(StandardScaler(), SVC(C=1e-3, **_TIGHT)), False),
    (make_pipeline(StandardScaler(), SVC(kernel="linear", **_TIGHT)), False),
]


@pytest.mark.parametrize(("model", "weighted"), _MODELS, ids=str)
def test_answers_are_those_of_the_refitted_model(model: Any, weighted: bool) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(_N, 4)) * [1, 2, 3, 4]
    numbers = x[:, 0] + 0.1 * x[:, 1] ** 2 + rng.normal(size=_N)
    y = numbers if isinstance(model, SVR) else np.where(numbers > 0.4, "b", "a")
    weights = rng.uniform(0.2, 2, _N)
    weights[3] = 0
    given = {"sample_weight": weights} if weighted else {}
    fitted = clone(model).fit(x, y, **given)
    objective = whence.from_sklearn(fitted, x, y, **given)
    assert isinstance(objective, LinearObjective)
    assert objective.statistics is not None
    asked = rng.normal(size=(5, 4)), y[:5]
    queries = objective.examples(asked)
    for at in _REMOVED:
        rest = weights_without(objective.weights, np.array([at]))
        found = objective.statistics.answers(objective, rest, queries)
        expected = objective.refit(rest).outputs(queries)
        assert found is not None
        assert found.numpy() == pytest.approx(expected.numpy(), abs=1e-9)
    effects: dict[str, Any] = {"measure": lambda f, _: f[:, 0]}
    scores = whence.influence(objective, asked, order="refined", indices=_REMOVED, **effects)
    removed = whence.leave_one_out(objective, _REMOVED, asked, **effects)
    assert scores.values == pytest.approx(removed, abs=1e-6)


def test_a_kernel_that_stays_has_no_walk_of_its_own() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(_N, 4)), np.arange(_N) % 2
    objective = whence.from_sklearn(SVC(gamma=0.1).fit(x, y), x, y)
    assert isinstance(objective, LinearObjective)
    assert objective.statistics is not None
    queries = objective.examples((x[:2], y[:2]))
    assert objective.statistics.answers(objective, objective.weights, queries) is None
