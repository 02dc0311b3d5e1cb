"""Texts with some of their words marked."""

from __future__ import annotations

import re
from collections.abc import Set

from markupsafe import Markup, escape

_WORD = re.compile(r"\w+")


def words_of(text: str) -> frozenset[str]:
    """Return the words of a text, in lower case, of three letters or more.

    Args:
        text: Any text.

    Returns:
        The words.

    Examples:
        >>> sorted(words_of("Meet me at noon, me!"))
        ['meet', 'noon']
    """
    return frozenset(word for word in _WORD.findall(text.lower()) if len(word) > 2)


def marked(text: str, shared: Set[str]) -> Markup:
    """Return a text as HTML with some words marked, everything escaped.

    Args:
        text: Any text.
        shared: The words to mark, in lower case.

    Returns:
        Safe markup.

    Examples:
        >>> print(marked("<Noon> at sea", {"noon"}))
        &lt;<mark class="same">Noon</mark>&gt; at sea
    """
    parts, end = [], 0
    for found in _WORD.finditer(text):
        if found[0].lower() in shared:
            parts += [escape(text[end : found.start()]), _MARK.format(found[0])]
            end = found.end()
    return Markup("").join([*parts, escape(text[end:])])


_MARK = Markup('<mark class="same">{}</mark>')
