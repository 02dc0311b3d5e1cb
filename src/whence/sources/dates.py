"""Dates as people write them, as days from the first one."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from whence.errors import InvalidInput
from whence.sources.numbers import NEARLY_ALL, NOTHING

_LIKE_A_DATE = re.compile(
    r"\s*(\d{4}[-/.]\d{1,2}([-/.]\d{1,2})?|\d{1,2}[-/. ]([a-z]{3,9}|\d{1,2})[-/., ]+\d{2,4}"
    r"|[a-z]{3,9}\.? \d{1,2},? \d{4}|[a-z]{3} [a-z]{3} +\d{1,2} .*\d{4})([T ,].*\d.*)?\s*",
    re.IGNORECASE,
)
_MONTH = r"(?P<month>jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}\.?"
_QUARTER = r"q(?P<quarter>[1-4])"
_YEAR = r"(?P<year>[12]\d{3})"
_NO_DAY = tuple(  # 2002 Jan, January 2002, 1970 Q1, Q1 1970: of a day none is said
    re.compile(pattern, re.IGNORECASE)
    for part in (_MONTH, _QUARTER)
    for pattern in (rf"{_YEAR}[-/, ]?\s*{part}", rf"{part}[-/, ]?\s*{_YEAR}")
)
_SHORT_YEAR = re.compile(r"\s*\d{1,2}[-/. ]([a-z]{3,9}|\d{1,2})[-/., ]+\d{2}(\D.*)?", re.IGNORECASE)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_LAST_OF_THIS = 2029  # as spreadsheets take 29 for 2029 and 30 for 1930
_DAY, _HOUR = 86_400.0, 3_600.0  # seconds


def read_dates(texts: list[str]) -> NDArray[np.datetime64] | None:
    """Return texts as dates, or `None` if they are none.

    The day stands before the month if any can only be read so. Years of two digits lie in the
    century in which the dates lie closest together; where both are alike, 30 to 99 in the last.

    Args:
        texts: The different texts of a column, stripped, k of them.
    """
    texts = [_first_of_month(text) for text in texts]
    if not _are_dates(texts):
        return None
    series = pd.Series(texts)
    first = series.str.extract(r"^\s*(\d{1,2})[-/. ]\d{1,2}[-/. ]\d{2,4}")[0].astype(float)
    options: list[dict[str, Any]] = [{"format": "ISO8601"}]
    options += [{"format": "mixed", "dayfirst": bool((first > 12).any())}]
    for option in options:
        parsed = pd.to_datetime(series, errors="coerce", utc=True, **option)
        if parsed.notna().mean() >= NEARLY_ALL:
            plain = parsed.dt.tz_convert(None).astype("datetime64[us]")
            short = series.map(lambda text: _SHORT_YEAR.fullmatch(text) is not None)
            return np.asarray(_in_one_century(plain, short).to_numpy())
    return None


def written_together(column: pd.Series[Any]) -> pd.Series[Any] | None:
    """Return numbers such as 20240131 as dates if all of them are that, else `None`.

    Args:
        column: Numbers.
    """
    known = column.dropna()
    if not len(known) or not bool(((known >= 19_000_101) & (known <= 21_001_231)).all()):
        return None
    texts = column.map(lambda number: f"{number:.0f}", na_action="ignore")
    parsed = pd.to_datetime(texts, format="%Y%m%d", errors="coerce")
    if parsed.notna().sum() < len(known) or known.nunique() < 2:
        return None
    return parsed.astype("datetime64[us]")


def days(name: str, dates: pd.Series[Any], allowed: bool) -> tuple[dict[str, pd.Series[Any]], str]:
    """Return dates as days from the first one, with their month and hour where these vary.

    Args:
        name: What the column is called.
        dates: Its dates.
        allowed: Whether several columns may come of it.

    Returns:
        The columns that come of it, by name, and what was done, a phrase.

    Raises:
        InvalidInput: If it is to stay one column.
    """
    if not allowed:
        raise InvalidInput(
            f"Expected a target of labels or numbers. Got dates in {name!r}. Make numbers of them, "
            "such as the days until each."
        )
    first, last = dates.min(), dates.max()
    start = first.normalize()
    seconds = (dates - start).dt.total_seconds()
    short = (last - first).total_seconds() < 2 * _DAY
    unit, size = ("hours", _HOUR) if short else ("days", _DAY)
    parts = {f"{name}, {unit} from {start:%Y-%m-%d}": seconds / size}
    also = []
    if (last - first).days >= 365 and dates.dt.month.nunique() > 1:
        parts[f"{name}, month"] = _named(dates, dates.dt.strftime("%b"))
        also.append("month")
    if dates.dt.hour.nunique() > 1 and not short:
        parts[f"{name}, hour"] = _named(dates, dates.dt.strftime("%H h"))
        also.append("hour")
    return parts, " and ".join([f"{unit} from {start:%Y-%m-%d}", *also])


def _first_of_month(text: str) -> str:
    """Return 2002 Jan as 2002-01-01 and 1970 Q2 as 1970-04-01; any other text as it is."""
    for pattern in _NO_DAY:
        match = pattern.fullmatch(text)
        if match is not None:
            parts = match.groupdict()
            month = 3 * int(parts.get("quarter") or 1) - 2
            if parts.get("month"):
                month = 1 + _MONTHS.index(parts["month"].lower())
            return f"{parts['year']}-{month:02}-01"
    return text


def _are_dates(texts: list[str]) -> bool:
    """Return whether texts are written as dates are."""
    known = [text for text in texts if text.lower() not in NOTHING]
    some = known[:: max(1, len(known) // 200)]
    like = [bool(_LIKE_A_DATE.fullmatch(text)) for text in some]
    return len(known) >= 2 and sum(like) >= NEARLY_ALL * len(some)


def _in_one_century(dates: pd.Series[Any], short: pd.Series[Any]) -> pd.Series[Any]:
    """Return dates, those whose years have two digits where all lie closest together.

    pandas puts the years 00 to 68 into this century; those above 29 may be of the last.
    """
    movable = short & (dates.dt.year > _LAST_OF_THIS)
    if not movable.any():
        return dates
    last = [_LAST_OF_THIS, *sorted(dates[movable].dt.year.unique())]
    choices = [
        dates.where(~(movable & (dates.dt.year > year)), dates - pd.DateOffset(years=100))
        for year in last
    ]
    return min(choices, key=lambda choice: choice.max() - choice.min())


def _named(dates: pd.Series[Any], words: pd.Series[Any]) -> pd.Series[Any]:
    """Return words, missing where the dates are."""
    return words.astype(object).where(dates.notna(), np.nan)
