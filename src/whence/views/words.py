"""Words of free text that tell a query's row from others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from whence.objective.trained import Examples
from whence.pages.text import words_of
from whence.rows import column_names

_PROSE = 5  # words from which a cell is a text
_TEXTS = 500  # training texts that tell how common a word is
_COMMON = 0.1  # share of them that have a word which says little


def telling_words(train: Examples, query: Examples) -> frozenset[str]:
    """Return the words of free text in a query's row that few training texts have.

    Args:
        train: The training examples.
        query: The one query.
    """
    rows = query.inputs
    if column_names(rows) is None:
        return frozenset()
    found: set[str] = set()
    some = train.inputs.iloc[np.linspace(0, len(train) - 1, min(len(train), _TEXTS)).astype(int)]
    for name in rows.columns:
        prose = [text for text in _texts(rows[name]) if len(text.split()) >= _PROSE]
        others = [words_of(other) for other in _texts(some[name])] if prose else []
        for word in words_of(" ".join(prose)):
            if sum(word in other for other in others) <= _COMMON * len(others):
                found.add(word)
    return frozenset(found)


def _texts(cells: pd.Series[Any]) -> list[str]:
    """Return the cells of a column that are texts."""
    return [cell for cell in cells if isinstance(cell, str)]
