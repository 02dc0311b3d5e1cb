"""What the page about many predictions shows."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import numpy as np

from whence.methods.model_quality import ModelQuality
from whence.methods.prediction import MeasureLike
from whence.objective.losses import measure_of
from whence.objective.trained import Examples, Trained
from whence.pages import BatchPage, Carrier, Effect, QueryRow
from whence.scores import Scores
from whence.views.answer import class_names, predicted_labels, target_decimals
from whence.views.columns import NONE, columns_of
from whence.views.copies import seen_statuses
from whence.views.examples import item_of
from whence.views.made import Made
from whence.views.quantity import Quantity, quantities_of
from whence.views.sequences import Decode
from whence.views.statuses import quality_of, quality_sentence, statuses_of

_CARRIERS = 8  # examples behind many queries that are named
_OFTEN = 2  # queries behind which an example must be to be named


def batch_page(
    trained: Trained,
    queries: Examples,
    scores: Scores,
    *,
    labeled: bool,
    measure: MeasureLike,
    unit: str,
    sized: bool,
    hint: str,
    k: int,
    quality: ModelQuality | None,
    decode: Decode | None,
    made: Made,
) -> BatchPage:
    """Return what the page of many predictions shows.

    Args:
        trained: The model.
        queries: The q queries.
        scores: Scores of the candidates, [q, m].
        labeled: Whether the labels of the queries are known.
        measure: What was predicted.
        unit: What follows the measure's name where scores are in another unit than its own.
        sized: Whether the sizes of the scores are to be trusted.
        hint: What to do to see sizes, a sentence, where something helps.
        k: Training examples per query and side.
        quality: How good the model is on what it has not seen, or `None`.
        decode: From token numbers to text, or `None`.
        made: How the page was made.

    Returns:
        Plain data.
    """
    outputs = trained.outputs(queries)
    values = measure_of(trained.loss, measure)(outputs, queries.targets).tolist()
    names = class_names(trained)
    predicted = predicted_labels(trained, outputs) if names else [None] * len(queries)
    quantities = quantities_of(trained, queries, measure, unit=unit)
    orders = [
        _sides(row, quantity, k) for row, quantity in zip(scores.values, quantities, strict=True)
    ]
    used = np.unique(np.concatenate([side for pair in orders for side in pair] or [[]])).astype(int)
    place = {int(at): index for index, at in enumerate(used)}
    shown = trained.train.subset(scores.positions[used])
    behind = [[place[at] for side in pair for at in side] for pair in orders]
    columns = columns_of([queries.inputs, shown.inputs]) if made.image_shape is None else NONE
    item = partial(item_of, trained, image_shape=made.image_shape, decode=decode, columns=columns)
    rows = []
    for q, (quantity, value) in enumerate(zip(quantities, values, strict=True)):
        title = f"Query {queries.ids[q]}"
        toward, against = (
            _effects({place[at]: scores.values[q, at] for at in side}, quantity, value, sized)
            for side in orders[q]
        )
        rows.append(
            QueryRow(
                query=item(queries, q, title=title, labeled=labeled, predicted=predicted[q]),
                value=quantity.read(value),
                text=quantity.text(quantity.read(value), quantity.least),
                toward=toward,
                against=against,
            )
        )
    first, digits = quantities[0], target_decimals(trained)
    lead = made.data(
        f"{len(queries):,} predictions of a model fitted on {len(trained.train):,} examples."
    )
    good = "" if quality is None else quality_sentence(quality, names, digits)
    return BatchPage(
        quantity=_heading(first, names, labeled),
        effects=_effects_in_words(first, names, labeled=labeled, sized=sized, hint=hint),
        headings=_headings(first, names, labeled),
        columns=columns.names,
        examples=tuple(
            item(shown, i, title=f"Training example {name}") for i, name in enumerate(shown.ids)
        ),
        carriers=_carriers(rows),
        rows=tuple(rows),
        n=len(trained.train),
        statuses=(
            *statuses_of(scores.diagnostics, sized=sized),
            *seen_statuses(trained, queries, shown, behind),
            quality_of(quality, names, digits),
        ),
        method=f"{scores.method[0].upper()}{scores.method[1:]}.",
        **made.common(lead, good),
    )


def _sides(effects: Any, quantity: Quantity, k: int) -> tuple[list[int], list[int]]:
    """Return which candidates push to the label of a query, and which away from it.

    Those that push the quantity up, and those that push it down, where there is no label.
    """
    away = effects if quantity.rising else -effects
    order = np.argsort(away, kind="stable")
    up = [int(at) for at in order[:k] if away[at] < 0]
    down = [int(at) for at in order[::-1][:k] if away[at] > 0]
    return (up, down) if quantity.colors[0] in ("toward", "up") else (down, up)


def _effects(
    changes: dict[int, float], quantity: Quantity, value: float, sized: bool
) -> tuple[Effect, ...]:
    """Return what examples do to a query.

    Args:
        changes: Of the measure without each, by its position among the page's examples.
        quantity: How the measure is read.
        value: The measure as it is.
        sized: Whether the sizes are to be trusted.
    """
    now = quantity.read(value)
    read = {at: quantity.read(value + float(change)) - now for at, change in changes.items()}
    return tuple(
        Effect(
            example=at,
            size=change,
            text=quantity.change(change, quantity.decimals([change])) if sized else "",
        )
        for at, change in read.items()
    )


def _heading(quantity: Quantity, names: tuple[str, ...], labeled: bool) -> str:
    """Return the heading of the column of answers."""
    of = "label" if labeled else "answer"
    if quantity.percent:
        return f"P({of})"
    name = quantity.name.removeprefix("the ")
    if quantity.explained is not None:
        name = name.replace(names[quantity.explained], f"the {of}")
    return name[0].upper() + name[1:]


def _headings(quantity: Quantity, names: tuple[str, ...], labeled: bool) -> tuple[str, str]:
    """Return the headings of the two columns of examples."""
    of = "the label" if labeled else "the answer"
    if quantity.explained is not None:
        return f"Push to {of}", f"Push away from {of}"
    up, down = quantity.phrases
    toward, against = (up, down) if quantity.colors[0] in ("toward", "up") else (down, up)
    return f"Push {toward}", f"Push {against}"


def _effects_in_words(
    quantity: Quantity, names: tuple[str, ...], *, labeled: bool, sized: bool, hint: str
) -> str:
    """Return what the effects are, in a sentence."""
    if not sized:
        return (
            "The bars show the order of the training examples; the sizes of single effects are not "
            f"known well enough to be shown. {hint}"
        ).rstrip()
    what = _heading(quantity, names, labeled)
    what = what if what.startswith("P(") else f"the {what[0].lower()}{what[1:]}"
    return (
        f"Each effect is the predicted change of {what} if one training example were removed and "
        "the model retrained."
    )


def _carriers(rows: list[QueryRow]) -> tuple[Carrier, ...]:
    """Return the examples that are among the strongest of several queries, the most first."""
    toward = Counter(effect.example for row in rows for effect in row.toward)
    against = Counter(effect.example for row in rows for effect in row.against)
    total = toward + against
    return tuple(
        Carrier(example=example, toward=toward[example], against=against[example])
        for example, count in sorted(total.items(), key=lambda pair: (-pair[1], pair[0]))
        if count >= _OFTEN
    )[:_CARRIERS]
