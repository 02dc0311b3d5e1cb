"""The page of the explorer, and of its log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from whence.pages.page import Page
from whence.pages.scripts import script_json


@dataclass(frozen=True, eq=False, kw_only=True)
class ExplorePage(Page):
    """The explorer: an empty page whose script asks the server that sent it.

    Args:
        token: What the script shows the server.
    """

    template: ClassVar[str] = "explore.html"
    styles: ClassVar[tuple[str, ...]] = ("style.css", "explore.css")
    asks: ClassVar[bool] = True

    token: str

    def context(self) -> dict[str, object]:
        """Return what the script starts from."""
        return {"data": script_json({"token": self.token})}


@dataclass(frozen=True, kw_only=True)
class LogRow:
    """A step, and what came of it.

    Args:
        words: What was done.
        query: Which prediction was looked at.
        before: What the model said of it before.
        after: What it says after retraining.
        accuracy: How good the model was before and after, in words; empty where not known.
    """

    words: str
    query: str
    before: str
    after: str
    accuracy: tuple[str, str]


@dataclass(frozen=True, eq=False, kw_only=True)
class LogPage(Page):
    """The steps of an exploration.

    Args:
        rows: The steps, the first one first.
    """

    template: ClassVar[str] = "log.html"

    rows: tuple[LogRow, ...]

    def context(self) -> dict[str, object]:
        """Return nothing: the template reads the steps."""
        return {}
