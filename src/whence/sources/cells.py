"""Columns of cells as a model reads them: numbers, one or two, days, yes and no, or text."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from whence.errors import InvalidInput
from whence.sources.composed import read_lists, read_parts

_NEARLY_ALL = 0.9  # share of the different values that must be numbers, or dates
_FEW = 12  # different other words up to which a column of numbers may hold some
_NOTHING = frozenset(
    ["", "-", "--", ".", "..", "...", "?", "na", "n/a", "nan", "null", "none", "nil", "missing"]
    + ["unknown", "not available", "*", "#n/a", "n.a.", "n.d.", "nd", "tbd", "x", "–", "—"]
)
_CURRENCY = r"(?:[$€£¥₹₩₽₺]|usd|eur|gbp|chf|jpy|rs\.?)"
_MARKED = re.compile(
    rf"(?P<bound>[<>≤≥]=?\s*)?(?P<sign>[-+−(]?)\s*{_CURRENCY}?\s*(?P<inner>[-+−]?)"
    r"(?P<digits>\d[\d.,'’ \u00a0\u202f]*|[.,]\d+)"
    rf"(?P<power>e[-+]?\d+)?\s*(?P<unit>%|{_CURRENCY}|[a-zµ°³²/]{{1,6}})?\)?",
    re.IGNORECASE,
)
_SCALES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "bn": 1e9}  # of 950K and 1.2M in one column
_THOUSANDS_COMMA = re.compile(r"\d{1,3}(,\d{3})+(\.\d*)?")
_THOUSANDS_POINT = re.compile(r"\d{1,3}(\.\d{3})+(,\d*)?")
_LIKE_A_DATE = re.compile(
    r"\s*(\d{4}[-/.]\d{1,2}([-/.]\d{1,2})?|\d{1,2}[-/. ]([a-z]{3,9}|\d{1,2})[-/., ]+\d{2,4}"
    r"|[a-z]{3,9}\.? \d{1,2},? \d{4}|[a-z]{3} [a-z]{3} +\d{1,2} .*\d{4})([T ,].*\d.*)?\s*",
    re.IGNORECASE,
)
_BELOW, _ABOVE = (-99.0, -999.0, -9999.0, -99999.0), (999.0, 9999.0, 99999.0, 999999.0)
_MOST_LEVELS = 50  # different texts up to which two spellings of one are looked for
_RARER = 0.25  # share of the commonest spelling up to which another is taken for a slip
_DAY, _HOUR = 86_400.0, 3_600.0  # seconds


@dataclass(frozen=True, eq=False, kw_only=True)
class Read:
    """A column as it was read.

    Args:
        parts: The columns that come of it, by name; itself as a rule.
        note: What was done to it, going on from its name; empty where nothing was.
    """

    parts: dict[str, pd.Series[Any]]
    note: str = ""


def read_column(column: pd.Series[Any], *, several: bool = True) -> Read:
    """Return a column as numbers, one or two, days, yes and no, also of each word, or text.

    Args:
        column: As a file has it.
        several: Whether several columns may come of it; else pairs stay texts, and dates raise.

    Returns:
        The column, or those that come of it.

    Raises:
        InvalidInput: If it holds dates and is to stay one column.
    """
    name = str(column.name)
    plain = _plain(column)
    if plain.dtype.kind in "iuf":
        written = _written_together(plain)
        if written is not None:
            return _days(name, written, several)
        return _known(name, plain)
    if plain.dtype.kind == "M":
        return _days(name, plain, several)
    known = plain.dropna()
    if not len(known):
        return Read(parts={name: plain})
    codes, values = pd.factorize(plain.where(plain.isna(), plain.map(_hashable)))
    levels: list[Any] = list(values)
    if all(map(pd.api.types.is_bool, levels)):
        words = np.array(["yes" if level else "no" for level in levels], dtype=object)
        return Read(parts={name: _spread(words, codes, plain)}, note="yes and no")
    texts = [str(level).strip() for level in levels]
    counts = np.bincount(codes[codes >= 0], minlength=len(levels))
    numbers = _numbers(texts, counts)
    if numbers is not None:
        found, note = numbers
        return _known(name, _spread(found, codes, plain), note)
    if _are_dates(texts):
        parsed = _parsed_dates(texts)
        if parsed is not None:
            return _days(name, pd.Series(_spread(parsed, codes, plain)), several)
    in_parts = read_parts(texts, counts, _NOTHING, several=several)
    if in_parts is not None:
        form, each, rest = in_parts
        columns = zip(form.parts, each.T, strict=True)
        return Read(
            parts={f"{name}{part}": _spread(column, codes, plain) for part, column in columns},
            note=", ".join([form.note, *_as_missing(rest)]),
        )
    listed = read_lists(texts) if several else {}
    if listed:
        return Read(
            parts={f"{name}: {word}": _spread(has, codes, plain) for word, has in listed.items()},
            note="lists, yes or no for each of their words",
        )
    spelled = _one_spelling(texts, counts)
    named = np.array(
        [np.nan if text in ("", "?") else spelled.get(text, text) for text in texts], dtype=object
    )
    note = "one value where only capitals differ" if spelled else ""
    return Read(parts={name: _spread(named, codes, plain)}, note=note)


def _known(name: str, numbers: pd.Series[Any], note: str = "numbers") -> Read:
    """Return numbers, those that stand for a missing value missing; noted if anything was done."""
    code = _code_of_missing(numbers)
    if code is None:
        return Read(parts={name: numbers}, note="" if note == "numbers" else note)
    words = f"{note}, {code:g} as missing"
    return Read(parts={name: numbers.where(numbers != code, np.nan)}, note=words)


def _code_of_missing(numbers: pd.Series[Any]) -> float | None:
    """Return a number of nines, such as −999, that lies far from all others, or `None`."""
    values, counts = np.unique(numbers.dropna().to_numpy(dtype=np.float64), return_counts=True)
    if len(values) < 4:
        return None
    for end, next_to_it, rest in ((0, 1, values[1:]), (-1, -2, values[:-1])):
        code = float(values[end])
        alone = counts[end] >= 2 and code in (_BELOW if end == 0 else _ABOVE)
        far = abs(code - values[next_to_it]) > 2 * np.ptp(rest)
        if alone and (far or code < 0 <= values[next_to_it]):
            return code
    return None


def _one_spelling(texts: list[str], counts: NDArray[np.intp]) -> dict[str, str]:
    """Return the commonest spelling of each text that is rarer than it and differs in capitals.

    Not of letters that are repeated, as in the genotypes AA, Aa and aa.
    """
    alike: dict[str, list[tuple[int, str]]] = {}
    for text, count in zip(texts, counts.tolist(), strict=True):
        alike.setdefault(text.casefold(), []).append((count, text))
    if len(alike) > _MOST_LEVELS:
        return {}
    found: dict[str, str] = {}
    for plain, spellings in alike.items():
        most, best = max(spellings)
        if len(plain) == 1 or len(set(plain)) > 1:
            found |= {text: best for count, text in spellings if count <= _RARER * most}
    return {text: best for text, best in found.items() if text != best}


def _plain(column: pd.Series[Any]) -> pd.Series[Any]:
    """Return a column in one of NumPy's types: numbers, dates, or objects with NaN for missing."""
    return _of_type(column.dtype, column)


