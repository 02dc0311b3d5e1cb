"""Data for the scripts of a page: plain values that no text can break out of."""

from __future__ import annotations

import json
from typing import Any

from markupsafe import Markup


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
