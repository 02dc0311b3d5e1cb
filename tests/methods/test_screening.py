"""How far first-order effects are from refined ones, told by a few of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import scale
from sklearn.svm import LinearSVC
from torch import Tensor

import whence
from tests.linear.test_objective import CASES, random
from whence.curvature.prepare import prepare
from whence.methods import orders, screening
from whence.methods.influence import Influence
from whence.methods.screening import size_error
from whence.objective.losses import measure_of
from whence.objective.objective import Objective, objective_of
from whence.objective.trained import Examples

WHERE = np.arange(3, 33)
VALUES = random(2, len(WHERE))


def refined_by(factor: float, asked: list[int]) -> Callable[[Examples, NDArray[np.intp]], Tensor]:
    """Refined effects that are so many times the first-order ones; what was asked is noted."""

    def refined(queries: Examples, where: NDArray[np.intp]) -> Tensor:
        asked.extend(where.tolist())
        return factor * VALUES[:, torch.from_numpy(where - WHERE[0])]

    return refined


def found(factor: float, asked: list[int]) -> float | None:
    objective = CASES["logistic"]()
    queries = objective.train.subset(np.arange(2))
    return size_error(objective, queries, VALUES, refined_by(factor, asked), WHERE)


def test_it_is_the_relative_error_of_the_largest_and_of_the_furthest_rows() -> None:
    asked: list[int] = []
    assert found(2.0, asked) == pytest.approx(0.5)
    largest = WHERE[VALUES.abs().amax(0).argsort()[-4:].numpy()]
    rows = CASES["logistic"]().train.features.dense()
    far = ((rows - rows.mean(0)) / rows.std(0)).square().sum(1)[torch.from_numpy(WHERE)]
    furthest = WHERE[far.argsort()[-2:].numpy()]
    assert set(asked) == {*largest.tolist(), *furthest.tolist()}
    assert found(0.0, []) is None  # effects no larger than rounding


def test_it_is_told_where_refining_takes_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = CASES["logistic"]()
    n, p = len(objective.train), len(objective.params)
    for name, least in (("REFITTED", n), ("_NUMBERS", n * p)):
        with monkeypatch.context() as patch:
            patch.setattr(screening, name, least)
            assert found(2.0, []) is not None
            patch.setattr(screening, name, least - 1)
            assert found(2.0, []) is None


def ranked(objective: Objective, **options: Any) -> tuple[Any, Any, Any]:
    """First-order scores of two queries, those evaluated, and the numbers that rank rows."""
    queries = objective.train.subset(np.arange(2))
    first = whence.influence(objective, queries, **options)
    evaluated = whence.influence(objective, queries, order="newton", **options)
    fitted, measure = (
        Influence().fit(objective),
        measure_of(objective.loss, **(options or {"measure": "loss"})),
    )
    return first.values, evaluated.values, fitted.ranking_values(queries, measure, first.values)


def test_rows_are_ranked_by_what_a_step_of_their_own_says(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = CASES["softmax"]().refit()
    first, newton, ranking = ranked(objective)
    np.testing.assert_allclose(ranking, newton, atol=1e-12)
    assert abs(ranking - first).max() > 1e-3 * abs(first).max()
    strongest = np.argsort(-np.linalg.norm(first, axis=0))[:7]
    monkeypatch.setattr(screening, "_LEAST", 7)
    monkeypatch.setattr(screening, "affordable", lambda *_: 7)
    monkeypatch.setattr(orders, "affordable", lambda *_: 7)
    mixed = first.copy()
    mixed[:, strongest] = newton[:, strongest]
    np.testing.assert_allclose(ranked(objective)[2], mixed, atol=1e-12)
    monkeypatch.setattr(orders, "affordable", lambda *_: 0)
    np.testing.assert_array_equal(ranked(objective)[2], first)


def test_rows_of_a_hinge_are_ranked_by_its_minimum() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    x, y = scale(x)[:60, :4], y[:60]
    machine = LinearSVC(loss="hinge", C=0.1, tol=1e-9, max_iter=10**6, random_state=0).fit(x, y)
    objective = objective_of(whence.from_sklearn(machine, x, y, temperature=0.1))
    _, exact, ranking = ranked(objective, measure="margin")
    np.testing.assert_allclose(ranking, exact, atol=1e-8)


def test_as_many_are_screened_as_a_second_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = CASES["softmax"]()
    inverse = prepare(objective, 1).inverse
    n, each = len(objective.train), objective.c * inverse.shape[0] ** 2
    for least, operations, expected in (
        (5, 9 * each, 9),
        (5, 9 * each - 1, 8),
        (8, 9 * each - 1, 8),
        (9, 9 * each - 1, 0),
        (10**6, n * each, n),
        (10**6, n * each - 1, 0),
    ):
        monkeypatch.setattr(screening, "_LEAST", least)
        monkeypatch.setattr(screening, "_OPERATIONS", operations)
        assert screening.affordable(objective, inverse) == expected
    monkeypatch.setattr(screening, "_LEAST", 1)
    assert screening.affordable(replace(objective, convex=False), inverse) == 0


def test_scores_say_it_and_scores_to_rank_are_the_same_values() -> None:
    fitted = Influence().fit(objective := CASES["logistic"]().refit())
    queries = objective.train.subset(np.arange(2))
    scores, ranking = fitted.scores(queries), fitted.scores_to_rank(queries, "loss")
    assert scores.diagnostics is not None
    assert ranking.diagnostics is not None
    np.testing.assert_array_equal(ranking.values, scores.values)
    assert scores.diagnostics.size_error is not None
    assert ranking.diagnostics.size_error is None
    assert ranking.order_only
    assert not Influence(order="refined").fit(objective).scores_to_rank(queries, "loss").order_only
