"""The page about an attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from whence.pages.figures import Curve
from whence.pages.item import Item
from whence.pages.page import Page
from whence.pages.svg import curve_svg


@dataclass(frozen=True, eq=False, kw_only=True)
class AttackPage(Page):
    """A few training inputs before and after a change, and what training on them did.

    Args:
        said: The outcome, in a sentence.
        pairs: Changed training inputs, (before, after) each; `attribution` of the second is the
            change.
        queries: The queries; `predicted` says what the model said before and after.
        losses: The mean loss of the queries after each step, the clean one first, in nats.
    """

    template: ClassVar[str] = "attack.html"

    said: str
    pairs: tuple[tuple[Item, Item], ...]
    queries: tuple[Item, ...]
    losses: tuple[float, ...]

    def context(self) -> dict[str, object]:
        """Return the course of the loss as a drawing."""
        points = tuple((float(step), loss) for step, loss in enumerate(self.losses))
        return {"course": curve_svg(Curve(points=points, across="step", up="mean loss (nats)"))}
