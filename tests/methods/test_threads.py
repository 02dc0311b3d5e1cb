"""One model asked by eight threads, by every method: a short form of `make threads`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import whence
from tests import threads


def test_every_method_is_here() -> None:
    assert {type(make()).__name__ for _, make in threads.METHODS} == threads.public()


@pytest.mark.parametrize(
    ("kind", "make"), threads.METHODS, ids=[kind for kind, _ in threads.METHODS]
)
def test_threads_get_what_one_thread_gets(kind: str, make: Callable[[], whence.Method]) -> None:
    with threads.eager():
        assert not threads.differences(kind, make, rounds=1)
