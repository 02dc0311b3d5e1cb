"""What the routes of the explorer answer: plain values for JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from whence.applications.flip_set import flip_set
from whence.applications.label_errors import find_label_errors
from whence.applications.shown import shown_by
from whence.explorer.session import State
from whence.methods.choose import chosen
from whence.objective.trained import Trained
from whence.pages.words import number
from whence.rows import column as column_of
from whence.rows import is_sparse, quarters
from whence.views.answer import answer_of, class_names, label_of
from whence.views.columns import (
    cell_text,
    column_name,
    column_values,
    columns_of,
    has_cells,
    is_table,
)
from whence.views.examples import item_of
from whence.views.sequences import pieces_of
from whence.views.words import text_of

Json = dict[str, Any]

_SHOWN = 10  # rows on each side of an answer
_STRONGEST = 10  # rows of a prediction that count as those behind it
_LISTED = 200  # rows by how many predictions they harm
_GROUPS = 12  # values of a column that make groups of their own; more are cut at quartiles
_SUSPECTS = 100  # labels to look at
_SIZED = 2e6  # rows · parameters up to which the sizes of what is shown take a second or two


def predictions(state: State) -> Json:
    """Return a row for each prediction: its name, label, what the model says, and how sure."""
    subject, quantities, values = state.subject, state.quantities(), state.values()
    classes, off = class_names(state.model), state.residuals()
    rows = []
    for at, said in enumerate(state.predicted()):
        label = label_of(state.model, subject.queries.targets[at]) if subject.labeled else ""
        quantity = quantities[at]
        value = quantity.read(float(values[at])) if off is None else abs(float(off[at]))
        rows.append(
            {
                "name": subject.names[at],
                "label": label,
                "says": said,
                "value": value,
                "text": quantity.text(value, quantity.least),
                "wrong": bool(label and classes and said != label),
            }
        )
    heading = "P(label)" if quantities[0].percent and subject.labeled else quantities[0].name
    heading = heading if off is None else "off by"
    return {"rows": rows, "heading": heading, "accuracy": state.accuracy, "steps": steps(state)}


def answer(state: State, at: int) -> Json:
    """Return what the model says of one prediction, and the rows that push it either way.

    Args:
        state: The state.
        at: Position of the prediction.
    """
    query, quantity = state.query(at), state.quantities()[at]
    changes = state.changes(at)
    order = _ends(changes, _SHOWN)
    where = np.concatenate(order).astype(np.intp)
    strongest = float(np.abs(changes[where]).max(initial=0.0)) or 1.0
    said = answer_of(
        state.model, query, explained=quantity.explained, labeled=state.subject.labeled
    )
    shown = _examples(state.model, where)
    sides = []
    for phrase, color, some in zip(quantity.phrases, quantity.colors, order, strict=True):
        rows = [
            {**shown[int(i)], "size": abs(float(changes[i])) / strongest, "color": color}
            for i in some
        ]
        sides.append({"phrase": phrase, "color": color, "rows": rows})
    return {
        "query": at,
        "name": state.subject.names[at],
        "words": said.words,
        "shares": [asdict(share) for share in said.shares],
        "scale": None if said.scale is None else asdict(said.scale),
        "value": quantity.text(quantity.read(float(state.values()[at])), quantity.least),
        "quantity": quantity.name,
        "sides": sides[::-1],
        "columns": _columns(state.model),
        "cells": _cells(state.model, query),
        "text": _text(query),
    }


def sizes(state: State, at: int, positions: list[int]) -> Json:
    """Return what the answer would be without each row, where that is known well and soon.

    Args:
        state: The state.
        at: Position of the prediction.
        positions: Of the rows.
    """
    model, where = state.model, np.array(sorted(set(positions)), dtype=np.intp)
    params = getattr(model, "params", None)
    if params is None or not model.convex or len(model.train) * len(params) > _SIZED:
        return {"texts": {}, "sizes": {}}
    attribution = shown_by(chosen(model, state.subject.method), model).fit(model)
    if not attribution.calibrated or not len(where):
        return {"texts": {}, "sizes": {}}
    scores = attribution.scores(state.query(at), measure=state.measure, indices=where)
    quantity, value = state.quantities()[at], float(state.values()[at])
    after = [quantity.read(value + float(each)) for each in scores.values[0]]
    decimals = quantity.decimals(each - quantity.read(value) for each in after)
    texts = {int(i): quantity.text(each, decimals) for i, each in zip(where, after, strict=True)}
    changes = np.abs(scores.values[0])
    most = float(changes.max()) or 1.0
    relative = {int(i): float(each) / most for i, each in zip(where, changes, strict=True)}
    return {"texts": texts, "sizes": relative}


def rows(state: State) -> Json:
    """Return training rows by how many predictions they are strongest behind, either way."""
    scores = state.scores()
    q, n = scores.shape
    against, toward = np.zeros(n, dtype=int), np.zeros(n, dtype=int)
    for quantity, values in zip(state.quantities(), scores, strict=True):
        up, down = _ends(values if quantity.rising else -values, _STRONGEST)
        helps = quantity.colors[0] in ("toward", "up")
        toward[up if helps else down] += 1
        against[down if helps else up] += 1
    order = np.lexsort((-toward, -against))[:_LISTED]
    order = order[(against + toward)[order] > 0]
    train = state.model.train
    listed = [
        {
            "position": int(i),
            "name": str(train.ids[i]),
            "label": label_of(state.model, train.targets[int(i)]),
            "against": int(against[i]),
            "toward": int(toward[i]),
        }
        for i in order
    ]
    labels = bool(class_names(state.model))
    names = ["away from the label", "to the label"] if labels else ["down", "up"]
    return {"rows": listed, "names": names, "queries": q}


def row(state: State, position: int) -> Json:
    """Return one training row with the predictions that it pushes.

    Args:
        state: The state.
        position: Of the row in the training data.
    """
    (shown,) = _examples(state.model, np.array([position])).values()
    names, quantities = state.subject.names, state.quantities()
    changes = [
        float(values[position]) * (1 if quantity.rising else -1)
        for quantity, values in zip(quantities, state.scores(), strict=True)
    ]
    order = np.argsort(-np.abs(changes), kind="stable")[: 2 * _SHOWN]
    most = max((abs(changes[i]) for i in order), default=0.0) or 1.0
    pushed = [
        {
            "query": int(i),
            "name": names[i],
            "phrase": quantities[i].phrases[0 if changes[i] < 0 else 1],
            "color": quantities[i].colors[0 if changes[i] < 0 else 1],
            "size": abs(changes[i]) / most,
        }
        for i in order
        if changes[i]
    ]
    classes = [str(name) for name in state.model.classes]
    return {
        **shown,
        "pushes": pushed,
        "columns": _columns(state.model),
        "classes": classes,
        "editable": has_cells(state.model.train.inputs),
    }


def flip(state: State, at: int) -> Json:
    """Return few rows without which the model changes its mind, found by retraining.

    Args:
        state: The state.
        at: Position of the prediction.
    """
    found = flip_set(state.model, state.query(at))
    names = class_names(state.model)
    words = (
        f"Without {len(found.positions):,} rows the model says “{names[found.after]}”: retrained. "
        "They are ticked; a smaller set may exist."
        if found.found
        else f"No set was found without which the answer changes ({found.tried} retrainings)."
    )
    return {"positions": found.positions.tolist(), "words": words}


def groups(state: State, at: int, column: int) -> Json:
    """Return the values of a column as groups of training rows, with their summed influence.

    Args:
        state: The state.
        at: Position of the prediction.
        column: Position of the column.
    """
    inputs, changes = state.model.train.inputs, state.changes(at)
    if not _has_cells(inputs) or not 0 <= column < inputs.shape[1]:
        return {"groups": []}
    numbers = column_values(inputs, column)
    cells = column_of(inputs, column)
    if numbers is not None and cells.nunique() > _GROUPS:
        of = quarters(pd.Series(numbers)).astype(object).fillna("missing")
    else:
        of = pd.Series([cell_text(each) for each in cells], dtype=object)
    common = of.value_counts().index[:_GROUPS]
    there = ~state.removed()
    members = [np.flatnonzero((of == name).to_numpy() & there) for name in common]
    totals = [float(changes[where].sum()) for where in members]
    quantity, most = state.quantities()[at], max(map(abs, totals), default=0.0) or 1.0
    found = [
        {
            "name": str(common[i]),
            "positions": members[i].tolist(),
            "size": abs(totals[i]) / most,
            "phrase": quantity.phrases[0 if totals[i] < 0 else 1],
            "color": quantity.colors[0 if totals[i] < 0 else 1],
        }
        for i in np.argsort(-np.abs(totals), kind="stable")
    ]
    return {"groups": found}


def suspects(state: State) -> Json:
    """Return the training rows whose labels look wrong, the first to look at first."""
    errors = find_label_errors(state.model, k=_SUSPECTS)
    frame = errors.to_frame().head(_SUSPECTS)
    there = ~state.removed()
    where = [int(i) for i in frame["position"] if there[i]]
    shown = _examples(state.model, np.array(where, dtype=np.intp))
    suggested = dict(zip(frame["position"], frame["suggested"], strict=True))
    scores = dict(zip(frame["position"], frame["score"], strict=True))
    listed = [
        {**shown[i], "suggested": str(suggested[i]), "score": number(float(scores[i]))}
        for i in where
    ]
    return {
        "rows": listed,
        "columns": _columns(state.model),
        "ranked_by": errors.ranked_by,
        "accuracy": state.accuracy,
    }


def steps(state: State) -> list[Json]:
    """Return the steps that were taken, for the log."""
    names = state.subject.names
    return [
        {
            "words": done.words,
            "query": names[done.query],
            "before": done.before,
            "after": done.after,
            "accuracy": list(done.accuracy),
        }
        for done in state.done
    ]


def _ends(changes: Any, k: int) -> tuple[list[int], list[int]]:
    """Return the k rows without which the answer falls most, and those without which it rises."""
    k = min(k, len(changes))
    low = np.argpartition(changes, k - 1)[:k]
    high = np.argpartition(-changes, k - 1)[:k]
    low, high = low[np.argsort(changes[low])], high[np.argsort(-changes[high])]
    return [int(i) for i in low if changes[i] < 0], [int(i) for i in high if changes[i] > 0]


def _examples(model: Trained, where: Any) -> dict[int, Json]:
    """Return training examples by their positions, as a page shows them."""
    from whence.pages.drawing import picture

    some = model.train.subset(where)
    columns = columns_of([some.inputs]) if _has_cells(some.inputs) else None
    found = {}
    for place, position in enumerate(where.tolist()):
        item = item_of(model, some, place, title="", image_shape=None)
        found[position] = {
            "position": position,
            "name": str(some.ids[place]),
            "label": item.label,
            "cells": [] if columns is None else list(columns.cells(some.inputs, place)),
            "text": "".join(item.tokens) or _text(some, place),
            "image": None if item.image is None else picture(item.image, longest=96),
        }
    return found


def _columns(model: Trained) -> list[str]:
    """Return the names of the columns of a table."""
    inputs = model.train.inputs
    return list(columns_of([inputs[:1]]).names) if _has_cells(inputs) else []


def _has_cells(inputs: Any) -> bool:
    """Return whether inputs are rows whose cells are shown; of sparse rows the text is."""
    return is_table(inputs) and not is_sparse(inputs)


def _cells(model: Trained, query: Any) -> list[str]:
    """Return the cells of one row of a table."""
    if not _has_cells(query.inputs):
        return []
    return list(columns_of([query.inputs]).cells(query.inputs, 0))


def _text(examples: Any, at: int = 0) -> str:
    """Return an example that is a text."""
    pieces = pieces_of(examples, at, None)
    if pieces:
        return "".join(pieces)
    inputs = examples.inputs
    if is_table(inputs) and is_sparse(inputs):
        row = inputs[[at]].tocoo()
        named = zip(row.coords[-1].tolist(), row.data.tolist(), strict=True)
        return ", ".join(f"{column_name(inputs, j)}: {cell_text(value)}" for j, value in named)
    return text_of(examples, at) or ""
