"""Numbers as a reader reads them: signs that show, and as many digits as say something."""

from __future__ import annotations

import math


def number(value: float, decimals: int = 3) -> str:
    """Return a number with a true minus sign and thousands set apart.

    Args:
        value: Any float.
        decimals: How many decimals, where they say something.

    Returns:
        The number; a power of ten where decimals would say nothing; "not known" for NaN.

    Examples:
        >>> number(-1234.5), number(2.5e-7), number(float("nan"))
        ('−1,234.500', '2.5e−07', 'not known')
    """
    if math.isnan(value):
        return "not known"
    if math.isinf(value):
        return "infinite" if value > 0 else "−infinite"
    tiny = value != 0 and abs(value) < 0.5 * 10**-decimals
    text = f"{value:.2g}" if tiny or abs(value) >= 1e9 else f"{value:,.{decimals}f}"
    return text.replace("-", "−")


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


def decimals_of(change: float, *, least: int = 3) -> int:
    """Return how many decimals show a change with two digits.

    Args:
        change: Any float.
        least: The fewest decimals.

    Returns:
        The number of decimals, at most 6.

    Examples:
        >>> decimals_of(0.5), decimals_of(0.00123), decimals_of(12.0, least=0)
        (3, 4, 0)
    """
    if change == 0 or not math.isfinite(change):
        return least
    return min(6, max(least, 1 - math.floor(math.log10(abs(change)))))


def anchor(name: str) -> str:
    """Return what a link on the page names an example by: letters, digits and hyphens.

    Args:
        name: The user's name of the example.

    Examples:
        >>> anchor("17"), anchor("Mazda RX4")
        ('example-17', 'example-Mazda-RX4')
    """
    plain = "".join(mark if mark.isalnum() else "-" for mark in name)
    return f"example-{plain}"
