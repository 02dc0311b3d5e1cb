"""Words of free text that tell a query's row from others."""

from __future__ import annotations

from functools import singledispatch
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
    asked = _columns(query.inputs, np.array([0]))
    for own, others in zip(asked, _columns(train.inputs, at), strict=True):
        prose = [text for text in _strings(own) if len(text.split()) >= _PROSE]
        known = [words_of(other) for other in _strings(others)] if prose else []
        for word in words_of(" ".join(prose)):
            if sum(word in other for other in known) <= _COMMON * len(known):
                found.add(word)
    return frozenset(found)


def _strings(cells: NDArray[Any]) -> list[str]:
    """Return the cells that are texts."""
    return [cell for cell in cells if isinstance(cell, str)]


def _texts(inputs: Any) -> Any:
    """Return inputs if each of them is a text, [n], or `None`."""
    return inputs if getattr(inputs, "ndim", 0) == 1 and inputs.dtype == np.object_ else None


@singledispatch
def _columns(inputs: Any, where: NDArray[np.intp]) -> list[NDArray[Any]]:
    """Return some rows of the columns of a table, or of the one column of texts."""
    texts = _texts(inputs)
    return [] if texts is None else [texts[where]]


@_columns.register
def _columns_of_frame(inputs: pd.DataFrame, where: NDArray[np.intp]) -> list[NDArray[Any]]:
    return [inputs[name].iloc[where].to_numpy(dtype=object) for name in inputs.columns]
