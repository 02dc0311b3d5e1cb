"""What the page about one prediction shows."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from whence.arrays import Floats
from whence.errors import listed
from whence.evaluation.agreement import Agreement
from whence.evaluation.correlation import pearson, slope
from whence.methods.model_quality import ModelQuality
from whence.objective.trained import Examples
from whence.pages import ExplanationPage, Item, Scatter, Shown, Side, Status
from whence.pages.text import words_of
from whence.pages.words import number, signed
from whence.rows import column_names
from whence.views.answer import answer_of, class_names, class_of, target_decimals
from whence.views.attributed import answer_items, answer_parts, input_attributions
from whence.views.columns import NONE, Columns, columns_of, differences, is_table
from whence.views.copies import HIDDEN, duplicate_statuses, missing_statuses
from whence.views.examples import images_of, item_of
from whence.views.explained import Display, Explained
from whence.views.firmness import Firmness, curve_of, facts_of
from whence.views.quantity import Quantity
from whence.views.sequences import pieces_of
from whence.views.statuses import (
    NOT_RETRAINED,
    RETRAINED,
    quality_of,
    quality_sentence,
    retrained_of,
    statuses_of,
)
from whence.views.words import telling_words, text_of

_VISIBLE = 6  # columns shown at first
_VISIBLE_BESIDE_TEXT = 3  # the same where one is of texts
_STILL = 1e-12  # of a measure: what rounding leaves of no change


def explanation_page(
    parts: Explained,
    verification: Agreement | None,
    firmness: Firmness | None,
    quality: ModelQuality | None,
    display: Display,
) -> ExplanationPage:
    """Return what the page of an explanation shows.

    Args:
        parts: The explanation.
        verification: Predicted against retrained, or `None`.
        firmness: The answer as examples are removed together, or `None`.
        quality: How good the model is on what it has not seen, or `None`.
        display: How examples are shown.

    Returns:
        Plain data.
    """
    trained, query, quantity = parts.trained, parts.query, parts.quantity
    effects = (*parts.raising, *parts.lowering)
    where = np.array([at for at, _ in effects], dtype=np.intp)
    shown_query, items, answers, columns = _items(parts, where, display)
    differs, continuous = np.zeros((len(where), 0), dtype=np.bool_), False
    if columns.names:
        rows = trained.train.subset(where).inputs
        differs, continuous = differences(query.inputs, rows, columns)
    value = quantity.read(parts.value)
    moved = [quantity.read(parts.value + effect) - value for _, effect in effects]
    decimals = quantity.decimals(moved)
    largest = max((abs(change) for change in moved), default=0.0) if parts.sized else 0.0
    names, digits = class_names(trained), target_decimals(trained)
    n, noun, about = len(trained.train), _noun(query, display), tuple(display.about)
    name = display.query_name or _query_name(query)
    lead = [about[0] if about else f"A model fitted on {n:,} {noun}."]
    if quality is not None:
        lead.append(quality_sentence(quality, names, digits))
    scatter = None if verification is None else _scatter(parts, verification)
    text = display.query_text
    return ExplanationPage(
        title=display.title or _title(parts, name),
        lead=" ".join(lead),
        answer=answer_of(
            trained,
            query,
            explained=quantity.explained,
            labeled=parts.labeled,
            decimals=decimals if quantity.predicts and parts.sized else None,
        ),
        facts=facts_of(quantity, parts.value, largest, n, firmness, scatter, noun),
        query=shown_query,
        query_name=name,
        noun=noun,
        quantity=quantity.name,
        second=quantity.second,
        value=quantity.text(value, decimals),
        second_value=number(parts.value) if quantity.second else "",
        columns=columns.names,
        visible=_VISIBLE_BESIDE_TEXT if columns.prose else _VISIBLE,
        sides=_sides(parts, items, answers, differs, verification, decimals),
        continuous=continuous,
        sized=parts.sized,
        curve=None
        if firmness is None
        else curve_of(quantity, firmness, noun, binary=len(names) == 2),
        curve_words="" if firmness is None else _course(quantity, firmness, noun),
        scatter=scatter,
        n=n,
        hidden=columns.hidden,
        shared=telling_words(trained.train, query) if text is None else words_of(text),
        statuses=(
            *statuses_of(parts.diagnostics, retrained=scatter is not None, sized=parts.sized),
            _retrained(scatter, verification, parts),
            quality_of(quality, names, digits),
            *_data_statuses(parts, where),
            *display.statuses,
        ),
        method=parts.words,
        command=display.command,
        about=about,
    )


def _data_statuses(parts: Explained, where: NDArray[np.intp]) -> list[Status]:
    """Return what the data say of the list: missing cells, copies, rows that do nothing alone."""
    found = list(missing_statuses(parts.query))
    if still := unmoved(parts):
        found.append(Status(level="caution", title=still))
    found += _together_status(without_groups(parts))
    return [*found, *duplicate_statuses(parts.trained, parts.query, where)]


def _course(quantity: Quantity, firmness: Firmness, noun: str) -> str:
    """Return what the curve of joint removals shows, in a sentence."""
    return (
        f"{quantity.name[0].upper()}{quantity.name[1:]} as the {noun} that push "
        f"{firmness.phrase} are removed together, strongest first. Every point was retrained."
    )


def _sides(
    parts: Explained,
    items: list[Item],
    answers: list[tuple[Item, ...]],
    differs: NDArray[np.bool_],
    verification: Agreement | None,
    decimals: int,
) -> tuple[Side, ...]:
    """Return the examples of either side, with what the answer would be without each."""
    quantity, effects = parts.quantity, (*parts.raising, *parts.lowering)
    strongest = max((abs(effect) for _, effect in effects), default=0.0) or 1.0
    actual: dict[int, float] = {}
    if verification is not None:
        changes = verification.actual[0].tolist()
        actual = dict(zip(verification.positions.tolist(), changes, strict=True))

    def without(change: float) -> str:
        return quantity.text(quantity.read(parts.value + change), decimals)

    def shown(
        at: int, effect: float, item: Item, beside: tuple[Item, ...], differ: NDArray[np.bool_]
    ) -> Shown:
        moves = () if item.attribution is None or not item.cells else item.attribution.tolist()
        return Shown(
            name=str(parts.trained.train.ids[at]),
            item=item,
            size=effect / strongest,
            without=without(effect) if parts.sized else "",
            second=number(parts.value + effect) if parts.sized else "",
            retrained=without(actual.get(at, effect)) if parts.exact or at in actual else "",
            attribution=tuple(map(_effect_text, moves)),
            differs=tuple(differ.tolist()),
            answers=beside,
        )

    every = [
        shown(*effect, item, beside, differ)
        for effect, item, beside, differ in zip(effects, items, answers, differs, strict=True)
    ]
    count = len(parts.raising)
    sides = tuple(
        Side(phrase=phrase, color=color, shown=tuple(some))
        for phrase, color, some in zip(
            quantity.phrases, quantity.colors, (every[:count], every[count:]), strict=True
        )
    )
    return sides[::-1]  # against first, as on the meter


def _title(parts: Explained, name: str) -> str:
    """Return the question that the page answers."""
    names = class_names(parts.trained)
    if names:
        said = names[class_of(parts.trained.outputs(parts.query)[0])]
        return f"Why does the model say “{said}” of {name}?"
    if "to this text" in parts.quantity.phrases:
        return f"Which training texts are behind {name}?"
    return f"Why does the model predict this of {name}?"


def _query_name(query: Examples) -> str:
    """Return what a query is called that has no other name."""
    name = query.ids[0]
    if column_names(query.inputs) is None:
        return "this query"
    return str(name) if isinstance(name, str) else f"row {name}"


def _noun(query: Examples, display: Display) -> str:
    """Return what training examples are called, in the plural."""
    if display.texts is not None or text_of(query, 0) is not None or pieces_of(query, 0, None):
        return "training texts"
    if images_of(query) is not None or display.image_shape is not None:
        return "training images"
    return "training rows" if is_table(query.inputs) else "training examples"


def _items(
    parts: Explained, where: NDArray[np.intp], display: Display
) -> tuple[Item, list[Item], list[tuple[Item, ...]], Columns]:
    """Return the query, the examples, the answers beside each, and the columns that rows share."""
    trained, query = parts.trained, parts.query
    attributions, of_answer = input_attributions(parts, where), answer_parts(parts, where)
    answers = answer_items(parts, of_answer, display.decode) or [()] * len(where)
    of_query = np.sum(of_answer[0][1], 0) if of_answer else None
    shown = trained.train.subset(where)
    columns = NONE
    if display.image_shape is None and display.texts is None and is_table(query.inputs):
        known = [each for each in attributions if each is not None]
        width = query.inputs.shape[1]
        importance = np.abs(known).mean(0) if known and known[0].shape == (width,) else None
        columns = columns_of([query.inputs, shown.inputs], importance)
        if importance is None:
            attributions = [None] * len(where)
    item = partial(
        item_of,
        trained,
        image_shape=display.image_shape,
        columns=columns,
        decode=display.decode,
    )
    shown_query = item(query, 0, title="The query", labeled=parts.labeled, attribution=of_query)
    items = [
        item(shown, index, title=f"Training example {name}", attribution=attributions[index])
        for index, name in enumerate(shown.ids)
    ]
    if display.texts is not None and display.decode is None:
        items = [
            replace(item, text=display.texts[at], tokens=(), attribution=None)
            for item, at in zip(items, where.tolist(), strict=True)
        ]
    if display.query_text is not None and display.decode is None:
        shown_query = replace(shown_query, text=display.query_text, tokens=(), attribution=None)
    return shown_query, items, answers, columns


def _effect_text(change: float) -> str:
    """Return one number of an input attribution."""
    return signed(change, 3) if abs(change) >= 5e-4 or change == 0 else signed(change)


def _scatter(parts: Explained, verification: Agreement) -> Scatter:
    """Return predicted against retrained changes of the quantity."""
    quantity, value = parts.quantity, parts.quantity.read(parts.value)

    def changes(of: Floats) -> Floats:
        return np.array([quantity.read(parts.value + each) - value for each in of.tolist()])

    predicted, actual = changes(verification.predicted[0]), changes(verification.actual[0])
    columns = predicted[:, None], actual[:, None]
    return Scatter(
        predicted=predicted,
        actual=actual,
        names=tuple(verification.ids.tolist()),
        r=float(pearson(*columns)[0]),
        slope=float(slope(*columns)[0]),
        unit="points" if quantity.percent else "",
    )


def _retrained(scatter: Scatter | None, verification: Agreement | None, parts: Explained) -> Status:
    """Return how far retraining confirms the changes."""
    if scatter is None or verification is None:
        return RETRAINED if parts.exact else NOT_RETRAINED
    limits = filter(None, (verification.by_chance, verification.own_fits))
    return retrained_of(
        scatter.predicted,
        scatter.actual,
        scatter.r,
        scatter.slope,
        sized=parts.sized,
        limits=" ".join(limits),
    )


def _together_status(groups: list[tuple[str, str]]) -> tuple[Status, ...]:
    """Return what groups of near-duplicates would do together, as one status, or none."""
    if not groups:
        return ()
    (title, after), *others = groups
    lines = [after, *(f"{title} {after}" for title, after in others), HIDDEN]
    return (Status(level="caution", title=title, words=" ".join(filter(None, lines))),)


def unmoved(parts: Explained) -> str:
    """Return how many of the examples shown change nothing alone, or nothing if all do.

    Args:
        parts: The explanation.
    """
    effects = [effect for _, effect in (*parts.raising, *parts.lowering)]
    still = sum(abs(effect) < _STILL for effect in effects) if parts.sized else 0
    if not still:
        return ""
    return (
        f"{still} of these {len(effects)} change nothing when they alone are removed: they are "
        "listed for what they do where others are gone too."
    )


def without_groups(parts: Explained) -> list[tuple[str, str]]:
    """Return which near-duplicates there are, and what the answer would be without each group.

    Args:
        parts: The explanation.
    """
    quantity, now = parts.quantity, parts.quantity.read(parts.value)
    decimals = quantity.decimals(quantity.read(parts.value + e) - now for _, e in parts.groups)
    found = []
    for group, effect in parts.groups:
        names = listed(parts.trained.train.ids[group].tolist())
        title = f"Near-duplicates of each other: {names}."
        after = quantity.read(parts.value + effect)
        without = "both" if len(group) == 2 else f"all {len(group)}"
        words = f"Without {without} {quantity.name} would be {quantity.text(after, decimals)}"
        words += f" ({signed(after - now, decimals)})."
        found.append((title, words if parts.sized else ""))
    return found
