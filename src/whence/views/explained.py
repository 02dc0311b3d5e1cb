"""What an explanation hands to its page, and how the page shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whence.methods.attribution import Attribution
from whence.methods.method import Method
from whence.methods.prediction import MeasureLike
from whence.objective.trained import Examples, Trained
from whence.pages import Status
from whence.scores import Diagnostics
from whence.views.quantity import Quantity
from whence.views.sequences import Decode


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
        exact: Whether each effect is what fitting again gives, and not a prediction of it.
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
    exact: bool
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
