"""What belongs to a model is computed once for it, and for no other."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import torch

from tests.fitted import Fitted
from whence.linear.objective import LinearObjective
from whence.objective.cache import cached, first_time, is_cached


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


def test_a_value_belongs_to_the_model_and_its_twin(binary: Fitted) -> None:
    model = replace(binary.objective)  # one that no other test refers to
    twin = cached(model, "twin", lambda twin: twin)
    assert twin is not model
    assert cached(twin, "twin", lambda twin: None) is twin
    assert is_cached(model, "twin")
    assert is_cached(twin, "twin")
    assert not is_cached(model, "other")


def test_a_value_is_freed_with_its_model(binary: Fitted) -> None:
    model = replace(binary.objective)
    twin, value = map(weakref.ref, cached(model, "pair", lambda twin: (twin, torch.ones(3))))
    gc.disable()  # nothing may need it
    try:
        assert value() is not None
        del model
        assert value() is None
        assert twin() is None
    finally:
        gc.enable()
