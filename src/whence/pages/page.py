"""What all pages have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from datetime import date
from typing import ClassVar

from whence.pages.item import Status


@dataclass(frozen=True, eq=False, kw_only=True)
class Page(ABC):
    """A page as plain data. A new page is a record, a template and a function that builds it.

    Attributes:
        template: The file that lays it out.
        styles: The files of its styles.
        asks: Whether its script may ask the server that sent it; a page in a file never does.

    Args:
        title: The question the page answers.
        lead: What it is about, in a sentence or two.
        statuses: How far to trust it.
        method: How the numbers were computed, in words.
        command: What reproduces the page.
        about: What was done to the data and which model it is, a sentence each.
        created: When it was made, as the reader should see it; today by default.
        version: Of whence; the one that is installed if empty.
    """

    template: ClassVar[str]
    styles: ClassVar[tuple[str, ...]] = ("style.css",)
    asks: ClassVar[bool] = False

    title: str
    lead: str
    statuses: tuple[Status, ...]
    method: str
    command: str
    about: tuple[str, ...] = ()
    created: str = field(default_factory=lambda: date.today().isoformat())
    version: str = ""

    @abstractmethod
    def context(self) -> dict[str, object]:
        """Return what the template needs beside the page itself, by name."""
