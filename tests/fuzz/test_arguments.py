"""Whatever is passed to a public function, it ends in an error of whence or in a right result.

A short form of `make fuzz`, the same in every run.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import steps
from tests.fuzz.calls import CALLS, FOLDER, LEFT_OUT, OPTIONS, public_functions, scores
from tests.fuzz.methods import METHODS, public_methods
from tests.fuzz.values import odd

fuzzed = steps.fuzzed(6)


@pytest.fixture(autouse=True, scope="module")
def elsewhere() -> Iterator[None]:
    """Work in a folder of its own: some texts are names of files."""
    before = Path.cwd()
    os.chdir(FOLDER)
    yield
    os.chdir(before)


def test_every_public_function_is_fuzzed() -> None:
    called = {name.split(" ")[0] for name in CALLS}
    assert public_functions() <= called | set(LEFT_OUT)
    assert not called & set(LEFT_OUT)


@pytest.mark.parametrize("step", steps.OF_CALLS, ids=lambda step: step.__name__)
@pytest.mark.parametrize("name", CALLS)
@given(data=st.data())
@fuzzed
def test_calls(name: str, step: Any, data: st.DataObject) -> None:
    step(name, data)


def test_every_method_of_a_result_is_fuzzed() -> None:
    assert public_methods() == METHODS.keys()


@pytest.mark.parametrize("name", METHODS)
@given(data=st.data())
@fuzzed
def test_methods(name: str, data: st.DataObject) -> None:
    for step in steps.OF_CALLS:
        step(name, data)


@pytest.mark.parametrize("name", OPTIONS)
@given(data=st.data())
@fuzzed
def test_options(name: str, data: st.DataObject) -> None:
    steps.option(name, data)


@pytest.mark.parametrize("name", ["to_frame", "largest"])
@given(value=odd)
@fuzzed
def test_scores(name: str, value: tuple[str, Any]) -> None:
    function = getattr(scores(), name)
    for parameter in inspect.signature(function).parameters:
        steps.ended(name, function, {parameter: value[1]}, f"{parameter}={value[0]}")


def test_forms_are_told_from_contents() -> None:
    assert steps.numbers(pd.NA) == []
    assert len(steps.numbers((1.0, [np.zeros(2)]))) == 2
