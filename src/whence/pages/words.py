"""Numbers as a reader reads them: signs that show, and as many digits as say something."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import chain, count

_LEAST = 3  # decimals of a change
_DECIMALS = 6  # written out of a small number; beyond, a power of ten stands for them
_SMALL, _LARGE = 1e-4, 1e9  # between them numbers are written out
_WHOLE = 1e15  # up to which whole numbers and hundredths are exact


def number(value: float, decimals: int = 3) -> str:
    """Return a number with a true minus sign and thousands set apart.

    Args:
        value: Any float.
        decimals: How many decimals, where they say something; below 0 where the digits before the
            point say nothing either.

    Returns:
        The number; a power of ten where it is very large or very small, with the digits that the
        decimals say; "not known" for NaN.

    Examples:
        >>> number(-1234.5), number(2.5e-7), number(float("nan"))
        ('−1,234.500', '2.5e−07', 'not known')
        >>> number(3.9214e-8, 11), number(3.9214e13, -10), number(1.7e9 + 25, 0)
        ('3.921e−08', '3.921e+13', '1,700,000,025')
    """
    if math.isnan(value):
        return "not known"
    if math.isinf(value):
        return "infinite" if value > 0 else "−infinite"
    return _written(value, decimals).replace("-", "−")


def _written(value: float, decimals: int) -> str:
    """Return a finite number, with decimals or as a power of ten."""
    size = abs(value)
    if size == 0:
        return f"{value:.{min(max(decimals, 0), _DECIMALS)}f}"
    if size < 0.5 * 10.0**-decimals:  # less than the decimals show
        return f"{value:.2g}" if size < 1 else f"{value:,.0f}" if size < _LARGE else f"{value:.1g}"
    if size >= _LARGE and not (0 <= decimals <= 2 and size < _WHOLE):
        return f"{value:.{_exponent(size) + decimals}e}" if decimals < 0 else f"{value:.2g}"
    if size < _SMALL and decimals > _DECIMALS:
        return f"{value:.{_exponent(size) + decimals}e}"
    return f"{value:,.{max(decimals, 0)}f}"


def _exponent(size: float) -> int:
    """Return the power of ten of the first digit of a number > 0."""
    return math.floor(math.log10(size))


def signed(value: float, decimals: int = 3) -> str:
    """Return a number with its sign, plus included.

    Args:
        value: Any float.
        decimals: How many decimals, where they say something.

    Returns:
        The number.

    Examples:
        >>> signed(0.25), signed(-0.25)
        ('+0.250', '−0.250')
    """
    return ("+" if value > 0 else "") + number(value, decimals)


def decimals_of(change: float) -> int:
    """Return how many decimals show a change with two digits.

    Args:
        change: Any float.

    Returns:
        The number of decimals, from 3 to 6.

    Examples:
        >>> decimals_of(0.5), decimals_of(0.00123), decimals_of(0.0)
        (3, 4, 3)
    """
    if change == 0 or not math.isfinite(change):
        return _LEAST
    return min(_DECIMALS, max(_LEAST, 1 - math.floor(math.log10(abs(change)))))


def digits_of(values: Iterable[float], *, least: int) -> int:
    """Return how many decimals show the largest of some numbers with three digits.

    Args:
        values: Any floats.
        least: The fewest decimals.

    Returns:
        The number of decimals; below 0 where `least` is, and digits before the point say nothing.

    Examples:
        >>> digits_of([0.5, -0.012], least=5), digits_of([3.1e-9], least=5)
        (5, 11)
    """
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return least if largest == 0 else max(least, 2 - _exponent(largest))


def anchors(names: Iterable[str]) -> list[str]:
    """Return what the links of a page call its examples: letters, digits and hyphens, no two alike.

    Args:
        names: The user's names of the examples; several may be the same.

    Examples:
        >>> anchors(["17", "Mazda RX4", "Mazda-RX4"])
        ['example-17', 'example-Mazda-RX4', 'example-Mazda-RX4-2']
    """
    found: list[str] = []
    for name in names:
        plain = "example-" + "".join(mark if mark.isalnum() else "-" for mark in name)
        numbered = (f"{plain}-{time}" for time in count(2))
        found.append(next(each for each in chain([plain], numbered) if each not in found))
    return found
