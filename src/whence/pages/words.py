"""Numbers as a reader reads them: signs that show, digits that add up, changes in a sentence."""

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


def decimals_of(change: float) -> int:
    """Return how many decimals show a change with two digits: at least 3, at most 6.

    Args:
        change: Any float.

    Returns:
        The number of decimals.

    Examples:
        >>> decimals_of(0.5), decimals_of(0.00123)
        (3, 4)
    """
    if change == 0 or not math.isfinite(change):
        return 3
    return min(6, max(3, 1 - math.floor(math.log10(abs(change)))))


def removal(measure: str, change: float, value: float) -> str:
    """Return what removing an example is predicted to do, in a sentence.

    Args:
        measure: The name of what changes, such as "loss".
        change: By how much, with its sign.
        value: The measure as it is.

    Returns:
        The sentence.

    Examples:
        >>> removal("loss", 0.031, 1.92)
        'Without this example the loss would rise by 0.031, from 1.920 to 1.951.'
        >>> removal("loss", -2e-9, 1.92)
        'Without this example the loss of 1.920 would fall by only 2e−09.'
        >>> removal("loss", -3.0, 1.92)
        'Without this example the loss would fall by 3.000, more than its 1.920: read the rank.'
    """
    if math.isnan(change):
        return f"What the {measure} would be without this example is not known."
    if change == 0:
        return f"Without this example the {measure} would stay at {number(value)}."
    decimals = decimals_of(change)
    verb = "rise" if change > 0 else "fall"
    size = number(abs(change), decimals)
    start, end = number(value, decimals), number(value + change, decimals)
    if measure == "loss" and value >= 0 > value + change:
        return (
            f"Without this example the loss would fall by {size}, more than its {start}: "
            "read the rank."
        )
    if start == end:
        return f"Without this example the {measure} of {number(value)} would {verb} by only {size}."
    return f"Without this example the {measure} would {verb} by {size}, from {start} to {end}."


def retrained(change: float) -> str:
    """Return what removing an example did, in a sentence.

    Args:
        change: The actual change, with its sign.

    Returns:
        The sentence.

    Examples:
        >>> retrained(-0.5)
        'Retrained without it: fell by 0.500.'
    """
    if math.isnan(change):
        return "Retrained without it: not known."
    if change == 0:
        return "Retrained without it: no change."
    verb = "rose" if change > 0 else "fell"
    return f"Retrained without it: {verb} by {number(abs(change), decimals_of(change))}."
