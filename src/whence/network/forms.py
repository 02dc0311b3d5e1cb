"""The forms in which users pass examples: (x, y), columns by name, or a data set of items."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, Literal, final

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from whence.errors import InvalidInput, NotDeterministic
from whence.network.numbers import numbers

Reader = Callable[[list[Mapping[str, Any]]], tuple[Any, Any]]

TARGET_NAMES = ("labels", "label", "target", "targets", "y")
_ONLY_INPUT = ("x", "inputs", "image", "pixel_values")  # names of an input that needs no name


class Form(ABC):
    """Examples in one of the forms that a module's data come in."""

    @abstractmethod
    def read(self, rows: Reader | None) -> tuple[Any, Any]:
        """Return x and y, not yet tensors.

        Args:
            rows: Turns a list of dicts into inputs and targets; dicts of equal shapes are stacked
                if `None`.
        """


@final
@dataclass(frozen=True, eq=False)
class Pair(Form):
    """(x, y).

    Args:
        inputs: x, in any nesting.
        targets: y.
    """

    inputs: Any
    targets: Any

    def read(self, rows: Reader | None) -> tuple[Any, Any]:
        """Return both, lists of plain numbers as arrays."""
        return _nested(self.inputs), self.targets


@final
@dataclass(frozen=True, eq=False)
class Named(Form):
    """A dict: one example, or columns of many.

    Args:
        columns: By name.
    """

    columns: Mapping[str, Any]

    def read(self, rows: Reader | None) -> tuple[Any, Any]:
        """Return what is under the name of a target, and all else."""
        if not self.columns:
            raise InvalidInput("Expected at least one example. Got an empty dict.")
        if rows is None:
            return _by_name(self.columns)
        first: Any = next(iter(self.columns.values()))
        if np.ndim(first) == 0 or np.ndim(first[0]) == 0:
            return rows([self.columns])
        each = range(len(first))
        return rows([{name: values[i] for name, values in self.columns.items()} for i in each])


@final
@dataclass(frozen=True, eq=False)
class Items(Form):
    """A map-style data set, or a list, of pairs or dicts.

    Args:
        data: With a length and items.
    """

    data: Any

    def read(self, rows: Reader | None) -> tuple[Any, Any]:
        """Return all items stacked, the first of them asked for twice."""
        data = self.data
        if len(data) == 0:
            raise InvalidInput("Expected at least one example. Got an empty data set.")
        items = [data[i] for i in range(len(data))]
        dicts = {_kind(item) for item in items} == {"dict"}
        stack = rows if rows is not None and dicts else _stacked
        first, again = (tree_leaves(stack([item])) for item in (items[0], data[0]))
        if not all(map(_equal, first, again)):
            raise NotDeterministic(
                "Expected a data set that gives the same example when asked twice. Got two "
                "different ones for index 0. Remove random augmentation, or store its results."
            )
        return stack(items)


def has_positions(data: Any) -> bool:
    """Return whether data have a length and items by position, not by a label as pandas has.

    Args:
        data: What a user passed.
    """
    by_label = hasattr(data, "iloc")
    return hasattr(data, "__getitem__") and isinstance(data, Sized) and not by_label


