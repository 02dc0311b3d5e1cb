"""The page about one result: figures, a drawing, and lists of examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from whence.errors import InvalidInput
from whence.pages.explanation import Answer, Color, Fact
from whence.pages.figures import Curve
from whence.pages.item import Item
from whence.pages.page import Page
from whence.pages.scripts import script_json
from whence.pages.svg import curve_svg


@dataclass(frozen=True, eq=False, kw_only=True)
class Listed:
    """One line of a list.

    Args:
        name: The user's name of it.
        numbers: Its numbers as they are shown, one per heading of the list.
        item: The example, or `None` where it is none.
        size: How long its bar is, in [−1, 1]; `None` for no bar.
        color: How the bar is drawn.
    """

    name: str
    numbers: tuple[str, ...]
    item: Item | None = None
    size: float | None = None
    color: Color = "up"


@dataclass(frozen=True, eq=False, kw_only=True)
class Listing:
    """A list of lines with numbers.

    Args:
        heading: What they are.
        noun: What one line is: the heading of the names.
        heads: The headings of the numbers.
        lines: The lines, the first to look at first.
        columns: The names of the cells of examples that are rows of a table.
        words: How to read it, in a sentence or two.

    Raises:
        InvalidInput: If a line has more or fewer numbers than headings.
    """

    heading: str
    noun: str
    heads: tuple[str, ...]
    lines: tuple[Listed, ...]
    columns: tuple[str, ...] = ()
    words: str = ""

    def __post_init__(self) -> None:
        for line in self.lines:
            if len(line.numbers) != len(self.heads):
                raise InvalidInput(
                    f"Expected {len(self.heads)} numbers, one per heading. Got "
                    f"{len(line.numbers)} for {line.name}."
                )


@dataclass(frozen=True, eq=False, kw_only=True)
class ResultPage(Page):
    """One result, such as a flip set, a comparison, a diagnosis or an evaluation.

    Args:
        said: The result in a sentence.
        facts: Figures on top.
        answers: What the model says before and after, each under its heading.
        curve: A drawing, or `None`.
        curve_heading: What it is about.
        curve_words: How to read it.
        listings: Lists of examples or queries.
        visible: How many columns of rows are shown at first.
        quantity: Whether a number is predicted; where there are answers, they tell.
    """

    template: ClassVar[str] = "result.html"

    said: str
    facts: tuple[Fact, ...] = ()
    answers: tuple[tuple[str, Answer], ...] = ()
    curve: Curve | None = None
    curve_heading: str = ""
    curve_words: str = ""
    listings: tuple[Listing, ...] = ()
    visible: int = 6
    quantity: bool = False

    def context(self) -> dict[str, object]:
        """Return the drawing, and what is listed as rows of text."""
        rows = [row for each in self.listings for row in _rows(each, self.target)]
        return {
            "target": self.target,
            "course": None if self.curve is None else curve_svg(self.curve),
            "data": script_json(rows),
        }

    @property
    def target(self) -> str:
        """What the targets of listed examples are called: values where a number is predicted."""
        scaled = any(answer.scale for _, answer in self.answers)
        return "value" if scaled or self.quantity else "label"


def _rows(listing: Listing, target: str) -> list[list[str]]:
    """Return a list as rows of text, the headings first, its targets under one of their own."""
    labels = [line.item.label for line in listing.lines if line.item is not None]
    labeled = [target] if any(labels) else []
    head = [listing.heading, *labeled, *listing.heads, *listing.columns]
    return [
        head,
        *(
            [
                line.name,
                *([line.item.label if line.item is not None else ""] if labeled else []),
                *line.numbers,
                *(line.item.cells if line.item is not None else ()),
            ]
            for line in listing.lines
        ),
    ]
