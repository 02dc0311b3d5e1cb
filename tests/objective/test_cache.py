"""What belongs to a model is computed once for it, and for no other."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from dataclasses import replace

import torch

from tests.fitted import Fitted
from whence.linear.objective import LinearObjective
from whence.objective.cache import Recent, cached, first_time, is_cached


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


def test_recent_values_are_held_up_to_a_number_of_bytes() -> None:
    recent: Recent[bytes] = Recent(10)
    made = []

    def get(key: str, size: int) -> bytes:
        def make() -> bytes:
            made.append(key)
            return key.encode() * size

        return recent.get(key, make, len)

    assert get("a", 4) == b"aaaa"
    assert get("b", 4) == b"bbbb"
    assert get("a", 4) == b"aaaa"  # now the latest
    assert get("c", 5) == b"ccccc"  # in place of b
    assert get("large", 11) == b"large" * 11
    get("a", 4), get("c", 5), get("b", 4), get("large", 11)
    assert made == ["a", "b", "c", "large", "b", "large"]
    assert recent.held <= 10
    for fresh in (copy.deepcopy(recent), pickle.loads(pickle.dumps(recent))):
        assert fresh.most == 10
        assert fresh.held == 0