@singledispatch
def _of_type(dtype: Any, column: pd.Series[Any]) -> pd.Series[Any]:
    """Return the same of a column of some type."""
    if pd.api.types.is_bool_dtype(dtype):
        known = column.astype(object)
        return known.where(column.notna(), np.nan)
    if pd.api.types.is_timedelta64_dtype(dtype):
        return pd.Series(column.dt.total_seconds())
    if pd.api.types.is_datetime64_any_dtype(dtype):
        plain = column.dt.tz_convert(None) if getattr(dtype, "tz", None) else column
        return plain.astype("datetime64[ns]")
    if pd.api.types.is_complex_dtype(dtype):
        return column.astype(str).astype(object)
    if pd.api.types.is_numeric_dtype(dtype):
        whole = pd.api.types.is_integer_dtype(dtype) and not column.hasnans
        return pd.Series(
            column.to_numpy(dtype=np.int64 if whole else np.float64, na_value=np.nan)
            if not whole
            else column.to_numpy(dtype=np.int64),
            index=column.index,
            name=column.name,
        )
    objects = column.astype(object)
    objects = objects.where(objects.notna(), np.nan)
    known = objects.dropna()
    if len(known) and known.map(_is_number).all():
        return objects.astype(np.float64)
    if len(known) and known.map(lambda cell: hasattr(cell, "year")).all():
        dated = pd.to_datetime(objects, errors="coerce", utc=True)
        return dated.dt.tz_convert(None).astype("datetime64[ns]")
    return objects


