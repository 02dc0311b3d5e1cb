"""Numbers as people write them: with currency, units, separators, bounds and marks."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

NEARLY_ALL = 0.9  # share of the different values that must be numbers, or dates
NOTHING = frozenset(
    ["", "-", "--", ".", "..", "...", "?", "na", "n/a", "nan", "null", "none", "nil", "missing"]
    + ["unknown", "not available", "*", "#n/a", "n.a.", "n.d.", "nd", "tbd", "x", "–", "—"]
)  # texts that stand for a missing value, in lower case
_PLAIN = 15  # different numbers from which others may be bounds, and all no groups
_CURRENCY = r"(?:[$€£¥₹₩₽₺]|usd|eur|gbp|chf|jpy|rs\.?)"
_UNIT = rf"(?:%|{_CURRENCY}|[a-zµ°³²/]{{1,7}})"
_LESS = r"(?:less than|fewer than|under|below|up to|at most|no more than)"
_MORE = r"(?:more than|greater than|over|above|at least|no less than)"
_OR_MORE = r"(?:(?:or|and) (?:less|fewer|more|under|over|below|above|up|older|younger)|\+)"
_MARKED = re.compile(
    rf"(?P<bound>[<>≤≥]=?\s*|(?:{_LESS}|{_MORE})\s+)?(?P<about>[~≈]\s*)?(?P<sign>[-+−(]?)\s*"
    rf"{_CURRENCY}?\s*(?P<inner>[-+−]?)"
    r"(?P<digits>\d[\d.,'’ \u00a0\u202f]*|[.,]\d+)"
    rf"(?P<power>e[-+]?\d+)?(?P<apart>\s*)(?P<unit>{_UNIT})?\)?"
    rf"(?:\s*(?P<end>{_OR_MORE})(?:\s*(?P<late>{_UNIT}))?)?(?P<foot>\s*(?:\*+|[†‡]|\[\w{{1,3}}\]))?",
    re.IGNORECASE,
)
_SCALES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "bn": 1e9}  # of 950K and 1.2M in one column
_CODE = re.compile(r"[a-z]{1,3}[-.]?\d[\d.a-z-]*", re.IGNORECASE)  # c168 among station numbers
_UNITS = (  # which a few numbers of a column may have alone
    "% mm cm m km in inch inches ft feet yd mi mg g kg t lb lbs oz ml cl dl l s sec "
    "min mins h hr hrs hour hours d day days wk week weeks month months yr yrs year "
    "years c °c °f k mph km/h w kw kwh v hz khz mhz ghz kb mb gb tb kcal cal mmhg "
    "bpm pts ppm db m² km² ft² m³ "
)
_THOUSANDS_COMMA = re.compile(r"\d{1,3}(,\d{3})+(\.\d*)?")
_DECIMAL_COMMA = re.compile(r"[-+]?(\d+|\d{1,3}(\.\d{3})+)(,\d+)?")
_THOUSANDS_POINT = re.compile(r"\d{1,3}(\.\d{3})+(,\d*)?")


def with_points(column: pd.Series[Any]) -> pd.Series[Any]:
    """Return a column of texts as floats where each is a number with a decimal comma, else itself.

    Args:
        column: A column of a file whose numbers have decimal commas.

    Examples:
        >>> import pandas as pd
        >>> with_points(pd.Series(["1.234,5", None, "7"])).tolist()
        [1234.5, nan, 7.0]
    """
    if not pd.api.types.is_string_dtype(column.dropna()):
        return column
    known = column.dropna().str.strip()
    if not known.str.contains(",").any() or not known.str.fullmatch(_DECIMAL_COMMA).all():
        return column
    points = column.str.replace(".", "", regex=False).str.replace(",", ".", regex=False)
    return points.astype(float)


def read_numbers(
    texts: list[str], counts: NDArray[np.intp]
) -> tuple[NDArray[np.float64], str] | None:
    """Return texts as numbers with how they were read, or `None` if they are none.

    A few words among numbers are read as missing, and named. One way of writing decimals is taken
    for all.

    Args:
        texts: The different texts of a column, stripped, k of them.
        counts: How many cells have each, [k].
    """
    matches = [_MARKED.fullmatch(text) for text in texts]
    numeric = [match for match in matches if match is not None]
    if not numeric:
        return None
    units = {_unit(match) for match in numeric}
    scaled = len(units) > 1 and units <= set(_SCALES) and units != {"", "m"}
    if len(units - {""}) > 1 and not scaled:
        return None
    pairs = list(zip(texts, matches, strict=True))
    other = [text for text, match in pairs if not match and text.lower() not in NOTHING]
    if _are_codes(numeric, other):
        return None
    cells = _cells([match is not None for match in matches], counts)
    words = set(other)
    wrong = _cells([text in words for text in texts], counts)
    bounds = [text for text, match in pairs if match and (match["bound"] or match["end"])]
    bounded = _cells([bool(m and (m["bound"] or m["end"])) for m in matches], counts)
    if 2 * bounded > cells or (bounds and len(numeric) - len(bounds) < _PLAIN):
        return None  # groups such as <18, or 0, 1, 2 or more
    if wrong > (1 - NEARLY_ALL) * (cells + wrong) or len(numeric) < 2:
        return None
    digits = [match["digits"].strip() for match in numeric]
    if any(re.fullmatch(r"0\d+", each) for each in digits):
        return None  # codes such as 00123
    readings = [
        np.array([_value(match, read, scaled=scaled) for match in matches])
        for read in _readers(digits)
    ]
    found = max(readings, key=lambda reading: int(counts[~np.isnan(reading)].sum()))
    known = ~np.isnan(found)
    unread = cells - int(counts[known].sum())
    if wrong + unread > (1 - NEARLY_ALL) * (cells + wrong):
        return None
    notes = ["numbers"]
    unit = next(iter(units - {""}), "")
    if unit and unit not in ("e",) and not scaled:
        notes[0] += f", the ending {unit!r} left out" if unit != "%" else " in percent"
    if bounds:
        notes.append(f"{', '.join(map(repr, bounds[:3]))} as the bound")
    marked = [text for text, match in pairs if match and (match["about"] or match["foot"])]
    if marked:
        notes.append(f"{', '.join(map(repr, marked[:3]))} without the mark")
    return found, ", ".join(
        notes + as_missing([text for text, ok in zip(texts, known, strict=True) if not ok])
    )


def as_missing(words: list[str]) -> list[str]:
    """Return which words are read as missing, a phrase; none if all of them are empty.

    Args:
        words: Texts.
    """
    named = [repr(word) for word in words if word]
    shown = ", ".join(named[:3])
    return [f"{shown}{' and others' if len(named) > 3 else ''} as missing"] if named else []


def _unit(match: re.Match[str]) -> str:
    """Return the unit of a number in lower case, empty if it has none."""
    return (match["unit"] or match["late"] or "").lower()


def _cells(which: list[bool], counts: NDArray[np.intp]) -> int:
    """Return how many cells have one of some texts."""
    return int(counts[np.array(which, dtype=bool)].sum())


def _are_codes(numeric: list[re.Match[str]], other: list[str]) -> bool:
    """Return whether numbers are codes, as those beside them are: c168, or 1OT among quarters."""
    if sum(_CODE.fullmatch(text) is not None for text in other) > 1:
        return True
    ending = [_unit(match) for match in numeric if match["unit"] and not match["apart"]]
    known = set(_UNITS.split()) | set(_SCALES)
    odd = [unit for unit in ending if unit not in known and not re.fullmatch(_CURRENCY, unit)]
    return 0 < 2 * len(odd) < len(numeric)


def _value(
    match: re.Match[str] | None, read: Callable[[str], float | None], *, scaled: bool
) -> float:
    """Return the number that was matched, NaN if there is none."""
    number = None if match is None else read(match["digits"].strip())
    if match is None or number is None:
        return np.nan
    below = match["sign"] in ("-", "−", "(") or match["inner"] in ("-", "−")
    scale = float(f"1{match['power']}") if match["power"] else 1.0
    scale *= _SCALES[_unit(match)] if scaled else 1.0
    return -number * scale if below else number * scale


def _readers(digits: list[str]) -> list[Callable[[str], float | None]]:
    """Return the ways in which numbers may be written, the likelier first.

    They differ in which mark stands before decimals.
    """
    commas, points = (any(mark in each for each in digits) for mark in ",.")
    comma = commas and not all(_THOUSANDS_COMMA.fullmatch(each) for each in digits if "," in each)
    if commas and points and not comma:
        both = [each for each in digits if "," in each and "." in each]
        comma = not all(each.rfind(",") < each.rfind(".") for each in both)
    return [_with_decimal(mark) for mark in (",." if comma else ".,")]


def _with_decimal(mark: str) -> Callable[[str], float | None]:
    """Return what reads numbers whose decimals follow a mark."""
    other = "." if mark == "," else ","
    groups = _THOUSANDS_POINT if mark == "," else _THOUSANDS_COMMA

    def read(text: str) -> float | None:
        closed = re.sub(r"(?<=\d)[ \u00a0\u202f'’](?=\d{3})", "", text)
        if other in closed and not groups.fullmatch(closed):
            return None
        plain = closed.replace(other, "").replace(mark, ".")
        try:
            return float(plain)
        except ValueError:
            return None

    return read
