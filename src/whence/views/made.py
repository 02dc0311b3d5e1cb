"""How a page was made: what every page says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Made:
    """How a page was made.

    Args:
        title: The heading.
        about: Which data and model these are, a sentence each; the first stands on top.
        command: What reproduces the page.
        image_shape: (h, w) or (h, w, 3) if a row is an image laid out flat.
    """

    title: str
    about: tuple[str, ...] = ()
    command: str
    image_shape: tuple[int, ...] | None = None

    def data(self, otherwise: str = "") -> str:
        """Return which data these are, in a sentence.

        Args:
            otherwise: The sentence if nothing was said of them.
        """
        return self.about[0] if self.about else otherwise

    def common(self, *lead: str) -> dict[str, Any]:
        """Return what every page says of itself.

        Args:
            lead: The sentences on top; empty ones are left out.
        """
        return {
            "title": self.title,
            "lead": " ".join(filter(None, lead)),
            "about": self.about,
            "command": self.command,
        }
