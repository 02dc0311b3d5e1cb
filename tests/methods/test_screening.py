"""How far first-order effects are from refined ones, told by a few of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.linear.test_objective import CASES, random
from whence.methods import screening
from whence.methods.influence import Influence
from whence.methods.screening import size_error
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
    for name, least in (("_ROWS", n), ("_NUMBERS", n * p)):
        with monkeypatch.context() as patch:
            patch.setattr(screening, name, least)
            assert found(2.0, []) is not None
            patch.setattr(screening, name, least - 1)
            assert found(2.0, []) is None


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
