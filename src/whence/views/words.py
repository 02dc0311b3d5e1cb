"""Words of free text that tell a query's row from others."""

from __future__ import annotations

import numpy as np
import pandas as pd

from whence.objective.trained import Examples
from whence.pages.text import words_of

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
    if not isinstance(rows, pd.DataFrame):
        return frozenset()
    found: set[str] = set()
    some = train.inputs.iloc[np.linspace(0, len(train) - 1, min(len(train), _TEXTS)).astype(int)]
    for name in rows.columns:
        text = rows[name].iloc[0]
        if not isinstance(text, str) or len(text.split()) < _PROSE:
            continue
        others = [words_of(other) for other in some[name] if isinstance(other, str)]
        for word in words_of(text):
            if sum(word in other for other in others) <= _COMMON * len(others):
                found.add(word)
    return frozenset(found)
