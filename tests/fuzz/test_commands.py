"""Whatever stands on the command line, a command ends with a status and a sentence.

A short form of `make fuzz`, the same in every run.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import commands, steps

fuzzed = steps.fuzzed(3)


def test_every_command_is_fuzzed() -> None:
    assert set(commands.commands()) == set(commands.COMMANDS) | set(commands.LEFT_OUT)


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_the_command_itself_works(name: str) -> None:
    """The explorer is interrupted when it has started."""
    commands.ended([*name.split(" "), *commands.COMMANDS[name]], statuses=(0, 130))


@pytest.mark.parametrize("step", commands.OF_COMMANDS, ids=lambda step: step.__name__)
@pytest.mark.parametrize("name", commands.COMMANDS)
@given(data=st.data())
@fuzzed
def test_commands(name: str, step: Any, data: st.DataObject) -> None:
    step(name, data)
