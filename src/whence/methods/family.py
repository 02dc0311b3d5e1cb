"""A model as one of the family that a method is for."""

from __future__ import annotations

from typing import TypeVar

from whence.errors import UnsupportedModel
from whence.objective.trained import Trained

_Family = TypeVar("_Family", bound=Trained)


def of_family(trained: Trained, family: type[_Family], expected: str, instead: str) -> _Family:
    """Return a model that belongs to a family, or raise in words.

    Args:
        trained: The model.
        family: What it must be.
        expected: The same in words.
        instead: What to do with another model, a sentence.

    Raises:
        UnsupportedModel: If it is of another family.
    """
    if isinstance(trained, family):
        return trained
    raise UnsupportedModel(f"Expected {expected}. Got {trained!r}. {instead}")
