"""An explanation as a terminal and a notebook show it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from whence.methods.model_quality import ModelQuality
from whence.pages.words import signed
from whence.views.answer import class_names, label_of, said_of, target_decimals
from whence.views.explained import Explained
from whence.views.explanation import unmoved, without_groups
from whence.views.statuses import quality_sentence

Side = Sequence[tuple[int, float]]


def said(parts: Explained) -> str:
    """Return what the model says of the query, and its label where that is known.

    Args:
        parts: The explanation.
    """
    return plain(_said(parts, None))


def _said(parts: Explained, decimals: int | None) -> str:
    """Return the same with so many decimals of a predicted number."""
    words = said_of(parts.trained, parts.query, decimals)
    label = label_of(parts.trained, parts.query.targets[0]) if parts.labeled else ""
    what = "label" if class_names(parts.trained) else "value"
    return f"{words[:-1]}; the {what} in the data is {label}." if label else words


def lines(parts: Explained, quality: ModelQuality | None) -> list[str]:
    """Return the examples with what the answer would be without each, in words.

    Args:
        parts: The explanation.
        quality: How good the model is on what it has not seen, or `None`.

    Returns:
        What the model says, a line per example, and how good the model is.
    """
    quantity, value = parts.quantity, parts.quantity.read(parts.value)
    sides = ((parts.lowering, quantity.phrases[1]), (parts.raising, quantity.phrases[0]))
    effects, decimals = (*parts.lowering, *parts.raising), decimals_of(parts)
    # One number is not shown with fewer decimals in one line than in the next.
    found = [_said(parts, decimals if quantity.predicts and parts.sized else None)]
    moves = any(effect for _, effect in effects)
    if parts.sized:
        name, now = quantity.name[0].upper() + quantity.name[1:], quantity.text(value, decimals)
        same = "it is the same, whichever is gone" + (". In order of score:" if effects else ".")
        without = "it would be:" if moves else same
        found.append(f"{name} is {now}. Without one training example {without}")
    elif not effects:
        found.append("No training example has an effect.")
    else:
        found.append("In order of their effect; its size is not known well enough to be shown:")
    for side, phrase in sides:
        ids = [str(parts.trained.train.ids[at]) for at, _ in side]
        if ids and not (parts.sized and moves):
            found.append(f"  push {phrase}, the strongest first: {', '.join(ids)}")
            continue
        for name, (_, effect) in zip(ids, side, strict=True):
            after = quantity.read(parts.value + effect)
            change, text = signed(after - value, decimals), quantity.text(after, decimals)
            found.append(f"  {text}  ({change})  without {name}, which pushes {phrase}")
    if moves and (still := unmoved(parts)):
        found.append(still)
    if parts.diagnostics is not None and parts.diagnostics.unconfirmed:
        found.append(parts.diagnostics.unconfirmed)
    found += [f"{title} {after}".rstrip() for title, after in without_groups(parts)]
    if parts.reason:
        found.append(parts.reason)
    if quality is not None:
        names, digits = class_names(parts.trained), target_decimals(parts.trained)
        found.append(quality_sentence(quality, names, digits))
    return [plain(line) for line in found]


def decimals_of(parts: Explained) -> int:
    """Return how many decimals of the quantity tell the effects of all examples shown.

    Args:
        parts: The explanation.
    """
    if not parts.sized:
        return parts.quantity.least
    quantity, value = parts.quantity, parts.quantity.read(parts.value)
    effects = (*parts.lowering, *parts.raising)
    return quantity.decimals(quantity.read(parts.value + e) - value for _, e in effects)


def positions(parts: Explained) -> list[str]:
    """Return what tells names from positions, if whole numbers name the examples otherwise.

    Args:
        parts: The explanation.
    """
    ids = parts.trained.train.ids
    shown = [at for side in (parts.lowering, parts.raising) for at, _ in side]
    other = [at for at in shown if ids[at] != at]
    if ids.dtype.kind not in "iu" or not other:
        return []
    return [
        "Examples are named by the index of the table. Functions that change examples, such as "
        f"whence.edit, take positions: {ids[other[0]]} is at position {other[0]}."
    ]


def plain(line: str) -> str:
    """Return a line with the minus sign of a keyboard: not every terminal has the other one.

    Args:
        line: Words and numbers.
    """
    return re.sub(r"−(?=\d)", "-", line)


def rows(parts: Explained) -> list[dict[str, object]]:
    """Return the examples as rows of a small table.

    Args:
        parts: The explanation.
    """
    train, quantity = parts.trained.train, parts.quantity
    sides = ((parts.lowering, quantity.phrases[1]), (parts.raising, quantity.phrases[0]))
    named, decimals = bool(positions(parts)), decimals_of(parts)
    return [
        {"example": train.ids[at]}
        | ({"position": at} if named else {})
        | {"label": label_of(parts.trained, train.targets[at])}
        | {"pushes": phrase}
        | (
            {"without it": quantity.text(quantity.read(parts.value + effect), decimals)}
            if parts.sized
            else {}
        )
        for side, phrase in sides
        for at, effect in side
    ]
