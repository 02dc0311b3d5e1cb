"""What a command writes into a page, between two markers that stay."""

from __future__ import annotations


def between(page: str, start: str, end: str, text: str) -> str:
    """Return a page with a text between two markers, in place of what was there.

    Args:
        page: The page; it has the first marker once, and the second after it.
        start: The marker before.
        end: The marker after.
        text: What comes between.
    """
    before, rest = page.split(start)
    return before + start + text + end + rest.split(end, 1)[1]