def _is_number(cell: Any) -> bool:
    """Return whether a cell of no particular type is a real number."""
    kinds = pd.api.types
    return kinds.is_number(cell) and not kinds.is_bool(cell) and not kinds.is_complex(cell)


@_of_type.register(pd.CategoricalDtype)
def _of_categories(dtype: pd.CategoricalDtype, column: pd.Series[Any]) -> pd.Series[Any]:
    inner = object if dtype.categories is None else dtype.categories.dtype
    return _plain(column.astype(inner))


@_of_type.register(pd.PeriodDtype)
def _of_periods(dtype: pd.PeriodDtype, column: pd.Series[Any]) -> pd.Series[Any]:
    return pd.Series(column.dt.to_timestamp()).astype("datetime64[ns]")


@singledispatch
def _hashable(cell: Any) -> Any:
    """Return a cell that can be looked up: bytes as text, lists as what they are written as."""
    return str(cell)


@_hashable.register
def _decoded(cell: bytes) -> str:
    return cell.decode("utf-8", "replace")


@_hashable.register(str)
@_hashable.register(int)
@_hashable.register(float)
@_hashable.register(np.bool_)
def _as_it_is(cell: Any) -> Any:
    return cell


def _spread(values: Any, codes: NDArray[np.intp], like: pd.Series[Any]) -> pd.Series[Any]:
    """Return the value of each code, missing where there is none."""
    array = np.asarray(values)
    missing: Any = np.datetime64("NaT") if array.dtype.kind == "M" else np.nan
    found = np.append(array, np.array([missing], dtype=array.dtype))[codes]
    return pd.Series(found, index=like.index, name=like.name)


def _numbers(texts: list[str], counts: NDArray[np.intp]) -> tuple[NDArray[np.float64], str] | None:
    """Return texts as numbers with how they were read, or `None` if they are none.

    A few words among numbers are read as missing, and named. One way of writing decimals is taken
    for all.
    """
    matches = [_MARKED.fullmatch(text) for text in texts]
    nothing = [text.lower() in _NOTHING for text in texts]
    numeric = [match for match in matches if match is not None]
    if not numeric:
        return None
    units = {(match["unit"] or "").lower() for match in numeric}
    scaled = len(units) > 1 and units <= set(_SCALES) and units != {"", "m"}
    if len(units - {""}) > 1 and not scaled:
        return None
    other = [
        text
        for text, match, no in zip(texts, matches, nothing, strict=True)
        if not match and not no
    ]
    cells = int(counts[[at for at, match in enumerate(matches) if match is not None]].sum())
    wrong = int(counts[[at for at, text in enumerate(texts) if text in set(other)]].sum())
    pairs = list(zip(texts, matches, strict=True))
    bounds = [text for text, match in pairs if match and match["bound"]]
    bounded = int(counts[[at for at, text in enumerate(texts) if text in set(bounds)]].sum())
    if 2 * bounded > cells:
        return None  # groups such as <18
    if len(other) > _FEW or wrong > (1 - _NEARLY_ALL) * (cells + wrong) or len(numeric) < 2:
        return None
    digits = [match["digits"].strip() for match in numeric]
    if any(re.fullmatch(r"0\d+", each) for each in digits):
        return None  # codes such as 00123
    read = _reader(digits)
    if read is None:
        return None
    found = np.full(len(texts), np.nan)
    for at, match in enumerate(matches):
        if match is None:
            continue
        number = read(match["digits"].strip())
        if number is None:
            return None
        below = match["sign"] in ("-", "−", "(") or match["inner"] in ("-", "−")
        scale = float(f"1{match['power']}") if match["power"] else 1.0
        scale *= _SCALES[(match["unit"] or "").lower()] if scaled else 1.0
        found[at] = -number * scale if below else number * scale
    notes = ["numbers"]
    unit = next(iter(units - {""}), "")
    if unit and unit not in ("e",) and not scaled:
        notes[0] += f", the ending {unit!r} left out" if unit != "%" else " in percent"
    if bounds:
        notes.append(f"{', '.join(map(repr, bounds[:3]))} as the bound")
    if other or any(nothing):
        notes += _as_missing([text for text, match in pairs if not match])
    return found, ", ".join(notes)


