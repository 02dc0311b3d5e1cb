"""Pages for the tests: made-up numbers, and one hostile text for every place a text can stand."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np
from sklearn.datasets import load_digits

from whence.pages import (
    Answer,
    AttackPage,
    BatchPage,
    Carrier,
    Curve,
    Effect,
    ExplanationPage,
    Fact,
    Item,
    Listed,
    Listing,
    QueryRow,
    RankedPage,
    RankedRow,
    ResultPage,
    Scale,
    Scatter,
    Share,
    Shown,
    Side,
    Status,
)

Record = TypeVar("Record")

ROW = Shown(
    name="4",
    item=Item(
        title="Training example 4",
        label="cat",
        cells=("4", "male"),
        attribution=np.array([0.25, -0.5]),
    ),
    size=0.4,
    without="18.6 %",
    second="1.683",
    retrained="18.7 %",
    attribution=("+0.250", "−0.500"),
    differs=(True, False),
)
TEXT = Shown(name="9", item=Item(title="Training example 9", label="dog", text="a dog"), size=-1.0)
ABOUT: dict[str, Any] = {
    "lead": "Some data and a model.",
    "statuses": (
        Status(level="good", title="It is solved.", words="Really.", numbers="Residual 1e-12."),
        Status(level="unknown", title="Nothing was retrained."),
    ),
    "method": "by hand",
    "command": "whence demo",
    "about": ("pets.csv, a model fitted on the other rows.", "3 values are missing."),
}


def sides(*shown: Shown) -> tuple[Side, Side]:
    """Return the shown examples of either sign of size."""
    return (
        Side(phrase="to “dog”", color="against", shown=tuple(x for x in shown if x.size > 0)),
        Side(phrase="to “cat”", color="toward", shown=tuple(x for x in shown if x.size <= 0)),
    )


def explanation(**changes: object) -> ExplanationPage:
    """A page about a row of a table, with all that it can have."""
    made = ExplanationPage(
        title="Why?",
        answer=Answer(
            words="The model says dog.",
            shares=(
                Share(name="dog", share=0.819, text="82 %", note="", color="against"),
                Share(name="cat", share=0.181, text="18 %", note="the label", color="toward"),
            ),
        ),
        facts=(
            Fact(figure="0.6 points", words="is the most."),
            Fact(figure="R 0.9990", words="between these and 2 retrainings.", proof=True),
        ),
        query=Item(title="The query", label="cat", cells=("5", "male")),
        query_name="row 17",
        noun="training rows",
        quantity="P(cat)",
        second="loss, in nats",
        value="18.1 %",
        second_value="1.709",
        columns=("age", "sex"),
        visible=1,
        sides=sides(ROW, replace(ROW, name="5", size=-1.0, retrained="18.6 %")),
        continuous=True,
        sized=True,
        curve=Curve(
            points=((0, 18.1), (5, 30.0), (9, 51.0)),
            across="training rows removed",
            up="P(cat)",
            unit=" %",
            threshold=50.0,
            threshold_words="9 removed: it says “cat”",
        ),
        curve_words="P(cat) as rows are removed.",
        scatter=Scatter(
            predicted=np.array([0.1, -0.2]),
            actual=np.array([0.11, -0.21]),
            names=("a", "b"),
            r=0.999,
            slope=1.05,
            unit="points",
        ),
        n=12345,
        hidden=3,
        **ABOUT,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def regression() -> ExplanationPage:
    """A page about a predicted number."""
    scale = Scale(
        low=1.0, high=5.0, predicted=2.8, actual=3.1, texts=("1.00", "5.00", "2.80", "3.10")
    )
    answer = Answer(words="The model predicts 2.80.", scale=scale)
    return explanation(answer=answer, quantity="the prediction", second="", second_value="")


def texts() -> ExplanationPage:
    """A page about texts, whose sizes are not known."""
    query = Item(title="The query", label="cat", text="a dog or a cat")
    return explanation(
        query=query,
        columns=(),
        sides=sides(TEXT, replace(TEXT, name="8", size=0.5)),
        sized=False,
        second="",
        shared=frozenset({"dog"}),
        curve=None,
        scatter=None,
        facts=(),
        answer=Answer(words="The model says dog."),
    )


def sequences() -> ExplanationPage:
    """A page about a text, whose training texts are cut into tokens that move the answer."""
    query = Item(title="The query", label="3 tokens", tokens=("The ", "moon ", "is made"))
    near = Shown(
        name="7",
        item=Item(
            title="Training example 7",
            label="4 tokens",
            tokens=("The ", "moon ", "is ", "cheese"),
            attribution=np.array([0.0, 0.02, -0.001, 0.3]),
        ),
        size=1.0,
    )
    item = replace(near.item, title="Training example 8", attribution=-2 * np.ones(4))
    far = replace(near, name="8", item=item, size=-0.6)
    return replace(texts(), query=query, sides=sides(near, far), shared=frozenset())


def images() -> ExplanationPage:
    """A page about a digit, with the parts of other digits that move the answer."""
    digits, labels = load_digits(return_X_y=True)
    pixels = (digits.reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)
    moving = np.random.default_rng(0).normal(size=(8, 8))
    shown = [
        Shown(
            name=str(i),
            item=Item(
                title=f"Training example {i}",
                label=str(labels[i]),
                image=pixels[i],
                attribution=moving,
            ),
            size=(-1) ** i / (i + 1),
            without="18.6 %",
            second="1.7",
        )
        for i in range(6)
    ]
    query = Item(title="The query", label="6", image=pixels[6])
    return explanation(query=query, columns=(), sides=sides(*shown), hidden=0)


def attacked() -> AttackPage:
    """Two digits before and after a change of a few pixels."""
    digits, labels = load_digits(return_X_y=True)
    images = (digits.reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)
    change = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], (8, 8))
    items = [
        Item(title=f"Training example {i}", label=str(labels[i]), image=images[i]) for i in (3, 8)
    ]
    return AttackPage(
        title="How little flips the prediction?",
        said="1 of 1 predictions flipped by 2 changed training inputs.",
        pairs=tuple((item, replace(item, attribution=change)) for item in items),
        queries=(replace(items[0], title="Query 0", predicted="3, then 8"),),
        losses=(0.1, 0.3, 0.9),
        **ABOUT,
    )


def batch(rows: int = 60) -> BatchPage:
    """Every thirteenth query is a mistake; query i has value i/100."""
    digits, labels = load_digits(return_X_y=True)
    images = (digits.reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)
    examples = tuple(
        Item(title=f"Training example {i}", label=str(labels[i]), image=images[i])
        for i in range(20)
    )

    def effect(example: int, size: float) -> Effect:
        return Effect(example=example, size=size, text=f"{size:+.3f} points")

    return BatchPage(
        title="What is behind these predictions?",
        quantity="P(label)",
        effects="Each effect is a change.",
        headings=("Push to the label", "Push away from it"),
        columns=(),
        examples=examples,
        carriers=(Carrier(example=3, toward=5, against=2),) if rows else (),
        rows=tuple(
            QueryRow(
                query=Item(
                    title=f"Query {i}",
                    label=str(labels[i % 1797]),
                    predicted=str((labels[i % 1797] + (i % 13 == 0)) % 10),
                    image=images[i % 1797],
                ),
                value=i / 100,
                text=f"{i} %",
                toward=(effect(i % 20, -0.5 / (i + 1)), effect((i + 1) % 20, -0.25 / (i + 1))),
                against=(effect(i % 7, 0.1),) if i % 2 else (),
            )
            for i in range(rows)
        ),
        n=12345,
        **ABOUT,
    )


def ranked(rows: int = 30) -> RankedPage:
    return RankedPage(
        title="Which labels deserve a look?",
        score="self-influence",
        unit="nats",
        columns=("length", "sender", "hour", "weekday", "links", "words", "folder"),
        rows=tuple(
            RankedRow(
                item=Item(
                    title=f"Message {i}",
                    label="ham" if i % 3 else "spam",
                    predicted="spam",
                    text=f"Message number {i}.",
                    cells=(str(i), "me", "7", "Monday", "0", "12", f"folder {i}"),
                ),
                score=1 / (i + 1),
                text=f"{1 / (i + 1):.3f}",
                loss=None if i == 5 else float(i),
            )
            for i in range(rows)
        ),
        n=12345,
        facts=(Fact(figure="About 12", words="labels look wrong."),),
        decisions=True,
        **ABOUT,
    )


def result() -> ResultPage:
    """A page about a result, with all that it can have: images, rows, texts and plain lines."""
    digits, labels = load_digits(return_X_y=True)
    images = (digits.reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)
    pictured = tuple(
        Listed(
            name=str(i),
            numbers=(str(i),),
            item=Item(title=f"Training example {i}", label=str(labels[i]), image=images[i]),
            size=(-0.5) ** i,
            color="against" if i % 2 else "toward",
        )
        for i in range(4)
    )
    answer = explanation().answer
    return ResultPage(
        title="How few carry it?",
        said="Without 4 of 12,345 it says “cat”.",
        facts=(Fact(figure="4 of 12,345", words="examples carry it."),),
        answers=(("With all", answer), ("Without these 4", answer)),
        curve=explanation().curve,
        curve_heading="The lead as they are removed",
        curve_words="Every point was retrained.",
        listings=(
            Listing(heading="Images", noun="example", heads=("order",), lines=pictured),
            Listing(
                heading="Rows",
                noun="example",
                heads=(),
                columns=("age", "sex"),
                lines=(Listed(name="4", numbers=(), item=ROW.item),),
                words="A list of one.",
            ),
            Listing(
                heading="Texts",
                noun="example",
                heads=("score",),
                lines=(Listed(name="9", numbers=("0.5",), item=TEXT.item),),
            ),
            Listing(
                heading="Answers",
                noun="question",
                heads=("answer",),
                lines=(Listed(name="Is it?", numbers=("It is.",)),),
            ),
            Listing(heading="Nothing", noun="example", heads=(), lines=()),
        ),
        **ABOUT,
    )


def with_text(record: Record, text: str) -> Record:
    """Return a record with every text in it, however deep, replaced by another."""
    return _with_text(record, text)  # type: ignore[no-any-return]


def _with_text(value: Any, text: str) -> Any:
    if isinstance(value, str):
        return text
    if isinstance(value, tuple):
        return tuple(_with_text(part, text) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        kept = {"level", "color"}
        changed = {
            field.name: _with_text(getattr(value, field.name), text)
            for field in fields(value)
            if field.name not in kept
        }
        return replace(value, **changed)
    return value
