"""What can be done to the training data, each followed by a real retraining."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from whence.errors import InvalidInput
from whence.objective.removed import weights_without
from whence.objective.trained import Trained
from whence.rows import column as cells_of
from whence.rows import with_cells
from whence.views.answer import label_of, target_class
from whence.views.columns import cell_text, column_name, has_cells

_NAMED = 5  # rows that a sentence names


class Step(ABC):
    """A change of the training data. Its repr makes it again, in a script."""

    @abstractmethod
    def apply(self, model: Trained) -> Trained:
        """Return the model fitted again on the changed data.

        Args:
            model: The model before the step.

        Raises:
            InvalidInput: If the step does not suit the data.
            UnsupportedModel: If the model cannot be fitted again on such data.
        """

    @abstractmethod
    def words(self, model: Trained) -> str:
        """Return what the step does, in a sentence.

        Args:
            model: The model before the step.
        """


@final
@dataclass(frozen=True, kw_only=True)
class Remove(Step):
    """Some training rows are taken out.

    Args:
        positions: Theirs in the training data.
    """

    positions: tuple[int, ...]

    def apply(self, model: Trained) -> Trained:
        """Return the model fitted without them."""
        where = _checked(model, self.positions)
        weights = weights_without(model.weights, where)
        if not bool((weights > 0).any()):
            raise InvalidInput("Expected rows to remain. Got all of them. Tick fewer.")
        return model.refit(weights)

    def words(self, model: Trained) -> str:
        """Return which rows go."""
        return f"Removed {_named(model, self.positions)}."


@final
@dataclass(frozen=True, kw_only=True)
class Relabel(Step):
    """Some training rows get other labels.

    Args:
        positions: Theirs in the training data.
        labels: The new labels, as text, one each.
    """

    positions: tuple[int, ...]
    labels: tuple[str, ...]

    def apply(self, model: Trained) -> Trained:
        """Return the model fitted on the other labels."""
        where = _checked(model, self.positions)
        if len(self.labels) != len(where):
            raise InvalidInput(
                f"Expected {len(where)} labels, one per row. Got {len(self.labels)}."
            )
        values = np.array([label_from(model, text) for text in self.labels])
        rows = model.train.subset(where).inputs
        return model.refit_edited(where, model.examples((rows, values)))

    def words(self, model: Trained) -> str:
        """Return which rows get which labels."""
        told = [
            f"{model.train.ids[at]}: {label_of(model, model.train.targets[at])} → {label}"
            for at, label in zip(self.positions[:_NAMED], self.labels, strict=False)
        ]
        more = len(self.positions) - len(told)
        return f"Relabeled {'; '.join(told)}{f' and {more:,} more' if more else ''}."


@final
@dataclass(frozen=True, kw_only=True)
class Edit(Step):
    """One cell of a training row gets another value.

    Args:
        position: Of the row in the training data.
        column: Position of the column.
        value: The new value, as text; empty for a missing one.
    """

    position: int
    column: int
    value: str

    def apply(self, model: Trained) -> Trained:
        """Return the model fitted on the edited row."""
        where = _checked(model, (self.position,))
        row = edited(model.train.subset(where).inputs, self.column, self.value)
        target = model.train.targets[self.position]
        value = model.classes[target_class(target)] if model.classes else target.cpu().numpy()
        return model.refit_edited(where, model.examples((row, np.array([value]))))

    def words(self, model: Trained) -> str:
        """Return what becomes of the cell."""
        inputs = model.train.subset(np.array([self.position])).inputs
        name, before = column_name(inputs, self.column), cells_of(inputs, self.column).iloc[0]
        after = self.value or "missing"
        row = model.train.ids[self.position]
        return f"Changed {name} of {row} from {cell_text(before)} to {after}."


def edited(inputs: Any, column: int, value: str) -> Any:
    """Return one row of a table with another cell.

    Args:
        inputs: The row: a frame or an array, [1, d].
        column: Position of the column.
        value: The cell as text; empty for a missing value.

    Raises:
        InvalidInput: If the row is no table, the column is not there or the text no number where
            the column holds numbers.

    Examples:
        >>> edited(np.array([[1.0, 2.0]]), 1, "3.5")
        array([[1. , 3.5]])
    """
    if not has_cells(inputs):
        raise InvalidInput(
            "Expected rows of a frame or an array to edit a cell of. Got "
            f"{type(inputs).__name__}. Relabel or remove the example instead."
        )
    if not 0 <= column < inputs.shape[1]:
        raise InvalidInput(f"Expected a column from 0 to {inputs.shape[1] - 1}. Got {column}.")
    cell: Any = value
    if pd.api.types.is_numeric_dtype(cells_of(inputs, column).dtype) or not value:
        try:
            cell = _number(value) if value else np.nan
        except ValueError as error:
            raise InvalidInput(f"Expected a number for this column. Got {value!r:.60}.") from error
    return with_cells(inputs, column, cell)


def label_from(model: Trained, text: str) -> Any:
    """Return a label of the user's data from the text that a page shows.

    Args:
        model: The model.
        text: A class as text, or a number.

    Raises:
        InvalidInput: If it is no class of the model, and no number where targets are numbers.
    """
    if model.classes:
        named = {str(name): name for name in model.classes}
        if text not in named:
            raise InvalidInput(f"Expected one of {', '.join(named)}. Got {text!r:.60}.")
        return named[text]
    try:
        number = _number(text)
    except ValueError as error:
        raise InvalidInput(f"Expected a number. Got {text!r:.60}.") from error
    return int(number) if model.loss.classifies else number


def _number(text: str) -> float:
    """Return a number as a page writes it: with a true minus sign, thousands set apart."""
    return float(re.sub(r",(?=\d{3}(?!\d))", "", text).replace("−", "-"))


def _checked(model: Trained, positions: tuple[int, ...]) -> NDArray[np.intp]:
    """Return positions as an array, or say that one is not there."""
    where = np.array(positions, dtype=np.intp)
    n = len(model.train)
    if not len(where) or where.min() < 0 or where.max() >= n:
        raise InvalidInput(f"Expected rows of the training data, 0 to {n - 1}. Got {positions}.")
    return where


def _named(model: Trained, positions: tuple[int, ...]) -> str:
    """Return the names of the first rows, and how many there are."""
    names = ", ".join(str(model.train.ids[at]) for at in positions[:_NAMED])
    count = len(positions)
    if count == 1:
        return f"row {names}"
    return f"{count:,} rows: {names}{', …' if count > _NAMED else ''}"
