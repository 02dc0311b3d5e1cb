"""Drawings as inline SVG: predicted against actual changes, a curve, a number on a scale."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from markupsafe import Markup, escape

from whence.pages.figures import Curve, Scale, Scatter
from whence.pages.words import number, signed

_SIZE, _LEFT, _TOP, _BOTTOM = 396.0, 74.0, 12.0, 50.0
_INSIDE = _SIZE - _LEFT - _TOP  # the plot is a square, so that the identity line is at 45°
_ROOM = 10  # characters of a number left of an axis
_HEIGHT = _TOP + _INSIDE + _BOTTOM


def scatter_svg(scatter: Scatter) -> Markup:
    """Return the pairs with the identity line and the least-squares line.

    Pairs with a number that is not finite are left out, and the description says how many.

    Args:
        scatter: The pairs.

    Returns:
        Safe markup; names and unit are escaped.
    """
    keep = np.isfinite(scatter.predicted) & np.isfinite(scatter.actual)
    predicted, actual, unit = scatter.predicted[keep], scatter.actual[keep], scatter.unit
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
            *(_tick(tick, x, y) for tick in _round_numbers(low, high)),
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


def curve_svg(curve: Curve) -> Markup:
    """Return numbers in their order as a line; what is not finite is left out.

    Args:
        curve: The numbers.

    Returns:
        Safe markup; the words are escaped.
    """
    points = [(x, y) for x, y in curve.points if math.isfinite(y)]
    levels = [y for _, y in points] + ([] if curve.threshold is None else [curve.threshold])
    low, high = _limits(np.array(levels or [0.0]))
    last = max(1.0, curve.points[-1][0])
    width, height, left = 1.3 * _INSIDE, _INSIDE / 2, _LEFT
    end = _TOP + height
    counts = [x for x in _round_numbers(0, last) if x == round(x)]
    marks = {number(x, 0): left + x / last * width for x in counts}

    def across(x: float) -> float:
        return left + x / last * width

    def up(y: float) -> float:
        return _TOP + (high - y) / (high - low) * height

    decimals = 1 - math.floor(math.log10(high - low))  # below 0 of large numbers
    unit = str(escape(curve.unit))
    body = [
        f'<title id="curve-title">{escape(curve.up)}: {_level(curve.points[0][1], decimals)}{unit} '
        f"at first, {_level(curve.points[-1][1], decimals)}{unit} at last</title>",
        *(
            f'<path class="grid" d="M{left} {up(y):.1f}H{left + width}"/>'
            f'<text x="{left - 7}" y="{up(y) + 4:.1f}" text-anchor="end">'
            f"{_level(y, decimals)}{unit}</text>"
            for y in _round_numbers(low, high)
        ),
        *(
            f'<text x="{at:.1f}" y="{end + 17}" text-anchor="middle">{mark}</text>'
            for mark, at in marks.items()
        ),
        f'<path class="frame" d="M{left} {end}H{left + width}"/>',
    ]
    if curve.threshold is not None:
        level = up(curve.threshold)
        body.append(
            f'<path class="identity" d="M{left} {level:.1f}H{left + width}"/>'
            f'<text x="{left + 6}" y="{level + (16 if level < _TOP + 20 else -6):.1f}">'
            f"{escape(curve.threshold_words)}</text>"
        )
    path = "L".join(f"{across(x):.1f} {up(y):.1f}" for x, y in points)
    body += [
        f'<path class="fit" d="M{path}"/>' if points else "",
        *(
            f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="3"><title>{number(x, 0)}: '
            f"{_level(y, decimals + 1)}{unit}</title></circle>"
            for x, y in points
        ),
        f'<text class="axis" x="{left + width / 2}" y="{end + 36}" text-anchor="middle">'
        f"{escape(curve.across)}</text>",
    ]
    return Markup(
        '<svg role="img" class="scatter curve" aria-labelledby="curve-title" '
        f'viewBox="0 0 {left + width + _TOP:g} {end + 44:g}">{"".join(body)}</svg>'
    )


def scale_svg(scale: Scale) -> Markup:
    """Return a predicted number on the line from the least training target to the largest.

    Args:
        scale: The numbers.

    Returns:
        Safe markup; the texts are escaped.
    """
    low_text, high_text, predicted_text, actual_text = (escape(text) for text in scale.texts)
    known = [scale.predicted, *([] if scale.actual is None else [scale.actual])]
    low, high = min(scale.low, *known), max(scale.high, *known)

    def x(value: float) -> str:
        return f"{2 + 96 * (value - low) / ((high - low) or 1.0):.2f}%"

    def name(value: float, text: Markup, y: int) -> str:
        place = (value - low) / ((high - low) or 1.0)
        anchor = "start" if place < 0.25 else "end" if place > 0.75 else "middle"
        return f'<text x="{x(value)}" y="{y}" text-anchor="{anchor}">{text}</text>'

    width = f"{max(0.5, 96 * (scale.high - scale.low) / ((high - low) or 1.0)):.2f}%"
    said = Markup(f"predicted {predicted_text}")
    known_text = "" if scale.actual is None else f", in the data {actual_text}"
    body = [
        f'<title id="scale-title">From {low_text} to {high_text} in the training data: '
        f"{said}{known_text}</title>",
        f'<rect class="track" x="{x(scale.low)}" y="22" height="8" rx="4" width="{width}"/>',
        f'<circle class="predicted" cx="{x(scale.predicted)}" cy="26" r="9"/>',
        name(scale.predicted, said, 13),
    ]
    if scale.actual is not None:
        at = x(scale.actual)
        body += [
            f'<line class="actual" x1="{at}" x2="{at}" y1="16" y2="36"/>',
            name(scale.actual, Markup(f"in the data {actual_text}"), 50),
        ]
    return Markup(
        f'<svg role="img" class="scale" aria-labelledby="scale-title">{"".join(body)}</svg>'
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


def _round_numbers(low: float, high: float) -> list[float]:
    """Return some round numbers between two numbers."""
    raw = (high - low) / 5
    power = 10 ** math.floor(math.log10(raw))
    step = min((m * power for m in (1, 2, 5, 10)), key=lambda s: abs(s - raw))
    first = math.ceil(low / step)
    steps = range(first, math.floor(high / step) + 1)
    return [float(f"{k * step:.12g}") + 0.0 for k in steps]  # 0.6, not 0.6000000000000001


def _level(value: float, decimals: int) -> str:
    """Return a number on an axis, where there is room for a few digits."""
    text = number(value, decimals if abs(value) >= 1e9 else max(decimals, 0)) if value else "0"
    return text if len(text) <= _ROOM else f"{value:.4g}".replace("-", "−")


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
