"""The browser of the page tests, and a served explorer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.explorer.data import subject
from tests.pages.test_browser import browser

__all__ = ["browser"]

pytest.importorskip("uvicorn", reason="the extra explore is not installed")


@pytest.fixture(scope="module")
def shared() -> Iterator[str]:
    """Where an explorer is served in which no test changes anything."""
    from whence.explorer.server import serving

    with serving(subject()) as found:
        yield found


@pytest.fixture
def address() -> Iterator[str]:
    """Where an explorer is served."""
    from whence.explorer.server import serving

    with serving(subject()) as found:
        yield found
