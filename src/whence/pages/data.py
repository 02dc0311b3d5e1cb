"""The rows of a table as JSON inside a page: plain values that no text can break out of."""

from __future__ import annotations

import json
import math
from typing import Any

from markupsafe import Markup

from whence.pages.drawing import picture
from whence.pages.page import Item
from whence.pages.table import BatchPage, RankedPage

_THUMBNAIL = 64  # pixels of the longer side: ten thousand rows must stay one file

Json = dict[str, Any]


def batch_data(page: BatchPage) -> Markup:
    """Return the rows of a batch as JSON.

    Args:
        page: The page.

    Returns:
        Safe markup, to stand in a script element of type application/json.
    """
    judged = any(row.query.predicted is not None for row in page.rows)
    labeled = judged or any(row.query.label for row in page.rows)
    loss = page.measure == "loss"
    queries = len(page.examples)
    return script_json(
        {
            "items": [_item(item) for item in (*page.examples, *(r.query for r in page.rows))],
            "columns": [
                {"name": "Query", "kind": "item"},
                *([{"name": "Truth", "kind": "text", "filter": True}] if labeled else []),
                *([{"name": "Model says", "kind": "text", "filter": True}] if judged else []),
                {"name": page.measure.capitalize(), "kind": "number"},
                {
                    "name": "Helped most" if loss else "Raises it most",
                    "kind": "effects",
                    "side": "helpful",
                    "words": f"Without it the {page.measure} would rise by",
                },
                {
                    "name": "Harmed most" if loss else "Lowers it most",
                    "kind": "effects",
                    "side": "harmful",
                    "words": f"Without it the {page.measure} would fall by",
                },
            ],
            "differ": {"columns": [1, 2], "words": "Only mistakes", "title": "not the truth"}
            if judged
            else None,
            "unit": page.unit,
            "rows": [
                [
                    queries + at,
                    *([row.query.label] if labeled else []),
                    *([row.query.predicted] if judged else []),
                    _number(row.value),
                    [[example, _number(effect)] for example, effect in row.helpful],
                    [[example, _number(effect)] for example, effect in row.harmful],
                ]
                for at, row in enumerate(page.rows)
            ],
        }
    )


def ranked_data(page: RankedPage) -> Markup:
    """Return a ranked list as JSON.

    Args:
        page: The page.

    Returns:
        Safe markup, to stand in a script element of type application/json.
    """
    suggested = any(row.item.predicted is not None for row in page.rows)
    losses = any(row.loss is not None for row in page.rows)
    gains = any(row.gain is not None for row in page.rows)
    return script_json(
        {
            "items": [_item(row.item) for row in page.rows],
            "columns": [
                {"name": page.noun.capitalize(), "kind": "item"},
                {"name": page.label.capitalize(), "kind": "text", "filter": page.label == "label"},
                *([{"name": "Suggested", "kind": "text", "filter": True}] if suggested else []),
                {"name": page.score.capitalize(), "kind": "number", "bar": True},
                *([{"name": "Loss", "kind": "number"}] if losses else []),
                *([{"name": page.gain.capitalize(), "kind": "number"}] if gains else []),
            ],
            "differ": {
                "columns": [1, 2],
                "words": "Only where they differ",
                "title": "not its label",
            }
            if suggested
            else None,
            "unit": page.unit,
            "rows": [
                [
                    at,
                    row.item.label,
                    *([row.item.predicted] if suggested else []),
                    _number(row.score),
                    *([_number(row.loss)] if losses else []),
                    *([_number(row.gain)] if gains else []),
                ]
                for at, row in enumerate(page.rows)
            ],
        }
    )


def script_json(value: Any) -> Markup:
    r"""Return a value as JSON that may stand inside a script element.

    Every `<`, `>` and `&` becomes a `\\u` escape, so that no string can close the element or open
    a comment; the escapes mean the same text to `JSON.parse`.

    Args:
        value: Lists, dictionaries, text, finite numbers, booleans and `None`.

    Returns:
        Safe markup.

    Examples:
        >>> print(script_json("</script>"))
        "\u003c/script\u003e"
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _item(item: Item) -> Json:
    """Return an example as JSON, without what it does not have."""
    image = None if item.image is None else picture(item.image, longest=_THUMBNAIL)
    text = item.text if item.text is not None else "".join(item.tokens) or None
    parts: Json = {
        "title": item.title,
        "label": item.label,
        "predicted": item.predicted,
        "image": image,
        "text": text,
        "columns": item.columns or None,
    }
    return {name: part for name, part in parts.items() if part is not None}


def _number(value: float | None) -> float | None:
    """Return a number in six digits; `None` for what JSON cannot hold."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")
