"""The page about one prediction."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from whence.pages.figures import Curve, Scale, Scatter
from whence.pages.item import Item
from whence.pages.page import Page
from whence.pages.scripts import script_json
from whence.pages.svg import curve_svg, scale_svg, scatter_svg
from whence.pages.words import anchors

Color = Literal["toward", "against", "up", "down"]


@dataclass(frozen=True, kw_only=True)
class Share:
    """A class with its probability.

    Args:
        name: The class.
        share: Its probability, in [0, 1].
        text: The same as it is shown.
        note: What is to be said of it, such as "the label in the data".
        color: "toward" for the class that is explained, else "against".
    """

    name: str
    share: float
    text: str
    note: str
    color: Color


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the model says of the query.

    Args:
        words: In a sentence.
        shares: The probabilities of the classes, if it has any; all others last, as one.
        scale: The predicted number, if it is a regression.
    """

    words: str
    shares: tuple[Share, ...] = ()
    scale: Scale | None = None


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One figure at the top of the page.

    Args:
        figure: The figure, such as "0.6 points".
        words: What it is, going on from the figure.
        proof: Whether the comparison with retraining shows it.
    """

    figure: str
    words: str
    proof: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class Shown:
    """A training example with its effect on the answer.

    Args:
        name: The user's name of it.
        item: The example.
        size: Its effect relative to the largest of the page, in [−1, 1].
        without: The answer without it; empty where the sizes are not to be trusted.
        second: The answer without it in the second unit; empty where there is none.
        retrained: The answer after retraining without it; empty where that was not done.
        attribution: What each of its cells does to the answer, as it is shown; empty where not
            known.
        differs: Whether each of its cells differs from the query's.
        answers: The answers asked about, with the part of the effect that each token has.
    """

    name: str
    item: Item
    size: float
    without: str = ""
    second: str = ""
    retrained: str = ""
    attribution: tuple[str, ...] = ()
    differs: tuple[bool, ...] = ()
    answers: tuple[Item, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class Side:
    """The examples that push the answer one way.

    Args:
        phrase: Which way, such as "to “died”": it follows the word "push".
        color: How they are drawn.
        shown: The examples, the strongest first.
    """

    phrase: str
    color: Color
    shown: tuple[Shown, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class ExplanationPage(Page):
    """Why the model said what it said about one query.

    Args:
        answer: What the model says.
        facts: The figures on top.
        query: The query; its label is the truth.
        query_name: What it is called, such as "row 17".
        noun: What training examples are called, in the plural.
        quantity: What the numbers are, such as "P(survived)".
        second: The second unit of the same, such as "loss, nats"; empty where there is none.
        value: The answer as it is.
        second_value: The same in the second unit.
        columns: The names of the cells, the most important first.
        visible: How many of them are shown at first.
        sides: The examples that push the answer either way.
        continuous: Whether numbers differ only if they do so by half a standard deviation.
        sized: Whether the sizes are to be trusted; if not, rank and bar alone are shown.
        curve: The answer as the strongest examples are removed together, or `None`.
        curve_words: What it shows, in a sentence.
        scatter: Predicted against retrained, where verified.
        n: The number of training examples.
        hidden: How many columns are left out because they are 0 in all rows shown.
        shared: Words of the query, which are marked in the training texts; in lower case.
    """

    template: ClassVar[str] = "explanation.html"

    answer: Answer
    facts: tuple[Fact, ...]
    query: Item
    query_name: str
    noun: str
    quantity: str
    second: str
    value: str
    second_value: str
    columns: tuple[str, ...]
    visible: int
    sides: tuple[Side, ...]
    continuous: bool
    sized: bool
    curve: Curve | None
    curve_words: str
    scatter: Scatter | None
    n: int
    hidden: int = 0
    shared: frozenset[str] = field(default_factory=frozenset)

    def context(self) -> dict[str, object]:
        """Return the drawings, and what the examples have to show."""
        examples = [each for side in self.sides for each in side.shown]
        shown = [each.item for each in examples]
        attributed = [item for item in shown if item.attribution is not None]
        return {
            "course": None if self.curve is None else curve_svg(self.curve),
            "proof": None if self.scatter is None else scatter_svg(self.scatter),
            "scale": None if self.answer.scale is None else scale_svg(self.answer.scale),
            "tabular": bool(self.columns),
            "prose_shown": any(len(cell.split()) > 4 for item in shown for cell in item.cells),
            "attributed": bool(attributed),
            "cut": any(item.tokens for item in attributed),
            "answered": any(each.answers for each in examples),
            "verified": all(each.retrained for each in examples),
            "anchors": dict(zip(examples, anchors(each.name for each in examples), strict=True)),
            "data": script_json(self._rows()),
        }

    def _rows(self) -> list[list[str]]:
        """Return what is shown as rows of text, the headings first."""
        texts = any(side.shown and not side.shown[0].item.cells for side in self.sides)
        heads = ["push", "example", *self.columns, *(["text"] if texts else [])]
        heads.append("label" if self.answer.scale is None else "value")
        without = f"without it, {self.quantity} is" if self.sized else "rank"
        heads += [without, *([self.second] if self.second else []), "retrained"]

        def row(push: str, name: str, item: Item, *numbers: str) -> list[str]:
            text = item.text if item.text is not None else "".join(item.tokens)
            return [push, name, *item.cells, *([text] if texts else []), item.label, *numbers]

        def numbers(first: str, second: str, last: str) -> list[str]:
            return [first, *([second] if self.second else []), last]

        value = numbers(self.value if self.sized else "", self.second_value, "")
        return [
            heads,
            row("", self.query_name, self.query, *value),
            *(
                row(
                    side.phrase,
                    each.name,
                    each.item,
                    *numbers(
                        each.without if self.sized else str(place), each.second, each.retrained
                    ),
                )
                for side in self.sides
                for place, each in enumerate(side.shown, 1)
            ),
        ]
