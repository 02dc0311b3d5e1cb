"""What a page with many rows shows, as plain data: many queries, or a ranked list."""

from __future__ import annotations

from dataclasses import dataclass

from whence.errors import InvalidInput
from whence.pages.page import Item, Light


@dataclass(frozen=True, eq=False, kw_only=True)
class QueryRow:
    """One query of a batch and the training examples behind it.

    Args:
        query: The query; `label` is the truth, `predicted` what the model says.
        value: The query's measure as it is.
        helpful: (position in the page's examples, effect) pairs, the largest effect first.
        harmful: The same for those whose removal lowers the measure, the most negative first.
    """

    query: Item
    value: float
    helpful: tuple[tuple[int, float], ...]
    harmful: tuple[tuple[int, float], ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class BatchPage:
    """The training examples behind many predictions, to search, filter and sort.

    Args:
        title: The question the page answers.
        words: What the queries are, in a sentence or two.
        measure: What the effects are changes of: "loss", "margin", ....
        unit: Its unit, such as "nats".
        examples: The training examples that the rows refer to, each once.
        rows: One per query.
        lights: The diagnostics.
        method: How the numbers were computed, in words.
        command: What reproduces the page.
        n: The number of training examples.
        created: When it was made, as the reader should see it; not shown if empty.
        version: Of whence; the one that is installed if empty.

    Raises:
        InvalidInput: If a row refers to an example that the page does not have.
    """

    title: str
    words: str
    measure: str
    unit: str
    examples: tuple[Item, ...]
    rows: tuple[QueryRow, ...]
    lights: tuple[Light, ...]
    method: str
    command: str
    n: int
    created: str = ""
    version: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            for position, _ in (*row.helpful, *row.harmful):
                if not 0 <= position < len(self.examples):
                    raise InvalidInput(
                        f"Expected positions in 0..{len(self.examples) - 1}, among the page's "
                        f"examples. Got {position} for {row.query.title}."
                    )


@dataclass(frozen=True, eq=False, kw_only=True)
class RankedRow:
    """One training example of a ranked list.

    Args:
        item: The example; `predicted` is the label that the model suggests.
        score: What the list is ranked by.
        loss: The example's own loss, in nats.
        gain: What correcting it is expected to bring; positive is better, `None` if not known.
    """

    item: Item
    score: float
    loss: float | None = None
    gain: float | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class RankedPage:
    """Training examples in the order in which they deserve a look, such as likely label errors.

    Args:
        title: The question the page answers.
        words: What the ranking means and what to do with it, in a sentence or two.
        score: The name of what the list is ranked by, such as "self-influence".
        unit: Its unit, such as "nats".
        rows: The examples, the first to look at first.
        lights: The diagnostics.
        method: How the numbers were computed, in words.
        command: What reproduces the page.
        n: The number of training examples.
        created: When it was made, as the reader should see it; not shown if empty.
        version: Of whence; the one that is installed if empty.
        noun: What one row is.
        label: What the rows' labels are: the heading of their column.
        gain: What the rows' gains are: the heading of their column.
    """

    title: str
    words: str
    score: str
    unit: str
    rows: tuple[RankedRow, ...]
    lights: tuple[Light, ...]
    method: str
    command: str
    n: int
    created: str = ""
    version: str = ""
    noun: str = "training example"
    label: str = "label"
    gain: str = "expected gain"
