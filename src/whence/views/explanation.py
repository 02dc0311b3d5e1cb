"""What the page about one prediction shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from whence.evaluation.agreement import Agreement
from whence.evaluation.correlation import pearson, slope
from whence.methods.attribution import Attribution
from whence.methods.directed import directed
from whence.methods.method import Method
from whence.methods.model_quality import ModelQuality
from whence.methods.prediction import Floats, MeasureLike, as_array
from whence.objective.losses import measure_of
from whence.objective.trained import Examples, Trained
from whence.pages import ExplanationPage, Item, Scatter, Shown, Side, Status
from whence.pages.text import words_of
from whence.pages.words import number, signed
from whence.rows import column_names
from whence.scores import Diagnostics
from whence.views.answer import answer_of, class_names, class_of, target_decimals
from whence.views.columns import NONE, Columns, columns_of, differences, is_table, spreads
from whence.views.copies import HIDDEN, duplicate_statuses, listed, missing_statuses
from whence.views.examples import images_of, item_of
from whence.views.firmness import Firmness, curve_of, facts_of
from whence.views.quantity import Quantity
from whence.views.sequences import Decode, is_sequence, parts_of, pieces_of
from whence.views.statuses import (
    NOT_RETRAINED,
    quality_of,
    quality_sentence,
    retrained_of,
    statuses_of,
)
from whence.views.words import telling_words, text_of

_VISIBLE = 6  # columns shown at first
_VISIBLE_BESIDE_TEXT = 3  # the same where one is of texts


@dataclass(frozen=True, eq=False, kw_only=True)
class Explained:
    """The parts of an explanation that its page shows.

    Args:
        trained: The model.
        query: The one query.
        labeled: Whether its label is known.
        measure: What was predicted.
        quantity: How it is read.
        value: The measure of the query as it is.
        method: What made the scores.
        attribution: The same, fitted to the model.
        raising: (position, effect) of the examples that push the quantity up, the strongest first.
        lowering: The same of those that push it down.
        sized: Whether single sizes are to be trusted.
        diagnostics: How the effects were computed, or `None`.
        words: How, in words.
        reason: Why the method was chosen, where the user named none; empty for influence.
        groups: (positions, effect) of near-duplicates that do more together than alone.
    """

    trained: Trained
    query: Examples
    labeled: bool
    measure: MeasureLike
    quantity: Quantity
    value: float
    method: Method
    attribution: Attribution
    raising: tuple[tuple[int, float], ...]
    lowering: tuple[tuple[int, float], ...]
    sized: bool
    diagnostics: Diagnostics | None
    words: str
    reason: str
    groups: tuple[tuple[NDArray[np.intp], float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Display:
    """How a page shows examples.

    Args:
        image_shape: (h, w) or (h, w, 3) if a row is an image laid out flat.
        texts: The training examples as texts, [n], or `None`.
        query_text: The query as a text, or `None`.
        decode: From token numbers to text, or `None`.
        title: The heading; made of the answer if `None`.
        query_name: What the query is called.
        about: What was done to the data and which model it is, a sentence each.
        command: What reproduces the page.
        statuses: What else is known of how far to trust the list.
    """

    image_shape: tuple[int, ...] | None = None
    texts: Sequence[str] | None = None
    query_text: str | None = None
    decode: Decode | None = None
    title: str | None = None
    query_name: str | None = None
    about: Sequence[str] = ()
    command: str = ""
    statuses: tuple[Status, ...] = ()


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
    where = np.array([at for at, _ in (*parts.raising, *parts.lowering)], dtype=np.intp)
    attributions = _input_attributions(parts, where)
    shown_query, items, columns = _items(parts, where, attributions, display)
    differs, continuous = np.zeros((len(where), 0), dtype=np.bool_), False
    if columns.names:
        rows = trained.train.subset(where).inputs
        differs, continuous = differences(query.inputs, rows, columns)
    value = quantity.read(parts.value)
    actual: dict[int, float] = {}
    if verification is not None:
        changes = verification.actual[0].tolist()
        actual = dict(zip(verification.positions.tolist(), changes, strict=True))
    effects = (*parts.raising, *parts.lowering)
    moved = [quantity.read(parts.value + effect) - value for _, effect in effects]
    decimals = quantity.decimals(moved)
    largest = max((abs(change) for change in moved), default=0.0)
    strongest = max((abs(effect) for _, effect in effects), default=0.0) or 1.0

    def shown(at: int, effect: float, item: Item, differ: NDArray[np.bool_]) -> Shown:
        after = parts.value + effect
        texts = () if item.attribution is None or not item.cells else item.attribution.tolist()
        return Shown(
            name=str(trained.train.ids[at]),
            item=item,
            size=effect / strongest,
            without=quantity.text(quantity.read(after), decimals) if parts.sized else "",
            change=quantity.change(quantity.read(after) - value, decimals) if parts.sized else "",
            second=number(after) if parts.sized else "",
            retrained=quantity.text(quantity.read(parts.value + actual[at]), decimals)
            if at in actual
            else "",
            attribution=tuple(_effect_text(each) for each in texts),
            differs=tuple(differ.tolist()),
        )

    every = [
        shown(at, effect, item, differ)
        for (at, effect), item, differ in zip(effects, items, differs, strict=True)
    ]
    count = len(parts.raising)
    sides = tuple(
        Side(phrase=phrase, color=color, shown=tuple(some))
        for phrase, color, some in zip(
            quantity.phrases, quantity.colors, (every[:count], every[count:]), strict=True
        )
    )
    sides = sides[::-1]  # against first, as on the meter
    in_words = class_names(trained)
    digits = target_decimals(trained)
    noun = _noun(query, display)
    scatter = None if verification is None else _scatter(parts, verification)
    name = display.query_name or _query_name(query)
    about = tuple(display.about)
    lead = about[0] if about else f"A model fitted on {len(trained.train):,} {noun}."
    if quality is not None:
        lead = f"{lead} {quality_sentence(quality, in_words, digits)}"
    return ExplanationPage(
        title=display.title or _title(parts, name),
        lead=lead,
        answer=answer_of(trained, query, explained=quantity.explained, labeled=parts.labeled),
        facts=facts_of(
            quantity,
            parts.value,
            largest if parts.sized else 0.0,
            len(trained.train),
            firmness,
            scatter,
            noun,
        ),
        query=shown_query,
        query_name=name,
        noun=noun,
        quantity=quantity.name,
        second=quantity.second,
        value=quantity.text(value, decimals),
        second_value=number(parts.value) if quantity.second else "",
        columns=columns.names,
        visible=_VISIBLE_BESIDE_TEXT if columns.prose else _VISIBLE,
        sides=sides,
        continuous=continuous,
        sized=parts.sized,
        curve=None
        if firmness is None
        else curve_of(quantity, firmness, noun, binary=len(in_words) == 2),
        curve_words=""
        if firmness is None
        else f"{quantity.name[0].upper()}{quantity.name[1:]} as the {noun} that push "
        f"{firmness.phrase} are removed together, strongest first. Every point was retrained.",
        scatter=scatter,
        n=len(trained.train),
        hidden=columns.hidden,
        shared=telling_words(trained.train, query)
        if display.query_text is None
        else words_of(display.query_text),
        statuses=(*_statuses(parts, scatter, quality, where, in_words, digits), *display.statuses),
        method=parts.words,
        command=display.command,
        about=about,
    )


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
    parts: Explained,
    where: NDArray[np.intp],
    attributions: Sequence[Floats | None],
    display: Display,
) -> tuple[Item, list[Item], Columns]:
    """Return the query and the examples as they are shown, and the columns that they share."""
    trained, query = parts.trained, parts.query
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
    shown_query = item(query, 0, title="The query", labeled=parts.labeled)
    items = [
        item(shown, index, title=f"Training example {name}", attribution=attributions[index])
        for index, name in enumerate(shown.ids)
    ]
    if display.texts is not None:
        items = [
            replace(item, text=display.texts[at], attribution=None)
            for item, at in zip(items, where.tolist(), strict=True)
        ]
    if display.query_text is not None:
        shown_query = replace(shown_query, text=display.query_text)
    return shown_query, items, columns


def _input_attributions(parts: Explained, where: NDArray[np.intp]) -> Sequence[Floats | None]:
    """Return the input attribution of each example, or the parts of its tokens."""
    trained, query = parts.trained, parts.query
    nothing = [None] * len(where)
    if not len(where):
        return nothing
    if pieces_of(trained.train, 0, None):
        if not is_sequence(trained) or directed(parts.attribution) is None:
            return nothing  # tokens are discrete, and one answer has no parts
        return parts_of(trained, query, where, measure=parts.measure, method=parts.method)
    if not parts.attribution.follows_inputs:
        return nothing
    if images_of(query) is None and not is_table(query.inputs):
        return nothing
    quantity = measure_of(trained.loss, parts.measure)
    found = as_array(parts.attribution.input_gradient(query, quantity, where))
    # The slope of the quantity in the measure, so that both have one sign and one unit.
    step = 1e-6 * max(1.0, abs(parts.value))
    rise = parts.quantity.read(parts.value + step) - parts.quantity.read(parts.value)
    found = found * (rise / step)
    if images_of(query) is None and found.shape[1:] == (query.inputs.shape[1],):
        found = found * spreads(trained.train.inputs)
    return list(found)


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


def _statuses(
    parts: Explained,
    scatter: Scatter | None,
    quality: ModelQuality | None,
    where: NDArray[np.intp],
    names: tuple[str, ...],
    decimals: int,
) -> tuple[Status, ...]:
    """Return how far to trust the page."""
    if scatter is None:
        checked = NOT_RETRAINED
    else:
        checked = retrained_of(
            scatter.predicted, scatter.actual, scatter.r, scatter.slope, sized=parts.sized
        )
    return (
        *statuses_of(parts.diagnostics, retrained=scatter is not None, sized=parts.sized),
        checked,
        quality_of(quality, names, decimals),
        *missing_statuses(parts.query),
        *_together_status(without_groups(parts)),
        *duplicate_statuses(parts.trained, parts.query, where),
    )


def _together_status(groups: list[tuple[str, str]]) -> tuple[Status, ...]:
    """Return what groups of near-duplicates would do together, as one status, or none."""
    if not groups:
        return ()
    (title, after), *others = groups
    lines = [after, *(f"{title} {after}" for title, after in others), HIDDEN]
    return (Status(level="caution", title=title, words=" ".join(filter(None, lines))),)


def without_groups(parts: Explained) -> list[tuple[str, str]]:
    """Return which near-duplicates there are, and what the answer would be without each group.

    Args:
        parts: The explanation.
    """
    quantity, now = parts.quantity, parts.quantity.read(parts.value)
    decimals = quantity.decimals(quantity.read(parts.value + e) - now for _, e in parts.groups)
    found = []
    for group, effect in parts.groups:
        title = f"Near-duplicates: {listed(parts.trained.train.ids[group].tolist())}."
        after = quantity.read(parts.value + effect)
        without = "both" if len(group) == 2 else f"all {len(group)}"
        words = f"Without {without} {quantity.name} would be {quantity.text(after, decimals)}"
        words += f" ({after - now:+.{decimals}f})."
        found.append((title, words if parts.sized else ""))
    return found
