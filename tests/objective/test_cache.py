"""What belongs to a model is computed once for it, and for no other."""

from __future__ import annotations

from tests.fitted import Fitted
from whence.linear.objective import LinearObjective
from whence.objective.cache import cached, first_time


def test_first_times_are_those_of_a_model_and_a_key(binary: Fitted, ridge: Fitted) -> None:
    model, other = binary.objective, ridge.objective
    asked = [(model, "one"), (model, "one"), (model, "other"), (other, "one"), (other, "one")]
    assert [first_time(*each) for each in asked] == [True, False, True, True, False]


def test_values_are_computed_once(binary: Fitted, ridge: Fitted) -> None:
    model, other = binary.objective, ridge.objective
    calls = []

    def count(model: LinearObjective) -> int:
        calls.append(model)
        return len(calls)

    assert [cached(each, "count", count) for each in (model, other, model)] == [1, 2, 1]
