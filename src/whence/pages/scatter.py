"""Predicted against actual changes, and a course of numbers, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from markupsafe import Markup, escape

from whence.pages.page import Scatter
from whence.pages.words import number, signed

_SIZE, _LEFT, _TOP, _BOTTOM = 396.0, 74.0, 12.0, 50.0
_INSIDE = _SIZE - _LEFT - _TOP  # the plot is a square, so that the identity line is at 45°
_HEIGHT = _TOP + _INSIDE + _BOTTOM


def scatter_svg(scatter: Scatter, unit: str) -> Markup:
    """Return the pairs with the identity line and the least-squares line.

    Pairs with a number that is not finite are left out, and the description says how many.

    Args:
        scatter: The pairs.
        unit: The unit of both axes.

    Returns:
        Safe markup; names and unit are escaped.
    """
    keep = np.isfinite(scatter.predicted) & np.isfinite(scatter.actual)
    predicted, actual = scatter.predicted[keep], scatter.actual[keep]
    low, high = _limits(np.concatenate([predicted, actual, [0.0]]))

    def x(value: float) -> float:
        return _LEFT + (value - low) / (high - low) * _INSIDE

    def y(value: float) -> float:
        return _TOP + (high - value) / (high - low) * _INSIDE

    points = [
        f'<circle cx="{x(p):.1f}" cy="{y(a):.1f}" r="4.5"><title>{escape(name)}: predicted '
        f"{signed(p, 4)}, retrained {signed(a, 4)}</title></circle>"
        for p, a, name in zip(predicted, actual, _kept(scatter, keep), strict=True)
    ]
    end = _TOP + _INSIDE
    inside = f'<rect x="{_LEFT}" y="{_TOP}" width="{_INSIDE}" height="{_INSIDE}"/>'
    body = "".join(
        [
            f'<title id="scatter-title">{_title(scatter, len(points))}</title>',
            f'<desc id="scatter-desc">{_description(len(points), len(keep), unit)}</desc>',
            f'<defs><clipPath id="plot">{inside}</clipPath></defs>',
            *(_tick(tick, x, y) for tick in _ticks(low, high)),
            f'<path class="frame" d="M{_LEFT} {_TOP}V{end}H{_LEFT + _INSIDE}"/>',
            f'<g clip-path="url(#plot)"><path class="identity" d="M{x(low):.1f} {y(low):.1f}'
            f'L{x(high):.1f} {y(high):.1f}"/>{_fit(scatter, predicted, actual, low, high, x, y)}'
            f"</g>",
            *points,
            f'<text class="axis" x="{_LEFT + _INSIDE / 2}" y="{_HEIGHT - 8}" text-anchor="middle">'
            f"predicted change{_in(unit)}</text>",
            f'<text class="axis" transform="translate(13 {_TOP + _INSIDE / 2}) rotate(-90)" '
            f'text-anchor="middle">change after retraining{_in(unit)}</text>',
        ]
    )
    return Markup(
        '<svg role="img" class="scatter" aria-labelledby="scatter-title scatter-desc" '
        f'viewBox="0 0 {_SIZE:g} {_HEIGHT:g}">{body}</svg>'
    )


def curve_svg(values: Sequence[float], across: str, up: str) -> Markup:
    """Return numbers in their order as a line; what is not finite is left out.

    Args:
        values: At least one.
        across: What is counted from left to right.
        up: What the numbers are.

    Returns:
        Safe markup; the words are escaped.
    """
    points = [(i, v) for i, v in enumerate(values) if math.isfinite(v)]
    low, high = _limits(np.array([0.0, *(v for _, v in points)]))
    width, height, last = 1.3 * _INSIDE, _INSIDE / 2, max(1, len(values) - 1)
    path = "L".join(
        f"{_LEFT + i / last * width:.1f} {_TOP + (high - v) / (high - low) * height:.1f}"
        for i, v in points
    )
    end = _TOP + height
    body = (
        f'<title id="curve-title">{escape(up)}: {number(values[0])} at first, '
        f"{number(values[-1])} at last</title>"
        f'<path class="frame" d="M{_LEFT} {_TOP}V{end}H{_LEFT + width}"/>'
        f'<path class="fit" d="M{path}"/>'
        f'<text class="axis" x="{_LEFT + width / 2}" y="{end + 32}" text-anchor="middle">'
        f"{escape(across)}</text>"
        f'<text x="{_LEFT}" y="{end + 16}">0</text>'
        f'<text x="{_LEFT + width}" y="{end + 16}" text-anchor="end">{last}</text>'
        f'<text class="axis" transform="translate(13 {_TOP + height / 2}) rotate(-90)" '
        f'text-anchor="middle">{escape(up)}</text>'
        + "".join(
            f'<text x="{_LEFT - 6}" y="{_TOP + (high - v) / (high - low) * height + 4:.1f}" '
            f'text-anchor="end">{number(v)}</text>'
            for v in (0.0, high)
        )
    )
    return Markup(
        '<svg role="img" class="scatter curve" aria-labelledby="curve-title" '
        f'viewBox="0 0 {_LEFT + width + _TOP:g} {end + 40:g}">{body}</svg>'
    )


def _kept(scatter: Scatter, keep: np.ndarray[tuple[int], np.dtype[np.bool]]) -> list[str]:
    """Return the names of the pairs that are drawn."""
    return [str(name) for name, kept in zip(scatter.names, keep, strict=True) if kept]


def _limits(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, float]:
    """Return one range for both axes, with a margin."""
    low, high = float(values.min()), float(values.max())
    margin = 0.07 * (high - low) or 1.0
    return low - margin, high + margin


def _fit(
    scatter: Scatter,
    predicted: np.ndarray[tuple[int], np.dtype[np.float64]],
    actual: np.ndarray[tuple[int], np.dtype[np.float64]],
    low: float,
    high: float,
    x: Callable[[float], float],
    y: Callable[[float], float],
) -> str:
    """Return the least-squares line, if there is one."""
    if not math.isfinite(scatter.slope) or not len(predicted):
        return ""
    offset = float(actual.mean() - scatter.slope * predicted.mean())
    start, end = (offset + scatter.slope * at for at in (low, high))
    return f'<path class="fit" d="M{x(low):.1f} {y(start):.1f}L{x(high):.1f} {y(end):.1f}"/>'


def _tick(at: float, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    """Return one tick of both axes with its grid lines and numbers."""
    kind = "zero" if at == 0 else "grid"
    end, right, text = _TOP + _INSIDE, _LEFT + _INSIDE, f"{at:g}".replace("-", "−")
    return (
        f'<path class="{kind}" d="M{x(at):.1f} {_TOP}V{end}M{_LEFT} {y(at):.1f}H{right}"/>'
        f'<text x="{x(at):.1f}" y="{end + 17}" text-anchor="middle">{text}</text>'
        f'<text x="{_LEFT - 7}" y="{y(at) + 4:.1f}" text-anchor="end">{text}</text>'
    )


def _ticks(low: float, high: float) -> list[float]:
    """Return some round numbers between two numbers."""
    raw = (high - low) / 5
    power = 10 ** math.floor(math.log10(raw))
    step = min((m * power for m in (1, 2, 5, 10)), key=lambda s: abs(s - raw))
    first = math.ceil(low / step)
    return [round(k * step, 15) + 0.0 for k in range(first, math.floor(high / step) + 1)]


def _in(unit: str) -> str:
    """Return a unit as the end of an axis label."""
    return f", {escape(unit)}" if unit else ""


def _title(scatter: Scatter, k: int) -> str:
    """Return the drawing in one line."""
    return (
        f"Predicted against retrained change of {k} removals: "
        f"R = {number(scatter.r, 4)}, slope = {number(scatter.slope)}"
    )


def _description(shown: int, k: int, unit: str) -> str:
    """Return what the marks mean."""
    left_out = f" {k - shown} pairs without a finite number are left out." if shown < k else ""
    return (
        f"Each point is one training example, both axes have one scale{_in(unit)}. The dashed line "
        f"is a perfect prediction, the solid line the least-squares fit.{left_out}"
    )
