"""Small pictures for a page: images as PNG, a scatter as SVG, a heat map over an image."""

from __future__ import annotations

import base64
import io

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray
from PIL import Image

from whence.report.page import Scatter

Floats = NDArray[np.float64]
_SIDE = 168  # pixels of the longer side of a picture


def picture(image: NDArray[np.uint8]) -> str:
    """Return an image as a data URI, small ones enlarged pixel by pixel.

    Args:
        image: Gray [h, w] or color [h, w, 3].

    Returns:
        A PNG as a data URI.
    """
    shown = Image.fromarray(image)
    scale = max(1, round(_SIDE / max(shown.size)))
    if scale > 1:
        shown = shown.resize((shown.width * scale, shown.height * scale), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    shown.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def heat(acting: Floats) -> str:
    """Return signed numbers as a color image: orange raises the measure, blue lowers it.

    Args:
        acting: Numbers [h, w], or [h, w, channels] which are summed.

    Returns:
        A PNG as a data URI.
    """
    flat = acting.sum(-1) if acting.ndim == 3 else acting
    strength = np.clip(flat / (np.abs(flat).max() or 1.0), -1, 1)[..., None]
    white = np.array([247.0, 247.0, 247.0])
    color = np.where(strength > 0, [179.0, 88.0, 6.0], [33.0, 102.0, 172.0])
    mixed = white + np.abs(strength) * (color - white)
    return picture(mixed.round().astype(np.uint8))


def scatter_svg(scatter: Scatter, unit: str) -> Markup:
    """Return predicted against actual changes with the identity line, as inline SVG.

    Args:
        scatter: The pairs.
        unit: The unit of both axes.

    Returns:
        Safe markup; names are escaped.
    """
    size, left, bottom = 340.0, 62.0, 46.0
    both = np.concatenate([scatter.predicted, scatter.actual, [0.0]])
    low, high = float(both.min()), float(both.max())
    margin = 0.06 * (high - low or 1.0)
    low, high = low - margin, high + margin

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (size - left - 10)

    def y(value: float) -> float:
        return size - bottom - (value - low) / (high - low) * (size - bottom - 10)

    ticks = _ticks(low, high)
    marks = [
        f'<line class="grid" x1="{x(t):.1f}" x2="{x(t):.1f}" y1="10" y2="{size - bottom:.1f}"/>'
        f'<line class="grid" y1="{y(t):.1f}" y2="{y(t):.1f}" x1="{left}" x2="{size - 10:.1f}"/>'
        f'<text x="{x(t):.1f}" y="{size - bottom + 16:.1f}" text-anchor="middle">{t:g}</text>'
        f'<text x="{left - 6}" y="{y(t) + 4:.1f}" text-anchor="end">{t:g}</text>'
        for t in ticks
    ]
    line = f'<line class="identity" x1="{x(low)}" y1="{y(low)}" x2="{x(high)}" y2="{y(high)}"/>'
    points = [
        f'<circle cx="{x(p):.1f}" cy="{y(a):.1f}" r="4"><title>{escape(name)}: predicted '
        f"{p:+.4f}, retrained {a:+.4f}</title></circle>"
        for p, a, name in zip(scatter.predicted, scatter.actual, scatter.names, strict=True)
    ]
    middle_x, middle_y = (left + size - 10) / 2, (size - bottom + 10) / 2
    labels = (
        f'<text class="axis" x="{middle_x}" y="{size - 8}" text-anchor="middle">predicted change, '
        f"{escape(unit)}</text>"
        f'<text class="axis" transform="translate(14 {middle_y}) rotate(-90)" '
        f'text-anchor="middle">change after retraining, {escape(unit)}</text>'
    )
    title = (
        f"<title>Predicted against retrained change of {len(points)} removals: "
        f"R = {scatter.r:.4f}, slope = {scatter.slope:.3f}</title>"
    )
    body = "".join([title, *marks, line, *points, labels])
    box = f"0 0 {size:.0f} {size:.0f}"
    return Markup(f'<svg role="img" class="scatter" viewBox="{box}">{body}</svg>')


def _ticks(low: float, high: float) -> list[float]:
    """Return some round numbers between two numbers."""
    raw = (high - low) / 4
    power = 10 ** np.floor(np.log10(raw))
    step = float(min((m * power for m in (1, 2, 5, 10)), key=lambda s: abs(s - raw)))
    first = int(np.ceil(low / step))
    return [round(k * step, 12) for k in range(first, int(np.floor(high / step)) + 1)]
