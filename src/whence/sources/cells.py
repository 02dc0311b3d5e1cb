"""Columns of cells as a model reads them: numbers, one or two, days, yes and no, or text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from whence.sources.composed import read_lists, read_parts
from whence.sources.dates import days, read_dates, written_together
from whence.sources.numbers import NOTHING, as_missing, read_numbers

_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")  # such as the end of a file of DOS
_BELOW, _ABOVE = (-99.0, -999.0, -9999.0, -99999.0), (999.0, 9999.0, 99999.0, 999999.0)
_MOST_LEVELS = 50  # different texts up to which two spellings of one are looked for
_RARER = 0.25  # share of the commonest spelling up to which another is taken for a slip


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
        written = written_together(plain)
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
    texts = [_CONTROL.sub("", str(level)).strip() for level in levels]
    counts = np.bincount(codes[codes >= 0], minlength=len(levels))
    numbers = read_numbers(texts, counts)
    if numbers is not None:
        found, note = numbers
        return _known(name, _spread(found, codes, plain), note)
    parsed = read_dates(texts)
    if parsed is not None:
        return _days(name, pd.Series(_spread(parsed, codes, plain)), several)
    in_parts = read_parts(texts, counts, NOTHING, several=several)
    if in_parts is not None:
        form, each, rest = in_parts
        columns = zip(form.parts, each.T, strict=True)
        return Read(
            parts={f"{name}{part}": _spread(column, codes, plain) for part, column in columns},
            note=", ".join([form.note, *as_missing(rest)]),
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


def _days(name: str, dates: pd.Series[Any], allowed: bool) -> Read:
    """Return dates as days from the first one."""
    parts, note = days(name, dates, allowed)
    return Read(parts=parts, note=note)


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
    """Return the commonest spelling of each text that differs from it in capitals alone.

    A spelling as common as others is one of theirs where each is written as a word is: yes, Yes
    and YES. Else only a rare one is, and none of letters that are repeated or change one by one,
    as in the genotypes AA, Aa and aa, or AB, Ab, aB and ab.
    """
    alike: dict[str, list[tuple[int, str]]] = {}
    for text, count in zip(texts, counts.tolist(), strict=True):
        alike.setdefault(text.casefold(), []).append((count, text))
    if len(alike) > _MOST_LEVELS:
        return {}
    found: dict[str, str] = {}
    for plain, spellings in alike.items():
        most, best = max(spellings)
        words = all(
            text in (text.lower(), text.upper(), text.capitalize(), text.title())
            for _, text in spellings
        )
        rarer = most if words and len(plain) > 1 else _RARER * most
        if len(plain) == 1 or len(set(plain)) > 1:
            found |= {text: best for count, text in spellings if count <= rarer}
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
        return plain.astype("datetime64[us]")
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
        return dated.dt.tz_convert(None).astype("datetime64[us]")
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
    return pd.Series(column.dt.to_timestamp()).astype("datetime64[us]")


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
