"""Pages for the tests: made-up numbers, and one hostile text for every place a text can stand."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np
from sklearn.datasets import load_digits

from whence.pages import (
    AttackPage,
    BatchPage,
    ExplanationPage,
    Item,
    Light,
    QueryRow,
    RankedPage,
    RankedRow,
    Scatter,
)

Record = TypeVar("Record")

HELPFUL = Item(
    title="Training example 4",
    label="cat",
    columns=(("age", "4"),),
    acting=np.array([0.25]),
    effect=0.031,
    actual=0.03,
)
HARMFUL = Item(title="Training example 9", label="dog", text="a dog", effect=-0.5)
ABOUT: dict[str, Any] = {
    "lights": (Light(level="good", title="Solved?", words="Yes."),),
    "method": "by hand",
    "command": "whence demo",
    "n": 12345,
}


def explanation(**changes: object) -> ExplanationPage:
    made = ExplanationPage(
        title="Why?",
        query=Item(title="The query", label="cat"),
        said="The model says dog.",
        measure="loss",
        unit="nats",
        value=1.92,
        helpful=(HELPFUL,),
        harmful=(HARMFUL,),
        scatter=Scatter(
            predicted=np.array([0.1, -0.2]),
            actual=np.array([0.11, -0.21]),
            names=("a", "b"),
            r=0.999,
            slope=1.05,
        ),
        **ABOUT,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def sequences() -> ExplanationPage:
    """A page about a text, whose training texts are cut into tokens that act."""
    query = Item(title="The query", label="3 tokens", tokens=("The ", "moon ", "is made"))
    near = Item(
        title="Training example 7",
        label="4 tokens",
        tokens=("The ", "moon ", "is ", "cheese"),
        acting=np.array([0.0, 0.02, -0.001, 0.3]),
        effect=0.319,
    )
    far = replace(near, title="Training example 8", acting=-2 * np.ones(4), effect=-0.2)
    return explanation(query=query, helpful=(near,), harmful=(far,), scatter=None)


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
        words="An audit.",
        said="1 of 1 predictions flipped by 2 changed training inputs.",
        pairs=tuple((item, replace(item, acting=change)) for item in items),
        queries=(replace(items[0], title="Query 0", predicted="3, then 8"),),
        losses=(0.1, 0.3, 0.9),
        **{name: value for name, value in ABOUT.items() if name != "n"},
    )


def batch(rows: int = 60) -> BatchPage:
    """Every thirteenth query is a mistake; query i has loss i/100."""
    digits, labels = load_digits(return_X_y=True)
    images = (digits.reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)
    examples = tuple(
        Item(title=f"Training example {i}", label=str(labels[i]), image=images[i])
        for i in range(20)
    )
    return BatchPage(
        title="What is behind these predictions?",
        words="Digits and the digits behind them.",
        measure="loss",
        unit="nats",
        examples=examples,
        rows=tuple(
            QueryRow(
                query=Item(
                    title=f"Query {i}",
                    label=str(labels[i % 1797]),
                    predicted=str((labels[i % 1797] + (i % 13 == 0)) % 10),
                    image=images[i % 1797],
                ),
                value=i / 100,
                helpful=((i % 20, 0.5 / (i + 1)), ((i + 1) % 20, 0.25 / (i + 1))),
                harmful=((i % 7, -0.1),) if i % 2 else (),
            )
            for i in range(rows)
        ),
        **ABOUT,
    )


def ranked(rows: int = 30) -> RankedPage:
    return RankedPage(
        title="Which labels deserve a look?",
        words="Messages that the others argue against.",
        score="self-influence",
        unit="nats",
        rows=tuple(
            RankedRow(
                item=Item(
                    title=f"Message {i}",
                    label="ham" if i % 3 else "spam",
                    predicted="spam",
                    text=f"Message number {i}.",
                ),
                score=1 / (i + 1),
                loss=None if i == 5 else float(i),
            )
            for i in range(rows)
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
        kept = {"level"}
        changed = {
            field.name: _with_text(getattr(value, field.name), text)
            for field in fields(value)
            if field.name not in kept
        }
        return replace(value, **changed)
    return value
