"""Cells of several parts: 120/80, 9:30 pm, 41:05, 1h 20m, 5'11", 41.9° N; nuts;latex."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LEAST = 4  # different texts from which they are quantities and no names
_FEW, _MOST = 12, 0.1  # different other words, and their share of cells, that are read as missing
_WORDS = 30  # words of lists that become a column each
_DIGIT = re.compile(r"\d")
_MONTHS, _DAYS, _YEARS = 12, 31, 1000


@dataclass(frozen=True, kw_only=True)
class Form:
    """A way in which numbers are written.

    Args:
        pattern: What the whole of a cell looks like.
        numbers: Returns its numbers.
        parts: What follows the name of the column in those of its numbers.
        note: What they are, in words.
    """

    pattern: re.Pattern[str]
    numbers: Callable[[re.Match[str]], tuple[float, ...]]
    parts: tuple[str, ...]
    note: str


def read_parts(
    texts: list[str], counts: NDArray[np.intp], nothing: frozenset[str], *, several: bool
) -> tuple[Form, NDArray[np.float64], list[str]] | None:
    """Return how texts are written, their numbers, and other words, which are missing.

    Args:
        texts: The different texts of a column, stripped, k of them.
        counts: How many cells have each, [k].
        nothing: Texts that stand for a missing value, in lower case.
        several: Whether a text may hold more numbers than one.

    Returns:
        The form, numbers of shape [k, its parts], and the words; `None` if they have no form.
    """
    possible = []
    for form in _FORMS:
        if len(form.parts) > 1 and not several:
            continue
        matches = [form.pattern.fullmatch(text) for text in texts]
        found = [None if match is None else form.numbers(match) for match in matches]
        known = np.array([numbers for numbers in found if numbers is not None])
        words = [text for text, match in zip(texts, matches, strict=True) if match is None]
        other = {word for word in words if word.lower() not in nothing}
        cells = int(counts[np.array([text in other for text in texts], dtype=bool)].sum())
        if len(form.parts) == 1 and any(map(_DIGIT.search, other)):
            continue  # another number, not a word for a missing one
        few = len(other) <= _FEW and cells <= _MOST * int(counts.sum())
        if len(known) < _LEAST or not few or (len(form.parts) > 1 and _may_be_dates(known)):
            continue
        missing = (np.nan,) * len(form.parts)
        numbers = np.array([missing if each is None else each for each in found])
        possible.append((cells, form, numbers, words))
    if not possible:
        return None
    _, form, numbers, words = min(possible, key=lambda each: each[0])
    return form, numbers, words


def read_lists(texts: list[str]) -> dict[str, NDArray[np.object_]]:
    """Return which words stand in texts that list them, such as nuts;latex: yes or no for each.

    Args:
        texts: The different texts of a column, stripped, k of them.

    Returns:
        For each word "yes" or "no", [k]; nothing where fewer than half of the texts are lists, or
        their words are many.
    """
    for mark in ";|":
        lists = [[word.strip() for word in text.split(mark) if word.strip()] for text in texts]
        words = sorted({word for each in lists for word in each})
        several = sum(len(each) > 1 for each in lists)
        if several >= max(_LEAST, len(texts) / 2) and len(words) < min(len(texts), _WORDS):
            return {
                word: np.array(["yes" if word in each else "no" for each in lists], dtype=object)
                for word in words
            }
    return {}


def _may_be_dates(pairs: NDArray[np.float64]) -> bool:
    """Return whether all pairs may be a month with a day or a year, in either order."""
    low, high = sorted(pairs.max(axis=0).tolist())
    whole = bool((pairs == pairs.round()).all())
    return whole and low <= _MONTHS and (high <= _DAYS or high >= _YEARS)


def _pair(match: re.Match[str]) -> tuple[float, ...]:
    return float(match[1]), float(match[2])


def _clock(match: re.Match[str]) -> tuple[float, ...]:
    hour = int(match[1])
    if match[4] is not None:
        hour = hour % 12 + 12 * (match[4].lower() == "p")
    return (hour + int(match[2]) / 60 + int(match[3] or 0) / 3600,)


def _sixtieths(match: re.Match[str]) -> tuple[float, ...]:
    return (int(match[1]) + float(match[2]) / 60 + float(match[3] or 0) / 3600,)


def _duration(match: re.Match[str]) -> tuple[float, ...]:
    return (int(match[1] or 0) + int(match[2] or 0) / 60,)


def _inches(match: re.Match[str]) -> tuple[float, ...]:
    return (12 * int(match[1]) + float(match[2] or 0),)


def _degrees(match: re.Match[str]) -> tuple[float, ...]:
    return ((-1 if match[2].lower() in "sw" else 1) * float(match[1]),)


def _form(
    pattern: str, numbers: Callable[[re.Match[str]], tuple[float, ...]], note: str, *parts: str
) -> Form:
    compiled = re.compile(pattern, re.IGNORECASE)
    return Form(pattern=compiled, numbers=numbers, parts=parts or ("",), note=note)


_FORMS = (
    _form(
        r"(\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)(?:\s*[a-z]{1,6})?",
        _pair,
        "two numbers, one before and one after the stroke",
        ", before the /",
        ", after the /",
    ),
    _form(
        r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?\s*(?:([ap])\.?m\.?)?",
        _clock,
        "hours of the clock",
    ),
    _form(
        r"(\d{1,4}):([0-5]\d(?:\.\d+)?)(?::([0-5]\d(?:\.\d+)?))?",
        _sixtieths,
        "numbers, what follows a colon as sixtieths",
    ),
    _form(r"(?=\d)(?:(\d+)\s*h[a-z]*\.?\s*)?(?:(\d+)\s*m[a-z]*\.?)?", _duration, "hours"),
    _form(r"(\d+)\s*['′]\s*(?:(\d+(?:\.\d+)?)\s*(?:[\"″]|''))?", _inches, "inches"),
    _form(r"(\d+(?:\.\d+)?)\s*°\s*([NSEW])", _degrees, "degrees, those of south and west below 0"),
)
