"""Pages with many rows to search, filter and sort: many queries, or a ranked list."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from markupsafe import Markup

from whence.errors import InvalidInput
from whence.pages.drawing import picture
from whence.pages.explanation import Fact
from whence.pages.item import Item
from whence.pages.page import Page
from whence.pages.scripts import script_json
from whence.storage import digest

_THUMBNAIL = 64  # pixels of the longer side: ten thousand rows must stay one file

Json = dict[str, Any]


@dataclass(frozen=True, eq=False, kw_only=True)
class Effect:
    """What one training example does to one query.

    Args:
        example: Its position among the page's examples.
        size: By how much the answer changes without it, with its sign; bars and sorting use it.
        text: The same as it is shown; empty where the size is not to be trusted.
    """

    example: int
    size: float
    text: str


@dataclass(frozen=True, eq=False, kw_only=True)
class QueryRow:
    """One query of a batch and the training examples behind it.

    Args:
        query: The query; `label` is the truth, `predicted` what the model says.
        value: The answer as it is, by which rows are sorted.
        text: The same as it is shown.
        toward: The examples that push to the label, the strongest first.
        against: Those that push away from it, the strongest first.
    """

    query: Item
    value: float
    text: str
    toward: tuple[Effect, ...]
    against: tuple[Effect, ...]


@dataclass(frozen=True, kw_only=True)
class Carrier:
    """A training example that is among the strongest of several queries.

    Args:
        example: Its position among the page's examples.
        toward: Of how many queries it is among those that push to the label.
        against: Of how many it is among those that push away from it.
    """

    example: int
    toward: int
    against: int

    @property
    def carries(self) -> bool:
        """Whether it pushes to the label more often than away from it."""
        return self.toward >= self.against


@dataclass(frozen=True, eq=False, kw_only=True)
class BatchPage(Page):
    """The training examples behind many predictions.

    Args:
        quantity: What the numbers are: the heading of their column, such as "P(label)".
        effects: What the effects are, in a sentence.
        headings: The headings of the two columns of examples.
        columns: The names of the cells of examples and queries.
        examples: The training examples that the rows refer to, each once.
        carriers: Those behind many rows, the most first.
        rows: One per query.
        n: The number of training examples.

    Raises:
        InvalidInput: If a row refers to an example that the page does not have.
    """

    template: ClassVar[str] = "batch.html"

    quantity: str
    effects: str
    headings: tuple[str, str]
    columns: tuple[str, ...]
    examples: tuple[Item, ...]
    carriers: tuple[Carrier, ...]
    rows: tuple[QueryRow, ...]
    n: int

    def __post_init__(self) -> None:
        for row in self.rows:
            for effect in (*row.toward, *row.against):
                if not 0 <= effect.example < len(self.examples):
                    raise InvalidInput(
                        f"Expected positions in 0..{len(self.examples) - 1}, among the page's "
                        f"examples. Got {effect.example} for {row.query.title}."
                    )

    def context(self) -> dict[str, object]:
        """Return the rows as JSON."""
        judged = any(row.query.predicted is not None for row in self.rows)
        labeled = any(row.query.label for row in self.rows)
        compared = judged and labeled
        queries = len(self.examples)
        items = [*self.examples, *(row.query for row in self.rows)]
        columns: list[Json] = [{"name": "Query", "kind": "item"}]
        if labeled:
            columns.append({"name": "Label", "kind": "text", "filter": judged})
        if judged:
            columns.append({"name": "Model says", "kind": "text", "filter": True})
        columns.append({"name": self.quantity, "kind": "number"})
        columns += [
            {"name": name, "kind": "effects", "side": side}
            for side, name in zip(("toward", "against"), self.headings, strict=True)
        ]
        differ = {"columns": [1, 2], "words": "Only mistakes", "title": "not the label"}
        rows = [
            [
                queries + at,
                *([row.query.label] if labeled else []),
                *([row.query.predicted] if judged else []),
                [_number(row.value), row.text],
                [_behind(effect) for effect in row.toward],
                [_behind(effect) for effect in row.against],
            ]
            for at, row in enumerate(self.rows)
        ]
        return {"data": _data(self.columns, items, columns, differ if compared else None, rows)}


@dataclass(frozen=True, eq=False, kw_only=True)
class RankedRow:
    """One training example of a ranked list, or one group of them.

    Args:
        item: The example; `predicted` is the label that the model suggests.
        score: What the list is ranked by.
        text: The same as it is shown.
        name: The user's name of it; its title if empty.
        loss: The example's own loss, in nats.
        gain: What correcting it is expected to bring; positive is better, `None` if not known.
    """

    item: Item
    score: float
    text: str
    name: str = ""
    loss: float | None = None
    gain: float | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class RankedPage(Page):
    """Training examples in the order in which they deserve a look, such as likely label errors.

    Args:
        score: The name of what the list is ranked by, such as "self-influence".
        unit: Its unit, such as "nats".
        columns: The names of the cells of the rows.
        rows: The examples, the first to look at first.
        n: The number of training examples.
        noun: What one row is.
        label: What the rows' labels are: the heading of their column.
        gain: What the rows' gains are: the heading of their column.
        facts: Figures on top, such as how many rows deserve a look.
        decisions: Whether a reader decides about each label: to keep it, change it or drop the row.
    """

    template: ClassVar[str] = "ranked.html"

    score: str
    unit: str
    columns: tuple[str, ...]
    rows: tuple[RankedRow, ...]
    n: int
    noun: str = "training example"
    label: str = "label"
    gain: str = "expected gain"
    facts: tuple[Fact, ...] = ()
    decisions: bool = False

    def context(self) -> dict[str, object]:
        """Return the list as JSON."""
        suggested = any(row.item.predicted is not None for row in self.rows)
        losses = any(row.loss is not None for row in self.rows)
        gains = any(row.gain is not None for row in self.rows)
        columns: list[Json] = [
            {"name": self.noun.capitalize(), "kind": "item"},
            {"name": self.label.capitalize(), "kind": "text", "filter": self.label == "label"},
        ]
        if suggested:
            columns.append({"name": "Suggested", "kind": "text", "filter": self.label == "label"})
        columns.append({"name": self.score.capitalize(), "kind": "number", "bar": True})
        if losses:
            columns.append({"name": "Loss", "kind": "number"})
        if gains:
            columns.append({"name": self.gain.capitalize(), "kind": "number"})
        differ = {"columns": [1, 2], "words": "Only where they differ", "title": "not its label"}
        rows = [
            [
                at,
                row.item.label,
                *([row.item.predicted] if suggested else []),
                [_number(row.score), row.text],
                *([_number(row.loss)] if losses else []),
                *([_number(row.gain)] if gains else []),
            ]
            for at, row in enumerate(self.rows)
        ]
        items = [row.item for row in self.rows]
        decide = {
            "names": [row.name or row.item.title for row in self.rows],
            "suggested": [row.item.predicted for row in self.rows],
            # A browser keeps decisions by their place: those of another ranking are not these.
            "stamp": digest(*(_told(row) for row in self.rows)),
        }
        more = {"decide": decide} if self.decisions else {}
        classes = suggested and self.label == "label"
        data = _data(self.columns, items, columns, differ if classes else None, rows, **more)
        return {"data": data}


def _data(
    names: tuple[str, ...],
    items: list[Item],
    columns: list[Json],
    differ: Json | None,
    rows: Any,
    **more: Json,
) -> Markup:
    """Return what the script of a table reads."""
    return script_json(
        {
            "names": names,
            "items": [_item(item) for item in items],
            "columns": columns,
            "differ": differ,
            "rows": rows,
            **more,
        }
    )


def _item(item: Item) -> Json:
    """Return an example as JSON, without what it does not have."""
    image = None if item.image is None else picture(item.image, longest=_THUMBNAIL)
    text = item.text if item.text is not None else "".join(item.tokens) or None
    parts: Json = {
        "title": item.title,
        "label": item.label or None,
        "predicted": item.predicted,
        "image": image,
        "text": text,
        "cells": item.cells or None,
    }
    return {name: part for name, part in parts.items() if part is not None}


def _told(row: RankedRow) -> str:
    """Return what tells a row from others."""
    item = row.item
    return repr((row.name, item.title, item.label, item.predicted, item.text, item.cells))


def _behind(effect: Effect) -> list[Any]:
    """Return an effect as JSON."""
    return [effect.example, _number(effect.size), effect.text]


def _number(value: float | None) -> float | None:
    """Return a number in six digits; `None` for what JSON cannot hold."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")