def one_data_set(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return columns by name, or raise for several data sets in place of one.

    Args:
        data: What a user passed.

    Raises:
        InvalidInput: If each value is a data set of its own.
    """
    if data and all(map(_is_dataset, data.values())):
        splits = ", ".join(repr(name) for name in data)
        raise InvalidInput(
            f"Expected one data set. Got {type(data).__name__} with the splits {splits}. Pass one "
            f"of them, such as dataset[{next(iter(data))!r}]."
        )
    return data


@singledispatch
def form_of(data: Any) -> Form:
    """Return the form that a user's data have.

    Args:
        data: (x, y), a map-style data set or a list of pairs or dicts, or a dict of columns.

    Raises:
        InvalidInput: If they have another form, such as a stream, whose examples have no positions.
    """
    if type(data).__name__ == "IterableDataset":  # of the datasets library
        return _refuse_stream(data)
    if not has_positions(data) or getattr(data, "ndim", 1) == 0:
        return _refuse(data)
    return Items(data)


@form_of.register(Mapping)
def _of_columns(data: Mapping[str, Any]) -> Form:
    return Named(one_data_set(data))


@form_of.register(tuple)
def _of_tuple(data: tuple[Any, ...]) -> Form:
    return Pair(*data) if len(data) == 2 else Items(data)


@form_of.register(list)
def _of_list(data: list[Any]) -> Form:
    kinds = {_kind(item) for item in data}
    if kinds == {"text"}:
        raise InvalidInput(
            "Expected numbers, such as tokens. Got texts. Tokenize them first: [tokenizer(text) "
            "for text in texts]. An index takes texts with tokenizer=."
        )
    items = kinds in ({"pair"}, {"dict"})
    return Pair(*data) if len(data) == 2 and not items else Items(data)


@form_of.register(str)
def _refuse(data: Any) -> Form:
    raise InvalidInput(
        f"Expected (x, y) or a map-style data set of such pairs. Got {type(data).__name__}."
    )


@form_of.register(DataLoader)
def _refuse_loader(data: DataLoader[Any]) -> Form:
    raise InvalidInput(
        "Expected a data set, whose examples have positions. Got a DataLoader, which may "
        "shuffle. Pass loader.dataset."
    )


@form_of.register(IterableDataset)
def _refuse_stream(data: Any) -> Form:
    raise InvalidInput(
        "Expected a map-style data set, whose examples have positions. Got an IterableDataset. "
        "Pass list(dataset), if it fits in memory."
    )


def _is_dataset(value: Any) -> bool:
    """Return whether a value is a data set of its own: of torch, or with named columns."""
    return isinstance(value, Dataset) or hasattr(value, "column_names")


@singledispatch
def _kind(item: Any) -> Literal["pair", "dict", "text", ""]:
    """Return whether an item of a list is (x, y), a dict, a text or none of them."""
    return ""


@_kind.register(tuple)
def _of_items(item: tuple[Any, ...]) -> Literal["pair", "dict", ""]:
    return "pair" if len(item) == 2 else ""


@_kind.register(str)
def _of_text(item: str) -> Literal["text"]:
    return "text"


@_kind.register(Mapping)
def _of_names(item: Mapping[str, Any]) -> Literal["pair", "dict", ""]:
    return "dict"


@singledispatch
def _pair(item: Any) -> tuple[Any, Any]:
    """Return an item of a data set as (x, y)."""
    raise InvalidInput(f"Expected a data set of pairs (x, y). Got items of {type(item)}.")


@_pair.register(tuple)
@_pair.register(list)
def _by_position(item: Any) -> tuple[Any, Any]:
    if len(item) != 2:
        raise InvalidInput(f"Expected a data set of pairs (x, y). Got items of {type(item)}.")
    return item[0], item[1]


@_pair.register(Mapping)
def _by_name(item: Mapping[str, Any]) -> tuple[Any, Any]:
    key = next((name for name in TARGET_NAMES if name in item), None)
    if key is None:
        raise InvalidInput(
            f"Expected items with a target under one of {', '.join(TARGET_NAMES)}. "
            f"Got keys {', '.join(map(str, item))}. Rename the column."
        )
    columns = {name: numbers(f"{name!r} column", value) for name, value in item.items()}
    target = columns.pop(key)
    alone = len(columns) == 1 and next(iter(columns)) in _ONLY_INPUT
    return next(iter(columns.values())) if alone else columns, target


@singledispatch
def _equal(one: Any, other: Any) -> bool:
    """Return whether two parts of an item are the same."""
    return bool(np.all(one == other))


@_equal.register
def _(one: Tensor, other: Any) -> bool:
    return torch.equal(one, torch.as_tensor(other))


@singledispatch
def _nested(inputs: Any) -> Any:
    """Return inputs with lists of plain numbers as arrays; lists of tensors are a nesting."""
    return inputs


@_nested.register(Mapping)
def _each(inputs: Mapping[str, Any]) -> Any:
    return {name: _nested(part) for name, part in inputs.items()}


@_nested.register(list)
def _listed(inputs: list[Any]) -> Any:
    arrays = all(isinstance(leaf, Tensor | np.ndarray) for leaf in tree_leaves(inputs))
    return inputs if arrays else numbers("input", inputs)


def _stacked(items: list[Any]) -> tuple[Any, Any]:
    """Return x and y of the items of a data set."""
    pairs = [_pair(item) for item in items]
    try:
        inputs, targets = default_collate(pairs)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InvalidInput(
            "Expected items of numbers, of one shape. Got items that cannot be stacked: "
            f"{error}. Pad or crop them, and leave out columns of text."
        ) from error
    return inputs, targets
