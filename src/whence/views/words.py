"""Words of free text that tell a query's row from others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from whence.objective.trained import Examples
from whence.pages.text import words_of

_PROSE = 5  # words from which a cell is a text
_TEXTS = 500  # training texts that tell how common a word is
_COMMON = 0.1  # share of them that have a word which says little


def text_of(examples: Examples, index: int) -> str | None:
    """Return an example that is a text as a whole, as a pipeline with a vectorizer takes it.

    Args:
        examples: The examples it is one of.
        index: Its position among them.

    Returns:
        The text; `None` where inputs are something else.
    """
    texts = _texts(examples.inputs)
    return None if texts is None else str(texts[index])


def telling_words(train: Examples, query: Examples) -> frozenset[str]:
    """Return the words of free text in a query's row that few training texts have.

    Args:
        train: The training examples.
        query: The one query.
    """
    at = np.linspace(0, len(train) - 1, min(len(train), _TEXTS)).astype(int)
    found: set[str] = set()
    for text, others in zip(_columns(query, np.array([0])), _columns(train, at), strict=True):
        if isinstance(text[0], str) and len(text[0].split()) >= _PROSE:
            others_words = [words_of(other) for other in others if isinstance(other, str)]
            found |= {
                word
                for word in words_of(text[0])
                if sum(word in other for other in others_words) <= _COMMON * len(others_words)
            }
    return frozenset(found)


def _texts(inputs: Any) -> Any:
    """Return inputs if each of them is a text, [n], or `None`."""
    return inputs if getattr(inputs, "ndim", 0) == 1 and inputs.dtype == np.object_ else None


def _columns(examples: Examples, where: NDArray[np.intp]) -> list[NDArray[Any]]:
    """Return some rows of the columns of a table, or the one column of texts."""
    inputs = examples.inputs
    if isinstance(inputs, pd.DataFrame):
        return [inputs[name].to_numpy(dtype=object)[where] for name in inputs.columns]
    texts = _texts(inputs)
    return [] if texts is None else [texts[where]]
