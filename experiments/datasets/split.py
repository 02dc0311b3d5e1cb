"""A supervised data set with its train and test parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import train_test_split

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Split:
    """A supervised data set with its train and test parts.

    Attributes:
        name: What it is, for the record of a run; a stand-in has its own name.
        x_train: Features [n, ...].
        y_train: Labels [n], int64.
        x_test: Features [q, ...].
        y_test: Labels [q], int64.
    """

    name: str
    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array


def in_two(name: str, x: Array, y: Array) -> Split:
    """An 80/20 split, stratified by label, always the same."""
    x_train, x_test, y_train, y_test = train_test_split(
        x, y.astype(np.int64), test_size=0.2, random_state=0, stratify=y
    )
    return Split(name=name, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
