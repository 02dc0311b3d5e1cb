"""Which parts of what is shown an effect comes from: pixels, values, tokens of either side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from whence.arrays import Floats
from whence.errors import UnsupportedModel
from whence.methods.directed import directed
from whence.methods.prediction import as_array
from whence.objective.losses import measure_of
from whence.pages import Item
from whence.views.columns import is_table, spreads
from whence.views.examples import images_of
from whence.views.explained import Explained
from whence.views.sequences import Decode, answered, is_sequence, parts_of, pieces_of


def input_attributions(parts: Explained, where: NDArray[np.intp]) -> Sequence[Floats | None]:
    """Return the input attribution of each example, or the parts of its tokens.

    Args:
        parts: The explanation.
        where: Positions of the examples, [k].

    Returns:
        One array per example, or `None` where there is none.
    """
    trained, query = parts.trained, parts.query
    nothing = [None] * len(where)
    if not len(where):
        return nothing
    if pieces_of(trained.train, 0, None):
        if not _splits(parts):
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


def answer_parts(parts: Explained, where: NDArray[np.intp]) -> list[tuple[str, list[Floats]]]:
    """Return which part of each example's effect comes from each token of the answer.

    Args:
        parts: The explanation.
        where: Positions of the examples, [k].

    Returns:
        For each answer that is asked about, which of two are told apart, what it is called, and an
        array per example with a number per token that is shown. Nothing where the answer is no
        text, or the method knows the parts of training texts only.
    """
    if not len(where) or not pieces_of(parts.query, 0, None) or not _splits(parts):
        return []
    try:
        return [
            (
                name,
                [
                    sign * part
                    for part in parts_of(
                        parts.trained,
                        answer,
                        where,
                        measure=parts.measure,
                        method=method,
                        side="query",
                    )
                ],
            )
            for name, (method, answer, sign) in zip(
                ("the answer", "the other answer"), parts.method.answers(parts.query), strict=False
            )
        ]
    except UnsupportedModel:
        return []


def answer_items(
    parts: Explained, found: list[tuple[str, list[Floats]]], decode: Decode | None
) -> list[tuple[Item, ...]]:
    """Return the answers beside each example, colored by what of them the example is behind.

    Args:
        parts: The explanation.
        found: What `answer_parts` gives.
        decode: From token numbers to text, or `None`.

    Returns:
        The answers, for each example.
    """
    if not found:
        return []
    beside: list[list[Item]] = []
    for (name, each), (_, answer, _) in zip(found, parts.method.answers(parts.query), strict=True):
        pieces, has = pieces_of(answer, 0, decode), answered(parts.trained, answer, 0)
        tokens = tuple(piece for piece, one in zip(pieces, has, strict=True) if one)
        beside.append([Item(title=name, tokens=tokens, attribution=part[has]) for part in each])
    return list(zip(*beside, strict=True))


def _splits(parts: Explained) -> bool:
    """Return whether effects are sums over tokens."""
    return is_sequence(parts.trained) and directed(parts.attribution) is not None