def _as_missing(words: list[str]) -> list[str]:
    """Return which words are read as missing, a phrase; none if there are none."""
    shown = ", ".join(repr(word) for word in words[:3])
    return [f"{shown}{' and others' if len(words) > 3 else ''} as missing"] if words else []


def _reader(digits: list[str]) -> Callable[[str], float | None] | None:
    """Return the one way in which numbers are written: which mark stands before decimals."""
    commas, points = (any(mark in each for each in digits) for mark in ",.")
    if commas and not all(_THOUSANDS_COMMA.fullmatch(each) for each in digits if "," in each):
        return _with_decimal(",")
    if (
        commas
        and points
        and not all(
            each.rfind(",") < each.rfind(".") for each in digits if "," in each and "." in each
        )
    ):
        return _with_decimal(",")
    return _with_decimal(".")


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


def _written_together(column: pd.Series[Any]) -> pd.Series[Any] | None:
    """Return numbers such as 20240131 as dates if all of them are that, else `None`."""
    known = column.dropna()
    if not len(known) or not bool(((known >= 19_000_101) & (known <= 21_001_231)).all()):
        return None
    texts = column.map(lambda number: f"{number:.0f}", na_action="ignore")
    parsed = pd.to_datetime(texts, format="%Y%m%d", errors="coerce")
    if parsed.notna().sum() < len(known) or known.nunique() < 2:
        return None
    return parsed.astype("datetime64[ns]")


def _are_dates(texts: list[str]) -> bool:
    """Return whether texts are written as dates are."""
    known = [text for text in texts if text.lower() not in _NOTHING]
    some = known[:: max(1, len(known) // 200)]
    like = [bool(_LIKE_A_DATE.fullmatch(text)) for text in some]
    return len(known) >= 2 and sum(like) >= _NEARLY_ALL * len(some)


def _parsed_dates(texts: list[str]) -> NDArray[np.datetime64] | None:
    """Return texts as dates, the day before the month if any can only be read so."""
    series = pd.Series(texts)
    first = series.str.extract(r"^\s*(\d{1,2})[-/. ]\d{1,2}[-/. ]\d{2,4}")[0].astype(float)
    options: list[dict[str, Any]] = [{"format": "ISO8601"}]
    options += [{"format": "mixed", "dayfirst": bool((first > 12).any())}]
    for option in options:
        parsed = pd.to_datetime(series, errors="coerce", utc=True, **option)
        if parsed.notna().mean() >= _NEARLY_ALL:
            plain = parsed.dt.tz_convert(None).astype("datetime64[ns]")
            return np.asarray(plain.to_numpy())
    return None


def _days(name: str, dates: pd.Series[Any], allowed: bool) -> Read:
    """Return dates as days from the first one, with their month and hour where these vary."""
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
    return Read(parts=parts, note=" and ".join([f"{unit} from {start:%Y-%m-%d}", *also]))


def _named(dates: pd.Series[Any], words: pd.Series[Any]) -> pd.Series[Any]:
    """Return words, missing where the dates are."""
    return words.astype(object).where(dates.notna(), np.nan)
